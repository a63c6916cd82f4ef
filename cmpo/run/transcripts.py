"""Dialogues as transcripts have them: everything but token ids and the agent's prompt."""

import dataclasses
from typing import Any

import numpy as np

from cmpo.run.json_lines import plain
from rollouts.types import COSTS, Dialogue, Turn


def to_transcript(dialogue: Dialogue) -> dict[str, Any]:
    """A dialogue as transcripts have it, ready for JSON."""
    scenario = dataclasses.asdict(dialogue.scenario)
    del scenario["agent_prompt"]
    return plain(
        {
            "scenario": scenario,
            "index": dialogue.index,
            "end": dialogue.end,
            "outcome": dialogue.outcome,
            "cost": _costs(dialogue.cost),
            "failure": dialogue.failure,
            "failure_message": dialogue.failure_message,
            "last_words": dialogue.last_words,
            "turns": [_turn(turn) for turn in dialogue.turns],
        }
    )


def _turn(turn: Turn) -> dict[str, Any]:
    fields = ("user", "think", "response", "action", "scores", "reason", "process_reward")
    row = {field: getattr(turn, field) for field in fields}
    if not turn.action:  # malformed: the parts are empty, so show what it wrote instead
        row["text"] = turn.text
    mean_logprob = np.mean(turn.logprobs) if len(turn.logprobs) else None
    return row | {"cost": _costs(turn.cost), "tokens": len(turn.ids), "mean_logprob": mean_logprob}


def _costs(cost: np.ndarray) -> dict[str, float]:
    return dict(zip(COSTS, cost, strict=True))
