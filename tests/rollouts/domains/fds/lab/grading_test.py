"""The judge's scores as arrays are the judge's."""

import functools

import jax
import numpy as np
import pytest
from hypothesis import given

from rollouts.domains.fds.embedded import verdicts
from rollouts.domains.fds.lab import grading, transitions
from rollouts.domains.fds.rubrics import PRINCIPLES
from tests.builders import lab
from tests.builders.customers import customers, happenings, moods


@jax.jit
def score_turns(customer, mood, happened):
    events = transitions.split_events(happened)
    return grading.score_turn(customer, mood, events), grading.reward_turn(customer, mood, events)


def check_scores(cases):
    found, rewards = score_turns(*lab.encode(cases))
    assert set(found) == set(PRINCIPLES)
    rows = np.stack([found[name] for name in PRINCIPLES], axis=-1)
    for row, reward, case in zip(rows.tolist(), rewards.tolist(), cases, strict=True):
        expected = verdicts.score_turn(*case)
        assert row == [expected[name] for name in PRINCIPLES], (case, expected)
        assert reward == pytest.approx(np.mean(row))
    return rows


@pytest.mark.parametrize(
    "cases", [lab.list_singles, lab.list_pairs, functools.partial(lab.draw_cases, 8000)], ids=["one", "two", "any"]
)
def test_scores_are_the_judges(cases):
    rows = check_scores(list(cases()))
    assert all(set(column) == {0.0, 0.5, 1.0} for column in rows.T.tolist())


@given(customers, moods, happenings)
def test_a_turn_in_any_mood_is_scored_as_by_the_judge(customer, mood, events):
    check_scores([(customer, mood, events)])
