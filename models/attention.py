"""Exact grouped-query attention in blocks: over a whole sequence (training), and over a KV cache (sampling).

Both walk over keys in blocks, so that a block of scores stays in the processor's cache, and both skip blocks that no
query may see: `causal_attention` the future and other segments, `cached_attention` the unused end of the cache.

Legend: B rows, T tokens of a row, S slots of the cache, R rows of new tokens, W tokens of each, C capacity of a slot,
L layers, H query heads, K key/value heads, G = H / K query heads of one key/value head, D head dimension.
"""

import functools
from collections.abc import Callable

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
    window: jax.Array | None = None,
    block: int | None = None,
) -> jax.Array:
    """Attention in which each token sees itself and the earlier tokens of its own segment.

    Queries and keys are taken `block` at a time, pair by pair, with a running softmax; pairs in which no query of any
    row sees a key, of the future, of another segment or beyond the window, are not visited, in neither direction. The
    backward pass computes the scores again: memory grows with T. (FlashAttention, arXiv 2205.14135, as a loop.)

    Args:
      q: [B, T, H, D] queries, float.
      k: [B, T, K, D] keys, dtype of `q`; K divides H.
      v: [B, T, K, D] values, dtype of `q`.
      segment_ids: [B, T] int, at least 0; tokens see only tokens with their own id. None: one segment. 0 is padding:
        its outputs and gradients are finite, and meaningless. Skipping wants the ids of a row in ascending order.
      window: int32 scalar, tokens that a token sees back, itself included; None: all.
      block: tokens at a time; T need not be a multiple. None: 128 on a CPU, where a block of scores should stay in the
        processor's cache, and 512 elsewhere, where each step of a loop has its price.

    Returns:
      [B, T, H, D], dtype of `q`; the softmax is taken in float32.
    """
    chex.assert_rank([q, k, v], 4)
    chex.assert_equal_shape([k, v])
    if segment_ids is None:
        segment_ids = jnp.ones(q.shape[:2], jnp.int32)
    return _attend(block, q * q.shape[-1] ** -0.5, k, v, segment_ids, window)


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
    sizes = (block, block) if block else (128, 512)
    cpu, others = (functools.partial(run, min(size, inputs[0].shape[1])) for size in sizes)
    return jax.lax.platform_dependent(*inputs, cpu=cpu, default=others)


# In blocks: N of them, of S tokens; E = G * S queries of a group, stacked as the rows of one matrix.


def _forward_blocks(size, q, k, v, segment_ids, window):
    """The mixed values [B, T, H, D], and the logarithm of each query's sum of exponentials, [B, T, H, 1]."""
    (_, length, *_), (*_, kv_heads, _), dtype = q.shape, k.shape, q.dtype
    q, k, v, segments = _queries(size, kv_heads, q), _keys(size, k), _keys(size, v), _keys(size, segment_ids)
    first = _first(segments, window)

    def query_block(i, carry):
        q_i, segments_i = _get(q, i), _get(segments, i)

        def key_block(j, carry):
            top, total, mixed = carry
            scores = _scores(q_i, _get(k, j), segments_i, _get(segments, j), (i - j) * size, window)
            new_top = jnp.maximum(top, scores.max(-1, keepdims=True))
            weights, keep = jnp.exp(scores - new_top), jnp.exp(top - new_top)
            mixed = keep * mixed + _dot("bkes,bksd->bked", weights.astype(dtype), _get(v, j))
            return new_top, keep * total + weights.sum(-1, keepdims=True), mixed

        zero = jnp.zeros((*q_i.shape[:3], 1))
        start = zero + _MASKED, zero, jnp.zeros(q_i.shape)
        top, total, mixed = jax.lax.fori_loop(first[i], i + 1, key_block, start)
        total = jnp.maximum(total, jnp.finfo(jnp.float32).tiny)
        output, mass = carry
        return _set(output, i, (mixed / total).astype(dtype)), _set(mass, i, top + jnp.log(total))

    start = jnp.zeros_like(q), jnp.zeros((*q.shape[:4], 1))
    output, mass = jax.lax.fori_loop(0, len(q), query_block, start)
    return _rows(size, length, output), _rows(size, length, mass)


def _backward_blocks(size, q, k, v, segment_ids, window, output, mass, gradient):
    """The gradients of q, k and v."""
    (_, length, *_), (*_, kv_heads, _), dtype = q.shape, k.shape, q.dtype
    slope = jnp.sum(gradient.astype(jnp.float32) * output, -1, keepdims=True)
    q, mass, gradient, slope = (_queries(size, kv_heads, x) for x in (q, mass, gradient, slope))
    k, v, segments = _keys(size, k), _keys(size, v), _keys(size, segment_ids)
    first = _first(segments, window)

    def query_block(i, carry):
        q_i, mass_i, gradient_i, slope_i, segments_i = (_get(x, i) for x in (q, mass, gradient, slope, segments))

        def key_block(j, carry):
            of_q_i, of_k, of_v = carry
            k_j, v_j = _get(k, j), _get(v, j)
            scores = _scores(q_i, k_j, segments_i, _get(segments, j), (i - j) * size, window)
            weights = jnp.exp(scores - mass_i)
            of_scores = (weights * (_dot("bked,bksd->bkes", gradient_i, v_j) - slope_i)).astype(dtype)
            of_q_i += _dot("bkes,bksd->bked", of_scores, k_j)
            of_k_j = _get(of_k, j) + _dot("bkes,bked->bksd", of_scores, q_i)
            of_v_j = _get(of_v, j) + _dot("bkes,bked->bksd", weights.astype(dtype), gradient_i)
            return of_q_i, _set(of_k, j, of_k_j), _set(of_v, j, of_v_j)

        of_q, of_k, of_v = carry
        start = jnp.zeros(q_i.shape), of_k, of_v
        of_q_i, of_k, of_v = jax.lax.fori_loop(first[i], i + 1, key_block, start)
        return _set(of_q, i, of_q_i.astype(dtype)), of_k, of_v

    start = jnp.zeros_like(q), jnp.zeros(k.shape), jnp.zeros(v.shape)
    of_q, of_k, of_v = jax.lax.fori_loop(0, len(q), query_block, start)
    return _rows(size, length, of_q), *(_rows(size, length, x.astype(dtype)) for x in (of_k, of_v))


def _first(segments: jax.Array, window: jax.Array | None) -> jax.Array:
    """The first block of keys that each block of queries has to visit, [N] int32; one past its own if none."""
    low, high = jnp.where(segments > 0, segments, jnp.iinfo(jnp.int32).max).min(-1), segments.max(-1)
    order, size = jnp.arange(len(segments)), segments.shape[-1]
    visit = ((low[:, None] <= high) & (low <= high[:, None])).any(-1) & (order[:, None] >= order)
    if window is not None:
        visit &= (order[:, None] - order - 1) * size + 1 < window
    return jnp.where(visit.any(1), visit.argmax(1), order + 1).astype(jnp.int32)


def _scores(q, k, q_segments, k_segments, apart, window):
    """Scores [B, K, E, S] of a block of queries over one of keys that begins `apart` positions earlier."""
    size = k.shape[2]
    back = apart + jnp.arange(size)[:, None] - jnp.arange(size)
    mask = back >= 0 if window is None else (back >= 0) & (back < window)
    mask = mask & (q_segments[:, :, None] == k_segments[:, None])
    mask = jnp.tile(mask, (1, q.shape[2] // size, 1))[:, None]
    return jnp.where(mask, _dot("bked,bksd->bkes", q, k), _MASKED)


def _queries(size: int, kv_heads: int, x: jax.Array) -> jax.Array:
    """[B, T, H, D] to [N, B, K, E, D]."""
    x = _keys(size, x.reshape(*x.shape[:2], kv_heads, -1, x.shape[-1]))  # [N, B, K, S, G, D]
    return x.swapaxes(3, 4).reshape(*x.shape[:3], -1, x.shape[-1])


def _keys(size: int, x: jax.Array) -> jax.Array:
    """[B, T, K, ...] to [N, B, K, S, ...], and [B, T] to [N, B, S], padded with 0."""
    x = jnp.pad(x, [(0, -x.shape[1] % size if axis == 1 else 0) for axis in range(x.ndim)])
    x = x.reshape(len(x), -1, size, *x.shape[2:]).swapaxes(0, 1)
    return x if x.ndim == 3 else x.swapaxes(2, 3)


def _rows(size: int, length: int, x: jax.Array) -> jax.Array:
    """The reverse of `_queries` and `_keys`, cut to T = `length`."""
    x = x.reshape(*x.shape[:3], -1, size, x.shape[-1]).transpose(1, 0, 4, 2, 3, 5)  # [B, N, S, K, G, D]
    return x.reshape(len(x), -1, x.shape[3] * x.shape[4], x.shape[5])[:, :length]


def _dot(spec: str, x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.einsum(spec, x, y, preferred_element_type=jnp.float32)


def _get(x: jax.Array, number: jax.Array) -> jax.Array:
    return jax.lax.dynamic_index_in_dim(x, number, keepdims=False)


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
