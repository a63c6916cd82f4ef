"""The rules as arrays are the rules: every event in all that it looks at, pairs for every kind, and large samples."""

import functools
import itertools
import random

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from rollouts.domains.fds.embedded import latent
from rollouts.domains.fds.lab import transitions
from rollouts.domains.fds.lab.transitions import ENDS
from rollouts.domains.fds.scenario import DEMANDS
from tests.builders import lab
from tests.builders.customers import CUSTOMER, DOMAINS, customers, happenings, moods

find_outcomes = jax.jit(lambda who, mood, happened: _find_outcomes(who, mood, happened))


def _find_outcomes(who, mood, happened):
    return transitions.find_outcomes(who, mood, transitions.split_events(happened))


def check_outcomes(cases, found):
    """`found` [n] are the outcomes that `latent` lists."""
    chance, agreed, refused = np.asarray(found.chance), np.transpose(found.agreed), np.transpose(found.refused)
    for place, (customer, mood, events) in enumerate(cases):
        expected = latent.list_outcomes(customer, mood, events)
        assert tuple(agreed[place]) == expected[0][1], (customer, mood, events)
        assert tuple(refused[place]) == expected[-1][1], (customer, mood, events)
        assert chance[place] == pytest.approx(expected[0][0], abs=1e-6), (customer, mood, events)


@pytest.mark.parametrize(
    "cases", [lab.list_singles, lab.list_pairs, functools.partial(lab.draw_cases, 20_000)], ids=["one", "two", "any"]
)
def test_outcomes_are_those_of_the_rules(cases):
    cases = list(cases())
    assert len(cases) > 9000
    check_outcomes(cases, find_outcomes(*lab.encode(cases)))


def test_all_derived_events_and_refusals_were_among_the_cases():
    """What makes the comparison above worth something."""
    cases = [*lab.list_singles(), *lab.list_pairs(), *lab.draw_cases(20_000)]
    derived = set().union(*(latent._derive_events(*case) - case[2] for case in cases))
    assert derived == set(latent.DERIVED)
    assert sum(len(latent.list_outcomes(*case)) == 2 for case in cases) > 500
    fired = set()
    for customer, mood, events in cases:
        before = {**customer._asdict(), **mood._asdict()}
        for event in latent._derive_events(customer, mood, events):
            own = [rule for rule in latent.RULES if rule.event == event]
            fired |= {next((rule.why for rule in own if latent._rule_applies(rule, before)), "")}
    assert fired >= {rule.why for rule in latent.RULES}


class OneAtATimeTest(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_a_mapped_rule_is_the_rule(self):
        cases = lab.draw_cases(64, seed=1)
        found = self.variant(jax.vmap(_find_outcomes))(*lab.encode(cases))
        check_outcomes(cases, found)
        chex.assert_trees_all_equal_dtypes(found, jax.tree.map(lambda x: x[:1], found))
        assert found.chance.dtype == jnp.float32 and {x.dtype for x in found.agreed} == {jnp.dtype("int32")}


@given(customers, moods, happenings)
def test_a_turn_in_any_mood_is_that_of_the_rules(customer, mood, events):
    check_outcomes([(customer, mood, events)], find_outcomes(*lab.encode([(customer, mood, events)])))


def test_ends_are_the_rules_for_all_that_they_look_at():
    fields = ("patience", "anger", "trust", "offended", "over")
    mood = latent.Mood(*[0] * len(latent.Mood._fields))
    every = [
        mood._replace(**dict(zip(fields, values, strict=True)))
        for values in itertools.product(*(DOMAINS[field] for field in fields))
    ]
    rng = random.Random(0)  # whatever else the mood may be
    every += [latent.Mood(*(rng.choice(DOMAINS[field]) for field in latent.Mood._fields)) for _ in range(2000)]
    ends = jax.jit(transitions.find_end)(latent.Mood(*np.array(every, np.int32).T))
    assert [ENDS[end] for end in ends.tolist()] == [latent.find_end(CUSTOMER, mood) for mood in every]


def test_the_chance_to_agree_is_the_rule_for_all_that_it_looks_at():
    values = itertools.product(DEMANDS, *(DOMAINS[field] for field in ("worth", "anger", "trust", "limits")))
    cases = [
        (
            CUSTOMER._replace(demand=demand, worth=worth),
            latent.Mood(5, anger, trust, limits=limits),
            frozenset(),
        )
        for demand, worth, anger, trust, limits in values
    ]
    customer, mood, _ = lab.encode(cases)
    expected = [latent.chance_to_agree(customer, mood) for customer, mood, _ in cases]
    np.testing.assert_allclose(jax.jit(transitions.chance_to_agree)(customer, mood), expected, atol=1e-6)


def test_ratings_are_those_of_the_rules():
    """All that a rating is made of but worth, patience and level, and a sample of everything."""
    fields = ("heard", "limits", "noted", "stepped", "probed", "deal", "voucher", "over", "facts")
    cases = []
    for demand, *values in itertools.product(DEMANDS, *(DOMAINS[field] for field in fields)):
        mood = latent.Mood(9, 1, 2, offended=1)._replace(**dict(zip(fields, values, strict=True)))
        cases.append((CUSTOMER._replace(demand=demand), mood, frozenset()))
    cases += lab.draw_cases(20_000, seed=2)
    customer, mood, _ = lab.encode(cases)
    expected = [latent.expected_rating(customer, mood) for customer, mood, _ in cases]
    np.testing.assert_allclose(jax.jit(transitions.expected_rating)(customer, mood), expected, atol=2e-6)
    assert 1 < np.quantile(expected, 0.9) < 5  # not all of it is cut off


def test_everybody_begins_as_the_rules_say():
    cases = [(CUSTOMER._replace(level=level), latent.Mood(0, 0), frozenset()) for level in DOMAINS["level"]]
    found = np.transpose(transitions.start_mood(lab.encode(cases)[0]))
    assert [tuple(row) for row in found.tolist()] == [latent.start_mood(customer) for customer, _, _ in cases]


@given(customers)
def test_codes_are_read_back(customer):
    assert transitions.decode_customer(transitions.encode_customer(customer)) == customer
