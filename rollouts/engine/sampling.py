"""How the sampling engine reads tokens and draws them: its jitted functions `extend` and `decode`.

Legend: S slots, R rows of one `extend` call, W tokens of each, N steps of one `decode` call, V vocabulary.
"""

import dataclasses
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from models import cache, qwen2
from models.cache import KVCache
from rollouts.engine.grammar import Grammar

_COLD = 1e-5  # temperatures below it are 0: logits divided by them would overflow


@dataclasses.dataclass(frozen=True)
class TurnOptions:
    """How a turn is drawn."""

    max_new_tokens: int = 96
    temperature: float = 1.0  # 0: always the likeliest token
    top_k: int = 0  # draw from the k likeliest tokens only (and those as likely as the k-th); 0: from all
    top_p: float = 1.0  # draw from the likeliest tokens that make up this share only; 1: from all

    def __post_init__(self):
        self._check_field("max_new_tokens", self.max_new_tokens >= 1, "at least 1")
        self._check_field("temperature", 0 <= self.temperature < math.inf, "0 or more")
        self._check_field("top_k", self.top_k >= 0, "0 or more")
        self._check_field("top_p", 0 < self.top_p <= 1, "more than 0 and at most 1")

    @property
    def cuts(self) -> bool:
        """Whether top_k or top_p cut some tokens."""
        return bool(self.top_k) or self.top_p < 1

    @property
    def plain(self) -> bool:
        """Whether every token may be drawn."""
        return not self.cuts and self.temperature >= _COLD

    def _check_field(self, name: str, holds: bool, expected: str) -> None:
        if not holds:
            raise ValueError(f"{name}: expected {expected}, got {getattr(self, name)}")


@dataclasses.dataclass(frozen=True)
class Sampling(TurnOptions):
    """How the engine is laid out, and how it draws turns that ask for nothing else."""

    slots: int = 64  # S, dialogues that are decoded at a time
    capacity: int = 2048  # tokens a session may hold, prompt and replies together
    chunk: int = 32  # W
    rows: int = 0  # R; 0: one for each slot
    steps: int = 8  # N: after so many tokens, new sessions join and those that are done leave
    window: float = 0.01  # seconds without a new turn after which an idle engine starts
    # Compute no more than the slots in use, rounded up to a power of 4 (few shapes, few compilations). It is faster
    # where few of many slots are used, but the last bits of a result then depend on how many are.
    fit: bool = False

    def __post_init__(self):
        super().__post_init__()
        for name in ("slots", "capacity", "chunk", "steps"):
            self._check_field(name, getattr(self, name) >= 1, "at least 1")
        self._check_field("rows", 0 <= self.rows <= self.slots, f"0 to slots, {self.slots}")


class Turns(NamedTuple):
    """The turns that are drawn in the slots."""

    seeds: jax.Array  # [S] uint32
    places: jax.Array  # [S] int32, tokens that the turn has already
    active: jax.Array  # [S] bool, slots to draw in
    states: jax.Array  # [S] int32, of the grammar; without one, not looked at
    limits: jax.Array  # [S] int32, tokens that the turn may have
    temperature: jax.Array  # [S] float32
    top_k: jax.Array  # [S] int32
    top_p: jax.Array  # [S] float32


class Drawn(NamedTuple):
    """What a call of `decode` drew."""

    ids: jax.Array  # [S, N] int32
    logprobs: jax.Array  # [S, N] float32, under the distribution drawn from: tempered, cut to top-k and top-p
    model_logprobs: jax.Array  # [S, N] float32, under the model's own: neither tempered nor cut
    counts: jax.Array  # [S] int32, tokens drawn, 0..N
    active: jax.Array  # [S] bool, turns that are not over


@functools.partial(jax.jit, static_argnames="config", donate_argnames=("kv", "logits"))
def extend(
    config: qwen2.Qwen2Config,
    params: qwen2.Params,
    kv: KVCache,
    logits: jax.Array,
    tokens: jax.Array,
    counts: jax.Array,
    slots: jax.Array | None,
) -> tuple[jax.Array, KVCache]:
    """Appends tokens [R, W] to slots, see `qwen2.extend`; updates logits [S, V] of those that got any."""
    new, kv = qwen2.extend(config, params, kv, tokens, counts, slots=slots)
    if slots is None:
        return jnp.where(counts[:, None] > 0, new, logits), kv
    return logits.at[jnp.where(counts > 0, slots, len(logits))].set(new, mode="drop"), kv


@functools.partial(
    jax.jit, static_argnames=("config", "stop_id", "size", "capacity", "plain"), donate_argnames=("kv", "logits")
)
def decode(
    config: qwen2.Qwen2Config,
    params: qwen2.Params,
    kv: KVCache,
    logits: jax.Array,
    turns: Turns,
    grammar: Grammar | None,
    masks: jax.Array | None,
    steps: jax.Array,
    slots: jax.Array | None = None,
    *,
    stop_id: int,
    size: int,
    capacity: int,
    plain: bool,
) -> tuple[Drawn, jax.Array, KVCache]:
    """Draws up to `steps` tokens in every active slot; ends early when all turns are over.

    Token number n of a turn is drawn with the key folded from (the turn's seed, n). A turn is over when it has drawn
    `stop_id`, or as many tokens as it may have, or when its slot holds `capacity` tokens.

    Args:
      config: the model's sizes.
      params: its parameters.
      kv: the cache, with room for N more tokens in active slots, or for all that `capacity` allows; donated.
      logits: [S, V] float32, of the next token; donated.
      turns: what is drawn where.
      grammar: what may be drawn; None: anything.
      masks: [S, V] bool, what may be drawn next, of the grammar's too; None: anything. It holds for one step.
      steps: int32, 1 to N; 1 where there are masks.
      slots: [R] int32, those that `turns` and `masks`, of R rows then, are about; others are left as they are, and a
        number that is no slot stands for none. None: row s is slot s.
      stop_id: the end-of-turn token.
      size: N.
      capacity: of a slot.
      plain: whether every token may be drawn in every slot; the program is a faster one then.
    """
    if slots is not None:
        whole_kv, whole_logits = kv, logits
        kv, logits = cache.take_slots(kv, slots), jnp.take(logits, slots, axis=0, mode="clip")
    keys = jax.vmap(jax.random.key)(turns.seeds)

    def is_unfinished(carry):
        number, drawn = carry[0], carry[1]
        return (number < steps) & drawn.active.any()

    def draw_step(carry):
        number, drawn, logits, kv, states = carry
        place, active = turns.places + drawn.counts, drawn.active
        uniform = jax.vmap(lambda key, n: jax.random.uniform(jax.random.fold_in(key, n)))(keys, place)
        allowed = grammar.allowed[states] if grammar else None
        if masks is not None:
            allowed = masks if allowed is None else masks & allowed
        token, *logprobs = draw_tokens(logits, uniform, turns, allowed, plain=plain)
        ids, logprobs, model_logprobs = (
            kept.at[:, number].set(jnp.where(active, new, 0))
            for kept, new in zip(drawn[:3], (token, *logprobs), strict=True)
        )
        logits, kv = qwen2.extend(config, params, kv, token[:, None], active.astype(jnp.int32))
        over = (token == stop_id) | (place + 1 >= turns.limits) | (kv.lengths >= capacity)
        drawn = Drawn(ids, logprobs, model_logprobs, drawn.counts + active, active & ~over)
        return number + 1, drawn, logits, kv, grammar.follows[states, token] if grammar else states

    rows = len(turns.active)
    nothing = Drawn(
        *(jnp.zeros((rows, size), dtype) for dtype in (jnp.int32, jnp.float32, jnp.float32)),
        counts=jnp.zeros(rows, jnp.int32),
        active=turns.active,
    )
    first = (jnp.int32(0), nothing, logits, kv, turns.states)
    _, drawn, logits, kv, _ = jax.lax.while_loop(is_unfinished, draw_step, first)
    if slots is not None:
        kv, logits = cache.put_slots(whole_kv, slots, kv), whole_logits.at[slots].set(logits, mode="drop")
    return drawn, logits, kv


def draw_tokens(
    logits: jax.Array, uniform: jax.Array, turns: Turns, allowed: jax.Array | None = None, *, plain: bool
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Draws a token in each row by inverting the cumulative distribution at one uniform number.

    Args:
      logits: [S, V] float32.
      uniform: [S] float32 in [0, 1).
      turns: their temperature, top_k, top_p, applied in this order.
      allowed: [S, V] bool, tokens to draw from, before top_k and top_p; None: all.
      plain: whether every token may be drawn in every row; the result is the same, to the bit.

    Returns:
      tokens [S] int32 and their log-probabilities [S] under the distribution drawn from and under the model's own.
      Where not all is allowed, the first is under the tempered distribution, before top_k, top_p and `allowed`. At
      temperature 0 it is 0: nothing else could have been drawn.
    """
    greedy = turns.temperature < _COLD
    shifted = logits - logits.max(-1, keepdims=True)
    tempered = shifted / jnp.where(greedy, 1.0, turns.temperature)[:, None]
    possible = tempered if allowed is None else jnp.where(allowed, tempered, -jnp.inf)
    highest = 0.0 if allowed is None else possible.max(-1, keepdims=True)  # far below 0 it would leave no chances
    chances = jnp.exp(possible - highest)
    if not plain:
        cuts = (turns.top_k > 0) | (turns.top_p < 1)
        cut = jax.lax.cond(cuts.any(), _cut_unlikely, lambda chances, turns: chances, chances, turns)  # it sorts
        chances = jnp.where(cuts[:, None], cut, chances)
    token = _invert_cumulative(chances, uniform)
    if not plain:
        likeliest = jnp.argmax(possible, axis=-1).astype(jnp.int32)
        # About once in ten million draws, rounding in the running sum points at a token that has no probability.
        token = jnp.where(greedy | (_entries_at(chances, token) == 0), likeliest, token)
    total = chances.sum(-1)
    if allowed is not None:
        total = jnp.where(allowed.all(-1), total, jnp.exp(tempered).sum(-1))
    logprobs = jnp.where(greedy, 0.0, _entries_at(tempered, token) - jnp.log(total))
    return token, logprobs, _entries_at(shifted, token) - jnp.log(jnp.exp(shifted).sum(-1))


def _invert_cumulative(chances: jax.Array, uniform: jax.Array) -> jax.Array:
    """Finds where the running sum of `chances` [S, V] passes the share `uniform` [S] of their sum; [S] int32.

    It looks first for a part of about the square root of V, then within it: a running sum over all takes four times as
    long.
    """
    vocabulary = chances.shape[-1]
    size = math.isqrt(vocabulary - 1) + 1
    parts = jnp.pad(chances, ((0, 0), (0, -vocabulary % size))).reshape(len(chances), -1, size)
    ends = jnp.cumsum(parts.sum(-1), axis=-1)
    sought = uniform[:, None] * ends[:, -1:]
    part = jnp.minimum(jnp.sum(ends <= sought, axis=-1, dtype=jnp.int32), ends.shape[-1] - 1)
    before = jnp.where(part > 0, _entries_at(ends, part - 1), 0.0)
    within = jnp.take_along_axis(parts, part[:, None, None], axis=1)[:, 0]
    place = jnp.sum(jnp.cumsum(within, axis=-1) <= sought - before[:, None], axis=-1, dtype=jnp.int32)
    return jnp.minimum(part * size + jnp.minimum(place, size - 1), vocabulary - 1)


def _entries_at(x: jax.Array, token: jax.Array) -> jax.Array:
    """Returns the entries of x [S, V] at token [S]."""
    return jnp.take_along_axis(x, token[:, None], axis=-1)[:, 0]


def _cut_unlikely(chances: jax.Array, turns: Turns) -> jax.Array:
    """Keeps only the likeliest tokens [S, V], by top_k and then by top_p."""
    ordered = jnp.sort(chances, axis=-1, descending=True)
    last = jnp.where(turns.top_k > 0, jnp.minimum(turns.top_k, chances.shape[-1]), chances.shape[-1]) - 1
    least = _entries_at(ordered, last)[:, None]
    kept = jnp.where(ordered >= least, ordered, 0.0)
    mass_before = jnp.cumsum(kept, axis=-1) - kept
    within = (mass_before < turns.top_p[:, None] * kept.sum(-1, keepdims=True)) | (turns.top_p[:, None] == 1)
    least = jnp.maximum(least, jnp.min(jnp.where(within, ordered, jnp.inf), axis=-1, keepdims=True))
    return jnp.where(chances >= least, chances, 0.0)
