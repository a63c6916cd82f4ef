"""Gathers what the page of a run shows of dialogues, as plain data for templates/dialogues.html."""

import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from cmpo.run.json_lines import read_lines
from rollouts.domain import Domain

_SHOWN = 6


def gather_dialogues(domain: Domain, folder: pathlib.Path, step: int) -> dict[str, Any] | None:
    """Gathers some dialogues of the newest transcripts in `folder`; None where there are no transcripts.

    Transcripts beyond the run's present `step`, which a restart may leave behind, are not used.
    """
    there = sorted(path for path in folder.glob("step_*.jsonl") if int(path.stem.removeprefix("step_")) <= step)
    if not there:
        return None
    dialogues = [dialogue for dialogue in read_lines(there[-1]) if "task" in dialogue]  # an older run's have no task
    return {
        "step": int(there[-1].stem.removeprefix("step_")),
        "cards": [_describe_dialogue(domain, dialogue) for dialogue in _choose_dialogues(domain, dialogues)],
    }


def _choose_dialogues(domain: Domain, dialogues: Sequence[Mapping]) -> list[Mapping]:
    """Chooses in turn a dialogue that cost something, one that did not, and one that went wrong."""
    kinds = {"cost": [], "none": [], "wrong": []}
    for dialogue in dialogues:
        wrong = dialogue["failure"] or dialogue["end"] in domain.breaches
        kinds["wrong" if wrong else "cost" if any(dialogue["cost"].values()) else "none"].append(dialogue)
    mixed = [dialogue for row in itertools.zip_longest(*kinds.values()) for dialogue in row if dialogue]
    return mixed[:_SHOWN]


def _describe_dialogue(domain: Domain, dialogue: Mapping) -> dict[str, Any]:
    failed = (f"failed: {dialogue['failure']}", "bad")
    return {
        "name": f"{dialogue['task']['id']} #{dialogue['index']}",
        "badge": failed if dialogue["failure"] else domain.show_end(dialogue["end"], dialogue["outcome"]),
        "lines": domain.show_task(dialogue["task"]),
        "turns": [_describe_turn(domain, turn) for turn in dialogue["turns"]],
        "last_words": dialogue["last_words"],
        "failure_message": dialogue["failure_message"],
    }


def _describe_turn(domain: Domain, turn: Mapping) -> dict[str, Any]:
    shown = domain.show_turn(turn)
    numbers = [f"reward {turn['process_reward']:.2f}"] if turn["process_reward"] or shown.remark else []
    if turn["mean_logprob"] is not None:
        numbers.append(f"{turn['tokens']} tokens, mean logprob {turn['mean_logprob']:.2f}")
    return {
        "heard": [message["content"] for message in turn["messages"]],
        "thought": shown.thought,
        "said": shown.said,
        "raw": turn.get("text", ""),  # shown where nothing was said
        "badges": shown.badges,
        "numbers": numbers,
        "remark": shown.remark,
    }
