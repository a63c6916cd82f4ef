"""A scripted agent for arrays, to begin from: it serves well by what it was told, with small errors and no lies.

Like `gym_agents.VariedAgent` it has another price for a voucher in each dialogue. It plans by rules of thumb and not by
dynamic programming: listen, look at the case, tell what there is to tell, and then offer a voucher or close.

Legend: A = `ACTS`, M moments of `signals.HINTS`, S stances, H hints, D demands, W worths.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from rollouts.domains.fds.embedded import latent, population, signals
from rollouts.domains.fds.gym_agents import DEMONSTRATED_PRICES, ERRORS, PROBES
from rollouts.domains.fds.lab.environment import MIX, LabState
from rollouts.domains.fds.lab.grading import ACTS
from rollouts.domains.fds.lab.transitions import VALUES


class Manner(NamedTuple):
    """What is drawn once a dialogue."""

    price: chex.Array  # float32, points of satisfaction that a voucher must be worth
    probes: chex.Array  # bool, whether it asks what would be welcome


def draw_manner(chance: chex.Array, prices: Sequence[float] = DEMONSTRATED_PRICES) -> Manner:
    """Draws how a dialogue is served by uniform draws, [2] float32; all `prices` are as likely."""
    place = (chance[0] * len(prices)).astype(jnp.int32)
    return Manner(jnp.asarray(prices)[place], chance[1] < PROBES)


def plan_acts(state: LabState, manner: Manner, *, mix: tuple[str, str] = MIX) -> chex.Array:
    """Plans a turn, [A] bool, from what an agent sees."""
    customer, mood = state.customer, state.mood
    short = customer.wants == VALUES["wants"].index("short")
    against = customer.supported == VALUES["supported"].index(False)
    heard, looked = mood.heard > 0, mood.evidence == 2
    settled = heard & looked
    welcome = estimate_worth(state, mix=mix) / 10 > manner.price
    explains = (mood.facts == 0) & (heard | ~against)
    waits = against & (mood.facts == 0)  # with an offer, until a record that contradicts was explained
    probes = settled & ~waits & manner.probes & (mood.probed == 0) & (mood.deal < 2)
    offers = settled & ~waits & ~probes & welcome & (mood.deal < 2)
    leading = {
        "listen": ~heard,
        "ask": ~looked & (heard | ((customer.discloses == 1) & (state.heat < 2))),
        "probe": probes,
        "offer": offers,
        "voucher": mood.deal == 2,
        "close": settled & ~waits & ~probes & ~offers & (mood.deal != 2),
    }
    filling = {  # what else there is to say, the best first
        "explain_true": explains,
        "limit": heard & (mood.limits == 0),
        "note": heard & (mood.noted == 0),
        "listen": (mood.heard == 1) & looked,
        "steps": ~short & looked & (mood.stepped == 0),
    }
    most = jnp.asarray([latent.MOST_ACTS[wants] for wants in VALUES["wants"]])[customer.wants]
    acts = {act: leading.get(act, jnp.bool_(False)) for act in ACTS}
    for act, helps in filling.items():
        room = sum(acts[good].astype(jnp.int32) for good in latent.GOOD_ACTS) < most
        acts[act] |= helps & room
    return jnp.stack([acts[act] for act in ACTS])


def err(chance: chex.Array, acts: chex.Array, errors: float = ERRORS) -> chex.Array:
    """Leaves out an act or adds one with a chance of `errors`, [A] bool. Vouchers stay as they are.

    `chance` is [2] float32, uniform draws from 0 up to 1.
    """
    one = jnp.arange(len(ACTS)) == (chance[1] * len(latent.GOOD_ACTS)).astype(jnp.int32)
    return acts ^ (one & (chance[0] < errors))


def estimate_worth(state: LabState, *, mix: tuple[str, str] = MIX) -> chex.Array:
    """Returns the mean worth of a voucher given the hints and wishes that were told, in tenths of a point, float32."""
    prior, wishes, hints = _tabulate_beliefs(*mix)
    moments = jnp.arange(hints.shape[0])
    wish = jnp.sum(jnp.asarray(wishes)[moments, state.stances], axis=0)
    hint = jnp.sum(jnp.asarray(hints)[moments, state.hints], axis=0)
    belief = jax.nn.softmax((jnp.asarray(prior) + wish[:, None] + hint[None, :]).reshape(-1))
    return belief.reshape(prior.shape).sum(0) @ jnp.arange(prior.shape[1], dtype=jnp.float32)


@functools.cache
def _tabulate_beliefs(difficulty: str, split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns log P(demand, worth) [D, W], log P(stance | demand) [M, S, D], and log P(hint | worth) [M, H, W].

    Of nothing said nothing follows: those rows are 0.
    """
    shares = population.weigh_levels(difficulty, split)
    prior = sum(share * population.weigh_demands(level) for level, share in enumerate(shares, start=1))
    wishes = [[rows[demand] for demand in VALUES["demand"]] for rows in signals.STANCE_ODDS.values()]
    tables = [np.transpose(np.array(table), (0, 2, 1)) for table in (wishes, list(signals.HINTS.values()))]
    for table in tables:
        table[:, 0] = 1
    return tuple(np.log(np.maximum(table, 1e-12)).astype(np.float32) for table in (prior, *tables))
