"""The best satisfaction reachable in the embedded gym at each voucher rate, from the rules in `latent` and `signals`.

Two oracles: one knows the customer ("all"), one knows what messages tell ("messages") and holds a belief over demand
and worth. For a price per voucher, `planning` finds the best policy of either exactly. Its point (voucher rate,
satisfaction) is on the frontier, and so are the mixtures of two such policies of one price (Lagrangian duality: the
frontier is the concave hull of all policies' points). `Frontier` is the line through the points of `PRICES`; it is
reached by mixing two policies, and nothing is above the tangents at its points, whose slopes are the prices.
`Frontier.gap` is the most by which the tangents are above the line. Without any voucher both lines begin at the best
that can be done for all.

What an agent that reads knows for certain, by the rules: from the opening how angry the customer is, whether details
come at once and how problems should be solved; from the record and the complaint whether one supports the other; and
from its own replies and the answers to them every mood that follows. That a claim is honest shows when a record that
contradicts it is explained, and matters to nothing else. `population` gives the priors.
"""

import functools
import itertools
from typing import NamedTuple

import numpy as np

from rollouts.domains.fds.embedded import kept, planning, population
from rollouts.domains.fds.embedded.graph import Known
from rollouts.domains.fds.embedded.planning import Knows, Problem

PRICES = (*np.round(np.arange(0, 2.71, 0.15), 2), 3.0)
"""Points of a frontier, in points of satisfaction a voucher; no voucher is worth more than the last."""


class Frontier(NamedTuple):
    """The most satisfaction at each voucher rate: a concave line through these points, and level behind the last."""

    rates: np.ndarray  # [K] float, share of the customers with a voucher, from 0 up
    satisfaction: np.ndarray  # [K] float, 1..5
    prices: np.ndarray  # [K] float, falling: the price of a voucher at which the best policy is this point
    gap: float  # no policy is above the line by more than this

    def satisfaction_at(self, rate: float) -> float:
        """The best mean satisfaction with vouchers for at most a share of `rate` of the customers."""
        return float(np.interp(rate, self.rates, self.satisfaction))

    def mix_prices(self, rate: float) -> tuple[tuple[float, float], ...]:
        """Returns (chance, price) of the policies whose mixture is the frontier's point at `rate`; one or two."""
        if rate >= self.rates[-1]:
            return ((1.0, float(self.prices[-1])),)
        above = int(np.searchsorted(self.rates, rate, side="right"))
        low, high = self.rates[above - 1], self.rates[above]
        chance = float((rate - low) / (high - low))
        both = ((1 - chance, float(self.prices[above - 1])), (chance, float(self.prices[above])))
        return tuple((chance, price) for chance, price in both if chance > 0)


def compute_frontier(difficulty: str = "hard", *, knows: Knows = "messages", split: str = "test") -> Frontier:
    """Computes the frontier over the customers that `generator.deal_scenarios` deals with these arguments.

    Those that are kept are read.
    """
    return _compute_frontier(difficulty, knows, split)


@functools.cache
def _compute_frontier(difficulty: str, knows: Knows, split: str) -> Frontier:
    found = kept.find_columns(difficulty, knows, split)
    points = Points(**found) if found else solve_prices(difficulty, knows, split)
    columns = tuple(map(np.array, points))
    return Frontier(*columns, _measure_gap(*columns))


class Points(NamedTuple):
    """What a frontier goes through, from the lowest rate up; see `Frontier`."""

    rates: list[float]
    satisfaction: list[float]
    prices: list[float]


def solve_prices(difficulty: str, knows: Knows, split: str) -> Points:
    """Finds the best policy at each of `PRICES`. It takes seconds; `kept` has what it found once."""
    problems = list_problems(difficulty, knows=knows, split=split)
    points = {}
    for price in PRICES:
        value, rate = measure_price(problems, price)
        points.setdefault(round(rate, 12), (value + price * rate, float(price)))
    rates = sorted(points)
    return Points(rates, *(list(column) for column in zip(*(points[rate] for rate in rates), strict=True)))


def price_for(rate: float, difficulty: str = "hard", *, knows: Knows = "messages", split: str = "test"):
    """Returns (chance, price) of the one or two prices by which a policy serves `rate`; see `Frontier.mix_prices`."""
    return compute_frontier(difficulty, knows=knows, split=split).mix_prices(rate)


def measure_price(problems: list[Problem], price: float) -> tuple[float, float]:
    """Returns the best mean of satisfaction less `price` a voucher, and the voucher rate by which it comes."""
    return tuple(np.sum([problem.solve(price).sum_root() for problem in problems], axis=0))


def list_problems(difficulty: str = "hard", *, knows: Knows = "messages", split: str = "test") -> list[Problem]:
    """Lists one problem for each thing that an opening may tell for certain, with beliefs that sum to 1 over all."""
    records = population.weigh_records()
    problems = []
    for supported, honest in itertools.product((True, False), (True, False) if knows == "all" else (None,)):
        if supported and honest is False:
            continue  # honesty matters only where the record contradicts
        weight = records[False] if not supported else 1 - records[False]
        if not supported and honest is not None:
            weight *= population.HONEST[False] if honest else 1 - population.HONEST[False]
        for heat, discloses, wants in population.list_openings():
            prior = weight * population.weigh_hidden(heat, discloses, wants, difficulty, split)
            known = Known(supported, True if supported else honest, discloses, wants)
            problems.append(planning.pose_problem(known, heat, prior, knows=knows))
    return problems


def _measure_gap(rates: np.ndarray, satisfaction: np.ndarray, prices: np.ndarray) -> float:
    """Returns the largest height of two neighbouring tangents' crossing above the line between their points."""
    heights = [0.0]
    for low in range(len(rates) - 1):
        (x, y, steep), (u, v, flat) = ((rates[k], satisfaction[k], prices[k]) for k in (low, low + 1))
        cross = (v - y + steep * x - flat * u) / (steep - flat)
        cross = min(max(cross, x), u)
        line = y + (v - y) * (cross - x) / (u - x)
        heights.append(min(y + steep * (cross - x), v + flat * (cross - u)) - line)
    return float(max(heights))
