"""Who calls, as arrays: as often as `population` says."""

import collections
import functools
import itertools
import random

import jax
import numpy as np
import pytest

from rollouts.domains.fds.embedded import population
from rollouts.domains.fds.lab import callers
from rollouts.domains.fds.lab.transitions import VALUES
from rollouts.domains.fds.scenario import DEMANDS
from tests.builders.customers import draw_customer

COUNT = 40_000
MIX = ("hard", "test")


def draw(seed, count):
    chances = jax.random.uniform(jax.random.key(seed), (count, callers.CHANCES))
    return jax.jit(jax.vmap(functools.partial(callers.draw_customer, mix=MIX)))(chances)


@pytest.fixture(scope="module")
def drawn():
    found = draw(0, COUNT)
    return {name: np.asarray(codes) for name, codes in found._asdict().items()}


def within_error(counts, odds, total):
    """Counts of some cells fit their probabilities: none is five deviations off, and chi squared is usual."""
    counts, odds = np.asarray(counts, float).reshape(-1), np.asarray(odds, float).reshape(-1)
    assert not counts[odds == 0].any()
    counts, odds = counts[odds > 0], odds[odds > 0]
    expected = odds * total
    assert np.all(np.abs(counts - expected) < 5 * np.sqrt(expected * (1 - odds)) + 5)
    chi, freedom = np.sum((counts - expected) ** 2 / expected), len(odds) - 1
    assert abs(chi - freedom) < 5 * np.sqrt(2 * freedom)


def test_levels_demands_and_worths_come_as_in_the_population(drawn):
    odds = population.weigh_levels(*MIX)[:, None, None] * [population.weigh_demands(level) for level in range(1, 6)]
    counts = np.zeros(odds.shape)
    np.add.at(counts, (drawn["level"] - 1, drawn["demand"], drawn["worth"]), 1)
    within_error(counts.sum(-1), odds.sum(-1), COUNT)
    within_error(counts.sum(0)[:, ::5], odds.sum(0)[:, ::5], COUNT)
    for level, demand in itertools.product(range(5), range(4)):
        few = counts[level, demand]
        mean = few @ np.arange(31) / few.sum()
        law = odds[level, demand] / odds[level, demand].sum()
        expected = law @ np.arange(31)
        deviation = np.sqrt(law @ (np.arange(31) - expected) ** 2 / few.sum())
        assert abs(mean - expected) < 5 * deviation, (level, demand)


def test_records_claims_and_traits_come_as_in_the_population(drawn):
    records = population.weigh_records()
    for code, supported in enumerate(VALUES["supported"]):
        share, some = records[supported], drawn["supported"] == code
        assert abs(some.mean() - share) < 5 * np.sqrt(share / COUNT)
        honest = population.HONEST[supported]
        assert abs(drawn["honest"][some].mean() - honest) < 5 * np.sqrt(0.25 / some.sum())
        assert honest < 1 or drawn["honest"][some].all()
    for name in population.TRAITS:
        for level in range(1, 6):
            some = drawn[name][drawn["level"] == level]
            share = population.share_trait(name, VALUES[name][1], level)
            assert abs(some.mean() - share) < 5 * np.sqrt(0.25 / len(some)), (name, level)


def test_no_two_things_are_drawn_by_one_chance(drawn):
    """Worth, record, honesty and traits hang on nothing but what `population` says."""
    alike = (drawn["demand"] == 1) & (drawn["level"] == 3) & (drawn["supported"] == 0)
    columns = [drawn[name][alike] for name in ("worth", "honest", "discloses", "wants", "temper")]
    off = np.corrcoef(columns)[~np.eye(5, dtype=bool)]
    assert np.abs(off).max() < 5 / np.sqrt(alike.sum())


def test_a_batch_has_its_share_of_every_demand_and_level():
    keys = jax.random.split(jax.random.key(1), 400)
    found = jax.jit(jax.vmap(lambda key: callers.draw_customers(key, 12, mix=MIX)))(keys)
    odds = population.weigh_levels(*MIX)[:, None] * [population.weigh_demands(level).sum(1) for level in range(1, 6)]
    for code, share in enumerate(odds.sum(0)):
        each = np.sum(np.asarray(found.demand) == code, axis=1)
        assert set(each.tolist()) <= {int(12 * share), int(12 * share) + 1}  # systematic draws: never two off
        assert abs(each.mean() - 12 * share) < 5 * 0.5 / np.sqrt(400)
    counts = np.zeros(odds.shape)
    np.add.at(counts, (np.asarray(found.level) - 1, np.asarray(found.demand)), 1)
    np.testing.assert_allclose(counts / 4800, odds, atol=0.012)
    assert np.unique(np.asarray(found.worth)[:, 0]).size > 15  # chance has the rest


def test_the_reference_draws_alike():
    """What the rules' own code draws has the means that the arrays have: nothing was read the wrong way round."""
    rng, found = random.Random(0), collections.Counter()
    for _ in range(4000):
        customer = draw_customer(rng)
        found.update({customer.demand: 1, ("wants", customer.wants): 1, ("temper", customer.temper): 1})
    arrays = draw(2, 4000)
    for code, demand in enumerate(DEMANDS):
        assert abs(found[demand] / 4000 - np.mean(arrays.demand == code)) < 0.05
    for name in ("wants", "temper"):
        assert abs(found[name, VALUES[name][1]] / 4000 - np.mean(getattr(arrays, name))) < 0.05
