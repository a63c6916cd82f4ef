"""Dialogues of a run as other programs take them: messages by role, and numbers by name. Plain values, no package."""

import collections
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from cmpo.reports.dialogues import read_groups
from cmpo.reports.run_data import Batch, Run, list_batches


class Said(NamedTuple):
    """A message of a dialogue."""

    role: str  # system | user | assistant | tool
    text: str
    thought: str = ""  # of the agent


class Conversation(NamedTuple):
    """A dialogue."""

    task: str  # the task's id, with the seed of an evaluation
    number: int  # among the batch's of that name, from 1: no two have both the same
    messages: tuple[Said, ...]
    scores: Mapping[str, float]  # of the dialogue: outcome, success, process reward, costs; none where it failed
    about: Mapping[str, Any]  # labels and lines of the task, how the dialogue ended, numbers of its turns; JSON
    failure: str  # the message of an endpoint's failure; "" where there was none


def list_conversations(run: Run) -> Iterator[tuple[Batch, list[Conversation]]]:
    """Lists the dialogues of a run, batch by batch. Raises ValueError for a damaged file."""
    for batch in list_batches(run):
        yield batch, make_conversations(read_groups(run, batch)[0])


def make_conversations(groups: Sequence[Mapping[str, Any]]) -> list[Conversation]:
    """Makes conversations of groups as `dialogues` describes them, in their order."""
    found, counts = [], collections.Counter()
    for group in groups:
        name = mend_text(group["id"] if group["seed"] is None else f"{group['id']}, seed {group['seed']}")
        for dialogue in group["dialogues"]:
            counts[name] += 1
            found.append(_make_conversation(group, name, counts[name], dialogue))
    return found


def _make_conversation(group: Mapping[str, Any], name: str, number: int, dialogue: Mapping[str, Any]) -> Conversation:
    messages = []
    for turn in dialogue["turns"]:
        messages += [Said(role, mend_text(text)) for role, text in turn["heard"]]
        messages.append(Said("assistant", mend_text(turn["said"] or turn["raw"]), mend_text(turn["thought"])))
    if dialogue["last"]:
        messages.append(Said("user", mend_text(dialogue["last"])))
    failed, numbers = dialogue["outcome"] is None, {"outcome": dialogue["outcome"], **dialogue["cost"]}
    numbers |= {"success": float(dialogue["success"]), "process reward": dialogue["reward"]}
    kept = ("reward", "cost", "credit", "scores", "tokens", "logprob", "faults", "remark")
    about = {
        "task": group["lines"],
        "labels": group["labels"],
        "end": dialogue["kind"],
        "turns": [{name: turn[name] for name in kept} for turn in dialogue["turns"]],
    }
    return Conversation(
        task=name,
        number=number,
        messages=tuple(messages),
        scores={} if failed else {name: value for name, value in numbers.items() if value is not None},
        about=_mend(about),
        failure=mend_text(dialogue["message"] or dialogue["kind"]) if failed else "",
    )


def mend_text(text: str) -> str:
    """Replaces what is half a character, as a model may write it, and no UTF-8 can hold."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _mend(value: Any) -> Any:
    if isinstance(value, str):
        return mend_text(value)
    if isinstance(value, Mapping):
        return {mend_text(name): _mend(inner) for name, inner in value.items()}
    return [_mend(inner) for inner in value] if isinstance(value, list | tuple) else value
