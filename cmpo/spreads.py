"""Running standard deviations of what turns gain and cost, for the "scaled" form of `cmpo.advantage`.

    state = init(costs)
    state = update(state, compute_variances(...))  # once a batch, before its advantages
    spreads = read_spreads(state)

Legend: C costs.
"""

from typing import NamedTuple

import chex
import jax.numpy as jnp

NEWEST = 0.1
"""Weight of the newest batch in the running variances."""


class SpreadState(NamedTuple):
    """What is remembered of earlier batches; checkpoint it with the policy."""

    variances: chex.Array  # [1 + C] float, of what is gained and of each cost, times `weight`
    weight: chex.Array  # [] float, 1 - (1 - NEWEST)^batches


def init(costs: int) -> SpreadState:
    """State before the first batch, for a number of costs."""
    return SpreadState(jnp.zeros(1 + costs), jnp.zeros(()))


def update(state: SpreadState, variances: chex.Array) -> SpreadState:
    """Takes the variances of a batch [1 + C] into account.

    `v <- (1 - b) v + b variances` and `w <- (1 - b) w + b` with `b = NEWEST`. They begin at 0, so that `v / w` is a
    weighted mean of all batches (Kingma and Ba 2015, section 3). If one of the variances is not finite, nothing moves.
    """
    known = jnp.all(jnp.isfinite(variances))
    moved = (1 - NEWEST) * state.variances + NEWEST * jnp.where(known, variances, 0)
    weight = (1 - NEWEST) * state.weight + NEWEST
    return SpreadState(jnp.where(known, moved, state.variances), jnp.where(known, weight, state.weight))


def read_spreads(state: SpreadState) -> chex.Array:
    """Returns the standard deviations, `sqrt(v / w)`, [1 + C]; 1 where nothing has varied yet."""
    mean = state.variances / jnp.maximum(state.weight, NEWEST)
    return jnp.sqrt(jnp.where(mean > 0, mean, 1))
