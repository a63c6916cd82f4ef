"""The KV cache of the sampler: one length per slot, all layers in one array.

Legend: L layers, S slots (dialogues being sampled), C capacity of a slot in tokens, K key/value heads,
D head dimension.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Sharding

from models.config import Qwen2Config


class KVCache(NamedTuple):
    """Keys and values of the tokens that each slot holds; beyond a slot's length lie leftovers that nobody reads.

    Attributes:
      k: [L, S, C, K, D] float, keys after the rotary embedding.
      v: [L, S, C, K, D] float, values.
      lengths: [S] int32, tokens held, 0..C; the next token of a slot gets this position.
    """

    k: jax.Array
    v: jax.Array
    lengths: jax.Array


def init(
    config: Qwen2Config, slots: int, capacity: int, dtype: str | None = None, sharding: Sharding | None = None
) -> KVCache:
    """Returns an empty cache of S = `slots` and C = `capacity`, in `dtype` (default: `config.dtype`).

    `sharding` is that of keys and values.

    Raises:
      ValueError: when C exceeds `config.max_positions`.
    """
    if capacity > config.max_positions:
        raise ValueError(f"capacity {capacity} exceeds the model's max_positions {config.max_positions}")
    shape = (config.num_layers, slots, capacity, config.num_kv_heads, config.head_dim)
    k, v = (jnp.zeros(shape, dtype or config.dtype, device=sharding) for _ in range(2))
    return KVCache(k, v, jnp.zeros(slots, jnp.int32))


def take(cache: KVCache, slot: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
    """The keys and values [L, size, K, D] of a slot's first tokens; `size` is static."""
    # A gather, which the partitioner answers from the shard that holds the slot; a slice would gather all slots first.
    return tuple(jnp.take(x[:, :, :size], slot[None], axis=1, mode="clip")[:, 0] for x in (cache.k, cache.v))


def put(cache: KVCache, slot: jax.Array, k: jax.Array, v: jax.Array) -> KVCache:
    """Writes keys and values, as `take` gave them, to the beginning of a slot."""
    size = k.shape[1]
    k, v = (x.at[:, slot[None], :size].set(new[:, None]) for x, new in ((cache.k, k), (cache.v, v)))
    return cache._replace(k=k, v=v)


def grow(cache: KVCache, capacity: int) -> KVCache:
    """The same cache with room for `capacity` tokens a slot."""
    more = [(0, 0), (0, 0), (0, capacity - cache.k.shape[2]), (0, 0), (0, 0)]
    return cache._replace(k=jnp.pad(cache.k, more), v=jnp.pad(cache.v, more))
