"""What a reply costs against the best one, by the rules of the embedded gym, and by what it went wrong.

The loss of an agent against the frontier of who knows all is a sum: *information*, the distance of the two frontiers
at its voucher rate; and the mean over its dialogues of the regrets of all replies. The regret of a reply is the best
value there is from the agent's belief less the best value after the reply, both with a price for vouchers
(`oracle.price_for`, at the agent's own rate). Chance has no part in it: what a customer happened to answer is no
loss and no gain. (The performance difference lemma of Kakade & Langford, 2002, for the Markov process of beliefs.)
"""

import itertools
from typing import NamedTuple

import numpy as np

from rollouts.domains.fds.embedded import latent, planning, population, signals
from rollouts.domains.fds.embedded.belief import MESSAGES, Belief, best_value, is_planned
from rollouts.domains.fds.embedded.graph import ease_of
from rollouts.domains.fds.embedded.latent import Customer, Mood
from rollouts.domains.fds.embedded.planning import HIDDEN, Problem
from rollouts.domains.fds.scenario import DEMANDS


class Regret(NamedTuple):
    """What a reply costs in points of satisfaction, less price; each is at least 0, up to rounding."""

    decision: float  # to whom a voucher goes: it was offered, given or refused by closing, and should not have been
    execution: float  # how: what was left out, said too early, or given without agreement
    language: float  # how it was said: harmful events


def measure_regret(belief: Belief, events: frozenset[str], price: float, *, temper: str = "") -> Regret:
    """Measures what a reply with `events` costs an agent with this belief. `temper`: the customer's, if it is known."""
    best, value = best_value(belief, price), value_reply(belief, events, price, temper=temper)
    clean = events - set(latent.HARMFUL)
    sound = value_reply(belief, clean, price, temper=temper) if clean != events else value
    decision = 0.0
    if clean & {"offer", "voucher"}:
        decision = best - best_value(belief, price, (True,))
    elif "close" in clean and belief.mood.evidence == 2:
        decision = best - best_value(belief, price, (False,))
    decision = min(decision, best - sound)
    return Regret(decision, best - sound - decision, sound - value)


def value_reply(belief: Belief, events: frozenset[str], price: float, *, temper: str = "") -> float:
    """Returns the mean of rating less `price` a voucher where the reply has `events` and all later ones are best."""
    weights, after = belief.weights, {}
    for chance, who in _list_kinds(belief, temper):
        outcomes = latent.list_outcomes(who, belief.mood, events)
        agrees = planning.tabulate_agreement(ease_of(belief.mood))
        shares = (agrees, 1 - agrees) if len(outcomes) == 2 else (np.ones(len(HIDDEN)),)
        for (_, mood), share in zip(outcomes, shares, strict=True):
            after[mood] = after.get(mood, 0.0) + chance * share * weights
    return sum(_value_mood(belief, mood, weights, price) for mood, weights in after.items())


def _value_mood(belief: Belief, mood: Mood, weights: np.ndarray, price: float) -> float:
    """Returns the value of a mood that a reply led to, weighted by P(hidden, mood), [124]."""
    level, known = population.levels_of(belief.heat)[0], belief.known
    who = Customer(level, DEMANDS[0], known.supported, 0, True, known.discloses, known.wants, "flares")
    end = latent.find_end(who, mood)
    if end == "quit":
        return -price * float(weights.sum()) * (mood.voucher > 0)
    if end:
        rated = (latent.expected_rating(who._replace(demand=demand, worth=worth), mood) for demand, worth in HIDDEN)
        return float(weights @ (np.array(list(rated)) - price * (mood.voucher > 0)))
    moment = signals.find_moment(belief.mood, mood)
    rows = weights * getattr(planning.READ_CHANNELS, moment) if moment else weights[None]
    answers = [belief.hear_answer(mood, *message) for message in (MESSAGES[moment] if moment else [("", 0)])]
    if is_planned(answers[0]):
        return sum(row.sum() * best_value(held, price) for row, held in zip(rows, answers, strict=True))
    return Problem(known, mood, rows, planning.READ_CHANNELS, level, relaxed=False).solve(price).sum_root()[0]


def _list_kinds(belief: Belief, temper: str) -> list[tuple[float, Customer]]:
    """Lists (chance, customer) of what the rules look at and the agent does not see."""
    known = belief.known
    kinds = []
    for honest, kind in itertools.product((True, False), ("flares", "silent")):
        share = population.HONEST[False] if honest else 1 - population.HONEST[False]
        if known.honest is not None:
            share = float(known.honest == honest)
        level = population.levels_of(belief.heat)[0]
        share *= float(kind == temper) if temper else population.share_trait("temper", kind, level)
        if share:
            who = Customer(level, DEMANDS[0], known.supported, 0, honest, known.discloses, known.wants, kind)
            kinds.append((share, who))
    return kinds
