"""The device's side of the sampling engine: streams of tokens in the slots of one KV cache.

Shapes do not depend on which streams are served: `extend` takes R rows of W tokens, `decode` all S slots, and no row's
result depends on the others. Only the room of a slot grows, by doubling, as streams need it. With `Sampling.fit`, both
take fewer rows where fewer are in use.

Legend: S slots, R rows of one `extend` call, W tokens of each, C room of a slot, N steps of one `decode` call.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from models import cache, qwen2
from rollouts.engine import sampling as device
from rollouts.engine.grammar import Grammar
from rollouts.engine.sampling import Drawn, Sampling, TurnOptions, Turns

SMALLEST = 512
"""Tokens that a slot has room for at first."""
_UNIT = 64  # moves take this many tokens, or twice as many, and so on: few shapes, few compilations

_take = jax.jit(cache.take_tokens, static_argnums=2)
_put = jax.jit(cache.put_tokens, donate_argnums=0)
_grow = jax.jit(cache.grow_slots, static_argnums=1)


@functools.partial(jax.jit, donate_argnums=0, static_argnums=3)
def _copy_prefix(kv: cache.KVCache, slot: jax.Array, donor: jax.Array, size: int) -> cache.KVCache:
    """Copies the first `size` tokens of `donor` to `slot`; of two programs, one would read what the next takes over."""
    return cache.put_tokens(kv, slot, *cache.take_tokens(kv, donor, size))


@dataclasses.dataclass
class Counts:
    """Tokens since the weights came. If nothing was lost, computed + copied = streamed once all is read."""

    streamed: int = 0  # in all streams, prompts and replies
    computed: int = 0  # that went through the model
    copied: int = 0  # whose keys and values were copied from another stream
    parked: int = 0  # whose keys and values were moved to the host, to make room


@dataclasses.dataclass(eq=False)
class SlotStream:
    """Tokens `ids[:length]`; the keys and values of `ids[:computed]` lie in `slot`, or are `parked`."""

    ids: np.ndarray  # [capacity] int32
    length: int = 0
    computed: int = 0
    slot: int | None = None
    parked: tuple[np.ndarray, np.ndarray] | None = None  # what `cache.take_tokens` gave

    @property
    def unread(self) -> int:
        """Tokens that have not gone through the model yet."""
        return self.length - self.computed

    def append(self, ids: np.ndarray) -> None:
        """Adds tokens at the end."""
        self.ids[self.length : self.length + len(ids)] = ids
        self.length += len(ids)

    def cut(self, length: int) -> None:
        """Takes the end off, so that `length` tokens are left."""
        self.length, self.computed = length, min(self.computed, length)


class Drawing(NamedTuple):
    """A turn that goes on in a slot."""

    seed: int
    place: int  # tokens that it has already
    options: TurnOptions
    mask: np.ndarray | None = None  # [V] bool, what may be drawn next; None: anything


class Slots:
    """Keys, values and logits of S slots. Not for several threads at a time.

    Attributes:
      counts: what was done since the last `load`.
      streams: [S], the stream whose keys and values lie in each slot; an ended one's stay until they are overwritten.
    """

    def __init__(
        self,
        config: qwen2.Qwen2Config,
        stop_id: int,
        sampling: Sampling,
        *,
        sharding: jax.sharding.Sharding | None,
        grammar: Grammar | None,
    ):
        self._config, self._stop_id, self._sampling, self._sharding = config, stop_id, sampling, sharding
        self._grammar, self._tables = grammar, jax.tree.map(jnp.asarray, grammar)
        self._params: qwen2.Params | None = None
        self.counts = Counts()
        self._allocate_cache()

    def _allocate_cache(self) -> None:
        slots, room = self._sampling.slots, min(SMALLEST, self._sampling.capacity)
        self._kv = cache.init(self._config, slots, room, sharding=self._sharding)
        self._logits = jnp.zeros((slots, self._config.vocab_size), jnp.float32)
        self.streams: list[SlotStream | None] = [None] * slots

    def load(self, params: qwen2.Params) -> None:
        """Takes new weights; forgets what was computed under others."""
        self._params, self.counts = params, Counts()
        self.streams = [None] * len(self.streams)

    def reset(self, streams: Sequence[SlotStream]) -> None:
        """Starts anew after a fault; `streams`, all that are open, will be computed again."""
        self._allocate_cache()
        for stream in streams:
            stream.slot, stream.parked, stream.computed = None, None, 0

    def seat_stream(self, stream: SlotStream, slot: int, *, donor: SlotStream | None = None, shared: int = 0) -> None:
        """Gives `slot` to a stream that has none, with its parked tokens or the first `shared` tokens of `donor`.

        The stream that was in the slot must have been parked, or have ended.
        """
        if stream.parked:
            self._make_room(stream.computed)
            self._kv, stream.parked = _put(self._kv, np.int32(slot), *stream.parked), None
        elif donor:
            if donor.slot != slot:
                self._kv = _copy_prefix(self._kv, np.int32(slot), np.int32(donor.slot), self._round_size(shared))
            stream.computed = shared
            self.counts.copied += shared
        if before := self.streams[slot]:
            before.slot = None
        self.streams[slot], stream.slot = stream, slot

    def park_stream(self, stream: SlotStream) -> None:
        """Moves a stream's keys and values to the host."""
        stream.parked = jax.device_get(_take(self._kv, np.int32(stream.slot), self._round_size(stream.computed)))
        self.counts.parked += stream.computed

    def extend(self, streams: Sequence[SlotStream]) -> None:
        """Reads a chunk of each stream, which must have a slot and unread tokens; of as many as fit into a call."""
        count, width = self._sampling.rows or self._sampling.slots, self._sampling.chunk
        count = self._fit_rows(len(streams), count)
        aligned = count == self._sampling.slots  # then row r is slot r, and the cache is read where it lies
        rows = {stream.slot if aligned else row: stream for row, stream in enumerate(streams[:count])}
        tokens = np.zeros((count, width), np.int32)
        counts, slots = np.zeros(count, np.int32), np.zeros(count, np.int32)
        for row, stream in rows.items():
            counts[row], slots[row] = min(width, stream.unread), stream.slot
            tokens[row, : counts[row]] = stream.ids[stream.computed : stream.computed + counts[row]]
        self._make_room(max(stream.computed for stream in rows.values()) + width)
        self._kv = self._kv._replace(lengths=self._list_lengths())
        self._logits, self._kv = device.extend(
            self._config, self._params, self._kv, self._logits, tokens, counts, None if aligned else slots
        )
        for row, stream in rows.items():
            stream.computed += int(counts[row])
        self.counts.computed += int(counts.sum())

    def decode(self, drawings: Mapping[int, Drawing]) -> Drawn:
        """Draws up to N tokens in slots whose streams are read, and appends them; arrays [S, ...] of NumPy.

        Where one of them has a mask, it is one token for all.
        """
        sampling = self._sampling
        count = self._fit_rows(len(drawings), sampling.slots)
        whole = count == sampling.slots
        rows = {slot: slot if whole else row for row, slot in enumerate(drawings)}
        slots = None if whole else np.array([*drawings, *[sampling.slots] * (count - len(drawings))], np.int32)
        masked = {slot: drawing.mask for slot, drawing in drawings.items() if drawing.mask is not None}
        masks = np.ones((count, self._config.vocab_size), bool) if masked else None
        for slot, mask in masked.items():
            masks[rows[slot]] = mask
        self._make_room(max(self.streams[slot].length for slot in drawings) + sampling.steps)
        drawn, self._logits, self._kv = device.decode(
            self._config,
            self._params,
            self._kv._replace(lengths=self._list_lengths()),
            self._logits,
            self._lay_out_turns(drawings, rows, count),
            self._tables,
            masks,
            np.int32(1 if masked else sampling.steps),
            slots,
            stop_id=self._stop_id,
            size=sampling.steps,
            capacity=sampling.capacity,
            plain=not (masked or self._grammar) and all(drawing.options.plain for drawing in drawings.values()),
        )
        drawn = self._place_rows(jax.device_get(drawn), rows)
        for slot in drawings:
            stream = self.streams[slot]
            stream.append(drawn.ids[slot, : drawn.counts[slot]])
            stream.computed = stream.length
        self.counts.computed += int(drawn.counts.sum())
        self.counts.streamed += int(drawn.counts.sum())
        return drawn

    def list_batches(self) -> list[int]:
        """Lists the numbers of rows that a call may take."""
        return sorted({self._fit_rows(needed, self._sampling.slots) for needed in range(1, self._sampling.slots + 1)})

    def _fit_rows(self, needed: int, most: int) -> int:
        """Returns how many rows a call takes for those that are `needed`: `most` of them, or fewer with `fit`."""
        rows = 1
        while self._sampling.fit and rows < min(needed, most):
            rows *= 4
        return min(rows, most) if self._sampling.fit else most

    def _place_rows(self, drawn: Drawn, rows: Mapping[int, int]) -> Drawn:
        """Returns what was drawn in `rows` by slot, [S, ...]; nothing in all other slots."""
        slots = self._sampling.slots

        def place(values: np.ndarray) -> np.ndarray:
            placed = np.zeros((slots, *values.shape[1:]), values.dtype)
            placed[list(rows)] = values[list(rows.values())]
            return placed

        return Drawn(*map(place, drawn))

    def _lay_out_turns(self, drawings: Mapping[int, Drawing], rows: Mapping[int, int], count: int) -> Turns:
        """Lays out the turns in the `rows` that their slots have, of so many."""

        def place(values: Mapping[int, float], dtype: type, empty: float = 0) -> np.ndarray:
            placed = np.full(count, empty, dtype)
            placed[[rows[slot] for slot in values]] = list(values.values())
            return placed

        def place_option(name: str, dtype: type, empty: float) -> np.ndarray:
            return place({slot: getattr(drawing.options, name) for slot, drawing in drawings.items()}, dtype, empty)

        states = {}
        for slot, drawing in drawings.items() if self._grammar else ():
            stream = self.streams[slot]
            states[slot] = self._grammar.state_after(0, stream.ids[stream.length - drawing.place : stream.length])
        return Turns(
            seeds=place({slot: drawing.seed for slot, drawing in drawings.items()}, np.uint32),
            places=place({slot: drawing.place for slot, drawing in drawings.items()}, np.int32),
            active=place(dict.fromkeys(drawings, True), bool),
            states=place(states, np.int32),
            limits=place_option("max_new_tokens", np.int32, 1),
            temperature=place_option("temperature", np.float32, 1),
            top_k=place_option("top_k", np.int32, 0),
            top_p=place_option("top_p", np.float32, 1),
        )

    def _list_lengths(self) -> jax.Array:
        return jnp.array([stream.computed if stream else 0 for stream in self.streams], jnp.int32)

    def _round_size(self, size: int) -> int:
        rounded = _UNIT
        while rounded < size:
            rounded *= 2
        return min(rounded, cache.room(self._kv))

    def _make_room(self, size: int) -> None:
        before = room = cache.room(self._kv)
        while room < min(size, self._sampling.capacity):
            room = min(2 * room, self._sampling.capacity)
        if room > before:
            logging.info("sampling engine: %d slots of %d tokens", self._sampling.slots, room)
            self._kv = _grow(self._kv, room)
