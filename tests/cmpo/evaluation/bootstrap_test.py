"""Estimates against numbers worked out by hand, and the bootstrap against what resampling has to give."""

import numpy as np
import pytest

from cmpo.evaluation import bootstrap

NAN = float("nan")


def test_estimates_by_hand():
    values = [[1.0, 2.0, NAN], [3.0, NAN, NAN], [5.0, 4.0, NAN], [7.0, 8.0, NAN]]
    first, second, third = bootstrap.estimate_means(values, [0, 0, 1, 1], ["a", "b", "c", "d"], resamples=100)
    assert first[:2] == (4.0, pytest.approx(2 * 2**0.5)) and first.count == 4  # seeds 2 and 6: sqrt((4 + 4) / (2 - 1))
    assert second[:2] == (pytest.approx(14 / 3), pytest.approx(2 * 2**0.5)) and second.count == 3  # 2 and 6
    assert first.low < 4.0 < first.high and second.low < 14 / 3 < second.high
    assert np.isnan([third.mean, third.low, third.high]).all() and (third.std, third.count) == (0.0, 0)


def test_one_seed_has_no_spread():
    (estimate,) = bootstrap.estimate_means([[1.0], [3.0]], [5, 5], ["a", "b"], resamples=10)
    assert estimate.std == 0.0 and estimate.mean == 2.0


def test_a_resample_draws_whole_clusters():
    values, clusters = np.array([[0.0], [0.0], [6.0]]), ["a", "a", "b"]
    means = bootstrap.resample_means(values, clusters, resamples=4000, seed=1)[:, 0]
    shares = {value: np.mean(means == value) for value in np.unique(means)}
    assert set(shares) == {0.0, 2.0, 6.0}  # a and a, a and b, b and b
    assert [shares[value] for value in (0.0, 2.0, 6.0)] == pytest.approx([0.25, 0.5, 0.25], abs=0.04)


def test_a_resample_without_a_value_has_no_mean_and_is_left_out():
    values = np.array([[1.0, NAN], [1.0, 3.0]])
    means = bootstrap.resample_means(values, ["a", "b"], resamples=1000, seed=0)
    assert np.isnan(means[:, 1]).mean() == pytest.approx(0.25, abs=0.05) and not np.isnan(means[:, 0]).any()
    low, high = bootstrap.find_interval(means)
    assert low.tolist() == high.tolist() == [1.0, 3.0]


def test_the_interval_is_as_wide_as_theory_has_it_and_copies_do_not_narrow_it():
    values = np.random.default_rng(0).normal(size=(400, 1))
    scenarios = np.arange(400)
    low, high = bootstrap.find_interval(bootstrap.resample_means(values, scenarios, resamples=4000, seed=0))
    expected = 2 * 1.96 * values.std() / 400**0.5
    assert high - low == pytest.approx(expected, rel=0.06)
    copies = np.repeat(values, 4, axis=0), np.repeat(scenarios, 4)
    again = bootstrap.find_interval(bootstrap.resample_means(*copies, resamples=4000, seed=0))
    assert again[0] == pytest.approx(low) and again[1] == pytest.approx(high)
    apart = bootstrap.find_interval(bootstrap.resample_means(copies[0], np.arange(1600), resamples=4000, seed=0))
    assert apart[1] - apart[0] == pytest.approx(expected / 2, rel=0.06)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    rng, held = np.random.default_rng(3), 0
    for number in range(200):
        sample = rng.binomial(1, 0.3, size=(120, 1)).astype(float)
        low, high = bootstrap.find_interval(
            bootstrap.resample_means(sample, np.arange(120), resamples=500, seed=number)
        )
        held += low[0] <= 0.3 <= high[0]
    assert 0.90 <= held / 200 <= 0.99


def test_the_same_seed_gives_the_same_interval():
    values, clusters = np.random.default_rng(0).normal(size=(30, 2)), np.arange(30)
    one, same, other = (bootstrap.resample_means(values, clusters, resamples=700, seed=seed) for seed in (0, 0, 1))
    assert one.shape == (700, 2) and np.array_equal(one, same) and not np.array_equal(one, other)
