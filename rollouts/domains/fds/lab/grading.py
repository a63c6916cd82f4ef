"""The embedded process judge for arrays; see `verdicts`, whose sets of events it reads.

Legend: [...] any leading axes.
"""

import functools
import operator
from collections.abc import Collection, Mapping
from typing import NamedTuple

import chex
import jax.numpy as jnp

from rollouts.domains.fds.embedded import latent, verdicts
from rollouts.domains.fds.embedded.latent import Customer, Mood
from rollouts.domains.fds.lab.transitions import VALUES, Events, change_mood, find_effect, is_crowded

ACTS = (*latent.GOOD_ACTS, "voucher")
"""What an agent may do for a customer's good."""


class SortedActs(NamedTuple):
    """What the acts of a turn do, each taken alone; [...] bool each."""

    useful: Mapping[str, chex.Array]
    untimely: Mapping[str, chex.Array]


def score_turn(customer: Customer, mood: Mood, events: Events) -> dict[str, chex.Array]:
    """Scores a turn by each principle, [...] float32, 0, 0.5 or 1; `mood` is that before it. See `verdicts`."""
    acts = sort_acts(customer, mood, events)
    useful, untimely = (_any(some, some) for some in acts)
    events = {**events, "crowded": is_crowded(customer, events)}
    gives, lies = _any(events, verdicts.GIVES), _any(events, verdicts.LIES)
    spoilt = (gives & ((mood.evidence < 2) | (mood.deal == 3))) | lies  # by a gift too early, or a lie
    scores = {
        "persona": _score_persona(customer, mood, events, untimely),
        "stage": _score_stage(mood, events, acts, spoilt),
        "quality": _score_quality(events, lies, untimely & ~useful),
        "rules": _score_rules(customer, mood, events, gives, spoilt),
    }
    sense = ~_any(events, verdicts.SENSELESS)
    return {name: jnp.where(sense, score, 0.0) for name, score in scores.items()}


def reward_turn(customer: Customer, mood: Mood, events: Events) -> chex.Array:
    """Returns the process reward of a turn, [...] float32: the mean of its scores."""
    scores = score_turn(customer, mood, events)
    return sum(scores.values()) / len(scores)


def sort_acts(customer: Customer, mood: Mood, events: Events) -> SortedActs:
    """Sorts the acts among `events` by what each would do alone; see `verdicts.sort_acts`."""
    silent = change_mood(mood, {"patience": -1})
    useful, untimely = {}, {}
    for act in ACTS:
        effect = find_effect(customer, mood, act)
        best, worst = (
            change_mood(mood, {**changes, "patience": changes.get("patience", 0) - 1})
            for changes in (effect.changes, effect.refusals)
        )
        advances = (best.evidence == 2) & (mood.evidence < 2) | (best.deal == 2) & (mood.deal < 2)
        for after in (best, worst):
            for field in verdicts.PROGRESS:
                advances |= getattr(after, field) > getattr(silent, field)
        costs = (best.patience < silent.patience) | (best.anger > silent.anger) | (best.trust < silent.trust)
        useful[act], untimely[act] = events[act] & advances & ~costs, events[act] & costs
    return SortedActs(useful, untimely)


def _score_persona(customer: Customer, mood: Mood, events: Events, untimely: chex.Array) -> chex.Array:
    speaks = 0.5 * _any(events, ("listen", "apology", "note")) + 0.5 * (events["listen"] & ~untimely)
    short = customer.wants == VALUES["wants"].index("short")
    ill_suited = events["crowded"] | (short & _any(events, ("long", "steps"))) | _any(events, ("apology", "nothing"))
    score = jnp.where(mood.heard == 0, speaks, jnp.where(ill_suited, 0.5, 1.0))
    return jnp.where(_any(events, ("negated", "spam")), 0.0, score)


def _score_stage(mood: Mood, events: Events, acts: SortedActs, spoilt: chex.Array) -> chex.Array:
    helps, untimely = _any(acts.useful, acts.useful), _any(acts.untimely, acts.untimely)
    others = [act for act in ACTS if act != "close"]
    needed = _any(acts.useful, others) | (acts.useful["close"] & (mood.evidence == 2))
    spoilt |= _any(events, verdicts.EMPTY | {"negated"}) | (events["apology"] & ~helps)
    return jnp.where(spoilt, 0.0, 0.5 * (needed | ~untimely) + 0.5 * (needed & ~untimely))


def _score_quality(events: Events, lies: chex.Array, beside: chex.Array) -> chex.Array:
    """`beside`: whether the turn is beside the point."""
    faults = sum(events[fault].astype(jnp.int32) for fault in sorted(verdicts.FAULTS)) + beside
    return jnp.where(lies | _any(events, verdicts.EMPTY), 0.0, jnp.maximum(0.0, 1.0 - 0.5 * faults))


def _score_rules(customer: Customer, mood: Mood, events: Events, gives: chex.Array, spoilt: chex.Array) -> chex.Array:
    doubtful = gives & (customer.supported == VALUES["supported"].index(False)) & (mood.facts == 0)
    pressed = events["voucher"] & (mood.deal != 2)
    return jnp.where(spoilt, 0.0, jnp.where(doubtful | pressed | events["negated"], 0.5, 1.0))


def _any(events: Mapping[str, chex.Array], names: Collection[str]) -> chex.Array:
    return functools.reduce(operator.or_, (events[name] for name in sorted(names)))
