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
    """Keys and values of the tokens that each slot holds; what lies beyond a slot's length is never read.

    Keys are stored transposed, so that both products of attention are plain matrix products: twice as fast on a CPU.

    Attributes:
      k: [L, S, K, D, C] float, keys after the rotary embedding.
      v: [L, S, K, C, D] float, values.
      lengths: [S] int32, tokens held, 0..C; the next token of a slot gets this position.
    """

    k: jax.Array
    v: jax.Array
    lengths: jax.Array


def init(
    config: Qwen2Config, slots: int, capacity: int, dtype: str | None = None, sharding: Sharding | None = None
) -> KVCache:
    """Returns an empty cache of S = `slots` and C = `capacity`, in `dtype` (default: `config.dtype`).

    `sharding` is the sharding of keys and values.

    Raises:
      ValueError: when C exceeds `config.max_positions`.
    """
    if capacity > config.max_positions:
        raise ValueError(f"capacity {capacity} exceeds the model's max_positions {config.max_positions}")
    heads, dim = (config.num_layers, slots, config.num_kv_heads), config.head_dim
    shapes = (*heads, dim, capacity), (*heads, capacity, dim)
    return KVCache(
        *(jnp.zeros(shape, dtype or config.dtype, device=sharding) for shape in shapes), jnp.zeros(slots, jnp.int32)
    )


def room(cache: KVCache) -> int:
    """Returns C, the tokens that a slot has room for."""
    return cache.v.shape[3]


def take_tokens(cache: KVCache, slot: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
    """Returns the keys [L, K, D, size] and values [L, K, size, D] of a slot's first tokens; `size` is static."""
    # A gather reads only the shard that holds the slot; for a slice, the partitioner would gather all slots first.
    parts = cache.k[..., :size], cache.v[..., :size, :]
    return tuple(jnp.take(x, slot[None], axis=1, mode="clip")[:, 0] for x in parts)


def put_tokens(cache: KVCache, slot: jax.Array, k: jax.Array, v: jax.Array) -> KVCache:
    """Writes keys and values, as `take_tokens` returned them, to the beginning of a slot."""
    size, slot = v.shape[2], slot[None]
    return cache._replace(
        k=cache.k.at[:, slot, :, :, :size].set(k[:, None]), v=cache.v.at[:, slot, :, :size].set(v[:, None])
    )


def take_slots(cache: KVCache, slots: jax.Array) -> KVCache:
    """Returns a cache of these slots [R] alone; a number that is no slot's stands for any."""
    k, v = (jnp.take(x, slots, axis=1, mode="clip") for x in (cache.k, cache.v))
    return KVCache(k, v, jnp.take(cache.lengths, slots, mode="clip"))


def put_slots(cache: KVCache, slots: jax.Array, taken: KVCache) -> KVCache:
    """Writes slots [R] back that `take_slots` returned; a number that is no slot's is left out."""
    k, v = (x.at[:, slots].set(new, mode="drop") for x, new in ((cache.k, taken.k), (cache.v, taken.v)))
    return KVCache(k, v, cache.lengths.at[slots].set(taken.lengths, mode="drop"))


def grow_slots(cache: KVCache, capacity: int) -> KVCache:
    """Returns the same cache with room for `capacity` tokens in each slot."""
    more, none = (0, capacity - room(cache)), (0, 0)
    k, v = jnp.pad(cache.k, (none, none, none, none, more)), jnp.pad(cache.v, (none, none, none, more, none))
    return cache._replace(k=k, v=v)
