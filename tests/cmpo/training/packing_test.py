"""Packing: every token lands exactly once, in order, with its turn, position and mask."""

import chex
import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmpo.training import packing
from tests.builders import dialogues


def turn(incoming, ids, *, process=0.5, cost=0.0):
    logprobs = -np.array(ids, np.float32) / 10
    action = "voucher" if cost else "chat"
    return dialogues.turn(process, incoming=incoming, ids=ids, logprobs=logprobs, action=action)


def dialogue(*turns, outcome=3.0, failure=""):
    return dialogues.dialogue(*turns, outcome=outcome, failure=failure)


def test_stream_by_hand():
    made = packing.make_stream(dialogue(turn([1, 2], [3, 4, 5]), turn([6], [7])), first_turn=30, group=4)
    assert made.group == 4
    np.testing.assert_array_equal(made.tokens, [1, 2, 3, 4, 5, 6, 7])
    np.testing.assert_array_equal(made.mask, [0, 0, 1, 1, 1, 0, 1])
    np.testing.assert_array_equal(made.turns, [0, 0, 30, 30, 30, 0, 31])
    np.testing.assert_allclose(made.logprobs, [0, 0, -0.3, -0.4, -0.5, 0, -0.7], rtol=1e-6)


def test_rewards_by_hand_and_failed_dialogues_have_no_valid_turn():
    played = [
        dialogue(turn([1], [2], process=0.25), turn([1], [2], process=1.0, cost=1.0), outcome=4.0),
        dialogue(turn([1], [2], process=0.9, cost=1.0), outcome=5.0, failure="judge_timeout"),
    ]
    rewards = packing.collect_rewards(played, group_size=2, max_turns=3, costs=1)
    np.testing.assert_array_equal(rewards.outcome, [[4.0, 0.0]])
    np.testing.assert_array_equal(rewards.process, [[[0.25, 1.0, 0.0], [0.0, 0.0, 0.0]]])
    np.testing.assert_array_equal(rewards.cost[..., 0], [[[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]])
    np.testing.assert_array_equal(rewards.turn_mask, [[[True, True, False], [False, False, False]]])


def test_streams_leave_failed_dialogues_out_and_number_turns_as_rewards_does():
    played = [dialogue(turn([1], [2]), failure="user_timeout"), dialogue(turn([1], [2]), turn([3], [4]))]
    (only,) = packing.make_streams(played, group_size=1, max_turns=5)
    np.testing.assert_array_equal(only.turns, [0, 5, 0, 6])
    assert only.group == 1


def test_minibatches_are_even_and_cut_few_groups():
    parts = [begun([1], [2, 3], group) for group in (0, 0, 0, 1, 1, 2, 2)]
    groups = [[part.group for part in part] for part in packing.divide_streams(parts, 3)]
    assert groups == [[0, 0], [0, 1], [1, 2, 2]]
    assert packing.divide_streams([], 2) == [[], []]


def test_values_come_back_to_the_turns_of_their_tokens_and_notes_say_what_is_known():
    played = [
        dialogue(turn([1, 2], [3, 4, 5]), turn([6], [7])),
        dialogue(turn([1], [2]), failure="user_timeout"),
        dialogue(turn([1, 2], [8, 9])),
    ]
    streams = packing.make_streams(played, group_size=1, max_turns=2)
    rows = packing.pack_rows(streams, row_length=16)
    split = packing.split_by_turns(rows, rows.tokens, 2 * rows.sampled_logprobs)
    assert {number: tokens.tolist() for number, (tokens, _) in split.items()} == {0: [3, 4, 5], 1: [7], 4: [8, 9]}
    np.testing.assert_allclose(split[0][1], [-0.6, -0.8, -1.0], rtol=1e-6)

    played[0] = packing.note_credit(played[:1], np.array([[[0.5, 0.25]]]))[0]
    learnt = {0: (np.array([-0.3, -0.4, 0.5]), np.full(3, 0.5)), 1: (np.array([-0.7]), np.array([0.3]))}
    first, failed, other = packing.note_tokens(played, lambda ids: [f"<{id}>" for id in ids], learnt, max_turns=2)
    notes = [turn.token_notes for turn in first.turns]
    assert notes[0].texts == ["<3>", "<4>", "<5>"] and notes[0].advantages is None  # each is the turn's credit
    np.testing.assert_allclose(notes[0].ratios, [1.0, 1.0, np.e], rtol=1e-6)
    assert notes[1].advantages.tolist() == [0.3]
    for one in (failed, other):
        assert one.turns[0].token_notes.ratios is None and one.turns[0].token_notes.texts


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
        parts.append(packing.Stream(tokens, tokens % 2 == 0, -tokens.astype(np.float32), tokens + 1))
    rows = packing.pack_rows(parts, row_length=row_length)
    chex.assert_equal_shape(jax.tree.leaves(rows))
    assert rows.prefix_ids is None
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


def begun(common, rest, group):
    """A stream of tokens that were sampled from the second of `rest` on."""
    tokens = np.array([*common, *rest], np.int32)
    mask = np.arange(len(tokens)) > len(common)
    return packing.Stream(tokens, mask, np.where(mask, -1.0, 0).astype(np.float32), np.where(mask, rest[-1], 0), group)


def test_a_shared_prefix_by_hand():
    """Tokens 1 2 3 are shared; 7 is not, though both have it: it predicts what was sampled."""
    parts = [begun([1, 2, 3], [7, 8, 9], 0), begun([1, 2, 3], [7, 5], 0), begun([1, 2, 3], [7, 6], 1)]
    rows = packing.pack_rows(parts, row_length=16, share=True)
    np.testing.assert_array_equal(rows.tokens, [[1, 2, 3, 7, 8, 9, 7, 5, 1, 2, 3, 7, 6, 0, 0, 0]])
    np.testing.assert_array_equal(rows.positions, [[0, 1, 2, 3, 4, 5, 3, 4, 0, 1, 2, 3, 4, 0, 0, 0]])
    np.testing.assert_array_equal(rows.segment_ids, [[1, 1, 1, 2, 2, 2, 3, 3, 4, 4, 4, 4, 4, 0, 0, 0]])
    np.testing.assert_array_equal(rows.prefix_ids, [[0, 0, 0, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0]])
    np.testing.assert_array_equal(rows.mask, [[0, 0, 0, 0, 1, 1, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0]])
    np.testing.assert_array_equal(rows.turns, [[0, 0, 0, 0, 9, 9, 0, 5, 0, 0, 0, 0, 6, 0, 0, 0]])
    split = packing.pack_rows(parts, row_length=7, share=True)  # no row holds the 8 tokens of the first two
    np.testing.assert_array_equal(split.tokens, [[1, 2, 3, 7, 8, 9, 0], [1, 2, 3, 7, 5, 0, 0], [1, 2, 3, 7, 6, 0, 0]])
    assert not split.prefix_ids.any()


@settings(max_examples=50, deadline=None)
@given(
    groups=st.lists(
        st.tuples(st.integers(0, 12), st.lists(st.integers(2, 20), min_size=1, max_size=5)), min_size=1, max_size=6
    ),
    row_length=st.sampled_from([16, 32, 64]),
)
def test_packing_with_shared_prefixes_keeps_every_stream(groups, row_length):
    numbers, parts = iter(range(1, 1000)), []
    for group, (shared, sizes) in enumerate(groups):
        common = [next(numbers) for _ in range(shared)]
        parts += [begun(common, [next(numbers) for _ in range(size)], group) for size in sizes]
    rows = packing.pack_rows(parts, row_length=row_length, rows=len(parts), share=True)
    found = []
    for row in range(len(parts)):
        segments, prefixes = rows.segment_ids[row], rows.prefix_ids[row]
        assert np.all(np.diff(segments[segments > 0]) >= 0)
        for segment in set(segments[segments > 0]) - set(prefixes):
            (prefix,) = set(prefixes[segments == segment])
            place = np.flatnonzero((segments == segment) | ((segments == prefix) & (prefix > 0)))
            np.testing.assert_array_equal(rows.positions[row, place], np.arange(len(place)))
            fields = rows.tokens, rows.mask, rows.sampled_logprobs, rows.turns
            found.append([x[row, place].tolist() for x in fields])
        for prefix in set(prefixes[prefixes > 0]):
            assert len(set(segments[prefixes == prefix])) > 1, "a prefix of one stream is not shared"
    assert sorted(found) == sorted([x.tolist() for x in part[:4]] for part in parts)
    assert np.all(np.diff(np.any(rows.segment_ids, axis=1).astype(int)) <= 0), "rows in use come first"
    apart = packing.pack_rows(parts, row_length=row_length)
    assert np.sum(rows.segment_ids > 0) <= np.sum(apart.segment_ids > 0)


def test_what_predicts_a_sampled_token_is_never_shared_and_nothing_is_a_row_of_padding():
    streams = [packing.make_stream(dialogue(turn([5], [id])), first_turn=0, group=0) for id in (7, 8)]
    packed = packing.pack_rows(streams, row_length=4, share=True)
    np.testing.assert_array_equal(packed.tokens, [[5, 7, 5, 8]])
    np.testing.assert_array_equal(packed.prefix_ids, [[0, 0, 0, 0]])
    nothing = packing.pack_rows([], row_length=4)
    assert nothing.tokens.shape == (1, 4) and not nothing.segment_ids.any()


def test_rows_in_use_come_first():
    parts = [packing.Stream(np.ones(8, np.int32), np.ones(8, bool), np.zeros(8, np.float32), np.zeros(8, np.int32))] * 5
    rows = packing.pack_rows(parts, row_length=8, rows=8)
    np.testing.assert_array_equal(rows.segment_ids[:, 0], [1, 1, 1, 1, 1, 0, 0, 0])


def test_too_few_rows_is_an_error():
    parts = [packing.Stream(np.ones(8, np.int32), np.ones(8, bool), np.zeros(8, np.float32), np.zeros(8, np.int32))] * 3
    with pytest.raises(ValueError, match="at most 2 rows, got 3"):
        packing.pack_rows(parts, row_length=8, rows=2)
