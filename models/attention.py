"""Exact grouped-query attention in blocks: over a whole sequence (training), and over a KV cache (sampling).

Both walk over keys in blocks, so that a block of scores stays in the processor's cache, and both skip blocks that no
query may see: `causal_attention` the future and other segments, `cached_attention` the unused end of the cache.

Legend: B rows, T tokens of a row, S slots of the cache, R rows of new tokens, W tokens of each, C capacity of a slot,
L layers, H query heads, K key/value heads, G = H / K query heads of one key/value head, D head dimension.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

# Finite, so that a query with nothing to see gives an even mixture instead of NaN. Fits in float32 and bfloat16.
_MASKED = -1e30


def causal_attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    segment_ids: jax.Array | None = None,
    *,
    prefix_ids: jax.Array | None = None,
    window: jax.Array | None = None,
    block: int | None = None,
) -> jax.Array:
    """Attention in which each token sees itself and the earlier tokens of its own segment, and of one before it.

    Queries and keys are taken `block` at a time, pair by pair, with a running softmax; pairs in which no query of any
    row sees a key, of the future, of other segments or beyond the window, are not visited, in neither direction. The
    backward pass computes the scores again: memory grows with T. (FlashAttention, arXiv 2205.14135, as a loop.)

    Args:
      q: [B, T, H, D] queries, float.
      k: [B, T, K, D] keys, dtype of `q`; K divides H.
      v: [B, T, K, D] values, dtype of `q`.
      segment_ids: [B, T] int, at least 0; tokens see only tokens with their own id. None: one segment. 0 is padding:
        its outputs and gradients are finite, and meaningless. Skipping wants the ids of a row in ascending order.
      prefix_ids: [B, T] int, the id of another segment, earlier in the row, that the token sees as well; 0: of none.
        Segments that begin with the same tokens may have those in one such segment, once. None: 0 everywhere.
      window: int32 scalar, tokens that a token sees back, itself included; None: all.
      block: tokens at a time; T need not be a multiple. None: 128 on a CPU, where a block of scores should stay in the
        processor's cache, and 512 elsewhere, where each step of a loop has its price.

    Returns:
      [B, T, H, D], dtype of `q`; the softmax is taken in float32.

    Raises:
      ValueError: for a window with `prefix_ids`: how far apart tokens are in a row is then not how far they see.
    """
    chex.assert_rank([q, k, v], 4)
    chex.assert_equal_shape([k, v])
    if prefix_ids is not None and window is not None:
        raise ValueError("expected prefix_ids or a window, got both; write common prefixes out for such a model")
    if segment_ids is None:
        segment_ids = jnp.ones(q.shape[:2], jnp.int32)
    return _attend(block, q * q.shape[-1] ** -0.5, k, v, _Ids(segment_ids, prefix_ids), window)


class _Ids(NamedTuple):
    """What a token belongs to and what else it sees; [B, T], or [N, B, S] in blocks."""

    segment: jax.Array
    prefix: jax.Array | None


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(block, *inputs):
    return _forward(block, *inputs)[0]


def _forward(block, *inputs):
    output, mass = _by_platform(_forward_blocks, block, *inputs)
    return output, (*inputs, output, mass)


def _backward(block, saved, gradient):
    return *_by_platform(_backward_blocks, block, *saved, gradient), None, None


_attend.defvjp(_forward, _backward)


def _by_platform(run: Callable, block: int | None, *inputs):
    sizes = [min(size, inputs[0].shape[1]) for size in ((block, block) if block else (128, 512))]
    cpu, others = (functools.partial(run, size) for size in sizes)
    if sizes[0] == sizes[1]:
        return cpu(*inputs)
    return jax.lax.platform_dependent(*inputs, cpu=cpu, default=others)


# In blocks: N of them, of S tokens; E = G * S queries of a group, stacked as the rows of one matrix.


def _forward_blocks(size, q, k, v, ids, window):
    """The mixed values [B, T, H, D], and the logarithm of each query's sum of exponentials, [B, T, H, 1]."""
    (_, length, *_), (*_, kv_heads, _), dtype = q.shape, k.shape, q.dtype
    q, (k, v, ids) = _queries(size, kv_heads, q), _keys(size, (k, v, ids))
    visits = _visits(ids, window)

    def query_block(i, carry):
        q_i, ids_i = _get((q, ids), i)

        def key_block(number, carry):
            top, total, mixed = carry
            j = visits.blocks[i, number]
            scores = _scores(q_i, _get(k, j), ids_i, _get(ids, j), (i - j) * size, window)
            new_top = jnp.maximum(top, scores.max(-1, keepdims=True))
            weights, keep = jnp.exp(scores - new_top), jnp.exp(top - new_top)
            mixed = keep * mixed + _dot("bkes,bksd->bked", weights.astype(dtype), _get(v, j))
            return new_top, keep * total + weights.sum(-1, keepdims=True), mixed

        zero = jnp.zeros((*q_i.shape[:3], 1))
        start = zero + _MASKED, zero, jnp.zeros(q_i.shape)
        top, total, mixed = jax.lax.fori_loop(0, visits.count[i], key_block, start)
        total = jnp.maximum(total, jnp.finfo(jnp.float32).tiny)
        output, mass = carry
        return _set(output, i, (mixed / total).astype(dtype)), _set(mass, i, top + jnp.log(total))

    start = jnp.zeros_like(q), jnp.zeros((*q.shape[:4], 1))
    output, mass = jax.lax.fori_loop(0, len(q), query_block, start)
    return _rows(size, length, output), _rows(size, length, mass)


def _backward_blocks(size, q, k, v, ids, window, output, mass, gradient):
    """The gradients of q, k and v."""
    (_, length, *_), (*_, kv_heads, _), dtype = q.shape, k.shape, q.dtype
    slope = jnp.sum(gradient.astype(jnp.float32) * output, -1, keepdims=True)
    q, mass, gradient, slope = (_queries(size, kv_heads, x) for x in (q, mass, gradient, slope))
    k, v, ids = _keys(size, (k, v, ids))
    visits = _visits(ids, window)

    def query_block(i, carry):
        q_i, mass_i, gradient_i, slope_i, ids_i = _get((q, mass, gradient, slope, ids), i)

        def key_block(number, carry):
            of_q_i, of_k, of_v = carry
            j = visits.blocks[i, number]
            k_j, v_j, ids_j = _get((k, v, ids), j)
            scores = _scores(q_i, k_j, ids_i, ids_j, (i - j) * size, window)
            weights = jnp.exp(scores - mass_i)
            of_scores = (weights * (_dot("bked,bksd->bkes", gradient_i, v_j) - slope_i)).astype(dtype)
            of_q_i += _dot("bkes,bksd->bked", of_scores, k_j)
            of_k_j = _get(of_k, j) + _dot("bkes,bked->bksd", of_scores, q_i)
            of_v_j = _get(of_v, j) + _dot("bkes,bked->bksd", weights.astype(dtype), gradient_i)
            return of_q_i, _set(of_k, j, of_k_j), _set(of_v, j, of_v_j)

        of_q, of_k, of_v = carry
        start = jnp.zeros(q_i.shape), of_k, of_v
        of_q_i, of_k, of_v = jax.lax.fori_loop(0, visits.count[i], key_block, start)
        return _set(of_q, i, of_q_i.astype(dtype)), of_k, of_v

    start = jnp.zeros_like(q), jnp.zeros(k.shape), jnp.zeros(v.shape)
    of_q, of_k, of_v = jax.lax.fori_loop(0, len(q), query_block, start)
    return _rows(size, length, of_q), *(_rows(size, length, x.astype(dtype)) for x in (of_k, of_v))


class _Visits(NamedTuple):
    """Which blocks of keys each block of queries has to visit."""

    blocks: jax.Array  # [N, N] int32, those first, in order
    count: jax.Array  # [N] int32, how many they are


def _visits(ids: _Ids, window: jax.Array | None) -> _Visits:
    """Goes by the ranges of the ids in each block."""
    order, size = jnp.arange(len(ids.segment)), ids.segment.shape[-1]
    own = _range(ids.segment)
    visit = _meet(own, own) if ids.prefix is None else _meet(own, own) | _meet(_range(ids.prefix), own)
    visit &= order[:, None] >= order
    if window is not None:
        visit &= (order[:, None] - order - 1) * size + 1 < window
    return _Visits(jnp.argsort(~visit, axis=1, stable=True), visit.sum(1))


def _range(ids: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The lowest and the highest of the ids [..., S] that are not 0; an empty range if all are."""
    return jnp.where(ids > 0, ids, jnp.iinfo(jnp.int32).max).min(-1), ids.max(-1)


def _meet(seen: tuple[jax.Array, jax.Array], own: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Whether ranges [N, B] meet in any row, [N, N]."""
    return ((seen[0][:, None] <= own[1]) & (own[0] <= seen[1][:, None])).any(-1)


def _scores(q, k, q_ids, k_ids, apart, window):
    """Scores [B, K, E, S] of a block of queries over one of keys that begins `apart` positions earlier."""
    size = k.shape[2]
    back = apart + jnp.arange(size)[:, None] - jnp.arange(size)
    near = back >= 0 if window is None else (back >= 0) & (back < window)
    mask = q_ids.segment[:, :, None] == k_ids.segment[:, None]
    if q_ids.prefix is not None:
        mask |= (q_ids.prefix[:, :, None] == k_ids.segment[:, None]) & (q_ids.prefix[:, :, None] > 0)
    mask = jnp.tile(near & mask, (1, q.shape[2] // size, 1))[:, None]
    return jnp.where(mask, _dot("bked,bksd->bkes", q, k), _MASKED)


def _queries(size: int, kv_heads: int, x: jax.Array) -> jax.Array:
    """[B, T, H, D] to [N, B, K, E, D]."""
    x = _keys(size, x.reshape(*x.shape[:2], kv_heads, -1, x.shape[-1]))  # [N, B, K, S, G, D]
    return x.swapaxes(3, 4).reshape(*x.shape[:3], -1, x.shape[-1])


def _keys(size: int, arrays: Any) -> Any:
    """[B, T, K, ...] to [N, B, K, S, ...], and [B, T] to [N, B, S], padded with 0; of any arrays."""

    def one(x):
        x = jnp.pad(x, [(0, -x.shape[1] % size if axis == 1 else 0) for axis in range(x.ndim)])
        x = x.reshape(len(x), -1, size, *x.shape[2:]).swapaxes(0, 1)
        return x if x.ndim == 3 else x.swapaxes(2, 3)

    return jax.tree.map(one, arrays)


def _rows(size: int, length: int, x: jax.Array) -> jax.Array:
    """The reverse of `_queries` and `_keys`, cut to T = `length`."""
    x = x.reshape(*x.shape[:3], -1, size, x.shape[-1]).transpose(1, 0, 4, 2, 3, 5)  # [B, N, S, K, G, D]
    return x.reshape(len(x), -1, x.shape[3] * x.shape[4], x.shape[5])[:, :length]


def _dot(spec: str, x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.einsum(spec, x, y, preferred_element_type=jnp.float32)


def _get(arrays: Any, number: jax.Array) -> Any:
    return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, number, keepdims=False), arrays)


def _set(x: jax.Array, number: jax.Array, part: jax.Array) -> jax.Array:
    return jax.lax.dynamic_update_index_in_dim(x, part, number, 0)


def cached_attention(
    q: jax.Array,
    k_cache: jax.Array,
    v_cache: jax.Array,
    layer: jax.Array,
    positions: jax.Array,
    lengths: jax.Array,
    *,
    slots: jax.Array | None = None,
    window: jax.Array | None = None,
    block: int = 128,
) -> jax.Array:
    """Attention of new tokens over the keys and values of their own slot, themselves included.

    Runs over the cache in blocks with a running softmax, as many blocks as the longest slot needs. A block that a slot
    does not need adds exactly nothing to it, so a slot's result does not depend, to the bit, on the other slots.

    Args:
      q: [R, W, H, D] queries, float.
      k_cache: [L, S, K, D, C] the cache of all layers, the new tokens' keys already written.
      v_cache: [L, S, K, C, D] likewise for values.
      layer: int32 scalar, the layer to read.
      positions: [R, W] int32; a query sees the slot's positions up to and including its own.
      lengths: [R] int32, tokens each row's slot holds with the new ones; 0 for a row whose result nobody reads.
      slots: [R] int32, the slot of each row; None: row r is slot r, and R = S.
      window: int32 scalar, positions that a query sees back, its own included; None: all.
      block: positions per step; C need not be a multiple.

    Returns:
      [R, W, H, D], dtype of `q`; the softmax is taken in float32.
    """
    chex.assert_rank([q, k_cache, v_cache], [4, 5, 5])
    rows, width, heads, dim = q.shape
    kv_heads, capacity = k_cache.shape[2], k_cache.shape[4]
    block = min(block, capacity)
    q = (q * dim**-0.5).reshape(rows, width, kv_heads, heads // kv_heads, dim).transpose(0, 2, 3, 1, 4)

    def step(index, carry):
        top, total, mixed = carry  # [R, K, G, W, 1] twice, [R, K, G, W, D]
        # The last block of a capacity that is no multiple is moved back to fit; what it reads twice is masked.
        start = jnp.minimum(index * block, capacity - block)
        k = read(k_cache, (0, 0, start), (kv_heads, dim, block))
        v = read(v_cache, (0, start, 0), (kv_heads, block, dim))
        at = start + jnp.arange(block)
        mask = (at >= index * block) & (at <= positions[:, :, None])
        if window is not None:
            mask &= at > positions[:, :, None] - window
        mask = mask[:, None, None]
        scores = jnp.einsum("rkgwd,rkdc->rkgwc", q, k, preferred_element_type=jnp.float32)
        scores = jnp.where(mask, scores, _MASKED)
        new_top = jnp.maximum(top, scores.max(-1, keepdims=True))
        weights = jnp.where(mask, jnp.exp(scores - new_top), 0.0)
        keep = jnp.exp(top - new_top)
        new_mixed = jnp.einsum("rkgwc,rkcd->rkgwd", weights.astype(v.dtype), v, preferred_element_type=jnp.float32)
        return new_top, keep * total + weights.sum(-1, keepdims=True), keep * mixed + new_mixed

    def read(cache, start, shape):
        """A part of each row's slot, [R, *shape]."""
        if slots is None:
            return jax.lax.dynamic_slice(cache, (layer, 0, *start), (1, rows, *shape))[0]
        of_slot = jax.vmap(lambda slot: jax.lax.dynamic_slice(cache, (layer, slot, *start), (1, 1, *shape)))
        return of_slot(slots)[:, 0, 0]

    shape = (rows, kv_heads, heads // kv_heads, width)
    first = (jnp.full((*shape, 1), _MASKED), jnp.zeros((*shape, 1)), jnp.zeros((*shape, dim)))
    blocks = (jnp.max(lengths) + block - 1) // block
    _, total, mixed = jax.lax.fori_loop(0, blocks, step, first)
    output = mixed / jnp.maximum(total, jnp.finfo(jnp.float32).tiny)
    return jnp.moveaxis(output, 3, 1).reshape(rows, width, heads, dim).astype(q.dtype)
