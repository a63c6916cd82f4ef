"""Log-probabilities and entropies from hidden states, a part of the vocabulary at a time.

Neither direction ever holds the logits of all words: the forward pass keeps a running maximum and two running sums, the
backward pass computes each part's logits again and writes the gradient of its weights where it belongs.

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
      part: words at one time, about.
      temperature: logits are divided by it.
    """

    words_first: bool
    words: int
    shards: int = 1
    part: int = 8192
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


def score(layout: Layout, weights: jax.Array, states: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """How likely each target is after its state, and the entropy of the distribution.

    Args:
      layout: of `weights`.
      weights: [V, D] or [D, V] float.
      states: [B, T, D] float, of the same dtype.
      targets: [B, T] int.

    Returns:
      logprobs [B, T] and entropies [B, T], float32, in nats; differentiable in weights and states.
    """
    return _score(layout, weights, states, targets)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _score(layout, weights, states, targets):
    return _forward(layout, weights, states, targets)[0]


def _forward(layout, weights, states, targets):
    cut = _cut(layout, weights)
    place = _place(layout, targets)

    def body(number, carry):
        top, total, weighted, chosen = carry
        logits = _logits(layout, cut, states, number)
        new_top = jnp.maximum(top, logits.max((-2, -1)))
        below = logits - new_top[..., None, None]
        chances = jnp.exp(below)
        keep = jnp.exp(top - new_top)
        # A logit that is -inf, as where a shard was padded, has no chance, and adds nothing.
        mass = jnp.sum(jnp.where(chances > 0, chances * below, 0), (-2, -1))
        here = jnp.take_along_axis(logits.reshape(*logits.shape[:2], -1), place.word[..., None], -1)[..., 0]
        chosen = jnp.where(place.part == number, here, chosen)
        weighted = keep * (weighted + (top - new_top) * total) + mass
        return new_top, keep * total + chances.sum((-2, -1)), weighted, chosen

    zero = jnp.zeros(targets.shape, jnp.float32)
    start = (zero + jnp.finfo(jnp.float32).min, zero, zero, zero)
    top, total, weighted, chosen = jax.lax.fori_loop(0, layout.parts, body, start)
    spread = jnp.log(total)  # kept apart from `top`, beside which it would be rounded away
    entropy = spread - weighted / total
    return (chosen - top - spread, entropy), (weights, states, targets, top, spread, entropy)


def _backward(layout, saved, gradients):
    weights, states, targets, *rest = saved
    of_logprob, of_entropy, top, spread, entropy = (x[..., None, None] for x in (*gradients, *rest))
    cut = _cut(layout, weights)
    place = _place(layout, targets)
    words = jnp.arange(layout.shards * layout.size).reshape(layout.shards, layout.size)
    axis = _axis(layout)

    def body(number, carry):
        of_weights, of_states = carry
        logits = _logits(layout, cut, states, number)
        logprobs = logits - top - spread
        chances = jnp.exp(logprobs)
        chosen = (words == place.word[..., None, None]) & (place.part == number)[..., None, None]
        surprise = jnp.where(chances > 0, logprobs + entropy, 0)
        of_logits = jnp.where(chosen, of_logprob, 0) - chances * (of_logprob + of_entropy * surprise)
        of_logits = (of_logits / layout.temperature).astype(weights.dtype)
        part = jax.lax.dynamic_index_in_dim(cut, number, axis, keepdims=False)
        into = "btxs,btd->xsd" if layout.words_first else "btxs,btd->dxs"
        new = jnp.einsum(into, of_logits, states, preferred_element_type=jnp.float32).astype(weights.dtype)
        back = "btxs,xsd->btd" if layout.words_first else "btxs,dxs->btd"
        of_states += jnp.einsum(back, of_logits, part, preferred_element_type=jnp.float32)
        return jax.lax.dynamic_update_index_in_dim(of_weights, new, number, axis), of_states

    start = jnp.zeros_like(cut), jnp.zeros(states.shape, jnp.float32)
    of_weights, of_states = jax.lax.fori_loop(0, layout.parts, body, start)
    return _join(layout, of_weights), of_states.astype(states.dtype), None


_score.defvjp(_forward, _backward)


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
