"""Dialogues as transcripts have them: everything but token ids and the agent's prompt; tokens in some steps."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from cmpo.run.json_lines import to_json_value
from rollouts.domain import Cost
from rollouts.types import Dialogue, TokenNotes, Turn

_DIGITS = 2, 3  # of log-probabilities, and of ratios and advantages: a token then takes 20 bytes, and 2 compressed


def to_transcript(dialogue: Dialogue, costs: Sequence[Cost]) -> dict[str, Any]:
    """Returns a dialogue as transcripts have it, ready for JSON; `costs` are the domain's, C."""
    return to_json_value(
        {
            "task": dialogue.task.description,
            "labels": dialogue.task.labels,
            "index": dialogue.index,
            "end": dialogue.end,
            "outcome": dialogue.outcome,
            "success": dialogue.success,
            "cost": _name_costs(costs, dialogue.cost),
            "failure": dialogue.failure,
            "failure_message": dialogue.failure_message,
            "last_words": dialogue.last_words,
            "turns": [_describe_turn(turn, costs) for turn in dialogue.turns],
        }
    )


def _describe_turn(turn: Turn, costs: Sequence[Cost]) -> dict[str, Any]:
    return {
        "messages": [vars(message) for message in turn.messages],
        **turn.notes,
        "process_reward": turn.process_reward,
        "credit": turn.credit,
        "cost": _name_costs(costs, turn.cost),
        "tokens": len(turn.ids),
        "mean_logprob": np.mean(turn.logprobs) if len(turn.logprobs) else None,
        **(_describe_tokens(turn.token_notes, turn.logprobs) if turn.token_notes else {}),
    }


def _describe_tokens(notes: TokenNotes, logprobs: np.ndarray) -> dict[str, Any]:
    """Lists the tokens of a turn: texts, log-probabilities when they were drawn, and what is known beside, T each."""
    few, many = _DIGITS
    columns = {"ratios": notes.ratios, "advantages": notes.advantages}
    return {
        "token_texts": list(notes.texts),
        "token_logprobs": _round(logprobs, few),
        **{f"token_{name}": _round(values, many) for name, values in columns.items() if values is not None},
    }


def _round(values: np.ndarray, digits: int) -> list[float]:
    return [round(value, digits) for value in np.asarray(values, float).tolist()]


def _name_costs(costs: Sequence[Cost], values: np.ndarray) -> dict[str, float]:
    return dict(zip((cost.name for cost in costs), values, strict=True))
