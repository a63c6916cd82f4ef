"""What a batch of dialogues amounts to, in numbers."""

import collections
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from rollouts.types import COSTS, Dialogue

_VOUCHER = COSTS.index("voucher")


def summarize_batch(dialogues: Sequence[Dialogue]) -> dict[str, Any]:
    """What a batch of dialogues amounts to. Failed dialogues are counted by cause and enter nothing else.

    `dialogues_replaced` counts, by cause too, the failed attempts that were played again; they are not dialogues.
    Satisfaction is 1..5, and 0 where it was forfeited, whatever the outcome that training charges for a format error.
    Rates are fractions of the dialogues that did not fail; NaN where there are none. `new_tokens` counts whatever was
    sampled, in failed dialogues too (not in attempts that were replaced): it measures work, not behaviour.
    """
    ok = [dialogue for dialogue in dialogues if dialogue.ok]
    return {
        "satisfaction": _mean([max(dialogue.outcome, 0.0) for dialogue in ok]),
        "process_reward": _mean([turn.process_reward for dialogue in ok for turn in dialogue.turns]),
        "finish_rate": _mean([dialogue.finished for dialogue in ok]),
        "voucher_rate": _mean([dialogue.cost[_VOUCHER] for dialogue in ok]),
        "turns_mean": _mean([len(dialogue.turns) for dialogue in ok]),
        "ends": dict(collections.Counter(dialogue.end for dialogue in ok)),
        "dialogues_ok": len(ok),
        "dialogues_failed": dict(collections.Counter(dialogue.failure for dialogue in dialogues if not dialogue.ok)),
        "dialogues_replaced": dict(collections.Counter(cause for d in dialogues for cause in d.replaced)),
        "new_tokens": sum(len(turn.ids) for dialogue in dialogues for turn in dialogue.turns),
    }


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values, dtype=float)) if values else math.nan
