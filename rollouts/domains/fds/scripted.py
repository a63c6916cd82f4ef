"""Scripted agents: yardsticks by habit, and what all scripted agents share, from hearing a message to writing a reply.

They see what any agent sees: the order as its prompt tells it, and the customer's words, but not the persona. Those
that know the embedded gym's rules are in `gym_agents`.
"""

import abc
import dataclasses
import random
from collections.abc import Collection, Sequence

from rollouts.domains.fds import turn_format
from rollouts.domains.fds.hearing import Heard, hear_message
from rollouts.domains.fds.scenario import COMPLAINTS, Order, Scenario
from rollouts.domains.fds.words import bank, records
from rollouts.types import Message, Sample


@dataclasses.dataclass(frozen=True)
class Habits:
    """How an agent tends to act; probabilities, drawn once per dialogue unless noted."""

    listens: float  # names the problem in the first reply, else an empty apology
    asks: float  # asks for evidence
    waits: float  # does not ask angry customers for evidence in its first reply
    explains: float  # states the record
    offers: float  # proposes a voucher after evidence and hands it out if agreed
    hesitates: float  # per turn: does not propose a voucher to those who seem to want something else
    presses: float  # hands out a voucher unasked, or although it was declined
    notes: float  # takes feedback down if the customer wants that; if not, at a third of this
    slips: float  # per turn: a false promise, an empty apology or a made-up record


HABITS = {
    "generous": Habits(
        listens=0.8, asks=0.9, waits=0.6, explains=0.8, offers=0.8, hesitates=0.35, presses=0.55, notes=0.7, slips=0.02
    ),
    "never": Habits(
        listens=1.0, asks=1.0, waits=1.0, explains=1.0, offers=0.0, hesitates=0.0, presses=0.0, notes=1.0, slips=0.0
    ),
    "always": Habits(
        listens=1.0, asks=1.0, waits=1.0, explains=0.0, offers=1.0, hesitates=0.0, presses=1.0, notes=0.0, slips=0.0
    ),
}

STATEMENTS = ("explain", "limit", "steps", "note")
QUESTIONS = ("ask", "probe", "offer", "voucher", "close")
ACTS = ("listen", "apology", *STATEMENTS, *QUESTIONS, "promise", "invent")
"""What a scripted agent may do in a turn: sections of `words/replies.txt`, in the order of speaking."""

_AGREED = ("agreed", "agreed_gladly")
_MOST_ACTS = 2
_HASTE = 3  # a reply with so many acts puts each in few words
_PROBLEMS = dict(zip(COMPLAINTS, ("Late", "Cold", "Spilled", "Missing", "Bad taste", "Raw"), strict=True))


class ScriptedAgent:
    """Serves customers by fixed habits; `style` is a key of HABITS."""

    def __init__(self, style: str):
        if style not in HABITS:
            raise ValueError(f"expected a scripted agent among {sorted(HABITS)}, got {style!r}")
        self._habits = HABITS[style]

    async def open(self, scenario: Scenario, seed: int) -> "HabitSession":
        """Begins a dialogue."""
        return HabitSession(self._habits, scenario, random.Random(seed))


class Phrasing:
    """Puts acts into words for one order, never twice in the same ones while there are others."""

    def __init__(self, order: Order, rng: random.Random):
        self._order, self._rng = order, rng
        self._unsaid: dict[tuple[str, ...], list[str]] = {}

    def write_reply(self, acts: Collection[str], complaint: str, item: str) -> str:
        """Returns one sentence for each act; who asks, asks last.

        Args:
          acts: among ACTS.
          complaint: a key of COMPLAINTS.
          item: the one in dispute; "": which one is not known.
        """
        statements = [act for act in STATEMENTS if act in acts]
        self._rng.shuffle(statements)
        first = [act for act in ACTS if act in acts and act not in (*STATEMENTS, *QUESTIONS)]
        ordered = [*first, *statements, *(act for act in QUESTIONS if act in acts)]
        return " ".join(self._phrase_act(act, complaint, item, hurried=len(ordered) >= _HASTE) for act in ordered)

    def _phrase_act(self, act: str, complaint: str, item: str, *, hurried: bool) -> str:
        order = self._order
        section = (act,)
        if act == "listen":
            section = (act, complaint)
        elif act == "explain" and records.read_record(order.record.text, None).kind in ("silent", "other"):
            section = (act, "silent")
        values = {"item": item, "merchant": order.merchant, "record": order.record.text}
        values |= {"ordered": order.ordered, "delivered": order.delivered}
        values = {slot: value for slot, value in values.items() if value}
        unsaid = self._unsaid.setdefault(section, [])
        if not unsaid:
            templates = bank.list_templates("replies", section, False)
            suited = [template for template in templates if template.slots <= values.keys()]
            naming = [template for template in suited if "item" in template.slots]
            suited = naming if act == "listen" and naming else suited
            unsaid += [self._rng.choice(template.texts) for template in suited]
            self._rng.shuffle(unsaid)
        text = min(unsaid[-5:], key=len) if hurried else unsaid[-1]
        unsaid.remove(text)
        return text.format(**values)


class ScriptedSession(abc.ABC):
    """One dialogue of a scripted agent: hears messages and puts acts into words. `_plan_acts` chooses the acts."""

    def __init__(self, scenario: Scenario, rng: random.Random):
        self._rng, self._order = rng, scenario.order
        self._phrasing = Phrasing(scenario.order, rng)
        self._heard: list[Heard] = []
        self._texts: list[str] = []

    async def reply(self, messages: Sequence[Message], seed: int) -> Sample:
        """Answers the user's message."""
        latest, order = messages[-1].content, self._order
        names = [*(item.name for item in order.items), order.merchant]
        self._heard.append(hear_message(latest, names, first=not self._heard))
        self._texts.append(latest)
        acts = self._plan_acts(self._heard[-1])
        response = self._phrasing.write_reply(acts, self._complaint, self._find_item())
        action = "voucher" if "voucher" in acts else "chat"
        return Sample(turn_format.render_reply(turn_format.Reply(self._write_thoughts(acts), response, action)))

    def close(self) -> None:
        """Does nothing: the session holds nothing."""
        return

    @abc.abstractmethod
    def _plan_acts(self, heard: Heard) -> Collection[str]:
        """Plans what to do, among ACTS, about the latest message."""

    def _describe_belief(self) -> str:
        """Returns what the agent's thoughts say of the customer."""
        return ""

    @property
    def _complaint(self) -> str:
        """What the customer complains of, as far as it was heard; else what the form says."""
        return next((heard.complaint for heard in self._heard if heard.complaint), self._order.tag)

    @property
    def _supported(self) -> bool | None:
        """What the record says of the complaint that was heard."""
        kind = records.read_record(self._order.record.text, None).kind
        known = {each.name: each for each in records.list_kinds()}
        about = kind in known and known[kind].complaint in (self._complaint, "any")
        return records.SAYS[known[kind].says] if about else None

    def _find_item(self) -> str:
        """Returns the item that the customer named, else the first; "" if any may be the missing one."""
        names = [item.name for item in self._order.items]
        for text in self._texts:
            if named := [name for name in names if name.lower() in text.lower()]:
                return named[0]
        return "" if self._complaint == "missing items" and len(names) > 1 else names[0]

    def _write_thoughts(self, acts: Collection[str]) -> str:
        """Returns what is seen, believed and planned; the record is quoted, word by word, where it matters.

        All that a plan follows from is there in words: a small model finds its next step in its latest thoughts. The
        complaint comes before the record, or such a model reads it there, and not in what the customer says.
        """
        plan = ", ".join(act for act in ACTS if act in acts)
        problem = _PROBLEMS.get(self._complaint, self._complaint)
        record = f"record: {self._order.record.text}, " if len(self._heard) == 1 or "explain" in acts else ""
        return f"{problem}, {record}{self._describe_record()}.{self._describe_belief()} Plan: {plan}."

    def _describe_record(self) -> str:
        if self._supported is not None:
            return "for" if self._supported else "against"
        return "silent" if records.read_record(self._order.record.text, None).kind == "silent" else "beside"


class HabitSession(ScriptedSession):
    """One dialogue by fixed habits."""

    def __init__(self, habits: Habits, scenario: Scenario, rng: random.Random):
        super().__init__(scenario, rng)
        self._slips, self._hesitates = habits.slips, habits.hesitates
        self._does = {
            name: rng.random() < getattr(habits, name)
            for name in ("listens", "asks", "waits", "explains", "offers", "presses", "notes")
        }
        self._done: set[str] = set()

    def _plan_acts(self, heard: Heard) -> list[str]:
        stance = next((one.signal.stance for one in reversed(self._heard) if one.signal.stance), "")
        acts = self._choose_acts(stance, heard)
        self._done.update(acts)
        return acts

    def _choose_acts(self, stance: str, heard: Heard) -> list[str]:
        """Chooses the acts for this turn: first for the customer, then for the case, then towards an end."""
        does, done, first = self._does, self._done, not self._done
        evidence = any(one.signal.picture for one in self._heard)
        if self._rng.random() < self._slips:
            return [self._rng.choice(("promise", "apology", "invent"))]
        if "offer" in done and "voucher" not in done and heard.signal.reaction in _AGREED:
            return ["voucher"]
        acts = []
        if first:
            acts.append("listen" if does["listens"] else "apology")
            if does["waits"] and heard.signal.heat:
                return acts
        if does["presses"] and not first and "voucher" not in done and ("offer" in done or not does["offers"]):
            return [*acts, "voucher"]
        if does["asks"] and not evidence and "asked_twice" not in done:
            self._done.add("asked_twice" if "ask" in done else "ask")
            return [*acts, "ask"]
        if does["explains"] and "explain" not in done:
            acts.append("explain")
        if stance.startswith("refund") and "limit" not in done:
            acts.append("limit")
        if does["notes"] and "note" not in done and (stance == "report" or self._rng.random() < 0.3):
            acts.append("note")
        unlikely = stance in ("refund_only", "report") and self._rng.random() < self._hesitates
        if does["offers"] and "offer" not in done and not first and not unlikely:
            acts.append("offer")
        elif len(acts) < _MOST_ACTS and not first:
            acts.append("close")
        return acts[:_MOST_ACTS] or ["apology"]


def decline_voucher(text: str, seed: int) -> str:
    """Returns a turn in place of `text` that names the limit and hands out nothing; the agent keeps its thoughts.

    Only its plan is another, as it becomes part of what the agent reads of itself later.
    """
    try:
        seen, _, _ = turn_format.parse(text).think.rpartition("Plan:")
    except turn_format.MalformedTurn:
        seen = ""
    rng, acts = random.Random(seed), ("limit", "close")
    texts = (rng.choice(bank.list_templates("replies", (act,), False)).texts[0] for act in acts)
    return turn_format.render_reply(turn_format.Reply(f"{seen}Plan: {', '.join(acts)}.", " ".join(texts), "chat"))
