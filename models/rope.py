"""Rotary position embeddings (https://arxiv.org/abs/2104.09864), plain or stretched by YaRN.

Legend: B rows, T tokens of a row, A head dimension.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from models.config import Qwen2Config

Rope = tuple[jax.Array, jax.Array]
"""Cosine and sine [B, T, 1, A/2], float32, of every token's angles."""


def compute_angles(config: Qwen2Config, positions: jax.Array) -> Rope:
    """Computes cosine and sine for tokens at `positions` [B, T] int."""
    frequencies, scale = frequencies_of(config)
    turned = positions[:, :, None, None] * jnp.asarray(frequencies, jnp.float32)
    return jnp.cos(turned) * scale, jnp.sin(turned) * scale


def rotate(x: jax.Array, rope: Rope) -> jax.Array:
    """Rotates x [B, T, heads, A] in the planes (i, i + A/2): Hugging Face's `rotate_half` convention."""
    cos, sin = rope
    a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)


def frequencies_of(config: Qwen2Config) -> tuple[np.ndarray, float]:
    """Returns radians per position of each plane, [A/2] float64, and the factor of cosine and sine.

    YaRN (https://arxiv.org/abs/2309.00071, section 3) divides the frequency of slow planes by its factor, keeps that of
    fast ones, and blends between the planes that make `beta_slow` and `beta_fast` turns within the old context.
    """
    size, yarn = config.head_dim, config.yarn
    plain = config.rope_theta ** -(np.arange(0, size, 2) / size)
    if yarn is None:
        return plain, 1.0

    def find_plane(turns: float) -> float:
        return size * math.log(yarn.original_positions / (turns * 2 * math.pi)) / (2 * math.log(config.rope_theta))

    low, high = find_plane(yarn.beta_fast), find_plane(yarn.beta_slow)
    if yarn.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, size - 1)
    ramp = np.clip((np.arange(size // 2) - low) / max(high - low, 1e-3), 0, 1)
    scale = 0.1 * math.log(yarn.factor) + 1.0 if yarn.attention_factor is None else yarn.attention_factor
    return plain * (1 - ramp) + plain / yarn.factor * ramp, scale
