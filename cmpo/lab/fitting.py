"""Fits parameters to turns that took place: what cloning a start and fitting a critic have in common."""

from collections.abc import Callable
from typing import TypeVar

import chex
import jax
import jax.numpy as jnp
import optax

Parameters = TypeVar("Parameters")


def fit_parameters(
    key: chex.PRNGKey,
    parameters: Parameters,
    measure_loss: Callable[[Parameters, chex.Array], chex.Array],
    valid: chex.Array,
    *,
    steps: int,
    rows: int,
    rate: float,
) -> Parameters:
    """Fits parameters by Adam, whose rate falls to 0 along a cosine.

    Args:
      key: of the turns that are drawn.
      parameters: a pytree to begin with.
      measure_loss: the mean loss of parameters over turns, which are given by their places, [`rows`] int32.
      valid: [R] bool, which turns took place; no others are drawn.
      steps: updates.
      rows: turns of an update.
      rate: the learning rate at the beginning.
    """
    played = jnp.argsort(~valid)  # the turns that took place come first
    optimizer = optax.adam(optax.cosine_decay_schedule(rate, steps))

    def learn(carry, key):
        parameters, state = carry
        chosen = played[jax.random.randint(key, (rows,), 0, jnp.sum(valid))]
        updates, state = optimizer.update(jax.grad(measure_loss)(parameters, chosen), state)
        return (optax.apply_updates(parameters, updates), state), None

    begun = parameters, optimizer.init(parameters)
    return jax.lax.scan(learn, begun, jax.random.split(key, steps))[0][0]
