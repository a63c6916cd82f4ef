"""Generalized advantages, against a walk over each dialogue in plain Python."""

import functools

import chex
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized

from cmpo.gae import UNITS, generalized_advantage

NAN = float("nan")


def expected(credit, values, mask, turns, segments, *, discount, trace, unit):
    """The recursion, dialogue by dialogue."""
    advantages, targets, steps = np.zeros(mask.shape), np.zeros(mask.shape), np.zeros(mask.shape, bool)
    for row in range(len(mask)):
        for segment in set(segments[row][mask[row]].tolist()):
            places = [t for t in range(mask.shape[1]) if mask[row, t] and segments[row, t] == segment]
            groups = [[t] for t in places]
            if unit == "turn":
                order = dict.fromkeys(turns[row, places].tolist())
                groups = [[t for t in places if turns[row, t] == turn] for turn in order]
            value_after = advantage_after = 0.0
            for group in reversed(groups):
                begin, end = group[0], group[-1]
                brings = unit == "turn" or end == max(t for t in places if turns[row, t] == turns[row, end])
                reward = credit[row, end] if brings else 0.0
                delta = reward + discount * value_after - values[row, begin]
                advantage_after, value_after = delta + discount * trace * advantage_after, values[row, begin]
                advantages[row, group] = advantage_after
                targets[row, begin], steps[row, begin] = advantage_after + value_after, True
    return advantages, targets, steps


def packed(seed):
    """Three rows: two dialogues beside each other, one alone, and padding."""
    rng = np.random.default_rng(seed)
    mask, turns, segments = np.zeros((3, 24), bool), np.zeros((3, 24), np.int32), np.zeros((3, 24), np.int32)
    turn = 0
    for row, begin, end, segment in ((0, 0, 11, 1), (0, 11, 22, 2), (1, 2, 24, 1)):
        segments[row, begin:end] = segment
        place = begin + 1
        while place < end:
            length = min(int(rng.integers(1, 4)), end - place)
            mask[row, place : place + length], turns[row, place : place + length] = True, turn
            place, turn = place + length + int(rng.integers(1, 3)), turn + 1
    worth = rng.normal(size=turn)
    credit = np.where(mask, worth[turns], NAN).astype(np.float32)
    values = np.where(mask, rng.normal(size=mask.shape), NAN).astype(np.float32)
    return credit, values, mask, turns, segments


class GaeTest(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.product(unit=UNITS, discount=(1.0, 0.9), trace=(0.0, 0.7, 1.0))
    def test_equals_the_walk(self, unit, discount, trace):
        options = {"discount": discount, "trace": trace, "unit": unit}
        for seed in range(3):
            arrays = packed(seed)
            found = self.variant(functools.partial(generalized_advantage, **options))(*arrays)
            wanted = expected(*arrays, **options)
            np.testing.assert_array_equal(found[2], wanted[2])
            chex.assert_trees_all_close(found[:2], wanted[:2], atol=1e-5)


def test_two_turns_by_hand():
    """Turn 0 has two tokens and is worth 1, turn 1 has one and is worth 2."""
    arrays = [jnp.array([row]) for row in ([1.0, 1.0, 9.0, 2.0], [0.5, 0.25, 9.0, 1.0])]
    arrays += [jnp.array([[True, True, False, True]]), jnp.array([[0, 0, 0, 1]]), jnp.ones((1, 4), int)]
    advantages, targets, steps = generalized_advantage(*arrays, discount=0.5, trace=0.5, unit="turn")
    # Turn 1: 2 - 1 = 1. Turn 0: 1 + 0.5 * 1 - 0.5 + 0.25 * 1 = 1.25.
    np.testing.assert_allclose(advantages, [[1.25, 1.25, 0.0, 1.0]])
    np.testing.assert_allclose(targets, [[1.75, 0.0, 0.0, 2.0]])
    assert steps.tolist() == [[True, False, False, True]]
    advantages, targets, steps = generalized_advantage(*arrays, discount=0.5, trace=0.5, unit="token")
    # Token 1: 1 + 0.5 - 0.25 + 0.25 = 1.5. Token 0: 0.125 - 0.5 + 0.25 * 1.5 = 0.
    np.testing.assert_allclose(advantages, [[0.0, 1.5, 0.0, 1.0]])
    np.testing.assert_allclose(targets, [[0.5, 1.75, 0.0, 2.0]])
    assert steps.tolist() == [[True, True, False, True]]


def test_with_a_trace_of_1_the_targets_are_the_returns_whatever_the_critic_says():
    credit, values, mask, turns, segments = packed(7)
    for unit in UNITS:
        one, other = (
            generalized_advantage(credit, v, mask, turns, segments, trace=1.0, unit=unit)[1]
            for v in (values, 3 * values)
        )
        chex.assert_trees_all_close(one, other, atol=1e-4)


def test_an_unknown_unit_is_refused():
    with pytest.raises(ValueError, match="unit: expected one of"):
        generalized_advantage(*packed(0), unit="word")
