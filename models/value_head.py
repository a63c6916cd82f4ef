"""A value head: a number for each hidden state, beside the output head.

Legend: B rows, T tokens, D hidden size.
"""

from typing import Any

import jax
import jax.numpy as jnp

from models.config import Qwen2Config


def init(config: Qwen2Config, key: jax.Array) -> dict[str, Any]:
    """Returns new parameters, float32: a kernel [D, 1] near 0, so that the first values are small, and a bias [1]."""
    kernel = config.initializer_range * jax.random.normal(key, (config.hidden_size, 1)) / config.hidden_size**0.5
    return {"value_head": {"kernel": kernel, "bias": jnp.zeros(1)}}


def apply(params: dict[str, Any], states: jax.Array) -> jax.Array:
    """Returns the values [B, T], float32, of states [B, T, D]."""
    head = params["value_head"]
    values = jnp.einsum("btd,dx->btx", states.astype(jnp.float32), head["kernel"]) + head["bias"]
    return values[..., 0]
