"""The best satisfaction reachable in the embedded gym at each voucher rate, exactly, from the table in `latent`.

A customer's mood moves without chance, and the rating is its mean rounded at random, so the best an agent can do with
one customer is a plan: what happens in each of its turns. Dynamic programming over moods finds it twice, without a
voucher and with leave to give one. The difference is the price per voucher up to which that customer should get one.
Sweeping a price over a population gives the frontier, concave and piecewise linear; no policy is above it, nor any
mixture of policies. Patience ends every conversation within seven turns, so limits on turns are ignored.

The oracle knows the latent state, level and demand included, so no agent that does not know it is better. The bound is
tight: customers say what they want by the second message at the latest, and one plan for all levels does as well as a
plan for each (`tests/rollouts/domains/fds/embedded/oracle_test.py`).
"""

import collections
import functools
import itertools
import statistics
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from rollouts.domains.fds import generator
from rollouts.domains.fds.embedded import latent
from rollouts.domains.fds.embedded.app import score_turn
from rollouts.domains.fds.embedded.latent import Customer, Mood
from rollouts.domains.fds.embedded.reading import MANY_ACTS
from rollouts.domains.fds.rubrics import PRINCIPLES
from rollouts.domains.fds.scenario import Scenario

ACTS = ("listen", "ask", "explain_true", "note", "offer", "close")
"""The events that can help, each in its moment; the others take patience or trust, add anger, or change no rating."""

MAX_TURNS = 7
"""Turns of the agent after which patience has ended every conversation."""

_LEVELS = {level for rule in latent.RULES for level in rule.when.get("level", ())}
_HARM = {"patience": -1, "anger": 1, "trust": -1}  # the direction in which each of these hurts


class Plan(NamedTuple):
    """What to do with one customer."""

    rating: float  # the mean satisfaction it ends with, 1..5; 0 where the customer walks out
    faults: float  # what the judge takes off: 1 - R_P, summed over the turns
    turns: tuple[frozenset[str], ...]  # the events of each turn of the agent


class Frontier(NamedTuple):
    """The most satisfaction at each voucher rate: a concave line through these points, and level behind the last."""

    rates: np.ndarray  # [K] float, share of the customers with a voucher, from 0 up
    satisfaction: np.ndarray  # [K] float, 1..5

    def satisfaction_at(self, rate: float) -> float:
        """The best mean satisfaction with vouchers for at most a share of `rate` of the customers."""
        return float(np.interp(rate, self.rates, self.satisfaction))


def plan_dialogue(customer: Customer, *, voucher: bool) -> Plan:
    """Returns the best plan for `customer`; `voucher` says whether it may give one.

    Of plans with the same rating it is the one with the fewest faults, then the shortest.
    """
    mood = latent.start_mood(customer)
    # Once the mood is known, the rules treat customers alike whose level and record no rule names.
    level = customer.level if customer.level in _LEVELS else None
    alike = Customer(level, customer.demand, customer.supported if customer.supported is False else None)
    return _find_best_plans(alike, mood)[voucher]


def compute_frontier(population: Mapping[Customer, float]) -> Frontier:
    """Computes the frontier over customers, each with its share of all; the shares sum to 1."""
    never = sum(share * plan_dialogue(who, voucher=False).rating for who, share in population.items())
    tiers = [(sum(population[who] for who in tied), gain) for gain, tied in _rank_gains(population) if gain > 0]
    shares, gains = np.array(tiers).reshape(-1, 2).T
    return Frontier(
        rates=np.concatenate([[0.0], np.cumsum(shares)]),
        satisfaction=never + np.concatenate([[0.0], np.cumsum(shares * gains)]),
    )


def allocate_vouchers(population: Mapping[Customer, float], rate: float) -> dict[Customer, float]:
    """Returns the probability that each customer gets a voucher, on the frontier at a voucher rate of at most `rate`.

    It is 1 for gains above a price and 0 below; customers who gain exactly the price get one as often as `rate` allows.
    """
    chances = {}
    for gain, tied in _rank_gains(population):
        share = sum(population[who] for who in tied)
        chance = min(rate / share, 1.0) if gain > 0 and share > 0 else 0.0
        chances |= dict.fromkeys(tied, chance)
        rate = max(rate - share * chance, 0.0)
    return chances


def weigh_customers(difficulty: str = "hard", split: str = "test") -> dict[Customer, float]:
    """Returns the generator's customers with their probabilities; arguments as for `generator.deal_scenarios`."""
    counts = generator.LEVEL_COUNTS[difficulty, split]
    shares = {}
    for level, count in enumerate(counts, start=1):
        weights = {demand: by_level[level - 1] for demand, by_level in generator.DEMAND_WEIGHTS.items()}
        for demand, supported in itertools.product(weights, generator.SUPPORT_WEIGHTS):
            record = generator.SUPPORT_WEIGHTS[supported] / sum(generator.SUPPORT_WEIGHTS.values())
            share = count / sum(counts) * weights[demand] / sum(weights.values()) * record
            shares[Customer(level, demand, supported)] = share
    return shares


def customer_of(scenario: Scenario) -> Customer:
    """Returns the customer of a scenario, as the rules see it."""
    return Customer(scenario.persona.level, scenario.demand, scenario.order.supported)


def _rank_gains(population: Mapping[Customer, float]) -> list[tuple[float, list[Customer]]]:
    """Returns what a voucher adds to the rating, and for which customers; the largest gain first."""
    tiers = collections.defaultdict(list)
    for who in population:
        kept, given = (plan_dialogue(who, voucher=voucher).rating for voucher in (False, True))
        tiers[round(given - kept, 9)].append(who)  # rounded, so that equal gains tie
    return sorted(tiers.items(), reverse=True)


@functools.cache
def _find_best_plans(customer: Customer, mood: Mood) -> tuple[Plan, Plan]:
    """Returns the best plans from `mood` on: one without a voucher, and one that may give one."""
    kept = given = Plan(-1.0, 0.0, ())
    for events in _list_replies(customer, mood):
        after = latent.apply_events(customer, mood, events)
        end = latent.find_end(customer, after)
        if end == "rated":
            rests = (Plan(latent.expected_rating(customer, after), 0.0, ()),) * 2
        elif end == "quit":
            rests = (Plan(0.0, 0.0, ()),) * 2
        else:
            rests = _find_best_plans(customer, after)
        fault = 1 - statistics.fmean(score_turn(customer, mood, events)[principle] for principle in PRINCIPLES)
        rests = [Plan(rest.rating, rest.faults + fault, (events, *rest.turns)) for rest in rests]
        if "voucher" not in events:
            kept = max(kept, rests[False], key=_rank_plan)
        given = max(given, rests[True], key=_rank_plan)
    return kept, given


def _list_replies(customer: Customer, mood: Mood) -> Iterator[frozenset[str]]:
    """Yields what is worth doing in one turn: all combinations of acts that help in this mood, too few to be spam."""
    silent = latent.apply_events(customer, mood, frozenset())
    useful = [act for act in ACTS if _improves_mood(silent, latent.apply_events(customer, mood, frozenset({act})))]
    for count in range(min(len(useful), MANY_ACTS) + 1):
        for acts in itertools.combinations(useful, count):
            yield frozenset(acts or ("nothing",))
            yield frozenset((*acts, "voucher"))


def _improves_mood(without: Mood, after: Mood) -> bool:
    changes = {field: now - then for field, now, then in zip(Mood._fields, after, without, strict=True)}
    return any(change and change * _HARM.get(field, 0) <= 0 for field, change in changes.items())


def _rank_plan(plan: Plan) -> tuple[float, float, int]:
    return round(plan.rating, 9), -round(plan.faults, 9), -len(plan.turns)
