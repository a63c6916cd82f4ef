"""Summarizes dialogues in numbers."""

import collections
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from rollouts.domain import Domain
from rollouts.types import Dialogue


def measure_dialogue(domain: Domain, dialogue: Dialogue) -> dict[str, float | None]:
    """Measures a dialogue that did not fail. The process reward is None where there is no turn, tokens where none is
    known; else they are the mean over turns, in which a malformed turn has 0, and the number of sampled tokens.
    """
    rewards = [turn.process_reward for turn in dialogue.turns]
    return {
        **{name: float(score(dialogue)) for name, score in domain.scores.items()},
        "process_reward": float(np.mean(rewards)) if rewards else None,
        "finish_rate": float(dialogue.success),
        **{cost.measure: float(dialogue.cost[c]) for c, cost in enumerate(domain.costs)},
        "turns": float(len(dialogue.turns)),
        "tokens": float(sum(len(turn.ids) for turn in dialogue.turns)) or None,
    }


def summarize_batch(domain: Domain, dialogues: Sequence[Dialogue]) -> dict[str, Any]:
    """Summarizes a batch of dialogues. Failed dialogues are counted by cause and enter no other number but the tokens.

    Each measure is the mean over the dialogues that did not fail, NaN where there are none. `dialogues_replaced`
    counts, by cause, the failed attempts that were played again; they are not dialogues. `new_tokens` measures work,
    not behaviour: it counts all sampled tokens, in failed dialogues too, but not in attempts that were replaced.
    """
    measured = [measure_dialogue(domain, dialogue) for dialogue in dialogues if dialogue.ok]
    costs = [cost.measure for cost in domain.costs]
    means = {
        name: _mean_or_nan([values[name] for values in measured if values[name] is not None])
        for name in (*domain.scores, "process_reward", "finish_rate", *costs, "turns")
    }
    return {
        "turns_mean": means.pop("turns"),
        **means,
        "ends": dict(collections.Counter(dialogue.end for dialogue in dialogues if dialogue.ok)),
        "dialogues_ok": len(measured),
        "dialogues_failed": dict(collections.Counter(dialogue.failure for dialogue in dialogues if not dialogue.ok)),
        "dialogues_replaced": dict(collections.Counter(cause for d in dialogues for cause in d.replaced)),
        "new_tokens": sum(len(turn.ids) for dialogue in dialogues for turn in dialogue.turns),
    }


def describe_worth(domain: Domain, dialogue: Dialogue) -> str:
    """Describes what a dialogue that did not fail was worth and cost."""
    record = summarize_batch(domain, [dialogue])
    judged = f", process reward {record['process_reward']:.2f}" if dialogue.turns else ""
    return f"{domain.show_worth(record)}{judged}"


def _mean_or_nan(values: Sequence[float]) -> float:
    return float(np.mean(values, dtype=float)) if values else math.nan
