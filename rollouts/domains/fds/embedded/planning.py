"""Dynamic programming over moods and over what messages told: the core of the oracle.

The value of a node of the graph is an array over all that may have been told by then, one axis for each moment: the
entry [i, e, p, o] belongs to row i of the beliefs at the root, evidence e, probe p and offer o. Values are weighted by
the probability of that history, so that the value before a message is the sum over what the message may tell. For an
oracle that knows the customer the same arrays have a row for each customer, and messages tell nothing.
"""

import functools
import itertools
from typing import Literal, NamedTuple

import numpy as np

from rollouts.domains.fds.embedded import latent, population, signals
from rollouts.domains.fds.embedded.graph import AMPLE, MOMENTS, Branch, Known, Node, Told, build_graph
from rollouts.domains.fds.embedded.latent import Customer, Mood
from rollouts.domains.fds.scenario import DEMANDS

Knows = Literal["all", "messages"]

HIDDEN = tuple(itertools.product(DEMANDS, range(31)))
"""What the agent does not see: (demand, worth), the last axis of beliefs, [124]."""


class Channels(NamedTuple):
    """What may be told at each moment: P(message | hidden), [messages, 124]."""

    evidence: np.ndarray
    probe: np.ndarray
    offer: np.ndarray


def _tabulate_channel(moment: str) -> np.ndarray:
    stances = np.array([signals.STANCE_ODDS[moment][demand] for demand, _ in HIDDEN])
    hints = np.array([signals.HINTS[moment][worth] for _, worth in HIDDEN])
    return (stances[:, :, None] * hints[:, None, :]).reshape(len(HIDDEN), -1).T


OPENING, *_READ = (_tabulate_channel(moment) for moment in ("opening", *MOMENTS))
READ_CHANNELS = Channels(*(table[table.any(axis=1)] for table in _READ))
"""For agents that read. A message's number counts stances first, then hints, of those that ever come."""

NO_CHANNELS = Channels(*np.ones((3, 1, len(HIDDEN))))
"""For agents that know the customer."""


@functools.cache
def tabulate_agreement(ease: Mood) -> np.ndarray:
    """Returns P(an offer is accepted | hidden), [124]."""
    return np.array(
        [
            latent.chance_to_agree(Customer(3, demand, True, worth, True, True, "steps", "flares"), ease)
            for demand, worth in HIDDEN
        ]
    )


class Solution(NamedTuple):
    """The best values for one price, at every node and every history, weighted by the probability of the history."""

    values: list[np.ndarray]  # for each node [n, e, p, o]: satisfaction less price for vouchers
    vouchers: list[np.ndarray]  # for each node: the vouchers given
    choices: list[np.ndarray]  # for each node: the number of the best reply

    def sum_root(self) -> tuple[float, float]:
        """Returns the value and the vouchers given, summed over the beliefs at the root."""
        return float(self.values[-1].sum()), float(self.vouchers[-1].sum())


class Ends(NamedTuple):
    """The best ways to end a conversation at one node, before any price."""

    value: np.ndarray  # [n, e, p, o]
    choice: np.ndarray


class Problem:
    """One graph with beliefs at its root; solved for one price after the other.

    Args:
      known: what the agent knows.
      mood: the mood at the root.
      beliefs: rows of P(hidden, history), [n, 124], that need not sum to 1.
      channels: READ_CHANNELS or NO_CHANNELS.
      level: of a customer with this start, which tells how much patience is lost.
    """

    def __init__(self, known: Known, mood: Mood, beliefs: np.ndarray, channels: Channels, level: int):
        self.graph = build_graph(
            known, mood._replace(patience=latent.LIMITS.patience) if mood.patience >= AMPLE else mood
        )
        self._beliefs, self._channels, self._level = beliefs, channels, level
        self._masses: dict[Told, np.ndarray] = {}
        start = latent.start_mood(_make_customer(known, level=level)).patience
        self._lost = start - mood.patience if self.graph.ample else 0
        self._ends = [
            (self._find_end(node, voucher=False), self._find_end(node, voucher=True)) for node in self.graph.nodes
        ]

    def solve(self, price: float, ends: tuple[bool, ...] = (False, True)) -> Solution:
        """Finds the best plan where a voucher costs `price`; `ends`: (False,) gives none, (True,) always gives one."""
        found = Solution([], [], [])
        for number in range(len(self.graph.nodes)):
            self._solve_node(number, found, price, ends)
        found.values[-1] += latent.PATIENCE_WORTH * self._lost * self.weigh_told(Told())
        return found

    def _solve_node(self, number: int, found: Solution, price: float, ends: tuple[bool, ...]) -> None:
        node, (kept, given) = self.graph.nodes[number], self._ends[number]
        mass = self.weigh_told(node.told)
        best, gives, choice = np.full(mass.shape, -np.inf), np.zeros(mass.shape), np.zeros(mass.shape, np.int16)

        def take(value: np.ndarray, vouchers: np.ndarray | float, which: np.ndarray | int) -> None:
            better = value > best + 1e-12 * mass
            np.copyto(best, value, where=better)
            np.copyto(gives, vouchers, where=better)
            np.copyto(choice, which, where=better)

        if kept is not None and False in ends:
            take(kept.value, 0.0, kept.choice)
        if given is not None and True in ends:
            take(given.value - price * mass, mass, given.choice)
        for place in node.going_on:
            value, some = 0.0, 0.0
            for branch in node.replies[place].branches:
                one, two = self._follow(node, branch, found)
                value, some = value + one, some + two
            take(value, some, place)
        found.values.append(best)
        found.vouchers.append(gives)
        found.choices.append(choice)

    def _follow(self, node: Node, branch: Branch, found: Solution) -> tuple[np.ndarray, np.ndarray | float]:
        if branch.child < 0:
            value, gives = self._rate_end(branch), np.zeros(())
        else:
            value, gives = found.values[branch.child], found.vouchers[branch.child]
        value = (
            value + (latent.PATIENCE_WORTH * branch.lost) * self.weigh_told(branch.told) if self.graph.ample else value
        )
        axes = tuple(
            axis
            for axis, moment in enumerate(MOMENTS, start=1)
            if getattr(branch.told, moment) and not getattr(node.told, moment)
        )
        if axes:
            value, gives = value.sum(axes, keepdims=True), gives.sum(axes, keepdims=True) if gives.ndim else gives
        return branch.chance * value, branch.chance * gives

    def _find_end(self, node: Node, *, voucher: bool) -> Ends | None:
        """Finds the best reply that ends the conversation for sure, with a voucher or without."""
        best = choice = None
        for place, (events, branches) in enumerate(node.replies):
            if place in node.going_on or ("voucher" in events) != voucher:
                continue
            value = sum(branch.chance * self._rate_end(branch) for branch in branches)
            if self.graph.ample:
                lost = sum(branch.chance * branch.lost for branch in branches)
                value = value + latent.PATIENCE_WORTH * lost * self.weigh_told(node.told)
            if best is None:
                best, choice = value, np.full(value.shape, place, np.int16)
                continue
            better = value > best + 1e-12 * self.weigh_told(node.told)
            np.copyto(best, value, where=better)
            np.copyto(choice, place, where=better)
        return None if best is None else Ends(best, choice)

    def _rate_end(self, branch: Branch) -> np.ndarray:
        """Returns the ratings in the end, [n, e, p, o]; where patience is ample, without what it costs."""
        if self.graph.ample:
            rating = rate_hidden(branch.after._replace(patience=0))
        elif latent.find_end(_make_customer(self.graph.known), branch.after) == "quit":
            rating = np.zeros(len(HIDDEN))
        else:
            whos = (_make_customer(self.graph.known, self._level, *hidden) for hidden in HIDDEN)
            rating = np.array([latent.expected_rating(who, branch.after) for who in whos])
        return self._expect(rating, branch.told)

    def weigh_told(self, told: Told) -> np.ndarray:
        """Returns P(history) for every history that `told` allows, [n, e, p, o]."""
        if told not in self._masses:
            self._masses[told] = self._expect(np.ones(len(HIDDEN)), told)
        return self._masses[told]

    def _expect(self, rating: np.ndarray, told: Told) -> np.ndarray:
        """Sums `rating` [124] over what is hidden, weighted by P(hidden, history): [n, e, p, o]."""
        left, right = (self._beliefs * rating)[:, None, :], np.ones((1, 1, len(HIDDEN)))
        if told.evidence:
            left = left * self._channels.evidence
        if told.probe:
            right = self._channels.probe[:, None, :]
        if told.offer is not None:
            agreed, ease = told.offer
            chance = tabulate_agreement(ease)
            right = right * (self._channels.offer * (chance if agreed else 1 - chance))
        sums = left.reshape(-1, len(HIDDEN)) @ right.reshape(-1, len(HIDDEN)).T
        return sums.reshape(*left.shape[:2], *right.shape[:2])


def pose_problem(known: Known, heat: int, prior: np.ndarray, *, knows: Knows) -> Problem:
    """Poses the problem of a dialogue after its opening, which told `heat`, with P(hidden), [124].

    The rows are what the opening told of stance and worth (`OPENING`), or, for who knows all, what is hidden.
    """
    level = population.levels_of(heat)[0]
    beliefs = np.diag(prior) if knows == "all" else prior * OPENING
    return Problem(known, population.start_of(level), beliefs, NO_CHANNELS if knows == "all" else READ_CHANNELS, level)


def _make_customer(known: Known, level: int = 3, demand: str = DEMANDS[0], worth: int = 0) -> Customer:
    return Customer(level, demand, known.supported, worth, True, known.discloses, known.wants, "flares")


@functools.cache
def rate_hidden(mood: Mood) -> np.ndarray:
    """Returns the ratings for all that is hidden, [124], without patience and not yet cut to 1..5."""
    who = _make_customer(Known(True, True, True, "steps"))
    service = [latent.rate_service(who._replace(demand=demand), mood) for demand in DEMANDS]
    return np.repeat(service, 31) + _rate_remedies(Mood(0, 0, heard=mood.heard, facts=mood.facts, voucher=mood.voucher))


@functools.cache
def _rate_remedies(mood: Mood) -> np.ndarray:
    who = _make_customer(Known(True, True, True, "steps"))
    return np.array([latent.rate_remedy(who._replace(demand=demand, worth=worth), mood) for demand, worth in HIDDEN])
