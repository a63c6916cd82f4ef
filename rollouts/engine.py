"""The sampling engine: a fixed number of slots over one KV cache, batched over whatever sessions are ready.

A session keeps its slot between turns, so a turn costs its new tokens only. Shapes never change, and a slot's result
does not depend on the others': transcripts are the same whoever happens to be batched together.

Legend: S slots, W tokens of one `extend` call, M most new tokens of a turn, V vocabulary.
"""

import asyncio
import concurrent.futures
import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from models import cache, qwen2


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How the engine is laid out and how it draws."""

    slots: int = 64  # S
    capacity: int = 2048  # tokens a session may hold, prompt and replies together
    chunk: int = 32  # W
    max_new_tokens: int = 96  # M
    temperature: float = 1.0
    window: float = 0.01  # seconds without a newcomer after which a batch goes ahead

    def __post_init__(self):
        for name in ("slots", "capacity", "chunk", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"config.engine.{name}: expected at least 1, got {getattr(self, name)}")
        if not self.temperature > 0:
            raise ValueError(f"config.engine.temperature: expected more than 0, got {self.temperature}")


class Sampled(NamedTuple):
    """The tokens of one turn, exactly as drawn."""

    ids: np.ndarray  # [T] int32, the stop token included where it was reached
    logprobs: np.ndarray  # [T] float32, under the distribution drawn from: softmax(logits / temperature)
    stop: str  # end_of_turn | length | context


class _Request(NamedTuple):
    slot: int
    ids: np.ndarray
    seed: int
    future: asyncio.Future


@functools.partial(jax.jit, static_argnames="config", donate_argnames=("kv", "logits"))
def _extend(config, params, kv, logits, tokens, counts):
    """Appends tokens [S, W]; keeps the logits [S, V] of slots that get none."""
    new, kv = qwen2.extend(config, params, kv, tokens, counts)
    return jnp.where(counts[:, None] > 0, new, logits), kv


@functools.partial(jax.jit, static_argnames=("config", "stop_id", "max_new_tokens"), donate_argnames=("kv", "logits"))
def _decode(config, params, kv, logits, seeds, active, temperature, *, stop_id, max_new_tokens):
    """Draws up to M tokens in every active slot, until all have drawn the stop token or filled the cache.

    Token number n of a turn is drawn with the key folded from (the turn's seed, n), by inverting the cumulative
    distribution at one uniform number.

    Returns:
      ids [S, M] int32, logprobs [S, M] float32, counts [S] int32, logits [S, V] and the cache.
    """
    slots, capacity = active.shape[0], kv.k.shape[2]
    keys = jax.vmap(jax.random.key)(seeds)

    def more(carry):
        number, active = carry[0], carry[1]
        return (number < max_new_tokens) & active.any()

    def draw(carry):
        number, active, counts, ids, logprobs, logits, kv = carry
        uniform = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, number)))(keys)
        tempered = jax.nn.log_softmax(logits / temperature)
        cumulative = jnp.cumsum(jnp.exp(tempered), axis=-1)
        token = jnp.sum(cumulative <= uniform[:, None] * cumulative[:, -1:], axis=-1).astype(jnp.int32)
        token = jnp.minimum(token, logits.shape[-1] - 1)
        logprob = jnp.take_along_axis(tempered, token[:, None], axis=-1)[:, 0]
        ids = ids.at[:, number].set(jnp.where(active, token, 0))
        logprobs = logprobs.at[:, number].set(jnp.where(active, logprob, 0.0))
        logits, kv = qwen2.extend(config, params, kv, token[:, None], active.astype(jnp.int32))
        counts += active
        active &= (token != stop_id) & (kv.lengths < capacity)
        return number + 1, active, counts, ids, logprobs, logits, kv

    ids, logprobs = jnp.zeros((slots, max_new_tokens), jnp.int32), jnp.zeros((slots, max_new_tokens))
    start = (jnp.int32(0), active, jnp.zeros(slots, jnp.int32), ids, logprobs, logits, kv)
    _, _, counts, ids, logprobs, logits, kv = jax.lax.while_loop(more, draw, start)
    return ids, logprobs, counts, logits, kv


class Engine:
    """Samples for many sessions at once; use as an async context manager around a batch of dialogues.

    `kv_sharding` says where keys and values [L, S, C, K, D] live; None: on one device.
    """

    def __init__(
        self,
        config: qwen2.Qwen2Config,
        stop_id: int,
        sampling: Sampling,
        kv_sharding: jax.sharding.Sharding | None = None,
    ):
        if not 0 <= stop_id < config.vocab_size:
            raise ValueError(f"the stop token {stop_id} is not in the vocabulary of {config.vocab_size}")
        self.sampling = sampling
        self._config, self._stop_id = config, stop_id
        self._params: qwen2.Params | None = None
        self._kv = cache.init(config, sampling.slots, sampling.capacity, sharding=kv_sharding)
        self._logits = jnp.zeros((sampling.slots, config.vocab_size), jnp.float32)
        self._lengths = np.zeros(sampling.slots, np.int64)
        self._free = list(range(sampling.slots))
        self._busy: set[int] = set()  # slots being written to
        self._left: list[int] = []  # those among them whose sessions have closed
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="engine")

    def load(self, params: qwen2.Params) -> None:
        """Takes new weights. Raises RuntimeError while sessions are open: none may go on under other weights."""
        if len(self._free) != self.sampling.slots:
            raise RuntimeError(
                f"{self.sampling.slots - len(self._free)} sessions are open: close them before new weights"
            )
        self._params = params

    async def __aenter__(self) -> "Engine":
        if self._params is None:
            raise RuntimeError("the engine has no weights: call load first")
        self._slots_free = asyncio.Semaphore(len(self._free))
        self._pending: list[_Request] = []
        self._arrived = asyncio.Event()
        self._worker = asyncio.create_task(self._serve())
        return self

    async def __aexit__(self, *_):
        self._worker.cancel()
        await asyncio.gather(self._worker, return_exceptions=True)

    async def open(self) -> "EngineSession":
        """Waits for a free slot and opens a session in it."""
        await self._slots_free.acquire()
        slot = self._free.pop()
        self._lengths[slot] = 0
        return EngineSession(self, slot)

    def _close(self, slot: int) -> None:
        if slot in self._busy:  # who waited for it was cancelled
            self._left.append(slot)
            return
        self._free.append(slot)
        self._slots_free.release()

    async def _request(self, slot: int, ids: np.ndarray, seed: int) -> Sampled:
        future = asyncio.get_running_loop().create_future()
        self._pending.append(_Request(slot, ids, seed, future))
        self._arrived.set()
        return await future

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            waiting = -1
            while waiting < len(self._pending) < self.sampling.slots - len(self._free):
                waiting = len(self._pending)
                await asyncio.sleep(self.sampling.window)
            batch = [request for request in self._pending if not request.future.cancelled()]
            self._pending = []
            self._arrived.clear()
            if not batch:
                continue
            self._busy = {request.slot for request in batch}
            try:
                results = await loop.run_in_executor(self._thread, self._generate, batch)
            except Exception as error:  # hand it to those who wait, or they wait for ever
                for request in batch:
                    if not request.future.done():
                        request.future.set_exception(error)
            else:
                for request, result in zip(batch, results, strict=True):
                    if not request.future.done():
                        request.future.set_result(result)
            self._busy, left, self._left = set(), self._left, []
            for slot in left:
                self._close(slot)

    def _generate(self, batch: list[_Request]) -> list[Sampled]:
        slots, width = self.sampling.slots, self.sampling.chunk
        rows = np.array([request.slot for request in batch])
        self._kv = self._kv._replace(lengths=jnp.asarray(self._lengths, jnp.int32))  # forgets what closed slots held
        for start in range(0, max(len(request.ids) for request in batch), width):
            tokens, counts = np.zeros((slots, width), np.int32), np.zeros(slots, np.int32)
            for request in batch:
                piece = request.ids[start : start + width]
                tokens[request.slot, : len(piece)], counts[request.slot] = piece, len(piece)
            self._logits, self._kv = _extend(self._config, self._params, self._kv, self._logits, tokens, counts)
        seeds, active = np.zeros(slots, np.uint32), np.zeros(slots, bool)
        seeds[rows], active[rows] = [request.seed for request in batch], True
        ids, logprobs, counts, self._logits, self._kv = _decode(
            self._config,
            self._params,
            self._kv,
            self._logits,
            seeds,
            active,
            self.sampling.temperature,
            stop_id=self._stop_id,
            max_new_tokens=self.sampling.max_new_tokens,
        )
        ids, logprobs, counts, lengths = jax.device_get((ids, logprobs, counts, self._kv.lengths))
        self._lengths[rows] = lengths[rows]
        return [self._sampled(ids[row, : counts[row]], logprobs[row, : counts[row]]) for row in rows]

    def _sampled(self, ids: np.ndarray, logprobs: np.ndarray) -> Sampled:
        if ids[-1] == self._stop_id:
            return Sampled(ids, logprobs, "end_of_turn")
        return Sampled(ids, logprobs, "length" if len(ids) == self.sampling.max_new_tokens else "context")


class EngineSession:
    """A dialogue's place in the engine: one append-only stream of tokens."""

    def __init__(self, engine: Engine, slot: int):
        self._engine, self._slot = engine, slot

    @property
    def room(self) -> int:
        """Tokens that still fit."""
        return self._engine.sampling.capacity - int(self._engine._lengths[self._slot])

    async def generate(self, ids: np.ndarray, seed: int) -> Sampled:
        """Appends `ids` ([I] int32, at least one, fewer than `room`) to the stream and samples a turn after them.

        Raises ValueError for an empty prompt or one that leaves no room for a token.
        """
        if not 0 < len(ids) < self.room:
            raise ValueError(f"expected 1 to {self.room - 1} tokens to go on from, got {len(ids)}")
        return await self._engine._request(self._slot, np.asarray(ids, np.int32), seed)

    def close(self) -> None:
        """Frees the slot."""
        self._engine._close(self._slot)
