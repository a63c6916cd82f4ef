"""Log-probabilities and entropies from hidden states, a part of the vocabulary at a time.

Neither pass ever holds the logits of all words. The forward pass keeps a running maximum and two running sums; the
backward pass computes each part's logits again and writes the gradient of its weights to its place.

Only wanted positions go through the head.

Legend: B rows, T tokens, D hidden size, V vocabulary, X shards of the vocabulary, N parts of each, S words of a part.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Layout:
    """How the output weights are laid out and how they are taken apart; hashable.

    Attributes:
      words_first: whether weights are [V, D], like an embedding, or [D, V], like a linear layer.
      words: V.
      shards: X, the equal shards of V on different devices; a part takes the same number of words from each.
      part: words at one time, about.
      block: positions of a row at one time.
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
        """S: the largest size that divides a shard evenly, unless that is less than half of what was asked for."""
        shard, most = self.words // self.shards, max(1, self.part // self.shards)
        even = next(size for size in range(min(most, shard), 0, -1) if shard % size == 0)
        return even if 2 * even >= min(most, shard) else min(most, shard)

    @property
    def parts(self) -> int:
        """N."""
        return -(-self.words // self.shards // self.size)


def score_targets(
    layout: Layout, weights: jax.Array, states: jax.Array, targets: jax.Array, wanted: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns how likely each wanted target is after its state, and the entropy of the distribution.

    Wanted positions of a row are brought together and taken `layout.block` at a time, as many blocks as the row with
    most of them needs: positions that are not wanted do not go through the head.

    Args:
      layout: the layout of `weights`.
      weights: [V, D] or [D, V] float.
      states: [B, T, D] float, of the same dtype.
      targets: [B, T] int.
      wanted: [B, T] bool.

    Returns:
      logprobs [B, T] and entropies [B, T], float32, in nats, 0 at positions that are not wanted; differentiable in
      weights and states.
    """
    return _score_wanted(layout, weights, states, targets, wanted)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _score_wanted(layout, weights, states, targets, wanted):
    return _forward(layout, weights, states, targets, wanted)[0]


def _forward(layout, weights, states, targets, wanted):
    cut, together = _cut_weights(layout, weights), _Together(layout, wanted)
    states_first, targets_first = together.gather(states), together.gather(targets)

    def score_block(number, results):
        here = together.get_block(states_first, number)
        place = _find_place(layout, together.get_block(targets_first, number))

        def add_part(number, carry):
            top, total, weighted, chosen = carry
            logits = _compute_logits(layout, cut, here, number)
            new_top = jnp.maximum(top, logits.max((-2, -1)))
            below = logits - new_top[..., None, None]
            chances = jnp.exp(below)
            keep = jnp.exp(top - new_top)
            # A logit of -inf, as in the padding of a shard, has no probability and adds nothing.
            mass = jnp.sum(jnp.where(chances > 0, chances * below, 0), (-2, -1))
            found = jnp.take_along_axis(logits.reshape(*logits.shape[:2], -1), place.word[..., None], -1)[..., 0]
            chosen = jnp.where(place.part == number, found, chosen)
            weighted = keep * (weighted + (top - new_top) * total) + mass
            return new_top, keep * total + chances.sum((-2, -1)), weighted, chosen

        zero = jnp.zeros(place.word.shape, jnp.float32)
        start = (zero + jnp.finfo(jnp.float32).min, zero, zero, zero)
        top, total, weighted, chosen = jax.lax.fori_loop(0, layout.parts, add_part, start)
        spread = jnp.log(total)  # kept apart from `top`, because a sum of both would round it away
        new = chosen - top - spread, spread - weighted / total, top, spread
        return tuple(together.set_block(whole, number, part) for whole, part in zip(results, new, strict=True))

    zeros = (jnp.zeros(targets_first.shape, jnp.float32),) * 4
    logprobs, entropy, top, spread = jax.lax.fori_loop(0, together.blocks, score_block, zeros)
    scores = tuple(jnp.where(wanted, together.scatter(x), 0) for x in (logprobs, entropy))
    return scores, (weights, states_first, targets_first, wanted, top, spread, entropy)


def _backward(layout, saved, gradients):
    weights, states_first, targets_first, wanted, *rest = saved
    together = _Together(layout, wanted)
    gradients = (together.gather(jnp.where(wanted, x, 0)) for x in gradients)
    per_word = tuple(x[..., None, None] for x in (*gradients, *rest))
    cut = _cut_weights(layout, weights)
    words = jnp.arange(layout.shards * layout.size).reshape(layout.shards, layout.size)
    axis = _parts_axis(layout)

    def differentiate_part(number, carry):
        of_weights, of_states = carry
        weights_here = jax.lax.dynamic_index_in_dim(cut, number, axis, keepdims=False)

        def differentiate_block(index, carry):
            of_part, of_states = carry
            of_logprob, of_entropy, top, spread, entropy = (together.get_block(x, index) for x in per_word)
            here, place = (
                together.get_block(states_first, index),
                _find_place(layout, together.get_block(targets_first, index)),
            )
            logprobs = _compute_logits(layout, cut, here, number) - top - spread
            chances = jnp.exp(logprobs)
            chosen = (words == place.word[..., None, None]) & (place.part == number)[..., None, None]
            surprise = jnp.where(chances > 0, logprobs + entropy, 0)
            of_logits = jnp.where(chosen, of_logprob, 0) - chances * (of_logprob + of_entropy * surprise)
            of_logits = (of_logits / layout.temperature).astype(weights.dtype)
            into = "btxs,btd->xsd" if layout.words_first else "btxs,btd->dxs"
            of_part += jnp.einsum(into, of_logits, here, preferred_element_type=jnp.float32)
            back = "btxs,xsd->btd" if layout.words_first else "btxs,dxs->btd"
            new = jnp.einsum(back, of_logits, weights_here, preferred_element_type=jnp.float32)
            return of_part, together.set_block(of_states, index, together.get_block(of_states, index) + new)

        start = jnp.zeros(weights_here.shape, jnp.float32), of_states
        of_part, of_states = jax.lax.fori_loop(0, together.blocks, differentiate_block, start)
        of_part = of_part.astype(weights.dtype)
        return jax.lax.dynamic_update_index_in_dim(of_weights, of_part, number, axis), of_states

    start = jnp.zeros_like(cut), jnp.zeros(states_first.shape, jnp.float32)
    of_weights, of_states = jax.lax.fori_loop(0, layout.parts, differentiate_part, start)
    return _join_weights(layout, of_weights), together.scatter(of_states).astype(weights.dtype), None, None


_score_wanted.defvjp(_forward, _backward)


class _Together:
    """The wanted positions of each row, brought to its beginning and cut into blocks."""

    def __init__(self, layout: Layout, wanted: jax.Array):
        self.order = jnp.argsort(~wanted, axis=1, stable=True)  # [B, T] int32, positions
        self.size = min(layout.block, wanted.shape[1])
        self.blocks = (wanted.sum(1).max() + self.size - 1) // self.size  # so many hold the wanted ones of every row

    def gather(self, x: jax.Array) -> jax.Array:
        """Brings [B, T, ...] into this order: [B, T', ...], with T' a multiple of the size."""
        x = jnp.take_along_axis(x, _expand_order(self.order, x), axis=1)
        return jnp.pad(x, [(0, -x.shape[1] % self.size if axis == 1 else 0) for axis in range(x.ndim)])

    def scatter(self, x: jax.Array) -> jax.Array:
        """Reverses `gather`."""
        return jnp.take_along_axis(x, _expand_order(jnp.argsort(self.order, axis=1), x), axis=1)

    def get_block(self, x: jax.Array, number: jax.Array) -> jax.Array:
        """Returns a block of what `gather` returned."""
        return jax.lax.dynamic_slice_in_dim(x, number * self.size, self.size, axis=1)

    def set_block(self, x: jax.Array, number: jax.Array, block: jax.Array) -> jax.Array:
        """Returns `x` with another block at that place."""
        return jax.lax.dynamic_update_slice_in_dim(x, block, number * self.size, axis=1)


def _expand_order(order: jax.Array, x: jax.Array) -> jax.Array:
    return order.reshape(*order.shape, *(1,) * (x.ndim - 2))


class _Place(NamedTuple):
    part: jax.Array  # [B, T] int32, 0 .. N - 1
    word: jax.Array  # [B, T] int32, within the part, 0 .. X S - 1


def _find_place(layout: Layout, targets: jax.Array) -> _Place:
    """Finds the places of targets [B, T]."""
    shard, word = jnp.divmod(targets, layout.words // layout.shards)
    return _Place(word // layout.size, shard * layout.size + word % layout.size)


def _parts_axis(layout: Layout) -> int:
    """Returns the axis of the parts in what `_cut_weights` returns."""
    return 1 if layout.words_first else 2


def _cut_weights(layout: Layout, weights: jax.Array) -> jax.Array:
    """Cuts weights into [X, N, S, D], or [D, X, N, S]; a shard that S does not divide is padded."""
    shard, axis = layout.words // layout.shards, _parts_axis(layout)
    padding = [(0, 0)] * 3
    padding[axis] = (0, layout.parts * layout.size - shard)
    shape = (layout.shards, shard, -1) if layout.words_first else (-1, layout.shards, shard)
    padded = jnp.pad(weights.reshape(shape), padding)
    return padded.reshape(*padded.shape[:axis], layout.parts, layout.size, *padded.shape[axis + 1 :])


def _join_weights(layout: Layout, cut: jax.Array) -> jax.Array:
    """Reverses `_cut_weights`."""
    shard, axis = layout.words // layout.shards, _parts_axis(layout)
    padded = cut.reshape(*cut.shape[:axis], -1, *cut.shape[axis + 2 :])
    whole = jax.lax.slice_in_dim(padded, 0, shard, axis=axis)
    return whole.reshape(layout.words, -1) if layout.words_first else whole.reshape(-1, layout.words)


def _compute_logits(layout: Layout, cut: jax.Array, states: jax.Array, number: jax.Array) -> jax.Array:
    """Computes the logits [B, T, X, S] of part `number`, float32; -inf in the padding of a shard."""
    part = jax.lax.dynamic_index_in_dim(cut, number, _parts_axis(layout), keepdims=False)
    spec = "btd,xsd->btxs" if layout.words_first else "btd,dxs->btxs"
    logits = jnp.einsum(spec, states, part, preferred_element_type=jnp.float32) / layout.temperature
    if layout.parts * layout.size * layout.shards == layout.words:
        return logits
    inside = number * layout.size + jnp.arange(layout.size) < layout.words // layout.shards
    return jnp.where(inside, logits, -jnp.inf)
