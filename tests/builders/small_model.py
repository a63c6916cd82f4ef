"""A small model of the tests, its parameters and tokens."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from models import qwen2

CONFIG = qwen2.Qwen2Config(
    vocab_size=61,
    hidden_size=24,
    intermediate_size=40,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    rope_theta=1e4,
    max_positions=64,
)


@functools.cache
def new_params(config):
    """Parameters far from their initial values, at which biases are 0, norms 1 and attention nearly even."""
    shapes = jax.eval_shape(functools.partial(qwen2.init, config), jax.random.key(0))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: jnp.asarray(rng.normal(0.0, 0.2, x.shape), jnp.float32), shapes)
    return jax.tree.map_with_path(lambda path, x: x + (path[-1].key == "scale"), params)


def new_tokens(seed, *shape):
    return jax.random.randint(jax.random.key(seed), shape, 0, CONFIG.vocab_size)
