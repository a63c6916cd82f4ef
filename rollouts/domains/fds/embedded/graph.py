"""What an agent may sensibly say in each mood of the embedded customer, and what may follow: a graph without values.

What is left out is never better (`tests/rollouts/domains/fds/embedded/planning_test.py` tries all of it on small gyms):
- harmful events, acts that change nothing, more acts than `latent.MOST_ACTS`, and offers before evidence;
- a probe, an offer and `close` in one reply with each other or with a voucher: what they would tell comes too late;
- an offer in one breath with a record against the claim (`latent.DERIVED`);
- holding back an act that only helps, whenever it comes: replies are filled up with them.

While patience is `AMPLE`, no good plan runs out of it, so it is no part of a node: what is lost is paid at once.
"""

import functools
import itertools
from collections.abc import Iterator
from typing import NamedTuple

from rollouts.domains.fds.embedded import latent, population, signals
from rollouts.domains.fds.embedded.latent import Customer, Mood
from rollouts.domains.fds.scenario import DEMANDS

AMPLE = 12
"""Patience that no best plan uses up; that of `latent.start_mood` is not below."""

MOMENTS = ("evidence", "probe", "offer")
"""The moments after the opening at which a customer may tell something, see `signals.HINTS`."""

_PROGRESS = ("heard", "evidence", "facts", "limits", "noted", "stepped", "probed", "deal")
_ACTS = ("listen", "ask", "explain_true", "limit", "note", "steps")


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


class Graph:
    """The nodes that sensible replies lead to from one mood."""

    def __init__(self, known: Known, mood: Mood, *, ample: bool):
        self.known, self.ample = known, ample
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

    def find_node(self, mood: Mood, told: Told) -> int | None:
        """Returns the number of the node with this mood, whatever its ample patience, and moments; None if none."""
        return self._numbers.get((self._hide_patience(mood), told))

    def find_mood(self, mood: Mood) -> int | None:
        """Returns the number of a node with this mood, whatever its ample patience, and any moments; None if none."""
        wanted = self._hide_patience(mood)
        return next((number for (mood, _), number in self._numbers.items() if mood == wanted), None)

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
        useful = {act: harmless for act in _ACTS if (harmless := self._judge_act(mood, act)) is not None}
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
        harmless, silent = True, mood._replace(patience=max(mood.patience - 1, 0))
        for _, who in self._kinds:
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


def build_graph(known: Known, mood: Mood, *, relaxed: bool) -> Graph:
    """Builds the graph of what may sensibly follow `mood`; `relaxed`: its patience is taken for endless."""
    return _build_graph(known, mood._replace(patience=latent.LIMITS.patience) if relaxed else mood, relaxed)


@functools.lru_cache(maxsize=512)
def _build_graph(known: Known, mood: Mood, relaxed: bool) -> Graph:
    return Graph(known, mood, ample=relaxed)
