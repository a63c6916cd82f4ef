"""Summarizes dialogues in numbers."""

import collections
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from rollouts.domain import Domain
from rollouts.types import Dialogue


def summarize_batch(domain: Domain, dialogues: Sequence[Dialogue]) -> dict[str, Any]:
    """Summarizes a batch of dialogues. Failed dialogues are counted by cause and enter no other number but the tokens.

    `dialogues_replaced` counts, by cause, the failed attempts that were played again; they are not dialogues. Rates are
    fractions of the dialogues that did not fail, NaN where there are none. `new_tokens` measures work, not behaviour:
    it counts all sampled tokens, in failed dialogues too, but not in attempts that were replaced.
    """
    ok = [dialogue for dialogue in dialogues if dialogue.ok]
    return {
        **{name: _mean_or_nan([score(dialogue) for dialogue in ok]) for name, score in domain.scores.items()},
        "process_reward": _mean_or_nan([turn.process_reward for dialogue in ok for turn in dialogue.turns]),
        "finish_rate": _mean_or_nan([dialogue.success for dialogue in ok]),
        **{cost.measure: _mean_or_nan([dialogue.cost[c] for dialogue in ok]) for c, cost in enumerate(domain.costs)},
        "turns_mean": _mean_or_nan([len(dialogue.turns) for dialogue in ok]),
        "ends": dict(collections.Counter(dialogue.end for dialogue in ok)),
        "dialogues_ok": len(ok),
        "dialogues_failed": dict(collections.Counter(dialogue.failure for dialogue in dialogues if not dialogue.ok)),
        "dialogues_replaced": dict(collections.Counter(cause for d in dialogues for cause in d.replaced)),
        "new_tokens": sum(len(turn.ids) for dialogue in dialogues for turn in dialogue.turns),
    }


def _mean_or_nan(values: Sequence[float]) -> float:
    return float(np.mean(values, dtype=float)) if values else math.nan
