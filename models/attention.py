"""Exact grouped-query attention in blocks: over a whole sequence (training), and over a KV cache (sampling).

Both walk over keys in blocks, so that a block of scores stays in the processor's cache, and both skip keys that no
query may see: `causal_attention` the future, `cached_attention` the unused end of the cache.

Legend: B rows, T tokens of a row, S slots of the cache, R rows of new tokens, W tokens of each, C capacity of a slot,
L layers, H query heads, K key/value heads, G = H / K query heads of one key/value head, D head dimension.
"""

import functools

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
    block: int = 128,
) -> jax.Array:
    """Attention in which each token sees itself and the earlier tokens of its own segment.

    Queries are taken `block` at a time, each with the keys up to the block's end only; scores are computed again in
    the backward pass, so that memory grows with T and not with T squared.

    Args:
      q: [B, T, H, D] queries, float.
      k: [B, T, K, D] keys, dtype of `q`; K divides H.
      v: [B, T, K, D] values, dtype of `q`.
      segment_ids: [B, T] int; tokens see only tokens with their own id. None: one segment. Padding is a segment like
        any other (usually 0): its outputs and gradients are finite, and meaningless.
      window: int32 scalar, tokens that a token sees back, itself included; None: all.
      block: queries per block; T need not be a multiple.

    Returns:
      [B, T, H, D], dtype of `q`; the softmax is taken in float32.
    """
    chex.assert_rank([q, k, v], 4)
    chex.assert_equal_shape([k, v])
    batch, length, heads, dim = q.shape
    kv_heads = k.shape[2]
    groups = heads // kv_heads
    if segment_ids is None:
        segment_ids = jnp.ones((batch, length), jnp.int32)
    # Heads before tokens: every product below is then a plain batch of matrices, which is what XLA:CPU runs well.
    q = (q * dim**-0.5).reshape(batch, length, kv_heads, groups, dim).transpose(0, 2, 3, 1, 4)
    k, v = k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3)

    # The slices are taken inside, so that what all blocks keep for the backward pass is the same q, k and v.
    @functools.partial(jax.checkpoint, static_argnums=(5, 6))
    def attend(q, k, v, segment_ids, window, start, end):
        # q [B, K, G, t, D] against k and v [B, K, s, D], s = start + t: the queries of a group are stacked as rows.
        q, k, v = q[..., start:end, :], k[:, :, :end], v[:, :, :end]
        scores = jnp.einsum(
            "bkqd,bksd->bkqs", q.reshape(*k.shape[:2], -1, dim), k, preferred_element_type=jnp.float32
        ).reshape(*q.shape[:4], end)
        back = jnp.arange(start, end)[:, None] - jnp.arange(end)
        mask = back >= 0 if window is None else (back >= 0) & (back < window)
        mask = mask & (segment_ids[:, start:end, None] == segment_ids[:, None, :end])
        weights = jax.nn.softmax(jnp.where(mask[:, None, None], scores, _MASKED)).astype(v.dtype)
        return jnp.einsum("bkqs,bksd->bkqd", weights.reshape(*k.shape[:2], -1, end), v).reshape(q.shape)

    starts = range(0, length, block)
    outputs = [attend(q, k, v, segment_ids, window, start, min(start + block, length)) for start in starts]
    output = jnp.concatenate(outputs, axis=3)
    return output.transpose(0, 3, 1, 2, 4).reshape(batch, length, heads, dim)


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
