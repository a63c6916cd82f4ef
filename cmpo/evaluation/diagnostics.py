"""Tells how good the signals are that a batch is learnt from: the judge's scores, and the prices of costs.

Letters: B = groups, C = costs.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.special

from rollouts.domain import Cost, Domain
from rollouts.types import Dialogue

MIN_DIALOGUES = 3  # for a correlation


def name_by_cost(costs: Sequence[Cost], values: np.ndarray) -> float | dict[str, float] | None:
    """Names numbers [C] by their costs. Returns the number of the only cost; None where there is none."""
    numbers = dict(zip((cost.name for cost in costs), np.asarray(values, float).tolist(), strict=True))
    return numbers if len(costs) > 1 else next(iter(numbers.values()), None)


def summarize_prices(costs: Sequence[Cost], prices: np.ndarray) -> dict[str, Any]:
    """Summarizes what a unit of each cost takes off a turn's credit in each group, [B, C]: entries of a step's record.

    `effective_price` is the median of the groups that taught something; `_low` and `_high` have a tenth of them below
    and above. None without costs, NaN where no group taught anything.
    """
    taught = np.asarray(prices, float)
    taught = taught[np.isfinite(taught).all(-1)]
    low, median, high = (
        np.quantile(taught, [0.1, 0.5, 0.9], axis=0) if len(taught) else np.full((3, len(costs)), np.nan)
    )
    found = {"effective_price_low": low, "effective_price": median, "effective_price_high": high}
    return {name: name_by_cost(costs, values) for name, values in found.items()}


def correlate_scores(domain: Domain, dialogues: Sequence[Dialogue]) -> dict[str, float]:
    """Correlates the judge's scores with the outcome: Spearman's rank correlation for each principle.

    A principle's score of a dialogue is its mean over the turns that were judged. NaN where fewer than `MIN_DIALOGUES`
    dialogues have one, or all are equal. A principle that does not tell good dialogues from bad ones teaches something
    else than the outcome does (arXiv 2604.02869).
    """
    points: dict[str, list[tuple[float, float]]] = {}
    for dialogue in dialogues:
        scores: dict[str, list[float]] = {}
        for turn in dialogue.turns if dialogue.ok else ():
            for name, score in domain.judge_scores(turn.notes).items():
                if math.isfinite(score):
                    scores.setdefault(name, []).append(score)
        for name, of_turns in scores.items():
            points.setdefault(name, []).append((float(np.mean(of_turns)), dialogue.outcome))
    return {name: _correlate_ranks(np.array(pairs)) for name, pairs in points.items()}


def _correlate_ranks(pairs: np.ndarray) -> float:
    """Computes Spearman's correlation of pairs [K, 2]: that of their ranks, which ties share."""
    ranks = np.apply_along_axis(_rank_values, 0, pairs)
    if len(pairs) < MIN_DIALOGUES or not ranks.std(0).all():
        return math.nan
    return float(np.corrcoef(ranks.T)[0, 1])


def _rank_values(values: np.ndarray) -> np.ndarray:
    # Not SciPy's, for scipy.stats takes half a second to import, which every command would wait for.
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[places]


class Correlation(NamedTuple):
    """A correlation averaged over steps, and the ends of its 95 % interval."""

    mean: float
    low: float
    high: float
    steps: int


def average_correlations(records: Sequence[Mapping[str, Any]]) -> dict[str, Correlation]:
    """Averages `judge_correlation` over steps, by principle; one that is known in fewer than two steps is left out.

    Dialogues of a group are alike, but steps have other tasks: so the interval is Student's, from the spread over
    steps.
    """
    by_step = [record.get("judge_correlation") or {} for record in records]
    found = {}
    for name in dict.fromkeys(name for known in by_step for name in known):
        values = np.array([known[name] for known in by_step if known.get(name) is not None])
        if len(values) > 1:
            mean, error = float(values.mean()), values.std(ddof=1) / math.sqrt(len(values))
            half = float(scipy.special.stdtrit(len(values) - 1, 0.975) * error)
            found[name] = Correlation(mean, max(-1.0, mean - half), min(1.0, mean + half), len(values))
    return found
