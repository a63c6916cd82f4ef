"""Dynamic programming over moods and over what messages told: the core of the oracle.

A *node* is a mood and the moments at which the customer told something (`signals.HINTS`). Its value is an array over
everything that may have been told by then, one axis for each moment: at node N the entry [i, e, p, o] belongs to row i of
the beliefs at the root, evidence e, probe p and offer o. Values are weighted by the probability of that history, so
that a node's value before a message is the sum over what the message may tell. For an oracle that knows the customer
the same arrays have one entry for each customer and none for messages.

What is left out is never better (`tests/rollouts/domains/fds/embedded/planning_test.py` tries all of it on small gyms):
- harmful events, acts that change nothing, more acts than `latent.MOST_ACTS`, and offers before evidence;
- a probe, an offer or `close` in one reply with each other or with a voucher: what they would tell comes too late;
- holding back `note`, `steps`, and `limit` or a record that nobody disputes where they only help: a reply is filled up with them.
While patience is `AMPLE`, no good plan runs out of it, so it is no part of the node: what is lost is paid at once.
"""

import functools
import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from rollouts.domains.fds.embedded import latent, population, signals
from rollouts.domains.fds.embedded.latent import Customer, Mood
from rollouts.domains.fds.scenario import DEMANDS

AMPLE = 12
"""Patience that no best plan uses up; that of `latent.start_mood` is not below."""

HIDDEN = tuple(itertools.product(DEMANDS, range(31)))
"""What the agent does not see: (demand, worth), the last axis of beliefs, [124]."""

_PROGRESS = ("heard", "evidence", "facts", "limits", "noted", "stepped", "probed", "deal")
_MOMENTS = ("evidence", "probe", "offer")
_ORDER = ("listen", "ask", "explain_true", "limit", "note", "steps")


class Known(NamedTuple):
    """What the agent knows of a customer besides the mood."""

    supported: bool  # False: the record speaks against the claim
    honest: bool | None  # None: unknown, and shown when a record that contradicts is explained
    discloses: bool
    wants: str


class Told(NamedTuple):
    """The moments at which a customer told something."""

    evidence: bool = False
    probe: bool = False
    offer: tuple[bool, Mood] | None = None  # agreed?, and the mood (without patience) in which that was decided


class Branch(NamedTuple):
    """What may follow a reply."""

    chance: float  # of this branch, where that depends on nothing hidden
    lost: int  # patience
    after: Mood
    told: Told
    child: int  # number of the node; -1 where the conversation ends


class Reply(NamedTuple):
    """What an agent may sensibly say in a mood, and what may follow."""

    events: frozenset[str]
    branches: tuple[Branch, ...]


class Node(NamedTuple):
    """A mood of a conversation that goes on."""

    mood: Mood
    told: Told
    replies: tuple[Reply, ...]
    going_on: tuple[int, ...]  # the replies after which the conversation may go on


class Channels(NamedTuple):
    """What may be told at each moment: P(message | hidden), [messages, 124]."""

    evidence: np.ndarray
    probe: np.ndarray
    offer: np.ndarray


def _tabulate_channel(moment: str) -> np.ndarray:
    stances = np.array([signals.STANCE_ODDS[moment][demand] for demand, _ in HIDDEN])
    hints = np.array([signals.HINTS[moment][worth] for _, worth in HIDDEN])
    return (stances[:, :, None] * hints[:, None, :]).reshape(len(HIDDEN), -1).T


OPENING, *_READ = (_tabulate_channel(moment) for moment in ("opening", *_MOMENTS))
READ_CHANNELS = Channels(*(table[table.any(axis=1)] for table in _READ))
"""For agents that read. A message's number counts stances first, then hints, of those that ever come."""

NO_CHANNELS = Channels(*np.ones((3, 1, len(HIDDEN))))
"""For agents that know the customer."""


class Graph:
    """The nodes that sensible replies lead to from one mood."""

    def __init__(self, known: Known, mood: Mood):
        self.known = known
        self.ample = mood.patience >= AMPLE
        self.nodes: list[Node] = []  # children before their parents; the last is the root
        self._numbers: dict[tuple[Mood, Told], int] = {}
        honest = (True, False) if known.honest is None and not known.supported else (bool(known.honest),)
        share = population.HONEST[False]
        self._kinds = [
            (
                1.0 if len(honest) == 1 else share if truth else 1 - share,
                Customer(3, DEMANDS[0], known.supported, 0, truth, known.discloses, known.wants, "flares"),
            )
            for truth in honest
        ]
        self._add_node(self._hide_patience(mood), Told())

    def _hide_patience(self, mood: Mood) -> Mood:
        return mood._replace(patience=latent.LIMITS.patience) if self.ample else mood

    def _add_node(self, mood: Mood, told: Told) -> int:
        if (mood, told) not in self._numbers:
            replies = tuple(Reply(events, self._follow(mood, told, events)) for events in self._list_replies(mood))
            self._numbers[mood, told] = len(self.nodes)
            going_on = tuple(
                place
                for place, reply in enumerate(replies)
                if any(branch.child >= 0 or branch.told != told for branch in reply.branches)
            )
            self.nodes.append(Node(mood, told, replies, going_on))
        return self._numbers[mood, told]

    def _follow(self, mood: Mood, told: Told, events: frozenset[str]) -> tuple[Branch, ...]:
        merged: dict[tuple[Mood, Told], float] = {}
        for chance, who in self._kinds:
            for _, after in latent.list_outcomes(who, mood, events):
                key = after, _add_moment(who, told, mood, after)
                merged[key] = merged.get(key, 0.0) + chance
        branches = []
        for (after, then), chance in merged.items():
            over = latent.find_end(self._kinds[0][1], after)
            child = -1 if over else self._add_node(self._hide_patience(after), then)
            branches.append(Branch(chance, mood.patience - after.patience, after, then, child))
        return tuple(branches)

    def _list_replies(self, mood: Mood) -> Iterator[frozenset[str]]:
        """Yields what is worth saying in one turn, see the module."""
        useful = {act: harmless for act in _ORDER if (harmless := self._judge_act(mood, act)) is not None}
        fills = [act for act, harmless in useful.items() if harmless]
        choices = [act for act, harmless in useful.items() if not harmless]
        specials = [(), ("voucher",)]
        specials += [("probe",)] if mood.heard and not mood.probed else []
        specials += [("offer",), ("close",)] if mood.heard and mood.evidence == 2 else []
        for special in specials:
            if special == ("offer",) and mood.deal >= 2:
                continue
            # who is offered a voucher in one breath with a record against the claim refuses both
            kept = "explain_true" if special == ("offer",) and not self.known.supported and not mood.facts else ""
            filling = [act for act in fills if act != kept]
            for count in range(len(choices) + 1):
                for chosen in itertools.combinations([act for act in choices if act != kept], count):
                    said = (*chosen, *special)
                    room = latent.MOST_ACTS[self.known.wants] - latent.count_acts(said)
                    for filled in itertools.combinations(filling, min(room, len(filling))) if room >= 0 else ():
                        if events := frozenset((*said, *filled)):
                            yield events

    def _judge_act(self, mood: Mood, act: str) -> bool | None:
        """Returns None for an act that is of no use in `mood`, True for one that only helps, whenever it comes."""
        harmless = True
        for _, who in self._kinds:
            ((_, silent),) = latent.list_outcomes(who, mood, frozenset())
            ((_, after),) = latent.list_outcomes(who, mood, frozenset({act}))
            advances = any(getattr(after, field) > getattr(silent, field) for field in _PROGRESS)
            if not advances or (act == "ask" and after.evidence == 1):
                return None
            harmless &= (
                after.anger == silent.anger and after.patience == silent.patience and after.trust >= silent.trust
            )
        return harmless and act != "ask"


def _add_moment(customer: Customer, told: Told, before: Mood, after: Mood) -> Told:
    moment = signals.find_moment(before, after)
    if moment == "offer":  # even if the conversation ends by it, as the chance to agree is the customer's
        return told._replace(offer=(after.deal == 2, ease_of(before)))
    if not moment or latent.find_end(customer, after):
        return told
    return told._replace(**{moment: True})


def ease_of(mood: Mood) -> Mood:
    """Keeps of a mood what `latent.chance_to_agree` looks at."""
    return Mood(patience=0, anger=mood.anger, trust=mood.trust, limits=mood.limits)


@functools.cache
def tabulate_agreement(ease: Mood) -> np.ndarray:
    """Returns P(an offer is accepted | hidden), [124]."""
    return np.array(
        [
            latent.chance_to_agree(Customer(3, demand, True, worth, True, True, "steps", "flares"), ease)
            for demand, worth in HIDDEN
        ]
    )


@functools.cache
def build_graph(known: Known, mood: Mood) -> Graph:
    """Builds the graph of what may sensibly follow `mood`; ample patience is one, whatever its number."""
    return Graph(known, mood)


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
      start: a customer's mood at the beginning, which tells how much patience is lost.
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

    def solve(self, price: float, *, vouchers: bool = True) -> Solution:
        """Finds the best plan where each voucher costs `price`; without `vouchers` none may be given."""
        found = Solution([], [], [])
        for number in range(len(self.graph.nodes)):
            self._solve_node(number, found, price if vouchers else None)
        found.values[-1] += latent.PATIENCE_WORTH * self._lost * self._weigh_told(Told())
        return found

    def _solve_node(self, number: int, found: Solution, price: float | None) -> None:
        node, (kept, given) = self.graph.nodes[number], self._ends[number]
        mass = self._weigh_told(node.told)
        best, gives, choice = np.full(mass.shape, -np.inf), np.zeros(mass.shape), np.zeros(mass.shape, np.int16)

        def take(value: np.ndarray, vouchers: np.ndarray | float, which: np.ndarray | int) -> None:
            better = value > best + 1e-12 * mass
            np.copyto(best, value, where=better)
            np.copyto(gives, vouchers, where=better)
            np.copyto(choice, which, where=better)

        if kept is not None:
            take(kept.value, 0.0, kept.choice)
        if given is not None and price is not None:
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
            value + (latent.PATIENCE_WORTH * branch.lost) * self._weigh_told(branch.told) if self.graph.ample else value
        )
        axes = tuple(
            axis
            for axis, moment in enumerate(_MOMENTS, start=1)
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
                value = value + latent.PATIENCE_WORTH * lost * self._weigh_told(node.told)
            if best is None:
                best, choice = value, np.full(value.shape, place, np.int16)
                continue
            better = value > best + 1e-12 * self._weigh_told(node.told)
            np.copyto(best, value, where=better)
            np.copyto(choice, place, where=better)
        return None if best is None else Ends(best, choice)

    def _rate_end(self, branch: Branch) -> np.ndarray:
        """Returns the ratings in the end, [n, e, p, o]; where patience is ample, without what it costs."""
        if self.graph.ample:
            rating = _rate_hidden(branch.after._replace(patience=0))
        elif latent.find_end(_make_customer(self.graph.known), branch.after) == "quit":
            rating = np.zeros(len(HIDDEN))
        else:
            whos = (_make_customer(self.graph.known, self._level, *hidden) for hidden in HIDDEN)
            rating = np.array([latent.expected_rating(who, branch.after) for who in whos])
        return self._expect(rating, branch.told)

    def _weigh_told(self, told: Told) -> np.ndarray:
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


def _make_customer(known: Known, level: int = 3, demand: str = DEMANDS[0], worth: int = 0) -> Customer:
    return Customer(level, demand, known.supported, worth, True, known.discloses, known.wants, "flares")


@functools.cache
def _rate_hidden(mood: Mood) -> np.ndarray:
    who = _make_customer(Known(True, True, True, "steps"))
    service = [latent.rate_service(who._replace(demand=demand), mood) for demand in DEMANDS]
    return np.repeat(service, 31) + _rate_remedies(Mood(0, 0, heard=mood.heard, facts=mood.facts, voucher=mood.voucher))


@functools.cache
def _rate_remedies(mood: Mood) -> np.ndarray:
    who = _make_customer(Known(True, True, True, "steps"))
    return np.array([latent.rate_remedy(who._replace(demand=demand, worth=worth), mood) for demand, worth in HIDDEN])
