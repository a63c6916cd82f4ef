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


def average_columns(values: np.ndarray) -> np.ndarray:
    """Returns the means [M] of values [N, M] without NaNs; NaN where nothing is left."""
    return _divide_or_nan(np.nansum(values, 0), np.isfinite(values).sum(0))


def estimate_means(
    values: np.ndarray, seeds: np.ndarray, clusters: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0
) -> list[Estimate]:
    """Estimates the mean of each of M measures.

    Args:
      values: [N, M] float; NaN where a measure does not apply to a dialogue, which is then left out.
      seeds: [N], the seed that each dialogue was played with.
      clusters: [N], the scenario of each dialogue. Dialogues of one scenario are not independent of each other, even
        if they were played with different seeds.
      resamples: R.
      seed: of the bootstrap. The same values and seed give the same interval.
    """
    values, seeds = np.asarray(values, float), np.asarray(seeds)
    by_seed = np.array([average_columns(values[seeds == one]) for one in np.unique(seeds)])
    low, high = find_interval(resample_means(values, clusters, resamples=resamples, seed=seed))
    found = zip(average_columns(values), by_seed.T, low, high, np.isfinite(values).sum(0), strict=True)
    return [
        Estimate(float(overall), _sample_deviation(means[np.isfinite(means)]), float(a), float(b), int(count))
        for overall, means, a, b, count in found
    ]


def resample_means(values: np.ndarray, clusters: np.ndarray, *, resamples: int, seed: int) -> np.ndarray:
    """Returns the means [R, M] of resampled data, for values [N, M] in clusters [N].

    A resample draws K of the K clusters with replacement, each with all its values. Its mean is over all values of the
    drawn clusters (NaN if they have none). The mix of cooperation levels is fixed by design, but is drawn anew too:
    this makes intervals a little wider than they need be.
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
        means.append(_divide_or_nan(drawn @ totals, drawn @ sizes))
    return np.concatenate(means)


def find_interval(means: np.ndarray, confidence: float = CONFIDENCE) -> tuple[np.ndarray, np.ndarray]:
    """Returns the percentile interval, ([M], [M]), of resampled means [R, M], without those that are NaN."""
    ends = np.full((2, means.shape[1]), np.nan)
    there = np.isfinite(means).any(0)
    tails = [50 * (1 - confidence), 50 * (1 + confidence)]
    ends[:, there] = np.nanpercentile(means[:, there], tails, axis=0)
    return ends[0], ends[1]


def _divide_or_nan(totals: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    return np.divide(totals, sizes, out=np.full(np.shape(totals), np.nan), where=sizes > 0)


def _sample_deviation(means: np.ndarray) -> float:
    return float(np.std(means, ddof=1)) if len(means) > 1 else 0.0
