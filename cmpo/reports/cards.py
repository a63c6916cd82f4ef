"""Draws dialogues for the page of a run, as HTML."""

import html
import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from cmpo.run.json_lines import read_lines
from rollouts.domain import Domain

_SHOWN = 6


def draw_cards(domain: Domain, folder: pathlib.Path, step: int) -> str:
    """Draws some dialogues of the newest transcripts in `folder`, as HTML; "" where there are none.

    Transcripts beyond the run's present `step`, which a restart may leave behind, are not used.
    """
    there = sorted(path for path in folder.glob("step_*.jsonl") if int(path.stem.removeprefix("step_")) <= step)
    if not there:
        return ""
    dialogues = [dialogue for dialogue in read_lines(there[-1]) if "task" in dialogue]  # an older run's have no task
    cards = "\n".join(_draw_card(domain, dialogue) for dialogue in _choose_dialogues(domain, dialogues))
    heading = f"Dialogues of step {int(there[-1].stem.removeprefix('step_'))}"
    return f"<h2>{heading}</h2>\n<div class=cards>{cards}</div>"


def _choose_dialogues(domain: Domain, dialogues: Sequence[Mapping]) -> list[Mapping]:
    """Chooses in turn a dialogue that cost something, one that did not, and one that went wrong."""
    kinds = {"cost": [], "none": [], "wrong": []}
    for dialogue in dialogues:
        wrong = dialogue["failure"] or dialogue["end"] in domain.breaches
        kinds["wrong" if wrong else "cost" if any(dialogue["cost"].values()) else "none"].append(dialogue)
    mixed = [dialogue for row in itertools.zip_longest(*kinds.values()) for dialogue in row if dialogue]
    return mixed[:_SHOWN]


def _draw_card(domain: Domain, dialogue: Mapping) -> str:
    if dialogue["failure"]:
        outcome, tone = f"failed: {dialogue['failure']}", "bad"
    else:
        outcome, tone = domain.show_end(dialogue["end"], dialogue["outcome"])
    name, lines = dialogue["task"]["id"], domain.show_task(dialogue["task"])
    parts = [
        f"<header><b>{escape_text(name)} #{dialogue['index']}</b> {_draw_badge(outcome, tone)}<p class=muted>"
        f"{'<br>'.join(map(escape_text, lines))}</p></header>"
    ]
    parts += [_draw_turn(domain, turn) for turn in dialogue["turns"]]
    if dialogue["last_words"]:
        parts.append(f"<p class='bubble user'>{escape_text(dialogue['last_words'])}</p>")
    if dialogue["failure_message"]:
        parts.append(f"<p class=error>{escape_text(dialogue['failure_message'])}</p>")
    return f"<article>{''.join(parts)}</article>"


def _draw_turn(domain: Domain, turn: Mapping) -> str:
    shown = domain.show_turn(turn)
    heard = "".join(f"<p class='bubble user'>{escape_text(message['content'])}</p>" for message in turn["messages"])
    thought = f"<p class=think>{escape_text(shown.thought)}</p>" if shown.thought else ""
    said = escape_text(shown.said) if shown.said else f"<code>{escape_text(turn.get('text', ''))}</code>"
    badges = " ".join(_draw_badge(*badge) for badge in shown.badges)
    numbers = [f"reward {turn['process_reward']:.2f}"] if turn["process_reward"] or shown.remark else []
    if turn["mean_logprob"] is not None:
        numbers.append(f"{turn['tokens']} tokens, mean logprob {turn['mean_logprob']:.2f}")
    remark = f"<br>{escape_text(shown.remark)}" if shown.remark else ""
    return (
        f"{heard}<div class='bubble agent'>{thought}<p>{said}</p></div>"
        f"<p class=notes>{badges}<br>{' · '.join(numbers)}{remark}</p>"
    )


def _draw_badge(said: str, tone: str) -> str:
    return f"<span class='badge {tone}'>{escape_text(said)}</span>"


def escape_text(value: Any) -> str:
    """Escapes what somebody wrote, for HTML."""
    return html.escape(str(value))
