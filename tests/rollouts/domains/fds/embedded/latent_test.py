"""The embedded gym's table of rules, and what pays by it."""

import functools
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollouts.domains.fds.embedded import latent
from rollouts.domains.fds.scenario import DEMANDS
from tests.builders.customers import AGREED, DOMAINS, NEVER, PRESSED, WORLD, customers, happenings, moods, value


def test_every_rule_speaks_of_known_things_and_has_its_moment():
    assert {rule.event for rule in latent.RULES} == set(latent.EVENTS)
    for rule in latent.RULES:
        assert set(rule.effect) <= set(latent.Mood._fields)
        assert all(set(values) <= set(DOMAINS[field]) for field, values in rule.when.items())
    for event in latent.EVENTS:
        own = [rule for rule in latent.RULES if rule.event == event]
        fields = sorted({field for rule in own for field in rule.when})
        firsts = set()
        for values in itertools.product(*(DOMAINS[field] for field in fields)):
            before = dict(zip(fields, values, strict=True))
            firsts |= {next((number for number, rule in enumerate(own) if latent._rule_applies(rule, before)), None)}
        assert set(range(len(own))) <= firsts, f"a rule of {event} never comes first"


@given(customers, moods, happenings)
def test_transitions_stay_within_limits_and_cost_patience(customer, mood, events):
    after = latent.apply_events(customer, mood, events)
    assert all(after[place] in DOMAINS[field] for place, field in enumerate(latent.Mood._fields))
    assert after.patience < mood.patience or mood.patience == after.patience == 0
    assert after == latent.apply_events(customer, mood, frozenset(sorted(events, reverse=True)))
    assert latent.find_end(customer, after) in ("", "rated", "quit")
    assert 1 <= latent.expected_rating(customer, after) <= 5
    if "voucher" in events:
        assert after.voucher and latent.find_end(customer, after) == "rated"


@given(customers, st.lists(happenings, min_size=7, max_size=7))
def test_every_conversation_ends_within_seven_turns(customer, turns):
    mood = latent.start_mood(customer)
    assert not latent.find_end(customer, mood)
    ends = []
    for events in turns:
        mood = latent.apply_events(customer, mood, events)
        ends.append(latent.find_end(customer, mood))
    assert any(ends)


@given(customers, moods, happenings)
def test_spam_drowns_what_else_was_said(customer, mood, events):
    kept = events & {"voucher", "repeat", "long"}
    assert latent.apply_events(customer, mood, events | {"spam"}) == latent.apply_events(
        customer, mood, kept | {"spam"}
    )


@given(customers, moods)
def test_ratings_go_the_right_way(customer, mood):
    rating = functools.partial(latent.expected_rating, customer)
    for field, direction in (("anger", -1), ("trust", 1), ("heard", 1), ("noted", 1), ("voucher", 1)):
        if getattr(mood, field) < getattr(latent.LIMITS, field):
            change = rating(mood._replace(**{field: getattr(mood, field) + 1})) - rating(mood)
            assert change * direction >= 0
    assert rating(mood._replace(patience=0)) == rating(mood)


def test_who_walks_out():
    for customer in (latent.Customer(1, demand, True) for demand in DEMANDS):
        angry = latent.Mood(patience=0, anger=3)
        assert latent.find_end(customer, angry) == "quit"
        assert latent.find_end(customer, angry._replace(trust=1)) == "rated"
        assert latent.find_end(customer, angry._replace(anger=2)) == "rated"
        assert latent.find_end(customer, angry._replace(patience=1)) == ""


# What pays: a search over all the conversations of turns with one or two acts


@pytest.mark.parametrize("customer", WORLD, ids=str)
def test_a_voucher_is_worth_more_agreed_than_pressed(customer):
    never, pressed, agreed = (value(customer, deals) for deals in (NEVER, PRESSED, AGREED))
    if customer.demand == "refund_insistence":  # agrees to none
        assert agreed == never
        assert 0 < pressed - never < 0.8
    elif customer.demand == "feedback_focus" and customer.supported is False:  # the facts, well told, do as much
        assert agreed == pressed == never
    else:
        assert never < pressed < agreed
    mood = latent.Mood(patience=1, anger=0)
    ratings = [latent.expected_rating(customer, mood._replace(voucher=voucher)) for voucher in (0, 1, 2)]
    assert ratings == sorted(set(ratings))


def test_vouchers_pay_most_with_those_who_are_open_to_them():
    worth = {customer: value(customer, AGREED) - value(customer, NEVER) for customer in WORLD}
    open_minded = ("compensation_flexible", "refund_priority")
    least = min(worth[customer] for customer in WORLD if customer.demand in open_minded)
    assert least > 1.5 and least > 2 * max(worth[customer] for customer in WORLD if customer.demand not in open_minded)
    for customer in worth:  # and no less where the record supports them
        assert worth[customer._replace(supported=True)] >= worth[customer._replace(supported=False)] - 1e-9


def test_serving_well_beats_serving_badly_without_any_voucher():
    for customer in WORLD:
        mood, end = latent.start_mood(customer), ""
        while not end:
            mood = latent.apply_events(customer, mood, frozenset({"nothing"}))
            end = latent.find_end(customer, mood)
        assert value(customer, NEVER) > latent.expected_rating(customer, mood) + 0.4
