"""What messages tell: probabilities, and what follows from them for certain."""

import collections
import random

import numpy as np
import pytest
from hypothesis import given

from rollouts.domains.fds.embedded import latent, signals
from rollouts.domains.fds.scenario import DEMANDS
from tests.builders.customers import CUSTOMER, DOMAINS, customers, happenings, moods

HEARD = latent.Mood(patience=12, anger=0, trust=2, heard=1, evidence=2)


@given(customers, moods, happenings)
def test_the_signals_of_any_turn_are_a_distribution_over_known_things(customer, mood, events):
    listed = [signals.list_openings(customer)]
    for _, after in latent.list_outcomes(customer, mood, events):
        listed.append(signals.list_signals(customer, mood, after, events))
        end = latent.find_end(customer, after)
        kinds = {"": {"answer"}, "rated": {"farewell"}, "quit": {"walkout"}}[end]
        assert {signal.kind for _, signal in listed[-1]} == kinds
        if end == "rated":
            mean = sum(odds * signal.rating for odds, signal in listed[-1])
            assert mean == pytest.approx(latent.expected_rating(customer, after))
            assert all(1 <= signal.rating <= 5 for _, signal in listed[-1])
    for some in listed:
        assert sum(odds for odds, _ in some) == pytest.approx(1) and all(odds > 0 for odds, _ in some)
        assert len({signal for _, signal in some}) == len(some)
        for _, signal in some:
            assert signal.reaction in signals.REACTIONS or (signal.kind != "answer" and not signal.reaction)
            assert not signal.stance or signal.stance in signals.STANCES
            assert 0 <= signal.hint <= 4 and 0 <= signal.heat <= 2


def test_every_reaction_comes_and_the_strongest_first():
    came = set()
    for name in signals.REACTIONS:
        for seed in range(4000):
            rng = random.Random(f"{name} {seed}")
            who = latent.Customer(*(rng.choice(DOMAINS[field]) for field in latent.Customer._fields))
            mood = latent.Mood(*(rng.choice(DOMAINS[field]) for field in latent.Mood._fields))
            mood = mood._replace(over=0, voucher=0, offended=0, patience=12)
            events = frozenset(rng.sample(sorted(set(latent.EVENTS) - {"voucher"}), 1))
            for _, after in latent.list_outcomes(who, mood, events):
                came |= {signal.reaction for _, signal in signals.list_signals(who, mood, after, events)}
            if name in came:
                break
    assert came - {""} == set(signals.REACTIONS)
    reply = frozenset({"unbacked", "rude", "offer"})
    _, after = latent.list_outcomes(CUSTOMER, HEARD, reply)[0]
    assert {signal.reaction for _, signal in signals.list_signals(CUSTOMER, HEARD, after, reply)} == {"unbacked"}


@pytest.mark.parametrize("moment", signals.HINTS)
def test_hints_are_noisy_but_honest(moment):
    odds = np.array(signals.HINTS[moment])
    np.testing.assert_allclose(odds.sum(1), 1)
    spoken = odds[:, 1:] / odds[:, 1:].sum(1, keepdims=True)
    means = spoken @ np.arange(1, 5)
    assert np.all(np.diff(means) > 0) and means[-1] - means[0] > 1  # more worth, more hope
    assert np.all(np.diff(odds[:, 0]) == 0)  # silence tells nothing
    assert spoken[15].max() < 0.9


def test_a_probe_is_the_clearest():
    """By the mutual information of a hint and a worth that is spread evenly."""

    def inform(moment):
        odds = np.array(signals.HINTS[moment]) / 31
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.nansum(odds * np.log(odds / odds.sum(0) / odds.sum(1, keepdims=True)))

    assert inform("probe") > 1.5 * max(inform(moment) for moment in signals.HINTS if moment != "probe")


@pytest.mark.parametrize("moment", ["opening", "probe"])
def test_stances_are_noisy_but_honest(moment):
    for demand, stance in zip(DEMANDS, signals.STANCES, strict=True):
        odds = dict(zip(("", *signals.STANCES), signals.STANCE_ODDS[moment][demand], strict=True))
        assert sum(odds.values()) == pytest.approx(1)
        silent = odds.pop("")
        assert max(odds, key=odds.get) == stance and odds[stance] < 0.75 * (1 - silent)


def test_moments_come_once_and_one_at_a_time():
    def heard(before, events):
        found = collections.Counter()
        for chance, after in latent.list_outcomes(CUSTOMER, before, events):
            for odds, signal in signals.list_signals(CUSTOMER, before, after, events):
                found[bool(signal.hint), bool(signal.stance)] += chance * odds
        return found

    unasked = HEARD._replace(evidence=0)
    assert heard(HEARD, frozenset({"probe"})) == {(True, True): pytest.approx(1)}
    assert heard(HEARD._replace(probed=1), frozenset({"probe"})) == {(False, False): 1}
    assert set(heard(unasked, frozenset({"ask"}))) == {(True, False), (False, False)}
    assert heard(unasked, frozenset({"ask", "probe"})) == {(True, True): pytest.approx(1)}
    assert heard(HEARD, frozenset({"offer"})) == {(True, False): pytest.approx(1)}
    assert heard(HEARD._replace(deal=3), frozenset({"offer"})) == {(False, False): 1}
    assert heard(HEARD, frozenset({"listen", "note"})) == {(False, False): 1}


def test_who_goes_silent_shows_less_anger_in_answers_and_none_hide_it_at_first():
    for temper, heat in (("flares", 2), ("silent", 1)):
        who = CUSTOMER._replace(level=1, temper=temper)
        mood = latent.start_mood(who)
        ((_, after),) = latent.list_outcomes(who, mood, frozenset({"note"}))
        assert {signal.heat for _, signal in signals.list_signals(who, mood, after, frozenset({"note"}))} == {heat}
        assert {signal.heat for _, signal in signals.list_openings(who)} == {2}


def test_openings_tell_what_a_belief_takes_for_certain():
    for discloses, wants in ((True, "steps"), (False, "short")):
        who = CUSTOMER._replace(discloses=discloses, wants=wants)
        assert {(signal.detail, signal.wants) for _, signal in signals.list_openings(who)} == {(discloses, wants)}


def test_draws_follow_the_odds():
    rng, choices = random.Random(0), signals.list_openings(CUSTOMER)
    drawn = collections.Counter(signals.draw_signal(choices, rng) for _ in range(5000))
    for odds, signal in choices:
        assert drawn[signal] / 5000 == pytest.approx(odds, abs=0.025)
