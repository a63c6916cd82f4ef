"""The frontiers: who knows all, who reads, and nobody a voucher; how they lie, and that agents cannot be above them."""

import itertools
import random

import numpy as np
import pytest

from rollouts.domains.fds.embedded import oracle, planning, population
from rollouts.domains.fds.embedded.oracle import Frontier
from tests.builders.customers import draw_customer

RATES = (0.15, 0.3, 0.5)


@pytest.fixture(scope="module")
def frontiers():
    kinds = itertools.product(("hard", "normal"), ("all", "messages"))
    return {(difficulty, knows): oracle.compute_frontier(difficulty, knows=knows) for difficulty, knows in kinds}


def test_frontiers_are_concave_and_as_exact_as_they_say(frontiers):
    for found in frontiers.values():
        slopes = np.diff(found.satisfaction) / np.diff(found.rates)
        assert found.rates[0] == 0 and found.rates[-1] <= 1 + 1e-12
        assert (slopes > -1e-9).all() and (np.diff(slopes) < 0).all()
        # between two points the slope lies between their prices, as for tangents of a concave line
        assert (slopes <= found.prices[:-1] + 1e-9).all() and (slopes >= found.prices[1:] - 1e-9).all()
        assert 0 < found.gap < 0.006


def test_the_gap_is_a_bound(frontiers):
    found = frontiers["hard", "messages"]
    problems = oracle.list_problems("hard", knows="messages")
    for price in (0.53, 1.07, 1.73):  # none of those that the line was made with
        value, rate = oracle.measure_price(problems, price)
        above = value + price * rate - found.satisfaction_at(rate)
        assert -1e-9 <= above <= found.gap


def test_the_gap_by_hand():
    rates, heights, prices = np.array([0.0, 0.5, 1.0]), np.array([2.0, 2.5, 2.6]), np.array([1.5, 0.5, 0.1])
    # tangents 2 + 1.5 r and 2.5 + 0.5 (r - 0.5) cross at r = 0.25, height 2.375, over a line of 2.25
    assert oracle._measure_gap(rates, heights, prices) == pytest.approx(0.125)


def test_reading_lies_between_knowing_and_giving_nothing(frontiers):
    for difficulty in ("hard", "normal"):
        knowing, reading = (frontiers[difficulty, knows] for knows in ("all", "messages"))
        assert 2.2 < reading.satisfaction[0] < 2.4  # never a voucher
        assert 0 < knowing.satisfaction[0] - reading.satisfaction[0] < 0.02
        assert reading.satisfaction[-1] > 3.3
        for rate in RATES:
            assert knowing.satisfaction_at(rate) - reading.satisfaction_at(rate) > 0.06
            assert reading.satisfaction_at(rate) - reading.satisfaction[0] > 0.25
            # and the gain is more than that of vouchers dealt at random
            assert reading.satisfaction_at(rate) > np.interp(rate, [0, 1], reading.satisfaction[[0, -1]]) + 0.1


@pytest.mark.parametrize("knows", ["all", "messages"])
@pytest.mark.parametrize("difficulty", ["hard", "normal"])
def test_there_is_no_plateau(frontiers, difficulty, knows):
    """The best rate moves by more than a point with every tenth of price, from a voucher for most to hardly any."""
    found = frontiers[difficulty, knows]
    inner = (found.prices > 0.1) & (found.prices < 2.0)
    prices, rates = found.prices[inner], found.rates[inner]
    falls = -np.diff(rates) / np.diff(prices) / 10
    assert falls.min() > 0.01 and falls.max() < 0.1
    assert rates[-1] > 0.8 and rates[0] < 0.15 and len(prices) == 13


def test_a_mixture_of_prices_serves_the_rate(frontiers):
    found = frontiers["hard", "messages"]
    problems = oracle.list_problems("hard", knows="messages")
    for rate in (0.3, 0.777):
        mixed = oracle.price_for(rate, "hard")
        points = [(chance, *oracle.measure_price(problems, price), price) for chance, price in mixed]
        assert sum(chance for chance, *_ in points) == pytest.approx(1)
        assert sum(chance * served for chance, _, served, _ in points) == pytest.approx(rate)
        satisfied = sum(chance * (value + price * served) for chance, value, served, price in points)
        assert satisfied == pytest.approx(found.satisfaction_at(rate))
    assert [chance for chance, _ in oracle.price_for(0.0, "hard")] == [1.0]
    assert oracle.price_for(1.0, "hard") == ((1.0, 0.0),)


def test_mixing_by_hand():
    line = Frontier(np.array([0.0, 0.2, 0.6]), np.array([2.0, 2.4, 2.8]), np.array([3.0, 1.5, 0.5]), 0.0)
    assert line.mix_prices(0.3) == (pytest.approx((0.75, 1.5)), pytest.approx((0.25, 0.5)))
    assert line.mix_prices(0.2) == ((1.0, 1.5),) and line.mix_prices(0.9) == ((1.0, 0.5),)
    assert line.satisfaction_at(0.4) == pytest.approx(2.6) and line.satisfaction_at(0.9) == pytest.approx(2.8)


def test_beliefs_at_openings_are_what_the_generator_draws():
    rng = random.Random(0)
    drawn = [draw_customer(rng, "normal") for _ in range(6000)]
    total = 0.0
    for heat, discloses, wants in population.list_openings():
        share = population.weigh_hidden(heat, discloses, wants, "normal").sum()
        came = np.mean(
            [
                (who.discloses, who.wants) == (discloses, wants) and population.start_of(who.level).anger == heat
                for who in drawn
            ]
        )
        assert came == pytest.approx(share, abs=0.02)
        total += share
    assert total == pytest.approx(1)
    false = [not who.honest for who in drawn if who.supported is False]
    assert np.mean(false) == pytest.approx(1 - population.HONEST[False], abs=0.04)
    problems = oracle.list_problems("normal", knows="messages")
    assert sum(problem.weigh_told(planning.Told()).sum() for problem in problems) == pytest.approx(1)
