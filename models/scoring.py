"""Log-probabilities and entropies from hidden states, a part of the vocabulary at a time.

Neither direction ever holds the logits of all words: the forward pass keeps a running maximum and two running sums, the
backward pass computes each part's logits again and writes the gradient of its weights where it belongs.

Only positions that are wanted go through the head.

Legend: B rows, T tokens, D hidden size, V vocabulary, X shards of the vocabulary, N parts of each, S words of a part.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Layout:
    """How the output weights lie and how they are taken apart; hashable.

    Attributes:
      words_first: whether weights are [V, D], like an embedding, or [D, V], like a linear layer.
      words: V.
      shards: X, equal parts that V lies in on different devices; a part takes as much of each.
      part: words at one time, about, ...
      block: ... and positions of a row.
      temperature: logits are divided by it.
    """

    words_first: bool
    words: int
    shards: int = 1
    part: int = 8192
    block: int = 128
    temperature: float = 1.0

    @property
    def size(self) -> int:
        """S: the largest size that divides a shard evenly, if it is not much less than was asked for."""
        shard, most = self.words // self.shards, max(1, self.part // self.shards)
        even = next(size for size in range(min(most, shard), 0, -1) if shard % size == 0)
        return even if 2 * even >= min(most, shard) else min(most, shard)

    @property
    def parts(self) -> int:
        """N."""
        return -(-self.words // self.shards // self.size)


def score(
    layout: Layout, weights: jax.Array, states: jax.Array, targets: jax.Array, wanted: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """How likely each wanted target is after its state, and the entropy of the distribution.

    Wanted positions of a row are brought together and taken `layout.block` at a time, as many as the row with most of
    them needs: what nobody asks for does not go through the head.

    Args:
      layout: of `weights`.
      weights: [V, D] or [D, V] float.
      states: [B, T, D] float, of the same dtype.
      targets: [B, T] int.
      wanted: [B, T] bool.

    Returns:
      logprobs [B, T] and entropies [B, T], float32, in nats, 0 where they are not wanted; differentiable in weights and
      states.
    """
    return _score(layout, weights, states, targets, wanted)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _score(layout, weights, states, targets, wanted):
    return _forward(layout, weights, states, targets, wanted)[0]


def _forward(layout, weights, states, targets, wanted):
    cut, together = _cut(layout, weights), _Together(layout, wanted)
    states_first, targets_first = together.gather(states), together.gather(targets)

    def block(number, results):
        here = together.get(states_first, number)
        place = _place(layout, together.get(targets_first, number))

        def part(number, carry):
            top, total, weighted, chosen = carry
            logits = _logits(layout, cut, here, number)
            new_top = jnp.maximum(top, logits.max((-2, -1)))
            below = logits - new_top[..., None, None]
            chances = jnp.exp(below)
            keep = jnp.exp(top - new_top)
            # A logit that is -inf, as where a shard was padded, has no chance, and adds nothing.
            mass = jnp.sum(jnp.where(chances > 0, chances * below, 0), (-2, -1))
            found = jnp.take_along_axis(logits.reshape(*logits.shape[:2], -1), place.word[..., None], -1)[..., 0]
            chosen = jnp.where(place.part == number, found, chosen)
            weighted = keep * (weighted + (top - new_top) * total) + mass
            return new_top, keep * total + chances.sum((-2, -1)), weighted, chosen

        zero = jnp.zeros(place.word.shape, jnp.float32)
        start = (zero + jnp.finfo(jnp.float32).min, zero, zero, zero)
        top, total, weighted, chosen = jax.lax.fori_loop(0, layout.parts, part, start)
        spread = jnp.log(total)  # kept apart from `top`, beside which it would be rounded away
        new = chosen - top - spread, spread - weighted / total, top, spread
        return tuple(together.set(whole, number, part) for whole, part in zip(results, new, strict=True))

    zeros = (jnp.zeros(targets_first.shape, jnp.float32),) * 4
    logprobs, entropy, top, spread = jax.lax.fori_loop(0, together.blocks, block, zeros)
    scores = tuple(jnp.where(wanted, together.scatter(x), 0) for x in (logprobs, entropy))
    return scores, (weights, states_first, targets_first, wanted, top, spread, entropy)


def _backward(layout, saved, gradients):
    weights, states_first, targets_first, wanted, *rest = saved
    together = _Together(layout, wanted)
    gradients = (together.gather(jnp.where(wanted, x, 0)) for x in gradients)
    per_word = tuple(x[..., None, None] for x in (*gradients, *rest))
    cut = _cut(layout, weights)
    words = jnp.arange(layout.shards * layout.size).reshape(layout.shards, layout.size)
    axis = _axis(layout)

    def part(number, carry):
        of_weights, of_states = carry
        weights_here = jax.lax.dynamic_index_in_dim(cut, number, axis, keepdims=False)

        def block(index, carry):
            of_part, of_states = carry
            of_logprob, of_entropy, top, spread, entropy = (together.get(x, index) for x in per_word)
            here, place = together.get(states_first, index), _place(layout, together.get(targets_first, index))
            logprobs = _logits(layout, cut, here, number) - top - spread
            chances = jnp.exp(logprobs)
            chosen = (words == place.word[..., None, None]) & (place.part == number)[..., None, None]
            surprise = jnp.where(chances > 0, logprobs + entropy, 0)
            of_logits = jnp.where(chosen, of_logprob, 0) - chances * (of_logprob + of_entropy * surprise)
            of_logits = (of_logits / layout.temperature).astype(weights.dtype)
            into = "btxs,btd->xsd" if layout.words_first else "btxs,btd->dxs"
            of_part += jnp.einsum(into, of_logits, here, preferred_element_type=jnp.float32)
            back = "btxs,xsd->btd" if layout.words_first else "btxs,dxs->btd"
            new = jnp.einsum(back, of_logits, weights_here, preferred_element_type=jnp.float32)
            return of_part, together.set(of_states, index, together.get(of_states, index) + new)

        start = jnp.zeros(weights_here.shape, jnp.float32), of_states
        of_part, of_states = jax.lax.fori_loop(0, together.blocks, block, start)
        of_part = of_part.astype(weights.dtype)
        return jax.lax.dynamic_update_index_in_dim(of_weights, of_part, number, axis), of_states

    start = jnp.zeros_like(cut), jnp.zeros(states_first.shape, jnp.float32)
    of_weights, of_states = jax.lax.fori_loop(0, layout.parts, part, start)
    return _join(layout, of_weights), together.scatter(of_states).astype(weights.dtype), None, None


_score.defvjp(_forward, _backward)


class _Together:
    """The wanted positions of each row, brought to its beginning and cut into blocks."""

    def __init__(self, layout: Layout, wanted: jax.Array):
        self.order = jnp.argsort(~wanted, axis=1, stable=True)  # [B, T] int32, positions
        self.size = min(layout.block, wanted.shape[1])
        self.blocks = (wanted.sum(1).max() + self.size - 1) // self.size  # that hold them all, in every row

    def gather(self, x: jax.Array) -> jax.Array:
        """[B, T, ...] to [B, T', ...] in this order, T' a multiple of the size."""
        x = jnp.take_along_axis(x, _like(self.order, x), axis=1)
        return jnp.pad(x, [(0, -x.shape[1] % self.size if axis == 1 else 0) for axis in range(x.ndim)])

    def scatter(self, x: jax.Array) -> jax.Array:
        """The reverse."""
        return jnp.take_along_axis(x, _like(jnp.argsort(self.order, axis=1), x), axis=1)

    def get(self, x: jax.Array, number: jax.Array) -> jax.Array:
        """A block of what `gather` returned."""
        return jax.lax.dynamic_slice_in_dim(x, number * self.size, self.size, axis=1)

    def set(self, x: jax.Array, number: jax.Array, block: jax.Array) -> jax.Array:
        """The same arrays with another block."""
        return jax.lax.dynamic_update_slice_in_dim(x, block, number * self.size, axis=1)


def _like(order: jax.Array, x: jax.Array) -> jax.Array:
    return order.reshape(*order.shape, *(1,) * (x.ndim - 2))


class _Place(NamedTuple):
    part: jax.Array  # [B, T] int32, 0 .. N - 1
    word: jax.Array  # [B, T] int32, within the part, 0 .. X S - 1


def _place(layout: Layout, targets: jax.Array) -> _Place:
    """Where targets [B, T] are found."""
    shard, word = jnp.divmod(targets, layout.words // layout.shards)
    return _Place(word // layout.size, shard * layout.size + word % layout.size)


def _axis(layout: Layout) -> int:
    """The axis of the parts in what `_cut` returns."""
    return 1 if layout.words_first else 2


def _cut(layout: Layout, weights: jax.Array) -> jax.Array:
    """Weights as [X, N, S, D], or [D, X, N, S]; a shard that S does not divide is padded."""
    shard, axis = layout.words // layout.shards, _axis(layout)
    padding = [(0, 0)] * 3
    padding[axis] = (0, layout.parts * layout.size - shard)
    shape = (layout.shards, shard, -1) if layout.words_first else (-1, layout.shards, shard)
    padded = jnp.pad(weights.reshape(shape), padding)
    return padded.reshape(*padded.shape[:axis], layout.parts, layout.size, *padded.shape[axis + 1 :])


def _join(layout: Layout, cut: jax.Array) -> jax.Array:
    """The reverse of `_cut`."""
    shard, axis = layout.words // layout.shards, _axis(layout)
    padded = cut.reshape(*cut.shape[:axis], -1, *cut.shape[axis + 2 :])
    whole = jax.lax.slice_in_dim(padded, 0, shard, axis=axis)
    return whole.reshape(layout.words, -1) if layout.words_first else whole.reshape(-1, layout.words)


def _logits(layout: Layout, cut: jax.Array, states: jax.Array, number: jax.Array) -> jax.Array:
    """Logits [B, T, X, S] of part `number`, float32; -inf where a shard was padded."""
    part = jax.lax.dynamic_index_in_dim(cut, number, _axis(layout), keepdims=False)
    spec = "btd,xsd->btxs" if layout.words_first else "btd,dxs->btxs"
    logits = jnp.einsum(spec, states, part, preferred_element_type=jnp.float32) / layout.temperature
    if layout.parts * layout.size * layout.shards == layout.words:
        return logits
    inside = number * layout.size + jnp.arange(layout.size) < layout.words // layout.shards
    return jnp.where(inside, logits, -jnp.inf)
