"""Dialogues to arrays: the very streams that were sampled, packed into rows.

Legend: R rows, T tokens of a row, B groups (scenarios), G dialogues of a group, N turns, C costs.
"""

from collections.abc import Sequence
from typing import NamedTuple

import chex
import numpy as np

from rollouts.types import COSTS, Dialogue


@chex.dataclass(frozen=True)
class Rows:
    """Packed token streams. Several dialogues share a row; attention and positions keep them apart."""

    tokens: chex.Array  # [R, T] int32
    positions: chex.Array  # [R, T] int32, from 0 in each dialogue
    segment_ids: chex.Array  # [R, T] int32, 0 for padding
    mask: chex.Array  # [R, T] bool, tokens the agent wrote, its end-of-turn token included
    sampled_logprobs: chex.Array  # [R, T] float32, 0 outside the mask
    turns: chex.Array  # [R, T] int32, index of the token's turn in [B * G * N]; 0 outside the mask


@chex.dataclass(frozen=True)
class Rewards:
    """What the dialogues were worth, reward and cost apart. Failed dialogues have no valid turn."""

    outcome: chex.Array  # [B, G] float32
    process: chex.Array  # [B, G, N] float32
    cost: chex.Array  # [B, G, N, C] float32
    turn_mask: chex.Array  # [B, G, N] bool


class Stream(NamedTuple):
    """One dialogue's tokens before packing; arrays [T]."""

    tokens: np.ndarray
    mask: np.ndarray
    logprobs: np.ndarray
    turns: np.ndarray


def stream(dialogue: Dialogue, first_turn: int = 0) -> Stream:
    """Joins what came in and what was sampled, turn by turn; `first_turn` is the index of the dialogue's turn 0."""
    tokens, mask, logprobs, turns = [], [], [], []
    for number, turn in enumerate(dialogue.turns):
        before, after = len(turn.incoming_ids), len(turn.ids)
        tokens += [turn.incoming_ids, turn.ids]
        mask += [np.zeros(before, bool), np.ones(after, bool)]
        logprobs += [np.zeros(before, np.float32), turn.logprobs]
        turns += [np.zeros(before, np.int32), np.full(after, first_turn + number, np.int32)]
    return Stream(*map(np.concatenate, (tokens, mask, logprobs, turns)))


def rewards(dialogues: Sequence[Dialogue], group_size: int, max_turns: int) -> Rewards:
    """The rewards of len(dialogues) = B * G dialogues, group by group; N = max_turns."""
    count = len(dialogues)
    outcome, process = np.zeros(count, np.float32), np.zeros((count, max_turns), np.float32)
    cost, valid = np.zeros((count, max_turns, len(COSTS)), np.float32), np.zeros((count, max_turns), bool)
    for row, dialogue in enumerate(dialogues):
        if dialogue.ok:
            outcome[row] = dialogue.outcome
            for column, turn in enumerate(dialogue.turns):
                process[row, column], cost[row, column] = turn.process_reward, turn.cost
                valid[row, column] = True

    def grouped(x):
        return x.reshape(-1, group_size, *x.shape[1:])

    return Rewards(outcome=grouped(outcome), process=grouped(process), cost=grouped(cost), turn_mask=grouped(valid))


def streams(dialogues: Sequence[Dialogue], max_turns: int) -> list[Stream]:
    """The streams of all dialogues that may be learnt from, turns numbered as in `rewards`."""
    return [
        stream(dialogue, row * max_turns) for row, dialogue in enumerate(dialogues) if dialogue.ok and dialogue.turns
    ]


def pack(parts: Sequence[Stream], *, row_length: int, rows: int | None = None) -> Rows:
    """Packs streams into rows, longest first, each into the first row with room.

    Args:
      parts: what to pack.
      row_length: T, doubled until the longest stream fits.
      rows: R of the result; default: as many as are needed. Unused rows are all padding, and come last.

    Raises:
      ValueError: if more than `rows` rows are needed.
    """
    longest = max((len(part.tokens) for part in parts), default=0)
    while row_length < longest:
        row_length *= 2
    bins: list[list[Stream]] = []
    room: list[int] = []
    for part in sorted(parts, key=lambda part: -len(part.tokens)):
        size = len(part.tokens)
        place = next((place for place, free in enumerate(room) if free >= size), len(bins))
        if place == len(bins):
            bins.append([])
            room.append(row_length)
        bins[place].append(part)
        room[place] -= size
    if rows is not None and len(bins) > rows:
        raise ValueError(f"expected at most {rows} rows, got {len(bins)}")
    shape = (rows or max(1, len(bins)), row_length)
    packed = Rows(
        tokens=np.zeros(shape, np.int32),
        positions=np.zeros(shape, np.int32),
        segment_ids=np.zeros(shape, np.int32),
        mask=np.zeros(shape, bool),
        sampled_logprobs=np.zeros(shape, np.float32),
        turns=np.zeros(shape, np.int32),
    )
    for row, members in enumerate(bins):
        start = 0
        for segment, part in enumerate(members, start=1):
            place = (row, slice(start, start + len(part.tokens)))
            packed.tokens[place], packed.mask[place] = part.tokens, part.mask
            packed.sampled_logprobs[place], packed.turns[place] = part.logprobs, part.turns
            packed.positions[place], packed.segment_ids[place] = np.arange(len(part.tokens)), segment
            start += len(part.tokens)
    return packed
