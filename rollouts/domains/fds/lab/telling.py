"""What a customer's next message tells, for arrays: `signals` with the odds of all that chance decides.

A signal is a `signals.Signal` of int32 arrays. Its stance and its reaction are places in `STANCES` and `REACTIONS`, its
kind one in `KINDS`, and `wants` is a customer's code, -1 but in openings. Odds are read from the tables of `signals`.

Legend: [...] any leading axes; S = stances with the unspoken one, 5; H = hints, 5.
"""

import functools
from typing import NamedTuple

import chex
import jax.numpy as jnp
import numpy as np

from rollouts.domains.fds.embedded import signals
from rollouts.domains.fds.embedded.latent import Customer, Mood
from rollouts.domains.fds.embedded.signals import Signal
from rollouts.domains.fds.lab.transitions import (
    ENDS,
    VALUES,
    Events,
    drown_acts,
    expected_rating,
    find_end,
    is_crowded,
    start_mood,
)

CHANCES = 3
"""Uniform draws that a signal takes."""

KINDS = ("opening", "answer", "farewell", "walkout")
REACTIONS = ("", *signals.REACTIONS)
STANCES = ("", *signals.STANCES)
MOMENTS = ("", *signals.HINTS)
"""The moments at which a message may tell of worth or wish; at "" it does not."""

GLADLY = 3
"""The hint from which on who agrees does it gladly, as in `signals`."""


class Odds(NamedTuple):
    """What chance decides of a signal, as cumulative probabilities."""

    stance: chex.Array  # [..., S] float32, P(stance <= s)
    hint: chex.Array  # [..., H] float32, P(hint <= h)
    better: chex.Array  # [...] float32, the chance that the rating is one point above the signal's


def weigh_opening(customer: Customer) -> tuple[Signal, Odds]:
    """Returns the first message with its odds; see `signals.list_openings`."""
    moment = jnp.full_like(customer.worth, MOMENTS.index("opening"))
    nothing = jnp.zeros_like(customer.worth)
    heat = jnp.minimum(start_mood(customer).anger, 2)
    signal = Signal(
        *(nothing + KINDS.index("opening"), nothing, nothing, nothing, nothing),
        detail=customer.discloses,
        heat=heat,
        rating=nothing,
        wants=customer.wants,
    )
    return signal, _weigh_moment(customer, moment, jnp.zeros(heat.shape))


def weigh_answer(customer: Customer, before: Mood, after: Mood, events: Events) -> tuple[Signal, Odds]:
    """Returns the answer to a turn with `events`, which led from one mood to another; see `signals.list_signals`."""
    end = find_end(after)
    talks, rated = end == ENDS.index(""), end == ENDS.index("rated")
    showed = talks & (after.evidence == 2) & (before.evidence < 2)
    silent = customer.temper == VALUES["temper"].index("silent")
    mean = expected_rating(customer, after)
    kind = jnp.where(talks, KINDS.index("answer"), jnp.where(rated, KINDS.index("farewell"), KINDS.index("walkout")))
    signal = Signal(
        kind,
        jnp.where(talks, find_reaction(customer, before, after, events), 0),
        jnp.zeros_like(kind),
        jnp.zeros_like(kind),
        picture=showed.astype(jnp.int32),
        detail=(showed & (customer.discloses == 0)).astype(jnp.int32),
        heat=jnp.where(talks, jnp.clip(after.anger - silent, 0, 2), 0),
        rating=jnp.where(rated, jnp.floor(mean), 0).astype(jnp.int32),
        wants=jnp.full_like(kind, -1),
    )
    moment = jnp.where(talks, find_moment(before, after), 0)
    return signal, _weigh_moment(customer, moment, jnp.where(rated, mean - jnp.floor(mean), 0))


def draw_signal(chance: chex.Array, signal: Signal, odds: Odds) -> Signal:
    """Draws what chance decides of one signal, whose fields are scalars; map it to draw many.

    `chance` is [`CHANCES`] float32, uniform draws from 0 up to 1.
    """
    stance, hint = (
        jnp.sum(draw >= below[:-1]).astype(jnp.int32)
        for draw, below in ((chance[0], odds.stance), (chance[1], odds.hint))
    )
    gladly = (signal.reaction == REACTIONS.index("agreed")) & (hint >= GLADLY)
    return signal._replace(
        stance=stance,
        hint=hint,
        reaction=jnp.where(gladly, REACTIONS.index("agreed_gladly"), signal.reaction),
        rating=signal.rating + (chance[2] < odds.better),
    )


def find_moment(before: Mood, after: Mood) -> chex.Array:
    """Returns the place in `MOMENTS` of a turn, [...] int32; see `signals.find_moment`."""
    happened = {
        "offer": (after.deal >= 2) & (after.deal != before.deal),
        "probe": after.probed > before.probed,
        "evidence": (after.evidence == 2) & (before.evidence < 2),
    }
    return _take_first(happened, MOMENTS)


def find_reaction(customer: Customer, before: Mood, after: Mood, events: Events) -> chex.Array:
    """Returns the place in `REACTIONS` of the strongest thing that happened, [...] int32; see `signals`."""
    events = drown_acts(events)
    answered = events["offer"] & (after.deal >= 2) & (after.deal != before.deal)
    told_facts = events["explain_true"] & (before.facts == 0)
    contradicts = customer.supported == VALUES["supported"].index(False)
    again = (events["ask"] & (before.evidence == 2)) | (events["offer"] & (before.deal >= 2))
    again |= events["probe"] & ((before.probed > 0) | (before.heard == 0))
    happened = {
        **{name: events[name] for name in ("unbacked", "promise", "wrong_fact")},
        "made_up": events["explain_false"],
        **{name: events[name] for name in ("rude", "negated", "not_understood", "spam", "repeat")},
        "agreed": answered & (after.deal == 2),
        "refused_offer": answered & (after.deal == 3),
        "contradicted": told_facts & contradicts & (after.facts < 2),
        "early_offer": events["offer"] & ~answered & (before.deal < 2),
        "refused_evidence": events["ask"] & (after.evidence < 2),
        "evidence": (after.evidence == 2) & (before.evidence < 2),
        "probed": after.probed > before.probed,
        "asked_again": again,
        "long": events["long"] | is_crowded(customer, events),
        "empty": events["apology"],
        "dismissed": events["close"],
        "listened": after.heard > before.heard,
        "facts": told_facts,
        "noted": after.noted > before.noted,
        "steps": after.stepped > before.stepped,
        "limit": after.limits > before.limits,
    }
    return _take_first(happened, REACTIONS, otherwise="nothing")


def _take_first(happened: dict[str, chex.Array], names: tuple[str, ...], otherwise: str = "") -> chex.Array:
    """Returns the place in `names` of the first that happened, [...] int32."""
    found = jnp.full(jnp.shape(next(iter(happened.values()))), names.index(otherwise), jnp.int32)
    for name, did in reversed(happened.items()):
        found = jnp.where(did, names.index(name), found)
    return found


def _weigh_moment(customer: Customer, moment: chex.Array, better: chex.Array) -> Odds:
    stances, hints = _tabulate_odds()
    return Odds(jnp.asarray(stances)[moment, customer.demand], jnp.asarray(hints)[moment, customer.worth], better)


@functools.cache
def _tabulate_odds() -> tuple[np.ndarray, np.ndarray]:
    """Returns P(stance <= s | moment, demand) [moments, demands, S], and P(hint <= h | moment, worth)."""
    silent = (1.0, *[0.0] * (len(STANCES) - 1))
    stances = [[silent] * len(VALUES["demand"])]
    stances += [[signals.STANCE_ODDS[moment][demand] for demand in VALUES["demand"]] for moment in signals.HINTS]
    hints = [[silent] * len(VALUES["worth"]), *(list(rows) for rows in signals.HINTS.values())]
    return tuple(sum_odds(np.array(table)) for table in (stances, hints))


def sum_odds(odds: np.ndarray) -> np.ndarray:
    """Returns the cumulative sums along the last axis, float32, of which the last is 1 exactly.

    A draw from 0 up to 1, without 1, so never takes what has no chance.
    """
    sums = np.cumsum(odds, axis=-1)
    return (sums / sums[..., -1:]).astype(np.float32)
