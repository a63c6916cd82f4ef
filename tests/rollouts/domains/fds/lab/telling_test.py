"""Signals as arrays: the odds of `signals`, and draws by them."""

import collections

import jax
import numpy as np
import pytest
from hypothesis import given

from rollouts.domains.fds.embedded import latent, signals
from rollouts.domains.fds.lab import telling, transitions
from rollouts.domains.fds.lab.telling import KINDS, REACTIONS, STANCES
from rollouts.domains.fds.lab.transitions import VALUES
from tests.builders import lab
from tests.builders.customers import customers, happenings, moods

weigh_opening = jax.jit(telling.weigh_opening)


@jax.jit
def weigh_answer(customer, before, after, happened):
    return telling.weigh_answer(customer, before, after, transitions.split_events(happened))


def list_signals(signal, odds, place):
    """What may be told in one case by the arrays, signal -> probability."""
    fields = {name: int(np.asarray(value)[place]) for name, value in signal._asdict().items()}
    stances, hints = (np.diff(np.asarray(below)[place], prepend=0.0) for below in (odds.stance, odds.hint))
    better, found = float(np.asarray(odds.better)[place]), collections.Counter()
    for stance, stance_odds in enumerate(stances):
        for hint, hint_odds in enumerate(hints):
            for point, chance in ((0, 1 - better), (1, better)):
                reaction = REACTIONS[fields["reaction"]]
                told = signals.Signal(
                    KINDS[fields["kind"]],
                    "agreed_gladly" if reaction == "agreed" and hint >= telling.GLADLY else reaction,
                    STANCES[stance],
                    hint,
                    bool(fields["picture"]),
                    bool(fields["detail"]),
                    fields["heat"],
                    fields["rating"] + point,
                    VALUES["wants"][fields["wants"]] if fields["wants"] >= 0 else "",
                )
                found[told] += stance_odds * hint_odds * chance
    return {told: chance for told, chance in found.items() if chance > 3e-6}


def assert_same(found, expected, case):
    """Two distributions over signals; of ratings a hair beside a whole number, one may be missing."""
    expected = {signal: odds for odds, signal in expected if odds > 3e-6}
    assert set(found) == set(expected), case
    for signal, odds in expected.items():
        assert found[signal] == pytest.approx(odds, abs=5e-6), case


def check_answers(cases):
    for which in (0, -1):
        afters = [latent.list_outcomes(*case)[which][1] for case in cases]
        customer, before, happened = lab.encode(cases)
        signal, odds = weigh_answer(customer, before, latent.Mood(*np.array(afters, np.int32).T), happened)
        for place, ((customer, before, events), after) in enumerate(zip(cases, afters, strict=True)):
            expected = signals.list_signals(customer, before, after, events)
            assert_same(list_signals(signal, odds, place), expected, (customer, before, events))


def test_answers_tell_what_the_rules_let_them_tell():
    cases = [*lab.draw_cases(3000, seed=3), *list(lab.list_pairs(1))[::7], *list(lab.list_singles())[::11]]
    told = {signal for case in cases for _, after in latent.list_outcomes(*case)
            for _, signal in signals.list_signals(*case[:2], after, case[2])}  # fmt: skip
    assert {signal.kind for signal in told} == {"answer", "farewell", "walkout"}
    assert {signal.reaction for signal in told} >= set(signals.REACTIONS)
    check_answers(cases)


@given(customers, moods, happenings)
def test_an_answer_in_any_mood_tells_what_the_rules_let_it(customer, mood, events):
    check_answers([(customer, mood, events)])


def test_openings_tell_what_the_rules_let_them_tell():
    cases = lab.draw_cases(500, seed=4)
    found = weigh_opening(lab.encode(cases)[0])
    for place, (customer, mood, _) in enumerate(cases):
        assert_same(list_signals(*found, place), signals.list_openings(customer), (customer, mood))


def test_draws_come_as_often_as_their_odds():
    """A question what would be welcome, an offer that is agreed, and a farewell; 20,000 draws each."""
    mood = latent.Mood(patience=12, anger=1, trust=2, heard=1, evidence=2)
    for events in ({"probe"}, {"offer"}, {"close"}):
        case = lab.draw_cases(1, seed=5)[0][0]._replace(demand="refund_priority", worth=14), mood, frozenset(events)
        after = latent.list_outcomes(*case)[0][1]
        customer, before, happened = lab.encode([case])
        weighed = weigh_answer(customer, before, latent.Mood(*np.array([after], np.int32).T), happened)
        one = jax.tree.map(lambda x: x[0], weighed)
        chances = jax.random.uniform(jax.random.key(0), (20_000, telling.CHANCES))
        drawn = jax.jit(jax.vmap(lambda chance, one=one: telling.draw_signal(chance, *one)))(chances)
        counts = collections.Counter(zip(*(np.asarray(x).tolist() for x in drawn), strict=True))
        expected = signals.list_signals(*case[:2], after, case[2])
        assert len(counts) == len(expected) >= 2
        for odds, signal in expected:
            code = (
                *(KINDS.index(signal.kind), REACTIONS.index(signal.reaction), STANCES.index(signal.stance)),
                *map(int, signal[3:8]),
                -1,
            )
            sigma = (odds * (1 - odds) / 20_000) ** 0.5
            assert abs(counts[code] / 20_000 - odds) < 5 * sigma, signal


def test_what_has_no_chance_is_never_drawn():
    below = telling.sum_odds(np.array([[0.0, 0.3, 0.0, 0.7, 0.0], [1.0, 0, 0, 0, 0]]))
    np.testing.assert_array_equal(below, np.float32([[0, 0.3, 0.3, 1, 1], [1, 1, 1, 1, 1]]))
