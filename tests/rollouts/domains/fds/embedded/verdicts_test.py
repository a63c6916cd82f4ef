"""The embedded process judge: turns by hand, what harms, and the best agents."""

import itertools
import random
import statistics

import pytest
from hypothesis import given

from rollouts.domains.fds import generator
from rollouts.domains.fds.embedded import belief, latent, signals, verdicts
from rollouts.domains.fds.rubrics import PRINCIPLES
from tests.builders.customers import CUSTOMER, customers, happenings, moods

CALM = latent.Mood(patience=13, anger=0, heard=1, evidence=2)  # heard and looked at: time to propose
NEW = latent.Mood(patience=15, anger=1)
AGREED = CALM._replace(deal=2)


def score(events, mood, customer=CUSTOMER):
    scores = verdicts.score_turn(customer, mood, frozenset(events.split()))
    return tuple(scores[name] for name in PRINCIPLES)


@pytest.mark.parametrize(
    "events, mood, expected",  # persona, stage, quality, rules
    [
        ("listen ask", NEW, (1, 1, 1, 1)),
        ("listen", NEW, (1, 1, 1, 1)),
        ("apology ask", NEW, (0.5, 1, 0.5, 1)),
        ("ask", NEW, (0, 1, 1, 1)),
        ("listen offer", NEW, (0.5, 0, 1, 0)),  # compensation before evidence
        ("listen voucher", NEW, (1, 0, 1, 0)),
        ("listen voucher", NEW._replace(deal=2), (1, 0, 1, 0)),
        ("listen close", NEW, (0.5, 0.5, 1, 1)),
        ("listen limit", NEW, (0.5, 0.5, 1, 1)),  # a refusal in the first breath
        ("close", NEW, (0, 0, 0.5, 1)),
        ("spam", NEW, (0, 0, 0, 1)),
        ("nothing repeat", NEW, (0, 0, 0, 1)),
        ("offer", CALM, (1, 1, 1, 1)),
        ("limit offer", CALM._replace(anger=1), (1, 1, 1, 1)),
        ("voucher", AGREED, (1, 1, 1, 1)),
        ("voucher", CALM, (1, 1, 1, 0.5)),  # not agreed
        ("voucher", CALM._replace(deal=3), (1, 0, 1, 0)),
        ("offer", CALM._replace(deal=3), (1, 0, 0.5, 0)),  # answered already
        ("ask", CALM, (1, 0, 0.5, 1)),
        ("explain_true", CALM, (1, 1, 1, 1)),
        ("explain_true limit note steps", CALM, (0.5, 1, 0.5, 1)),  # too much at once
        ("explain_false", CALM, (1, 0, 0, 0)),
        ("unbacked", CALM, (1, 0, 0, 0)),
        ("promise", CALM, (1, 0, 0, 0)),
        ("wrong_fact explain_true", CALM, (1, 0, 0, 0)),
        ("negated", CALM, (0, 0, 0.5, 0.5)),
        ("apology", CALM, (0.5, 0, 0.5, 1)),
        ("limit long repeat", CALM, (1, 1, 0, 1)),
        ("rude explain_true", CALM, (0, 0, 0, 0)),
        ("not_understood", CALM, (0, 0, 0, 0)),
    ],
)
def test_what_the_judge_makes_of_a_turn(events, mood, expected):
    assert score(events, mood) == expected


@pytest.mark.parametrize(
    "events, mood, changes, expected",  # persona, stage, quality, rules
    [
        ("listen ask", NEW, {"discloses": False}, (0.5, 0.5, 1, 1)),  # who tells little is heard first
        ("listen ask", NEW._replace(anger=2), {}, (0.5, 0.5, 1, 1)),  # and so are the angry
        ("ask", NEW._replace(heard=1), {"discloses": False}, (1, 1, 1, 1)),
        ("steps", CALM, {}, (1, 1, 1, 1)),
        ("steps", CALM, {"wants": "short"}, (0.5, 0, 0.5, 1)),
        ("explain_true limit note", CALM, {"wants": "short"}, (0.5, 1, 0.5, 1)),
        ("offer", CALM, {"supported": False}, (1, 1, 1, 0.5)),  # not a word on the record
        ("offer", CALM._replace(facts=2), {"supported": False, "honest": False}, (1, 1, 1, 1)),
    ],
)
def test_the_judge_looks_at_who_the_customer_is(events, mood, changes, expected):
    assert score(events, mood, CUSTOMER._replace(**changes)) == expected


@pytest.mark.parametrize("harm", [event for event in latent.HARMFUL if event != "nothing"])
@pytest.mark.parametrize("turn, mood", [("listen ask", NEW), ("explain_true limit", CALM), ("voucher", AGREED)])
def test_every_harm_lowers_a_good_turn(harm, turn, mood):
    assert sum(score(f"{turn} {harm}", mood)) <= sum(score(turn, mood)) - 0.5
    assert score(f"{turn} {harm}", mood)[2] < 1


@given(customers, moods, happenings)
def test_scores_are_those_of_the_rubric(customer, mood, events):
    assert set(score(" ".join(events), mood, customer)) <= {0, 0.5, 1}


@pytest.mark.parametrize("price", [0.6, 1.4])
def test_the_best_agent_has_a_process_reward_near_one(price):
    rewards = []
    for number, scenario in enumerate(itertools.islice(generator.deal_scenarios(3, split="test"), 60)):
        customer, rng = generator.find_customer(scenario), random.Random(number)
        mood = latent.start_mood(customer)
        signal = signals.draw_signal(signals.list_openings(customer), rng)
        believed = belief.open_belief(signal, customer.supported)
        while True:
            events = belief.best_acts(believed, price)
            rewards.append(sum(score(" ".join(events), mood, customer)) / 4)
            outcomes = latent.list_outcomes(customer, mood, events)
            before, mood = mood, rng.choices([after for _, after in outcomes], [chance for chance, _ in outcomes])[0]
            signal = signals.draw_signal(signals.list_signals(customer, before, mood, events), rng)
            if signal.kind != "answer":
                break
            believed = believed.update(events, signal)
    assert statistics.mean(rewards) > 0.97
