"""Packing: every token lands exactly once, in order, with its turn, position and mask."""

import chex
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmpo import batch
from rollouts import fds
from rollouts.types import Dialogue, Turn

SCENARIO = next(fds.scenarios(0))


def turn(incoming, ids, *, process=0.5, cost=0.0):
    return Turn(
        user="u",
        text="t",
        think="",
        response="r",
        action="chat",
        incoming_ids=np.array(incoming, np.int32),
        ids=np.array(ids, np.int32),
        logprobs=-np.array(ids, np.float32) / 10,
        model_logprobs=-np.array(ids, np.float32) / 10,
        cost=np.array([cost], np.float32),
        scores={},
        process_reward=process,
    )


def dialogue(*turns, outcome=3.0, failure=""):
    return Dialogue(SCENARIO, 0, turns, outcome, "rated", failure=failure)


def test_stream_by_hand():
    made = batch.stream(dialogue(turn([1, 2], [3, 4, 5]), turn([6], [7])), first_turn=30)
    np.testing.assert_array_equal(made.tokens, [1, 2, 3, 4, 5, 6, 7])
    np.testing.assert_array_equal(made.mask, [0, 0, 1, 1, 1, 0, 1])
    np.testing.assert_array_equal(made.turns, [0, 0, 30, 30, 30, 0, 31])
    np.testing.assert_allclose(made.logprobs, [0, 0, -0.3, -0.4, -0.5, 0, -0.7], rtol=1e-6)


def test_rewards_by_hand_and_failed_dialogues_have_no_valid_turn():
    dialogues = [
        dialogue(turn([1], [2], process=0.25), turn([1], [2], process=1.0, cost=1.0), outcome=4.0),
        dialogue(turn([1], [2], process=0.9, cost=1.0), outcome=5.0, failure="judge_timeout"),
    ]
    rewards = batch.rewards(dialogues, group_size=2, max_turns=3)
    np.testing.assert_array_equal(rewards.outcome, [[4.0, 0.0]])
    np.testing.assert_array_equal(rewards.process, [[[0.25, 1.0, 0.0], [0.0, 0.0, 0.0]]])
    np.testing.assert_array_equal(rewards.cost[..., 0], [[[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]])
    np.testing.assert_array_equal(rewards.turn_mask, [[[True, True, False], [False, False, False]]])


def test_streams_leave_failed_dialogues_out_and_number_turns_as_rewards_does():
    dialogues = [dialogue(turn([1], [2]), failure="user_timeout"), dialogue(turn([1], [2]), turn([3], [4]))]
    (only,) = batch.streams(dialogues, max_turns=5)
    np.testing.assert_array_equal(only.turns, [0, 5, 0, 6])


@settings(max_examples=50, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=20),
    row_length=st.sampled_from([8, 32, 64]),
)
def test_packing_keeps_every_stream_whole(lengths, row_length):
    numbers = iter(range(1, 1 + sum(lengths)))
    parts = []
    for size in lengths:
        tokens = np.array([next(numbers) for _ in range(size)], np.int32)
        parts.append(batch.Stream(tokens, tokens % 2 == 0, -tokens.astype(np.float32), tokens + 1))
    rows = batch.pack(parts, row_length=row_length)
    chex.assert_equal_shape(list(vars(rows).values()))
    assert rows.tokens.shape[1] >= max(lengths) and rows.tokens.shape[1] in {row_length * 2**n for n in range(4)}
    found = []
    for row in range(rows.tokens.shape[0]):
        for segment in range(1, rows.segment_ids[row].max() + 1):
            place = rows.segment_ids[row] == segment
            assert np.all(np.diff(np.flatnonzero(place)) == 1), "a stream must be contiguous"
            tokens = rows.tokens[row, place]
            np.testing.assert_array_equal(rows.positions[row, place], np.arange(len(tokens)))
            np.testing.assert_array_equal(rows.mask[row, place], tokens % 2 == 0)
            np.testing.assert_array_equal(rows.sampled_logprobs[row, place], -tokens.astype(np.float32))
            np.testing.assert_array_equal(rows.turns[row, place], tokens + 1)
            found.append(tuple(tokens))
    assert sorted(found) == sorted(tuple(part.tokens) for part in parts)
    assert not rows.mask[rows.segment_ids == 0].any()


def test_rows_in_use_come_first():
    parts = [batch.Stream(np.ones(8, np.int32), np.ones(8, bool), np.zeros(8, np.float32), np.zeros(8, np.int32))] * 5
    rows = batch.pack(parts, row_length=8, rows=8)
    np.testing.assert_array_equal(rows.segment_ids[:, 0], [1, 1, 1, 1, 1, 0, 0, 0])


def test_too_few_rows_is_an_error():
    parts = [batch.Stream(np.ones(8, np.int32), np.ones(8, bool), np.zeros(8, np.float32), np.zeros(8, np.int32))] * 3
    with pytest.raises(ValueError, match="at most 2 rows, got 3"):
        batch.pack(parts, row_length=8, rows=2)
