"""Means with error bars: the spread over seeds, and intervals by a bootstrap over scenarios. NumPy, seeded.

Letters: N = dialogues, M = measures, K = scenarios, R = resamples.
"""

from typing import NamedTuple

import numpy as np

RESAMPLES = 10_000
CONFIDENCE = 0.95
_AT_A_TIME = 500  # resamples, so that memory stays at 500 K numbers


class Estimate(NamedTuple):
    """A mean and how far to trust it. NaN where there is no value."""

    mean: float  # over all values
    std: float  # sample standard deviation of the seeds' means; 0 with a single seed
    low: float  # 95 % interval
    high: float
    count: int  # values it is the mean of


def mean(values: np.ndarray) -> np.ndarray:
    """The means [M] of values [N, M], NaNs left out; NaN where nothing is left."""
    return _ratio(np.nansum(values, 0), np.isfinite(values).sum(0))


def estimates(
    values: np.ndarray, seeds: np.ndarray, clusters: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0
) -> list[Estimate]:
    """M estimates.

    Args:
      values: [N, M] float; NaN where a measure does not apply to a dialogue, which then leaves it out.
      seeds: [N], the seed that each dialogue was played with.
      clusters: [N], the scenario of each dialogue; dialogues of one scenario are not independent of each other, also
        where they were played with several seeds.
      resamples: R.
      seed: of the bootstrap. The same values and seed give the same interval.
    """
    values, seeds = np.asarray(values, float), np.asarray(seeds)
    by_seed = np.array([mean(values[seeds == one]) for one in np.unique(seeds)])
    low, high = interval(bootstrap(values, clusters, resamples=resamples, seed=seed))
    found = zip(mean(values), by_seed.T, low, high, np.isfinite(values).sum(0), strict=True)
    return [
        Estimate(float(overall), _std(means[np.isfinite(means)]), float(a), float(b), int(count))
        for overall, means, a, b, count in found
    ]


def bootstrap(values: np.ndarray, clusters: np.ndarray, *, resamples: int, seed: int) -> np.ndarray:
    """[R, M]: the means of resampled data, for values [N, M] in clusters [N].

    A resample draws K of the K clusters with replacement, each with all its values; its mean is over the values that
    come along (NaN if none does). The mix of cooperation levels, which is fixed by design, is drawn anew too, which
    makes intervals a little wider than they need be.
    """
    values = np.asarray(values, float)
    labels, place = np.unique(np.asarray(clusters), return_inverse=True)
    count, there = len(labels), np.isfinite(values)
    totals, sizes = np.zeros((2, count, values.shape[1]))
    np.add.at(totals, place, np.where(there, values, 0.0))
    np.add.at(sizes, place, there)
    rng, means = np.random.default_rng(seed), []
    for start in range(0, resamples, _AT_A_TIME):
        drawn = rng.multinomial(count, np.full(count, 1 / count), size=min(_AT_A_TIME, resamples - start))
        means.append(_ratio(drawn @ totals, drawn @ sizes))
    return np.concatenate(means)


def interval(means: np.ndarray, confidence: float = CONFIDENCE) -> tuple[np.ndarray, np.ndarray]:
    """The percentile interval, ([M], [M]), of resampled means [R, M]; resamples without a value are left out."""
    ends = np.full((2, means.shape[1]), np.nan)
    there = np.isfinite(means).any(0)
    tails = [50 * (1 - confidence), 50 * (1 + confidence)]
    ends[:, there] = np.nanpercentile(means[:, there], tails, axis=0)
    return ends[0], ends[1]


def _ratio(totals: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    return np.divide(totals, sizes, out=np.full(np.shape(totals), np.nan), where=sizes > 0)


def _std(means: np.ndarray) -> float:
    return float(np.std(means, ddof=1)) if len(means) > 1 else 0.0
