"""The KV cache of the sampler: one length per slot, all layers in one array, its positions in blocks.

A block of all slots lies in one piece, as attention reads it: on a CPU a read out of rows that are as long as a slot
takes twice as long. So a slot that needs more room gets more blocks.

Legend: L layers, S slots (dialogues being sampled), N blocks of P positions, C = N P tokens of room in a slot,
K key/value heads, D head dimension.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Sharding

from models.config import Qwen2Config


class KVCache(NamedTuple):
    """Keys and values of the tokens that each slot holds; what lies beyond a slot's length is never read.

    Keys are stored transposed, so that both products of attention are plain matrix products: twice as fast on a CPU.

    Attributes:
      k: [L, N, S, K, D, P] float, keys after the rotary embedding.
      v: [L, N, S, K, P, D] float, values.
      lengths: [S] int32, tokens held, 0..C; the next token of a slot gets this position.
    """

    k: jax.Array
    v: jax.Array
    lengths: jax.Array


def init(
    config: Qwen2Config,
    slots: int,
    capacity: int,
    dtype: str | None = None,
    sharding: Sharding | None = None,
    *,
    block: int | None = None,
) -> KVCache:
    """Returns an empty cache of S = `slots` with room for `capacity` tokens or some more, as N is a whole number.

    Args:
      config: the model's sizes.
      slots: S.
      capacity: tokens that a slot holds at most.
      dtype: of keys and values; None: `config.dtype`.
      sharding: of keys and values; None: on one device.
      block: P, cut to `capacity`. None: 128 on a CPU, where a block should stay in the processor's cache, and 512
        elsewhere, where each step of a loop costs time.

    Raises:
      ValueError: when `capacity` exceeds `config.max_positions`.
    """
    if capacity > config.max_positions:
        raise ValueError(f"capacity {capacity} exceeds the model's max_positions {config.max_positions}")
    size = min(block or (128 if jax.default_backend() == "cpu" else 512), capacity)
    heads, dim = (config.num_layers, _count_blocks(capacity, size), slots, config.num_kv_heads), config.head_dim
    shapes = (*heads, dim, size), (*heads, size, dim)
    return KVCache(
        *(jnp.zeros(shape, dtype or config.dtype, device=sharding) for shape in shapes), jnp.zeros(slots, jnp.int32)
    )


def room(cache: KVCache) -> int:
    """Returns C, the tokens that a slot has room for."""
    return cache.v.shape[1] * cache.v.shape[4]


def take_tokens(cache: KVCache, slot: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
    """Returns the keys [L, n, K, D, P] and values [L, n, K, P, D] of the n blocks with a slot's first `size` tokens."""
    count = _count_blocks(size, cache.v.shape[4])
    # A gather reads only the shard that holds the slot; for a slice, the partitioner would gather all slots first.
    return tuple(jnp.take(x[:, :count], slot[None], axis=2, mode="clip")[:, :, 0] for x in (cache.k, cache.v))


def put_tokens(cache: KVCache, slot: jax.Array, k: jax.Array, v: jax.Array) -> KVCache:
    """Writes keys and values, as `take_tokens` returned them, to the beginning of a slot."""
    count, slot = v.shape[1], slot[None]
    return cache._replace(
        k=cache.k.at[:, :count, slot].set(k[:, :, None]), v=cache.v.at[:, :count, slot].set(v[:, :, None])
    )


def take_slots(cache: KVCache, slots: jax.Array) -> KVCache:
    """Returns a cache of these slots [R] alone; a number that is no slot's stands for any."""
    k, v = (jnp.take(x, slots, axis=2, mode="clip") for x in (cache.k, cache.v))
    return KVCache(k, v, jnp.take(cache.lengths, slots, mode="clip"))


def put_slots(cache: KVCache, slots: jax.Array, taken: KVCache) -> KVCache:
    """Writes slots [R] back that `take_slots` returned; a number that is no slot's is left out."""
    k, v = (x.at[:, :, slots].set(new, mode="drop") for x, new in ((cache.k, taken.k), (cache.v, taken.v)))
    return KVCache(k, v, cache.lengths.at[slots].set(taken.lengths, mode="drop"))


def grow_slots(cache: KVCache, capacity: int) -> KVCache:
    """Returns the same cache with blocks for `capacity` tokens in each slot."""
    _, count, _, _, size, _ = cache.v.shape
    more = [(0, 0), (0, _count_blocks(capacity, size) - count), *[(0, 0)] * 4]
    return cache._replace(k=jnp.pad(cache.k, more), v=jnp.pad(cache.v, more))


def _count_blocks(tokens: int, size: int) -> int:
    """Returns how many blocks of `size` positions hold so many tokens."""
    return -(-tokens // size)
