"""The embedded gym's table of rules."""

import itertools
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollouts.domains.fds.embedded import latent
from rollouts.domains.fds.scenario import DEMANDS
from tests.builders.customers import CUSTOMER, DOMAINS, customers, happenings, moods

HEARD = latent.Mood(patience=12, anger=0, trust=2, heard=1, evidence=2)


def test_every_rule_speaks_of_known_things_and_has_its_moment():
    assert {rule.event for rule in latent.RULES} == {*latent.EVENTS, *latent.DERIVED}
    for rule in latent.RULES:
        for effect in (rule.effect, rule.refusal or {}):
            assert set(effect) <= set(latent.Mood._fields)
        assert all(set(values) <= set(DOMAINS[field]) for field, values in rule.when.items())
    for event in {rule.event for rule in latent.RULES}:
        own = [rule for rule in latent.RULES if rule.event == event]
        fields = sorted({field for rule in own for field in rule.when})
        firsts = set()
        for values in itertools.product(*(DOMAINS[field] for field in fields)):
            before = dict(zip(fields, values, strict=True))
            firsts |= {next((number for number, rule in enumerate(own) if latent._rule_applies(rule, before)), None)}
        assert set(range(len(own))) <= firsts, f"a rule of {event} never comes first"


def test_what_nobody_sees_moves_no_mood_but_by_the_answer_to_an_offer():
    """The oracle that reads relies on it: rules look at neither level, demand nor worth, and one rule is by chance."""
    assert not {"level", "demand", "worth"} & {field for rule in latent.RULES for field in rule.when}
    assert {rule.event for rule in latent.RULES if rule.refusal} == {"offer"}
    assert {rule.event for rule in latent.RULES if "honest" in rule.when} == {"explain_true"}
    assert {rule.event for rule in latent.RULES if "temper" in rule.when} == {"stung"}


@given(customers, moods, happenings)
def test_transitions_stay_within_limits_and_cost_patience(customer, mood, events):
    outcomes = latent.list_outcomes(customer, mood, events)
    assert sum(chance for chance, _ in outcomes) == pytest.approx(1)
    assert outcomes == latent.list_outcomes(customer, mood, frozenset(sorted(events, reverse=True)))
    for chance, after in outcomes:
        assert 0 < chance <= 1
        assert all(after[place] in DOMAINS[field] for place, field in enumerate(latent.Mood._fields))
        assert after.patience < mood.patience or mood.patience == after.patience == 0
        assert latent.find_end(customer, after) in ("", "rated", "quit")
        assert 1 <= latent.expected_rating(customer, after) <= 5
        if "voucher" in events:
            assert after.voucher and latent.find_end(customer, after)


@given(customers, moods, happenings)
def test_spam_drowns_what_good_was_said_and_nothing_bad(customer, mood, events):
    kept = events - set(latent.GOOD_ACTS)
    assert latent.list_outcomes(customer, mood, events | {"spam"}) == latent.list_outcomes(
        customer, mood, kept | {"spam"}
    )


@given(customers, moods, st.sampled_from(latent.HARMFUL))
def test_harm_is_never_good_for_a_mood(customer, mood, harm):
    """Whatever else is full, a mark stays or patience goes, down to the last."""
    ((_, silent),) = latent.list_outcomes(customer, mood, frozenset())
    ((_, after),) = latent.list_outcomes(customer, mood, frozenset({harm}))
    assert after.patience <= silent.patience and after.trust <= silent.trust
    assert after.anger >= silent.anger and after.offended >= silent.offended
    assert after != silent or silent.patience == 0 or silent.offended == latent.LIMITS.offended
    worse = latent.expected_rating(customer, after), latent.expected_rating(customer, silent)
    assert worse[0] < worse[1] or worse[0] == 1 or after == silent


def test_an_offer_is_accepted_the_sooner_the_more_it_is_worth_trusted_and_calm():
    def chance(mood=HEARD, **changes):
        return latent.chance_to_agree(CUSTOMER._replace(**changes), mood)

    assert np.all(np.diff([chance(worth=worth) for worth in range(31)]) > 0)
    assert chance() > chance(HEARD._replace(trust=1)) and chance() > chance(HEARD._replace(anger=1))
    assert chance() < chance(HEARD._replace(limits=1))  # a refund being impossible, a voucher is something
    insists = {"demand": "refund_insistence"}
    assert 0.5 < chance(worth=20, **insists) < chance(worth=20) and chance(worth=0, **insists) < 0.3


def test_a_refused_offer_costs_and_an_agreement_not_kept_as_well():
    mood = HEARD._replace(patience=15, heard=2)
    (_, agreed), (_, refused) = latent.list_outcomes(CUSTOMER, mood, frozenset({"offer"}))
    ((_, silent),) = latent.list_outcomes(CUSTOMER, mood, frozenset())
    assert (agreed.deal, refused.deal) == (2, 3)
    ends = {}
    for name, mood in (("agreed", agreed), ("refused", refused), ("silent", silent)):
        ((_, closed),) = latent.list_outcomes(CUSTOMER, mood, frozenset({"close"}))
        ((_, given_),) = latent.list_outcomes(CUSTOMER, mood, frozenset({"voucher"}))
        ends[name] = latent.expected_rating(CUSTOMER, closed), latent.expected_rating(CUSTOMER, given_)
    assert ends["silent"][0] - ends["refused"][0] == pytest.approx(0.25 + 0.05)
    assert ends["silent"][0] - ends["agreed"][0] == pytest.approx(0.5)
    assert ends["agreed"][1] - ends["silent"][0] == pytest.approx(CUSTOMER.worth / 10)
    assert ends["silent"][1] - ends["silent"][0] == pytest.approx(0.4 * CUSTOMER.worth / 10)  # pressed


def test_a_false_claim_is_settled_by_the_record_after_listening_and_an_honest_one_is_not():
    against = CUSTOMER._replace(supported=False)
    unheard = latent.start_mood(against)
    for customer, mood, facts in (
        (against._replace(honest=False), HEARD, 2),
        (against, HEARD, 1),
        (against._replace(honest=False), unheard, 0),
        (CUSTOMER, unheard, 1),
    ):
        ((_, after),) = latent.list_outcomes(customer, mood, frozenset({"explain_true"}))
        assert after.facts == facts
    settled = HEARD._replace(facts=2)
    assert latent.rate_remedy(against, settled) == 0.5 > latent.rate_remedy(against, HEARD._replace(facts=1)) == 0
    assert latent.rate_remedy(against._replace(worth=3), settled._replace(voucher=2)) == 0.5  # the better of the two


def test_who_wants_it_short_minds_many_acts_and_steps():
    reply = frozenset({"listen", "limit", "note"})
    short = CUSTOMER._replace(wants="short")
    for customer, lost in ((CUSTOMER, 1), (short, 3)):
        ((_, after),) = latent.list_outcomes(customer, HEARD, reply)
        assert HEARD.patience - after.patience == lost
    ((_, pleased),), ((_, bored),) = (
        latent.list_outcomes(who, HEARD, frozenset({"steps"})) for who in (CUSTOMER, short)
    )
    assert (pleased.stepped, bored.stepped) == (1, 0) and pleased.patience - bored.patience == 1


def test_details_come_when_asked_after_listening():
    asks = frozenset({"ask"})
    for discloses, level, evidence in ((True, 3, 2), (False, 3, 1), (True, 1, 1)):
        customer = CUSTOMER._replace(discloses=discloses, level=level)
        ((_, after),) = latent.list_outcomes(customer, latent.start_mood(customer), asks)
        assert after.evidence == evidence, (discloses, level)


def test_tempers():
    whos = (CUSTOMER._replace(temper=temper) for temper in ("flares", "silent"))
    loud, quiet = (latent.list_outcomes(who, HEARD, frozenset({"rude"}))[0][1] for who in whos)
    assert loud.anger > quiet.anger and loud.patience > quiet.patience


def test_who_walks_out():
    angry = latent.Mood(patience=0, anger=3)
    assert latent.find_end(CUSTOMER, angry) == "quit"
    assert latent.find_end(CUSTOMER, angry._replace(trust=1)) == "rated"
    assert latent.find_end(CUSTOMER, angry._replace(anger=2)) == "rated"
    assert latent.find_end(CUSTOMER, angry._replace(anger=2, offended=5)) == "quit"
    assert latent.find_end(CUSTOMER, angry._replace(patience=1)) == ""
    assert latent.find_end(CUSTOMER, HEARD._replace(offended=9)) == "quit"


def test_a_silly_agent_reaches_the_turn_limit():
    """Fifteen turns that do no harm and nothing else do not end a conversation with the patient."""
    mood = latent.start_mood(CUSTOMER._replace(level=4))
    for _ in range(15):
        assert not latent.find_end(CUSTOMER, mood)
        ((_, mood),) = latent.list_outcomes(CUSTOMER, mood, frozenset({"note"}))
    assert not latent.find_end(CUSTOMER, mood)


def test_worths_are_probabilities_that_overlap_and_fit_the_scale():
    for (level, demand), row in latent.WORTH.items():
        assert len(row) == 31 and sum(row) == pytest.approx(1) and min(row) >= 0
        most = latent.Mood(18, 0, 3, 2, 2, 1, 1, 1, 1, 0, 2, 2, 0, 1)
        highest = max(worth for worth in range(31) if row[worth])
        customer = latent.Customer(level, demand, True, highest, True, True, "steps", "flares")
        best = latent.rate_service(customer, most) + latent.rate_remedy(customer, most)
        assert 4 < best <= 5  # nothing is cut off, so that worths differ to the end
    for demand, other in itertools.combinations(DEMANDS, 2):
        shared = np.minimum(latent.WORTH[3, demand], latent.WORTH[3, other]).sum()
        assert shared > 0.25, (demand, other)
    rng = random.Random(0)
    drawn = [latent.draw_worth(2, "refund_priority", rng) for _ in range(4000)]
    assert np.mean(drawn) == pytest.approx(np.dot(latent.WORTH[2, "refund_priority"], range(31)), abs=0.4)


def test_what_each_harm_costs_by_hand():
    """Points of the rating, 0.05 a patience, 0.15 a mark, 0.12 a trust, 0.25 an anger; `stung` adds an anger here."""
    who, mood = CUSTOMER._replace(demand="feedback_focus"), latent.Mood(15, 0, 2, 2, 2, 1, 1, 1, 1)
    costs = {
        "apology": 0.05 + 0.15, "explain_false": 0.12 + 0.3, "wrong_fact": 0.05 + 0.3,
        "promise": 0.24 + 0.3 + 0.5, "unbacked": 0.24 + 0.45 + 0.5, "negated": 0.12 + 0.3 + 0.5,
        "rude": 0.12 + 0.45 + 0.75, "not_understood": 0.2, "repeat": 0.2, "long": 0.1, "spam": 0.2 + 0.25,
        "nothing": 0.15,
    }  # fmt: skip
    ((_, silent),) = latent.list_outcomes(who, mood, frozenset())
    plain = latent.expected_rating(who, silent._replace(over=1))
    assert set(costs) == set(latent.HARMFUL)
    for harm, cost in costs.items():
        ((_, after),) = latent.list_outcomes(who, mood, frozenset({harm}))
        assert plain - latent.expected_rating(who, after._replace(over=1)) == pytest.approx(cost), harm
