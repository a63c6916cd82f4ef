"""Dialogues as transcripts have them: everything but token ids and the agent's prompt."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from cmpo.run.json_lines import to_json_value
from rollouts.domain import Cost
from rollouts.types import Dialogue, Turn


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
    }


def _name_costs(costs: Sequence[Cost], values: np.ndarray) -> dict[str, float]:
    return dict(zip((cost.name for cost in costs), values, strict=True))
