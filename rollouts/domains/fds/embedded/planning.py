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
    choices: list[np.ndarray]  # for each node: the number of the best reply
    vouchers: float  # given from the root on, of all beliefs there

    def sum_root(self) -> tuple[float, float]:
        """Returns the value and the vouchers given, summed over the beliefs at the root."""
        return float(self.values[-1].sum()), self.vouchers


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
      relaxed: take ample patience for endless, and do not cut ratings. Good plans from the beginning lose nothing by
        it; where much went wrong, they may.
    """

    def __init__(
        self, known: Known, mood: Mood, beliefs: np.ndarray, channels: Channels, level: int, *, relaxed: bool = True
    ):
        self.graph = build_graph(known, mood, relaxed=relaxed and mood.patience >= AMPLE)
        self._beliefs, self._channels = beliefs, channels
        self._masses: dict[Told, np.ndarray] = {}
        self._mass_sums: dict[tuple[Told, tuple[int, ...]], np.ndarray] = {}
        self._start = latent.start_mood(_make_customer(known, level=level)).patience
        self._lost = self._start - mood.patience if self.graph.ample else 0
        self._ends = [
            (self._find_end(node, voucher=False), self._find_end(node, voucher=True)) for node in self.graph.nodes
        ]

    def solve(self, price: float, ends: tuple[bool, ...] = (False, True)) -> Solution:
        """Finds the best plan where a voucher costs `price`; `ends`: (False,) gives none, (True,) always gives one."""
        values, vouchers, choices = [], [], []
        sums: dict[tuple[int, tuple[int, ...]], tuple[np.ndarray, np.ndarray]] = {}

        def sum_child(child: int, axes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
            if (child, axes) not in sums:
                sums[child, axes] = _sum_axes(values[child], axes), _sum_axes(vouchers[child], axes)
            return sums[child, axes]

        for node, (kept, given) in zip(self.graph.nodes, self._ends, strict=True):
            mass = self.weigh_told(node.told)
            best, gives, choice = np.full(mass.shape, -np.inf), np.zeros(mass.shape), np.zeros(mass.shape, np.int16)
            if kept is not None and False in ends:
                best, choice = kept.value.copy(), kept.choice.copy()
            if given is not None and True in ends:
                _take_better((best, gives, choice), (given.value - price * mass, mass, given.choice))
            for place in node.going_on:
                value, some = 0.0, 0.0
                for branch in node.replies[place].branches:
                    axes = _list_axes(node.told, branch.told)
                    if branch.child >= 0:
                        one, two = sum_child(branch.child, axes)
                    else:
                        one, two = _sum_axes(self._rate_end(branch), axes), 0.0
                    cost = self._cost_of(branch) * self._weigh_sum(branch.told, axes)
                    value, some = value + branch.chance * (one + cost), some + branch.chance * two
                _take_better((best, gives, choice), (value, some, place))
            values.append(best)
            vouchers.append(gives)
            choices.append(choice)
        values[-1] = values[-1] + latent.PATIENCE_WORTH * self._lost * self.weigh_told(Told())
        return Solution(values, choices, float(vouchers[-1].sum()))

    def _cost_of(self, branch: Branch) -> float:
        """Returns what the patience lost is worth; where patience is not ample, the rating tells."""
        return latent.PATIENCE_WORTH * branch.lost if self.graph.ample else 0.0

    def _find_end(self, node: Node, *, voucher: bool) -> Ends | None:
        """Finds the best reply that ends the conversation for sure, with a voucher or without."""
        best, choice, mass = None, None, self.weigh_told(node.told)
        for place, (events, branches) in enumerate(node.replies):
            if place in node.going_on or ("voucher" in events) != voucher:
                continue
            cost = sum(branch.chance * self._cost_of(branch) for branch in branches)
            value = sum(branch.chance * self._rate_end(branch) for branch in branches) + cost * mass
            if best is None:
                best, choice = value, np.full(value.shape, place, np.int16)
                continue
            _take_better((best, choice), (value, place))
        return None if best is None else Ends(best, choice)

    def _rate_end(self, branch: Branch) -> np.ndarray:
        """Returns the ratings in the end, [n, e, p, o]; where patience is ample, without what it costs."""
        if self.graph.ample:
            rating = rate_hidden(branch.after._replace(patience=0))
        elif latent.find_end(_make_customer(self.graph.known), branch.after) == "quit":
            rating = np.zeros(len(HIDDEN))
        else:
            lost = self._start - branch.after.patience
            rating = rate_hidden(branch.after._replace(patience=0)) + latent.PATIENCE_WORTH * lost
            rating = np.clip(rating, 1.0, 5.0)
        return self._expect(rating, branch.told)

    def weigh_told(self, told: Told) -> np.ndarray:
        """Returns P(history) for every history that `told` allows, [n, e, p, o]."""
        if told not in self._masses:
            self._masses[told] = self._expect(np.ones(len(HIDDEN)), told)
        return self._masses[told]

    def _weigh_sum(self, told: Told, axes: tuple[int, ...]) -> np.ndarray:
        if (told, axes) not in self._mass_sums:
            self._mass_sums[told, axes] = _sum_axes(self.weigh_told(told), axes)
        return self._mass_sums[told, axes]

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


def _take_better(best: tuple[np.ndarray, ...], others: tuple[np.ndarray | float, ...]) -> None:
    """Writes `others` into the arrays of `best` wherever the first of them, the value, is greater."""
    better = others[0] > best[0]
    for target, source in zip(best, others, strict=True):
        np.copyto(target, source, where=better)


def _list_axes(before: Told, after: Told) -> tuple[int, ...]:
    """Lists the axes of what was told between the two."""
    told = enumerate(zip(before, after, strict=True), start=1)
    return tuple(axis for axis, (then, now) in told if now and not then)


def _sum_axes(values: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    return values.sum(axes, keepdims=True) if axes else values


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
