"""The sampling engine: any number of sessions over a fixed number of slots of one KV cache.

A session is an append-only stream of tokens, each of which goes through the model once:

- a session keeps its slot between turns, so a turn costs its new tokens only. When there are more sessions than slots,
  one that waits for its user makes room: its keys and values are parked in the host's memory and put back when it
  goes on;
- a beginning that a new stream shares with one that still lies in a slot (the prompt of its group, or the part that
  all prompts share) is copied, not computed; of several streams that come at once, the first computes it and the others
  wait;
- batches are continuous: every `Sampling.steps` tokens, sessions that are done leave and sessions that are ready join.
  Nobody waits for a session that waits for its user. Device work runs on a thread of its own, beside the event loop.

Transcripts do not depend on any of this: see `rollouts.engine.slots`, and randomness is folded from a turn's seed.
"""

import asyncio
import concurrent.futures
import contextlib
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import jax
import numpy as np

from models import qwen2
from rollouts.engine.grammar import Grammar
from rollouts.engine.sampling import Sampling, TurnOptions
from rollouts.engine.slots import Counts, Drawing, Slots, SlotStream


class Sampled(NamedTuple):
    """The tokens of one turn, exactly as drawn."""

    ids: np.ndarray  # [T] int32, the stop token included where it was reached
    logprobs: np.ndarray  # [T] float32, under the distribution drawn from: tempered, cut to top-k and top-p
    model_logprobs: np.ndarray  # [T] float32, under the model's own: neither tempered nor cut
    stop: str  # end_of_turn | length | context | cut


class TokenMask(Protocol):
    """What a turn may write, token by token."""

    def allowed(self) -> np.ndarray:
        """Returns the tokens that may be drawn next, [V] bool; the stop token is among them where the turn may end."""

    def accept(self, token: int) -> None:
        """Takes the token that was drawn."""


Watch = Callable[[Sampled], int | None]
"""Is shown what a turn has so far, whenever that is more; returns how many tokens are kept if it ends here."""


class _Turn(NamedTuple):
    stream: SlotStream
    seed: int
    future: asyncio.Future
    parts: list[tuple[np.ndarray, ...]]  # ids and both log-probabilities, call by call
    options: TurnOptions
    constraint: TokenMask | None
    watch: Watch | None

    @property
    def length(self) -> int:
        return sum(len(ids) for ids, *_ in self.parts)

    def collect(self, stop: str) -> Sampled:
        """Puts the parts together."""
        return Sampled(*(np.concatenate(parts) for parts in zip(*self.parts, strict=True)), stop)


class _Move(NamedTuple):
    """A stream takes a seat; see `Slots.seat_stream`."""

    stream: SlotStream
    slot: int
    guest: SlotStream | None  # to be parked first
    donor: SlotStream | None
    shared: int


class Engine:
    """Samples for many sessions at once; use as an async context manager around a batch of dialogues.

    `kv_sharding` says where keys and values [L, N, S, K, …] live; None: on one device. With a `grammar`, only what it
    allows is written. `turn_taking` is held while programs are put on the devices: a lock, if other threads do so too.
    """

    def __init__(
        self,
        config: qwen2.Qwen2Config,
        stop_id: int,
        sampling: Sampling,
        *,
        kv_sharding: jax.sharding.Sharding | None = None,
        grammar: Grammar | None = None,
        turn_taking: contextlib.AbstractContextManager | None = None,
    ):
        if not 0 <= stop_id < config.vocab_size:
            raise ValueError(f"the stop token {stop_id} is not in the vocabulary of {config.vocab_size}")
        if sampling.capacity > config.max_positions:
            raise ValueError(f"capacity {sampling.capacity} exceeds the model's max_positions {config.max_positions}")
        self.sampling, self.vocab_size, self._stop_id = sampling, config.vocab_size, stop_id
        self._slots = Slots(config, stop_id, sampling, sharding=kv_sharding, grammar=grammar)
        self._turn_taking = turn_taking or contextlib.nullcontext()
        self.version: int | None = None
        self._open: set[SlotStream] = set()
        self._pending: list[_Turn] = []  # in the order they came
        self._running: dict[int, _Turn] = {}  # by slot
        self._given = [0] * sampling.slots  # when each slot was last given out
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="engine")

    @property
    def counts(self) -> Counts:
        """What was computed, copied and moved since the last `load`."""
        return self._slots.counts

    @property
    def open_sessions(self) -> int:
        """Sessions that were opened and not closed."""
        return len(self._open)

    def list_batches(self) -> list[int]:
        """Lists how many turns at a time each have a program of their own."""
        return self._slots.list_batches()

    def load(self, params: qwen2.Params, *, version: int = 0) -> None:
        """Takes new weights; `version` tells them apart from those before.

        Raises RuntimeError while sessions are open: no session may go on under other weights.
        """
        if self._open:
            raise RuntimeError(f"{len(self._open)} sessions are open: close them before new weights")
        self._slots.load(params)
        self.version = version

    async def __aenter__(self) -> "Engine":
        if self.version is None:
            raise RuntimeError("the engine has no weights: call load first")
        self._arrived = asyncio.Event()
        self._worker = asyncio.create_task(self._serve_rounds())
        return self

    async def __aexit__(self, *_):
        self._worker.cancel()
        await asyncio.gather(self._worker, return_exceptions=True)
        self._pending, self._running = [], {}

    def open(self, version: int | None = None) -> "EngineSession":
        """Opens a session; it gets a slot when it first generates.

        Raises RuntimeError if the weights are not those of `version`; None takes any.
        """
        if version not in (None, self.version):
            raise RuntimeError(f"the engine has weights of version {self.version}, expected {version}: call load first")
        stream = SlotStream(np.zeros(self.sampling.capacity, np.int32))
        self._open.add(stream)
        return EngineSession(self, stream)

    async def _sample_turn(self, stream: SlotStream, ids: np.ndarray, seed: int, *choices) -> Sampled:
        stream.append(ids)
        self._slots.counts.streamed += len(ids)
        turn = _Turn(stream, seed, asyncio.get_running_loop().create_future(), [], *choices)
        self._pending.append(turn)
        self._arrived.set()
        return await turn.future

    async def _serve_rounds(self) -> None:
        """Runs rounds until it is cancelled; waits while there is nothing to do."""
        while True:
            if not self._running:
                await self._arrived.wait()
                await self._await_newcomers()
            self._arrived.clear()
            self._drop_abandoned()
            moves, crowded = self._admit_turns()
            if not self._running:
                continue
            round_ = asyncio.get_running_loop().run_in_executor(self._thread, self._run_round, moves, crowded)
            try:
                ended = await asyncio.shield(round_)
            except asyncio.CancelledError:
                await asyncio.wait([round_])  # the thread must not go on when the next one enters
                raise
            except Exception as error:  # pass it to the waiting callers, or they wait for ever
                ended = dict.fromkeys(self._running, error)
                self._slots.reset(list(self._open))
            for slot, result in (ended | self._cut_watched(ended)).items():
                future = self._running.pop(slot).future
                if not future.done():
                    (future.set_exception if isinstance(result, Exception) else future.set_result)(result)
            if self._pending:
                self._arrived.set()

    async def _await_newcomers(self) -> None:
        """Waits, before a batch begins, until no session has come for a while, or none is left that could come."""
        waiting = -1
        while waiting < len(self._pending) < min(len(self._open), self.sampling.slots):
            waiting = len(self._pending)
            await asyncio.sleep(self.sampling.window)

    def _drop_abandoned(self) -> None:
        """Drops turns that nobody waits for any more."""
        self._pending = [turn for turn in self._pending if not turn.future.done()]
        self._running = {slot: turn for slot, turn in self._running.items() if not turn.future.done()}

    def _cut_watched(self, ended: Mapping[int, Sampled | Exception]) -> dict[int, Sampled | Exception]:
        """Shows watched turns what they have, and ends those whose watch says so; returns these, by slot."""
        cut = {}
        for slot, turn in self._running.items():
            so_far = ended.get(slot) or (turn.collect("") if turn.watch and turn.parts else None)
            if turn.watch is None or not isinstance(so_far, Sampled) or turn.future.done():
                continue
            try:
                kept = turn.watch(so_far)
            except Exception as error:
                cut[slot] = error
                continue
            if kept is not None:
                turn.stream.cut(turn.stream.length - len(so_far.ids) + kept)
                cut[slot] = Sampled(*(part[:kept] for part in so_far[:3]), "cut")
        return cut

    # Which stream goes on in which slot; runs on the event loop while the thread is idle.

    def _admit_turns(self) -> tuple[list[_Move], bool]:
        """Lets waiting turns run, as far as there are slots.

        Returns the moves that this takes, in order, and whether a turn waits for the beginning of its stream, because
        another stream is about to compute it.
        """
        moves, waiting, crowded = [], [], False
        seated: dict[int, SlotStream] = dict(enumerate(self._slots.streams))  # who is where after `moves`
        for turn in self._pending:
            stream = turn.stream
            slot = stream.slot if seated.get(stream.slot) is stream else None
            if slot is None:
                donor, shared, more = self._find_donor(stream, seated)
                crowded |= more
                slot = None if more else self._choose_slot(stream, donor, seated)
                if slot is None:
                    waiting.append(turn)
                    continue
                guest = seated[slot] if seated[slot] in self._open else None
                moves.append(_Move(stream, slot, guest, donor, shared))
                seated[slot] = stream
                self._given[slot] = max(self._given) + 1
            self._running[slot] = turn
        self._pending = waiting
        return moves, crowded

    def _find_donor(self, stream: SlotStream, seated: dict[int, SlotStream]) -> tuple[SlotStream | None, int, bool]:
        """Returns whose beginning to copy, how many tokens of it, and whether to wait for another to compute more."""
        if stream.computed:
            return None, 0, False
        # Whole chunks only: where a chunk begins must not depend on who came first. One token is left to be read.
        chunk = self.sampling.chunk
        most = (stream.length - 1) // chunk
        donor, ready, coming = None, 0, 0
        for slot, other in seated.items():
            if other is None:
                continue
            chunks = min(most, _count_common(stream.ids[: stream.length], other.ids[: other.length]) // chunk)
            computed = min(chunks, other.computed // chunk) if other.slot == slot else 0
            if computed > ready or (computed == ready > 0 and other not in self._open):
                donor, ready = other, computed
            if slot in self._running:
                coming = max(coming, chunks)
        return donor, ready * chunk, coming > ready

    def _choose_slot(self, stream: SlotStream, donor: SlotStream | None, seated: dict[int, SlotStream]) -> int | None:
        """Returns the slot for a stream: its donor's if that has ended, else an ended stream's, else an idle one's."""
        if donor and donor not in self._open:
            return donor.slot
        busy = {id(turn.stream) for turn in (*self._running.values(), *self._pending)} | {id(donor)}
        ended = [slot for slot, other in seated.items() if other not in self._open and slot not in self._running]
        idle = [slot for slot, other in seated.items() if id(other) not in busy and slot not in self._running]
        return min(ended or idle, key=lambda slot: self._given[slot], default=None)

    # The device's work; runs on the engine's thread.

    def _run_round(self, moves: list[_Move], crowded: bool) -> dict[int, Sampled | Exception]:
        """Moves streams, reads unread tokens and, unless turns should join first (`crowded`), draws.

        Returns the samples of turns that are over, by slot, and the errors of constraints that failed.
        """
        with self._turn_taking:
            for move in moves:
                if move.guest:
                    self._slots.park_stream(move.guest)
                self._slots.seat_stream(move.stream, move.slot, donor=move.donor, shared=move.shared)
            while unread := [turn.stream for turn in self._running.values() if turn.stream.unread]:
                self._slots.extend(unread)
            if crowded:
                return {}
            drawings, failed = self._prepare_drawings()
            if not drawings:
                return failed
            drawn = self._slots.decode(drawings)
        for slot in drawings:
            turn = self._running[slot]
            part = tuple(part[slot, : drawn.counts[slot]] for part in drawn[:3])
            turn.parts.append(part)
            try:
                for token in part[0] if turn.constraint else ():
                    turn.constraint.accept(int(token))
            except Exception as error:
                failed[slot] = error
        ended = {slot: self._running[slot] for slot in drawings if not drawn.active[slot]}
        return {slot: turn.collect(self._name_stop(turn)) for slot, turn in ended.items()} | failed

    def _prepare_drawings(self) -> tuple[dict[int, Drawing], dict[int, Exception]]:
        """Asks constraints what may be drawn; returns what is drawn, and the errors of constraints that failed."""
        drawings, failed = {}, {}
        for slot, turn in self._running.items():
            try:
                mask = turn.constraint and turn.constraint.allowed()
            except Exception as error:  # of this turn alone
                failed[slot] = error
            else:
                drawings[slot] = Drawing(turn.seed, turn.length, turn.options, mask)
        return drawings, failed

    def _name_stop(self, turn: _Turn) -> str:
        if turn.parts[-1][0][-1] == self._stop_id:
            return "end_of_turn"
        return "length" if turn.length == turn.options.max_new_tokens else "context"


class EngineSession:
    """A dialogue in the engine: one append-only stream of tokens."""

    def __init__(self, engine: Engine, stream: SlotStream):
        self._engine, self._stream = engine, stream

    @property
    def room(self) -> int:
        """Tokens that still fit."""
        return self._engine.sampling.capacity - self._stream.length

    @property
    def ids(self) -> np.ndarray:
        """The stream, [T] int32; not to be written to."""
        return self._stream.ids[: self._stream.length]

    async def generate(
        self,
        ids: np.ndarray,
        seed: int,
        *,
        options: TurnOptions | None = None,
        constraint: TokenMask | None = None,
        watch: Watch | None = None,
    ) -> Sampled:
        """Appends `ids` ([I] int32, at least one, fewer than `room`) to the stream and samples a turn after them.

        Args:
          ids: what others wrote.
          seed: of the turn.
          options: how it is drawn; None: as the engine's `Sampling` says.
          constraint: what it may write, token by token; it is used up.
          watch: looks at the turn while it is drawn, and may end it. What it does not keep leaves the stream.

        Raises:
          ValueError: for an empty prompt or one that leaves no room for a token.
        """
        if not 0 < len(ids) < self.room:
            raise ValueError(f"expected 1 to {self.room - 1} tokens to go on from, got {len(ids)}")
        chosen = options or self._engine.sampling
        return await self._engine._sample_turn(self._stream, np.asarray(ids, np.int32), seed, chosen, constraint, watch)

    def rewind(self, length: int) -> None:
        """Takes tokens off the end of the stream, so that `length` are left."""
        self._stream.cut(length)

    def close(self) -> None:
        """Ends the stream; its slot goes to another when needed."""
        self._engine._open.discard(self._stream)


def _count_common(ids: np.ndarray, other: np.ndarray) -> int:
    """Counts the tokens that two streams have in common at their beginning."""
    size = min(len(ids), len(other))
    differ = np.flatnonzero(ids[:size] != other[:size])
    return int(differ[0]) if len(differ) else size
