"""Turns dialogues into arrays: the streams exactly as they were sampled, packed into rows.

Legend: R rows, T tokens of a row, B groups (tasks), G dialogues of a group, N turns, C costs.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from cmpo.algorithms.algorithm import Rewards, Rows
from rollouts.types import Dialogue, TokenNotes, Turn


class Stream(NamedTuple):
    """One dialogue's tokens before packing; arrays [T]."""

    tokens: np.ndarray
    mask: np.ndarray
    logprobs: np.ndarray
    turns: np.ndarray
    group: int = 0  # streams of one group may share their beginning


def make_stream(dialogue: Dialogue, first_turn: int, group: int) -> Stream:
    """Joins incoming and sampled tokens, turn by turn; `first_turn` is the index of the dialogue's turn 0."""
    tokens, mask, logprobs, turns = [], [], [], []
    for number, turn in enumerate(dialogue.turns):
        before, after = len(turn.incoming_ids), len(turn.ids)
        tokens += [turn.incoming_ids, turn.ids]
        mask += [np.zeros(before, bool), np.ones(after, bool)]
        logprobs += [np.zeros(before, np.float32), turn.logprobs]
        turns += [np.zeros(before, np.int32), np.full(after, first_turn + number, np.int32)]
    return Stream(*map(np.concatenate, (tokens, mask, logprobs, turns)), group)


def collect_rewards(dialogues: Sequence[Dialogue], group_size: int, max_turns: int, costs: int) -> Rewards:
    """Collects the rewards of len(dialogues) = B * G dialogues, group by group; N = max_turns, C = costs."""
    count = len(dialogues)
    outcome, process = np.zeros(count, np.float32), np.zeros((count, max_turns), np.float32)
    cost, valid = np.zeros((count, max_turns, costs), np.float32), np.zeros((count, max_turns), bool)
    for row, dialogue in enumerate(dialogues):
        if dialogue.ok:
            outcome[row] = dialogue.outcome
            for column, turn in enumerate(dialogue.turns):
                process[row, column], cost[row, column] = turn.process_reward, turn.cost
                valid[row, column] = True

    def split_groups(x):
        return x.reshape(count // group_size, group_size, *x.shape[1:])

    return Rewards(
        outcome=split_groups(outcome),
        process=split_groups(process),
        cost=split_groups(cost),
        turn_mask=split_groups(valid),
    )


def note_credit(dialogues: Sequence[Dialogue], credit: np.ndarray) -> list[Dialogue]:
    """Notes in the turns of dialogues what each was worth, [B, G, N]; nothing in dialogues that failed."""
    found = []
    for dialogue, of_turns in zip(dialogues, credit.reshape(len(dialogues), -1).tolist(), strict=True):
        turns = dialogue.turns
        if dialogue.ok:
            turns = tuple(dataclasses.replace(turn, credit=of_turns[number]) for number, turn in enumerate(turns))
        found.append(dataclasses.replace(dialogue, turns=turns))
    return found


def make_streams(dialogues: Sequence[Dialogue], group_size: int, max_turns: int) -> list[Stream]:
    """Makes the streams of all usable dialogues, group by group, with turns numbered as in `collect_rewards`."""
    return [
        make_stream(dialogue, row * max_turns, row // group_size)
        for row, dialogue in enumerate(dialogues)
        if dialogue.ok and dialogue.turns
    ]


def spread_over_tokens(credit: np.ndarray, rows: Rows) -> np.ndarray:
    """Gives each token the credit [B, G, N] of its turn: [R, T] float32, 0 outside the mask."""
    return np.where(rows.mask, credit.reshape(-1)[rows.turns], 0).astype(np.float32)


def split_by_turns(rows: Rows, *values: np.ndarray) -> dict[int, list[np.ndarray]]:
    """Splits values of tokens, each of the shape of `rows`, by turn: number in [B * G * N] -> an array [T] of each."""
    turns = rows.turns[rows.mask]  # a turn is in one row, in its order
    order = np.argsort(turns, kind="stable")
    numbers, begins = np.unique(turns[order], return_index=True)
    split = [np.split(of_token[rows.mask][order], begins[1:]) for of_token in values]
    return {int(number): list(found) for number, *found in zip(numbers, *split, strict=True)}


def note_tokens(
    dialogues: Sequence[Dialogue],
    spell: Callable[[np.ndarray], Sequence[str]],
    learnt: Mapping[int, tuple[np.ndarray, np.ndarray]],
    max_turns: int,
) -> list[Dialogue]:
    """Notes the tokens of turns for transcripts.

    Args:
      dialogues: of a batch, B * G.
      spell: returns the texts of token ids.
      learnt: of a turn, by its number in [B * G * N], its tokens' log-probabilities after the update and advantages, T
        each. Turns that are not in it have only their tokens' texts.
      max_turns: N.
    """
    found = []
    for row, dialogue in enumerate(dialogues):
        turns = [
            dataclasses.replace(turn, token_notes=_describe_tokens(turn, spell, learnt.get(row * max_turns + number)))
            for number, turn in enumerate(dialogue.turns)
        ]
        found.append(dataclasses.replace(dialogue, turns=tuple(turns)))
    return found


def _describe_tokens(
    turn: Turn, spell: Callable[[np.ndarray], Sequence[str]], learnt: tuple[np.ndarray, np.ndarray] | None
) -> TokenNotes:
    if learnt is None:
        return TokenNotes(spell(turn.ids))
    after, advantages = learnt
    alike = turn.credit is not None and np.allclose(advantages, turn.credit, rtol=1e-4, atol=1e-6)
    return TokenNotes(spell(turn.ids), np.exp(after - turn.logprobs), None if alike else advantages)


def divide_streams(parts: Sequence[Stream], count: int) -> list[Sequence[Stream]]:
    """Cuts streams into `count` consecutive parts, whose lengths differ by at most one; a cut may divide a group."""
    cuts = [len(parts) * number // count for number in range(count + 1)]
    return [parts[begin:end] for begin, end in itertools.pairwise(cuts)]


def pack_rows(parts: Sequence[Stream], *, row_length: int, rows: int | None = None, share: bool = False) -> Rows:
    """Packs streams into rows, longest first, each into the first row with room.

    With `share`, the common beginning of a group's streams is written once, as a segment of its own, and the streams'
    segments name it as their prefix. If a row does not hold the whole group, the group is packed in several bundles,
    each with a prefix of its own.

    Args:
      parts: the streams to pack.
      row_length: T, doubled until the longest stream fits.
      rows: R of the result; default: as many as are needed. Unused rows hold only padding, and come last.
      share: whether to share prefixes. Loss and gradients are the same up to rounding, with fewer tokens.

    Raises:
      ValueError: if more than `rows` rows are needed.
    """
    longest = max((len(part.tokens) for part in parts), default=0)
    while row_length < longest:
        row_length *= 2
    bins: list[list[list[Stream]]] = []
    room: list[int] = []
    bundles = _bundle_streams(parts, row_length) if share else [[part] for part in parts]
    for bundle in sorted(bundles, key=lambda bundle: -_count_tokens(bundle)):
        size = _count_tokens(bundle)
        place = next((place for place, free in enumerate(room) if free >= size), len(bins))
        if place == len(bins):
            bins.append([])
            room.append(row_length)
        bins[place].append(bundle)
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
        prefix_ids=np.zeros(shape, np.int32) if share else None,
    )
    for row, members in enumerate(bins):
        start = segment = 0
        for bundle in members:
            common, prefix = _count_common_tokens(bundle), segment + 1
            pieces = [(part, slice(common, len(part.tokens))) for part in bundle]
            for part, cut in [(bundle[0], slice(0, common)), *pieces] if common else pieces:
                segment += 1
                place = (row, slice(start, start + cut.stop - cut.start))
                packed.tokens[place], packed.mask[place] = part.tokens[cut], part.mask[cut]
                packed.sampled_logprobs[place], packed.turns[place] = part.logprobs[cut], part.turns[cut]
                packed.positions[place], packed.segment_ids[place] = np.arange(cut.start, cut.stop), segment
                if cut.start:
                    packed.prefix_ids[place] = prefix
                start = place[1].stop
    return packed


def _bundle_streams(parts: Sequence[Stream], row_length: int) -> list[list[Stream]]:
    """Bundles the streams of each group, as many in a bundle as a row holds."""
    groups: dict[int, list[list[Stream]]] = {}
    for part in sorted(parts, key=lambda part: -len(part.tokens)):
        bundles = groups.setdefault(part.group, [])
        fitting = (bundle for bundle in bundles if _count_tokens([*bundle, part]) <= row_length)
        if (bundle := next(fitting, None)) is None:
            bundles.append(bundle := [])
        bundle.append(part)
    return [bundle for bundles in groups.values() for bundle in bundles]


def _count_tokens(bundle: Sequence[Stream]) -> int:
    """Counts the tokens of a row that a bundle takes."""
    return sum(len(part.tokens) for part in bundle) - (len(bundle) - 1) * _count_common_tokens(bundle)


def _count_common_tokens(bundle: Sequence[Stream]) -> int:
    """Counts the tokens that all streams begin with, before the token that predicts the first sampled one of any."""
    if len(bundle) == 1:
        return 0
    end = max(0, min(int(part.mask.argmax()) for part in bundle) - 1)
    alike = np.all([part.tokens[:end] == bundle[0].tokens[:end] for part in bundle], axis=0)
    return end if alike.all() else int(alike.argmin())
