"""Exact grouped-query attention in blocks: over a whole sequence (training), and over a KV cache (sampling).

Both go over keys in blocks, so that a block of scores stays in the processor's cache, and both skip blocks that no
query may see: `causal_attention` the future and other segments, `cached_attention` the unused end of the cache.

Legend: B rows, T tokens of a row, S slots of the cache, N blocks of P positions, R rows of new tokens, W tokens of
each, L layers, H query heads, K key/value heads, G = H / K query heads of one key/value head, D head dimension.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

# Finite, so that a query that sees nothing gives an even mixture instead of NaN. Fits in float32 and bfloat16.
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
    kernel: str = "blocks",
) -> jax.Array:
    """Attention in which each token sees itself and the earlier tokens of its own segment, and of one before it.

    Queries and keys are taken `block` at a time, pair by pair, with a running softmax. Pairs in which no query of any
    row sees a key, because all are in the future, in other segments or beyond the window, are skipped, forward and
    backward. The backward pass computes the scores again: memory grows with T, not T². (FlashAttention, arXiv
    2205.14135, as a loop.)

    Args:
      q: [B, T, H, D] queries, float.
      k: [B, T, K, D] keys, dtype of `q`; K divides H.
      v: [B, T, K, D] values, dtype of `q`.
      segment_ids: [B, T] int, at least 0; tokens see only tokens with their own id. None: one segment. 0 is padding:
        its outputs and gradients are finite, and meaningless. Skipping needs the ids of a row in ascending order.
      prefix_ids: [B, T] int, the id of another segment, earlier in the row, that the token sees as well; 0: none.
        Segments that begin with the same tokens may share one segment that holds these. None: 0 everywhere.
      window: int32 scalar, how many tokens back a token sees, itself included; None: all.
      block: tokens at a time; T need not be a multiple. None: 128 on a CPU, where a block of scores should stay in the
        processor's cache, and 1024 elsewhere, where each step of a loop costs time.
      kernel: "blocks"; or "cudnn" or "xla", that implementation of `jax.nn.dot_product_attention`, used where T is a
        multiple of 64. cuDNN's needs a GPU and half precision, and is the fastest there; it skips the future alone.

    Returns:
      [B, T, H, D], dtype of `q`; the softmax is taken in float32.

    Raises:
      ValueError: for a window with `prefix_ids`: with prefixes, distances in a row are not distances in the text.
    """
    chex.assert_rank([q, k, v], 4)
    chex.assert_equal_shape([k, v])
    if prefix_ids is not None and window is not None:
        raise ValueError("expected prefix_ids or a window, got both; write common prefixes out for such a model")
    if segment_ids is None:
        segment_ids = jnp.ones(q.shape[:2], jnp.int32)
    ids = _Ids(segment_ids, prefix_ids)
    if kernel != "blocks" and q.shape[1] % 64 == 0:
        mask = _mask_pairs(ids, ids, jnp.arange(q.shape[1])[:, None] - jnp.arange(q.shape[1]), window)
        return jax.nn.dot_product_attention(q, k, v, mask=mask[:, None], is_causal=True, implementation=kernel)
    return _attend_causally(block, q * q.shape[-1] ** -0.5, k, v, ids, window)


class _Ids(NamedTuple):
    """The segment that a token belongs to, and the prefix that it sees too; [B, T], or [N, B, S] in blocks."""

    segment: jax.Array
    prefix: jax.Array | None


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend_causally(block, *inputs):
    return _forward(block, *inputs)[0]


def _forward(block, *inputs):
    output, mass = _by_platform(_forward_blocks, block, *inputs)
    return output, (*inputs, output, mass)


def _backward(block, saved, gradient):
    return *_by_platform(_backward_blocks, block, *saved, gradient), None, None


_attend_causally.defvjp(_forward, _backward)


def _by_platform(run: Callable, block: int | None, *inputs):
    sizes = [min(size, inputs[0].shape[1]) for size in ((block, block) if block else (128, 1024))]
    cpu, others = (functools.partial(run, size) for size in sizes)
    if sizes[0] == sizes[1]:
        return cpu(*inputs)
    return jax.lax.platform_dependent(*inputs, cpu=cpu, default=others)


# Below, arrays come in N blocks of S tokens; E = G * S queries of a group are stacked as the rows of one matrix.


def _forward_blocks(size, q, k, v, ids, window):
    """Returns the mixed values [B, T, H, D] and the logarithm of each query's sum of exponentials, [B, T, H, 1]."""
    (_, length, *_), (*_, kv_heads, _), dtype = q.shape, k.shape, q.dtype
    q, (k, v, ids) = _split_queries(size, kv_heads, q), _split_keys(size, (k, v, ids))
    visits = _plan_visits(ids, window)

    def query_block(i, carry):
        q_i, ids_i = _get_block((q, ids), i)

        def key_block(number, carry):
            top, total, mixed = carry
            j = visits.blocks[i, number]
            scores = _score_block(q_i, _get_block(k, j), ids_i, _get_block(ids, j), (i - j) * size, window)
            new_top = jnp.maximum(top, scores.max(-1, keepdims=True))
            weights, keep = jnp.exp(scores - new_top), jnp.exp(top - new_top)
            mixed = keep * mixed + _dot("bkes,bksd->bked", weights.astype(dtype), _get_block(v, j))
            return new_top, keep * total + weights.sum(-1, keepdims=True), mixed

        zero = jnp.zeros((*q_i.shape[:3], 1))
        start = zero + _MASKED, zero, jnp.zeros(q_i.shape)
        top, total, mixed = jax.lax.fori_loop(0, visits.count[i], key_block, start)
        total = jnp.maximum(total, jnp.finfo(jnp.float32).tiny)
        output, mass = carry
        return _set_block(output, i, (mixed / total).astype(dtype)), _set_block(mass, i, top + jnp.log(total))

    start = jnp.zeros_like(q), jnp.zeros((*q.shape[:4], 1))
    output, mass = jax.lax.fori_loop(0, len(q), query_block, start)
    return _join_blocks(size, length, output), _join_blocks(size, length, mass)


def _backward_blocks(size, q, k, v, ids, window, output, mass, gradient):
    """Returns the gradients of q, k and v."""
    (_, length, *_), (*_, kv_heads, _), dtype = q.shape, k.shape, q.dtype
    slope = jnp.sum(gradient.astype(jnp.float32) * output, -1, keepdims=True)
    q, mass, gradient, slope = (_split_queries(size, kv_heads, x) for x in (q, mass, gradient, slope))
    k, v, ids = _split_keys(size, (k, v, ids))
    visits = _plan_visits(ids, window)

    def query_block(i, carry):
        q_i, mass_i, gradient_i, slope_i, ids_i = _get_block((q, mass, gradient, slope, ids), i)

        def key_block(number, carry):
            of_q_i, of_k, of_v = carry
            j = visits.blocks[i, number]
            k_j, v_j, ids_j = _get_block((k, v, ids), j)
            scores = _score_block(q_i, k_j, ids_i, ids_j, (i - j) * size, window)
            weights = jnp.exp(scores - mass_i)
            of_scores = (weights * (_dot("bked,bksd->bkes", gradient_i, v_j) - slope_i)).astype(dtype)
            of_q_i += _dot("bkes,bksd->bked", of_scores, k_j)
            of_k_j = _get_block(of_k, j) + _dot("bkes,bked->bksd", of_scores, q_i)
            of_v_j = _get_block(of_v, j) + _dot("bkes,bked->bksd", weights.astype(dtype), gradient_i)
            return of_q_i, _set_block(of_k, j, of_k_j), _set_block(of_v, j, of_v_j)

        of_q, of_k, of_v = carry
        start = jnp.zeros(q_i.shape), of_k, of_v
        of_q_i, of_k, of_v = jax.lax.fori_loop(0, visits.count[i], key_block, start)
        return _set_block(of_q, i, of_q_i.astype(dtype)), of_k, of_v

    start = jnp.zeros_like(q), jnp.zeros(k.shape), jnp.zeros(v.shape)
    of_q, of_k, of_v = jax.lax.fori_loop(0, len(q), query_block, start)
    return _join_blocks(size, length, of_q), *(_join_blocks(size, length, x.astype(dtype)) for x in (of_k, of_v))


class _Visits(NamedTuple):
    """Which blocks of keys each block of queries has to visit."""

    blocks: jax.Array  # [N, N] int32, the blocks to visit first, in order
    count: jax.Array  # [N] int32, how many to visit


def _plan_visits(ids: _Ids, window: jax.Array | None) -> _Visits:
    """Plans the visits by the ranges of the ids in each block."""
    order, size = jnp.arange(len(ids.segment)), ids.segment.shape[-1]
    own = _find_range(ids.segment)
    visit = (
        _ranges_meet(own, own)
        if ids.prefix is None
        else _ranges_meet(own, own) | _ranges_meet(_find_range(ids.prefix), own)
    )
    visit &= order[:, None] >= order
    if window is not None:
        visit &= (order[:, None] - order - 1) * size + 1 < window
    return _Visits(jnp.argsort(~visit, axis=1, stable=True), visit.sum(1))


def _find_range(ids: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Finds the lowest and the highest of the ids [..., S] that are not 0; an empty range if all are 0."""
    return jnp.where(ids > 0, ids, jnp.iinfo(jnp.int32).max).min(-1), ids.max(-1)


def _ranges_meet(seen: tuple[jax.Array, jax.Array], own: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Tells whether ranges [N, B] meet in any row; [N, N]."""
    return ((seen[0][:, None] <= own[1]) & (own[0] <= seen[1][:, None])).any(-1)


def _score_block(q, k, q_ids, k_ids, apart, window):
    """Returns scores [B, K, E, S] of a block of queries and a block of keys that begins `apart` positions earlier."""
    size = k.shape[2]
    back = apart + jnp.arange(size)[:, None] - jnp.arange(size)
    mask = _mask_pairs(q_ids, k_ids, back, window)
    mask = jnp.tile(mask, (1, q.shape[2] // size, 1))[:, None]
    return jnp.where(mask, _dot("bked,bksd->bkes", q, k), _MASKED)


def _mask_pairs(q_ids: _Ids, k_ids: _Ids, back: jax.Array, window: jax.Array | None) -> jax.Array:
    """Returns which keys [B, Tk] each query [B, Tq] sees, [B, Tq, Tk]; `back` [Tq, Tk]: how far back a key lies."""
    mask = q_ids.segment[:, :, None] == k_ids.segment[:, None]
    if q_ids.prefix is not None:
        mask |= (q_ids.prefix[:, :, None] == k_ids.segment[:, None]) & (q_ids.prefix[:, :, None] > 0)
    return mask & (back >= 0 if window is None else (back >= 0) & (back < window))


def _split_queries(size: int, kv_heads: int, x: jax.Array) -> jax.Array:
    """Splits [B, T, H, D] into blocks [N, B, K, E, D]."""
    x = _split_keys(size, x.reshape(*x.shape[:2], kv_heads, -1, x.shape[-1]))  # [N, B, K, S, G, D]
    return x.swapaxes(3, 4).reshape(*x.shape[:3], -1, x.shape[-1])


def _split_keys(size: int, arrays: Any) -> Any:
    """Splits any arrays, padded with 0: [B, T, K, ...] into [N, B, K, S, ...], and [B, T] into [N, B, S]."""

    def split_one(x):
        x = jnp.pad(x, [(0, -x.shape[1] % size if axis == 1 else 0) for axis in range(x.ndim)])
        x = x.reshape(len(x), -1, size, *x.shape[2:]).swapaxes(0, 1)
        return x if x.ndim == 3 else x.swapaxes(2, 3)

    return jax.tree.map(split_one, arrays)


def _join_blocks(size: int, length: int, x: jax.Array) -> jax.Array:
    """Reverses `_split_queries` and `_split_keys`, and cuts to T = `length`."""
    x = x.reshape(*x.shape[:3], -1, size, x.shape[-1]).transpose(1, 0, 4, 2, 3, 5)  # [B, N, S, K, G, D]
    return x.reshape(len(x), -1, x.shape[3] * x.shape[4], x.shape[5])[:, :length]


def _dot(spec: str, x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.einsum(spec, x, y, preferred_element_type=jnp.float32)


def _get_block(arrays: Any, number: jax.Array) -> Any:
    return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, number, keepdims=False), arrays)


def _set_block(x: jax.Array, number: jax.Array, part: jax.Array) -> jax.Array:
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
    whole: bool | None = None,
) -> jax.Array:
    """Attention of new tokens over the keys and values of their own slot, themselves included.

    It goes over the cache block by block with a running softmax, as many blocks as the longest slot needs. A block that
    a slot does not need adds exactly nothing to it, so a slot's result is the same to the bit whatever other slots
    hold.

    Args:
      q: [R, W, H, D] queries, float.
      k_cache: [L, N, S, K, D, P] the cache of all layers, the new tokens' keys already written.
      v_cache: [L, N, S, K, P, D] likewise for values.
      layer: int32 scalar, the layer to read.
      positions: [R, W] int32; a query sees the slot's positions up to and including its own.
      lengths: [R] int32, tokens that each row's slot holds, the new ones included; 0 for a row whose result is unused.
      slots: [R] int32, the slot of each row; None: row r is slot r, and R = S.
      window: int32 scalar, how many positions back a query sees, its own included; None: all.
      whole: whether to go over all of the cache, used or not. None: not on a CPU; elsewhere, for a single new token,
        where a loop whose length is not known beforehand costs more than what it leaves out.

    Returns:
      [R, W, H, D], dtype of `q`; the softmax is taken in float32.
    """
    chex.assert_rank([q, k_cache, v_cache], [4, 6, 6])
    arrays = q, k_cache, v_cache, layer, positions, lengths, slots, window
    if whole is None and q.shape[1] == 1:
        by_used, by_all = (functools.partial(_attend_cached, choice) for choice in (False, True))
        return jax.lax.platform_dependent(*arrays, cpu=by_used, default=by_all)
    return _attend_cached(bool(whole), *arrays)


def _attend_cached(whole, q, k_cache, v_cache, layer, positions, lengths, slots, window):
    """Returns what `cached_attention` does, for this choice."""
    rows, width, heads, dim = q.shape
    _, count, _, kv_heads, block, _ = v_cache.shape
    q = (q * dim**-0.5).reshape(rows, width, kv_heads, heads // kv_heads, dim).transpose(0, 2, 3, 1, 4)

    def add_block(index, carry):
        top, total, mixed = carry  # [R, K, G, W, 1] twice, [R, K, G, W, D]
        k, v = read_block(k_cache, index), read_block(v_cache, index)
        at = index * block + jnp.arange(block)
        mask = at <= positions[:, :, None]
        if window is not None:
            mask &= at > positions[:, :, None] - window
        mask = mask[:, None, None]
        scores = jnp.einsum("rkgwd,rkdp->rkgwp", q, k, preferred_element_type=jnp.float32)
        scores = jnp.where(mask, scores, _MASKED)
        new_top = jnp.maximum(top, scores.max(-1, keepdims=True))
        weights = jnp.where(mask, jnp.exp(scores - new_top), 0.0)
        keep = jnp.exp(top - new_top)
        new_mixed = jnp.einsum("rkgwp,rkpd->rkgwd", weights.astype(v.dtype), v, preferred_element_type=jnp.float32)
        return new_top, keep * total + weights.sum(-1, keepdims=True), keep * mixed + new_mixed

    def read_block(cache, index):
        """Reads a block of each row's slot, [R, K, ...]."""
        shape = cache.shape[3:]
        if slots is None:
            return jax.lax.dynamic_slice(cache, (layer, index, 0, 0, 0, 0), (1, 1, rows, *shape))[0, 0]
        of_slot = jax.vmap(lambda slot: jax.lax.dynamic_slice(cache, (layer, index, slot, 0, 0, 0), (1, 1, 1, *shape)))
        return of_slot(slots)[:, 0, 0, 0]

    shape = (rows, kv_heads, heads // kv_heads, width)
    first = (jnp.full((*shape, 1), _MASKED), jnp.zeros((*shape, 1)), jnp.zeros((*shape, dim)))
    used = count if whole else (jnp.max(lengths) + block - 1) // block
    _, total, mixed = jax.lax.fori_loop(0, used, add_block, first, unroll=whole or None)
    output = mixed / jnp.maximum(total, jnp.finfo(jnp.float32).tiny)
    return jnp.moveaxis(output, 3, 1).reshape(rows, width, heads, dim).astype(q.dtype)
