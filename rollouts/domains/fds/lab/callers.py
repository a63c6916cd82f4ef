"""Who calls, for arrays: customers as codes (`transitions.VALUES`), drawn as often as `population` says."""

import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from rollouts.domains.fds.embedded import population
from rollouts.domains.fds.embedded.latent import Customer
from rollouts.domains.fds.lab.telling import sum_odds
from rollouts.domains.fds.lab.transitions import VALUES


class Callers(NamedTuple):
    """How often which customer comes; L levels, D demands, W worths."""

    cells: np.ndarray  # [D * L] float32, cumulative P(demand, level), the demands one after the other
    worth: np.ndarray  # [L, D, W] float32, P(worth <= w | level, demand)
    supported: np.ndarray  # [3] float32, cumulative
    honest: np.ndarray  # [3] float32, P(honest | supported)
    second: np.ndarray  # [3, L] float32, P(code 1 | level) of the traits in `population.TRAITS`


CHANCES = 4 + len(population.TRAITS)
"""Uniform draws that a customer takes; the first is for demand and level."""


def draw_customer(chance: chex.Array, *, mix: tuple[str, str]) -> Customer:
    """Draws one customer, int32 scalars each; map it to draw many.

    Args:
      chance: [`CHANCES`] float32, uniform draws from 0 up to 1.
      mix: (difficulty, split) as for `generator.deal_scenarios`.
    """
    callers = tabulate_callers(*mix)
    levels = callers.worth.shape[0]
    cell = _find_place(chance[0], callers.cells)
    demand, level = cell // levels, cell % levels
    supported = _find_place(chance[1], callers.supported)
    traits = zip(population.TRAITS, jnp.asarray(callers.second)[:, level], chance[4:], strict=True)
    return Customer(
        level=level + 1,
        demand=demand,
        supported=supported,
        worth=_find_place(chance[2], jnp.asarray(callers.worth)[level, demand]),
        honest=(chance[3] < jnp.asarray(callers.honest)[supported]).astype(jnp.int32),
        **{name: (draw < odds).astype(jnp.int32) for name, odds, draw in traits},
    )


def draw_customers(key: chex.PRNGKey, count: int, *, mix: tuple[str, str]) -> Customer:
    """Draws `count` customers, int32 [count] each, of which every batch has about the same demands and levels.

    They stand in the line at equal distances (systematic draws): each one is drawn as `draw_customer` does it, but
    chance adds little to what a batch is like. The generator spreads its scenarios to the same end.
    """
    chance = jax.random.uniform(key, (count, CHANCES))
    places = (jnp.arange(count) + chance[0, 0]) / count
    return jax.vmap(functools.partial(draw_customer, mix=mix))(chance.at[:, 0].set(places))


@functools.cache
def tabulate_callers(difficulty: str, split: str) -> Callers:
    """Reads `population`. Raises KeyError for a mix that it does not have."""
    levels = VALUES["level"][1:]
    weights = np.array([population.weigh_demands(level) for level in levels])
    cells = population.weigh_levels(difficulty, split)[:, None] * weights.sum(-1)
    records = population.weigh_records()
    seconds = [[population.share_trait(name, VALUES[name][1], level) for level in levels] for name in population.TRAITS]
    return Callers(
        sum_odds(cells.T.reshape(-1)),
        sum_odds(weights),
        sum_odds(np.array([records[supported] for supported in VALUES["supported"]])),
        np.array([population.HONEST[supported] for supported in VALUES["supported"]], np.float32),
        np.array(seconds, np.float32),
    )


def _find_place(draw: chex.Array, below: chex.Array) -> chex.Array:
    """Returns the place of a draw from 0 to 1 among cumulative odds, int32 scalar."""
    return jnp.sum(draw >= below[:-1]).astype(jnp.int32)
