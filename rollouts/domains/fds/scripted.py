"""Scripted agents: the deliberately generous one that writes the default demonstrations, and yardsticks.

They see what any agent sees: the order's signals and the customer's words, but not the persona. Only the oracle knows
the customer and the embedded gym's rules.
"""

import abc
import dataclasses
import random
import re
from collections.abc import Mapping, Sequence

from rollouts.domains.fds import turn_format
from rollouts.domains.fds.embedded import oracle
from rollouts.domains.fds.embedded.latent import Customer
from rollouts.domains.fds.generator import order_values
from rollouts.domains.fds.scenario import Scenario
from rollouts.types import Message, Sample


@dataclasses.dataclass(frozen=True)
class Habits:
    """How an agent tends to act; probabilities, drawn once per dialogue unless noted."""

    listens: float  # names the problem in the first reply, else an empty apology or nothing
    asks: float  # asks for evidence
    waits: float  # does not ask blunt customers for evidence in its first reply; others it asks there
    explains: float  # states the record, where there is one
    offers: float  # proposes a voucher after evidence and hands it out if agreed
    hesitates: float  # per turn: does not propose a voucher to those who seem to want something else
    presses: float  # hands out a voucher unasked, or although it was declined
    notes: float  # takes feedback down if the customer wants that; if not, at a third of this
    slips: float  # per turn: a false promise, an empty apology, a repetition or a made-up fact


HABITS = {
    "generous": Habits(
        listens=0.8, asks=0.9, waits=0.6, explains=0.8, offers=0.8, hesitates=0.35, presses=0.55, notes=0.7, slips=0.02
    ),
    "never": Habits(
        listens=1.0, asks=1.0, waits=0.0, explains=1.0, offers=0.0, hesitates=0.0, presses=0.0, notes=1.0, slips=0.0
    ),
    "always": Habits(
        listens=1.0, asks=1.0, waits=0.0, explains=0.0, offers=1.0, hesitates=0.0, presses=1.0, notes=0.0, slips=0.0
    ),
}

_PROBLEMS = {  # complaint tag -> how an agent names it
    "late delivery": ("came so late", "took so long with all that delay", "kept you waiting so long"),
    "food temperature": ("arrived cold", "was cold", "was not even warm"),
    "damaged packaging": ("was spilled", "came damaged", "leaked out of the box"),
    "missing items": ("was missing something", "was incomplete", "came with an item left out"),
    "taste below expectations": ("tasted so bad", "had such a bad taste", "let you down with its taste"),
    "not fresh or undercooked": ("was undercooked", "was raw inside", "was not fresh"),
}

_SAYS = {
    "listen": (
        "I am sorry to hear that the order {problem}.",
        "I understand how frustrating it is that your food {problem}.",
        "I see why you are upset that the order {problem}.",
        "I hear you, an order that {problem} is not right.",
    ),
    "apology": ("I am so sorry.", "We apologize for that.", "Sorry about this."),
    "ask": (
        "Could you send me a photo of the {item}?",
        "Can you show me a picture of it, please?",
        "Would you describe the details and send a photo?",
        "Please send me a picture of the food.",
    ),
    "explain": ("Our record shows: {record}.", "The system says: {record}.", "The log shows the following, {record}."),
    "limit": (
        "I cannot make a refund from here.",
        "A refund is not possible for me.",
        "Honestly, I am not able to refund the order.",
    ),
    "note": (
        "I will pass your feedback on to the merchant.",
        "I note this down for the kitchen team.",
        "I share your feedback with {merchant}, the merchant.",
    ),
    "offer": (
        "Would a voucher be welcome instead?",
        "Could I offer you a voucher for this?",
        "How about a voucher for your next order?",
        "Would you accept a voucher?",
    ),
    "grant": (
        "I have sent you a voucher.",
        "The voucher has been added to your account.",
        "A voucher was just issued for you.",
    ),
    "close": (
        "Is there anything else I can do?",
        "Can I help with anything else?",
        "Anything else you would like to tell me?",
    ),
    "promise": ("You will get a refund soon.", "We will call you tomorrow.", "I will resend the order."),
    "invent": ("Our record shows that all was perfect.", "The system says you never complained."),
}

_CUES = (  # demand, and words that show it; strongest first
    (
        "refund_insistence",
        r"nothing but|nothing else|only want my money|do not want your voucher|keep your voucher|no voucher, thanks",
    ),
    (
        "refund_priority",
        r"(?:refund|money back).*(?:possible|best|first)|(?:rather|prefer|possible).*(?:refund|money back)",
    ),
    ("feedback_focus", r"should know|want you to know|they hear about it|just reporting"),
    ("compensation_flexible", r"what can you do|make this right|going to do for me|your solution"),
)
_BLUNT = re.compile(r"^(?:listen\.|hey you|unbelievable)")  # how most hostile customers begin, and some others
_AGREED = re.compile(r"voucher would be fine|take the voucher|voucher sounds good|voucher it is")
_BELIEFS = {
    "": "Demand unclear.",
    "refund_insistence": "Insists on a refund.",
    "refund_priority": "Prefers a refund, may take a voucher.",
    "feedback_focus": "Wants to be heard.",
    "compensation_flexible": "Waits for a proposal.",
}
_PLANS = {"grant": "voucher", "invent": "explain", "apology": "apologize"}
_ORACLE_ACTS = {
    "listen": "listen",
    "explain_true": "explain",
    "note": "note",
    "ask": "ask",
    "offer": "offer",
    "voucher": "grant",
    "close": "close",
}  # event -> act that brings it about, in the order of speaking


class ScriptedAgent:
    """Serves customers by fixed habits; `style` is a key of HABITS."""

    def __init__(self, style: str):
        if style not in HABITS:
            raise ValueError(f"expected a scripted agent among {sorted(HABITS)}, got {style!r}")
        self._habits = HABITS[style]

    async def open(self, scenario: Scenario, seed: int) -> "HabitSession":
        """Begins a dialogue."""
        return HabitSession(self._habits, scenario, random.Random(seed))


class OracleAgent:
    """Serves each customer by the best plan; `chances` is the probability that a customer's plan has a voucher."""

    def __init__(self, chances: Mapping[Customer, float]):
        self._chances = chances

    async def open(self, scenario: Scenario, seed: int) -> "OracleSession":
        """Begins a dialogue."""
        customer, rng = oracle.customer_of(scenario), random.Random(seed)
        voucher = rng.random() < self._chances[customer]
        return OracleSession(oracle.plan_dialogue(customer, voucher=voucher), scenario, rng)


class ScriptedSession(abc.ABC):
    """One dialogue of a scripted agent: puts acts into words. `_plan_acts` chooses the acts."""

    def __init__(self, scenario: Scenario, rng: random.Random):
        self._rng, self._order = rng, scenario.order
        self._heard_from: list[str] = []

    async def reply(self, messages: Sequence[Message], seed: int) -> Sample:
        """Answers the user's message."""
        latest = messages[-1].content
        self._heard_from.append(latest)
        return Sample(turn_format.render_reply(self._write_reply(self._plan_acts(latest))))

    def close(self) -> None:
        """Does nothing: the session holds nothing."""
        return

    @abc.abstractmethod
    def _plan_acts(self, latest: str) -> Sequence[str]:
        """Plans what to do about the user's `latest` message."""

    def _phrase_act(self, act: str) -> str:
        return self._rng.choice(_SAYS[act])

    def _write_reply(self, acts: Sequence[str]) -> turn_format.Reply:
        values = {
            "problem": self._rng.choice(_PROBLEMS[self._order.complaint]),
            "item": self._rng.choice(self._order.items.split(",")).split("*")[0],
            "record": order_values(self._order)["record"],
            "merchant": self._order.merchant,
        }
        weighs = {True: "for", False: "against", None: "no help to"}[self._order.supported]
        seen = "Picture seen." if any("[Sent Picture" in text for text in self._heard_from) else "No picture yet."
        plan = ", ".join(_PLANS.get(act, act) for act in acts)
        complaint = self._order.complaint.capitalize()
        belief = _BELIEFS[_read_demand(self._heard_from)]
        # Quotes the record in every turn: policies trained without the quote never learnt to quote it to the customer.
        think = f"{complaint}. Record: {values['record']}, {weighs} the claim. {belief} {seen} Plan: {plan}."
        response = " ".join(self._phrase_act(act).format(**values) for act in acts)
        return turn_format.Reply(think, response, "voucher" if "grant" in acts else "chat")


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

    def _plan_acts(self, latest: str) -> list[str]:
        acts = self._choose_acts(_read_demand(self._heard_from), latest)
        self._done.update(acts)
        return acts

    def _choose_acts(self, demand: str, latest: str) -> list[str]:
        """Chooses at most three acts for this turn: first for the customer, then for the case, then towards an end."""
        does, done, first = self._does, self._done, not self._done
        evidence = any("[Sent Picture" in text for text in self._heard_from)
        if self._rng.random() < self._slips:
            return [self._rng.choice(("promise", "apology", "invent"))]
        if "offer" in done and _AGREED.search(latest.lower()):
            return ["grant"]
        acts = []
        if first:
            acts.append("listen" if does["listens"] else "apology")
        elif demand == "feedback_focus" and does["listens"] and "listened" not in done:
            acts += ["listen"]
            self._done.add("listened")
        if first and does["waits"] and _BLUNT.search(latest.lower()):
            return acts
        if does["presses"] and not first and "grant" not in done and ("offer" in done or not does["offers"]):
            return [*acts, "grant"]
        if does["asks"] and not evidence and "ask_twice" not in done:
            self._done.add("ask_twice" if "ask" in done else "ask")
            return [*acts, "ask"]
        if does["explains"] and self._order.record and "explain" not in done:
            acts.append("explain")
        if demand.startswith("refund") and "limit" not in done:
            acts.append("limit")
        if does["notes"] and "note" not in done and (demand == "feedback_focus" or self._rng.random() < 0.3):
            acts.append("note")
        unlikely = demand in ("refund_insistence", "feedback_focus") and self._rng.random() < self._hesitates
        if does["offers"] and "offer" not in done and not first and not unlikely:
            acts.append("offer")
        elif len(acts) < 2 and not first:
            acts.append("close")
        return acts[:3] or ["apology"]


class OracleSession(ScriptedSession):
    """One dialogue by plan. It asks a customer who goes on after the plan, in another gym than ours, to close."""

    def __init__(self, plan: oracle.Plan, scenario: Scenario, rng: random.Random):
        super().__init__(scenario, rng)
        self._turns = iter(plan.turns)
        self._unsaid = {act: rng.sample(texts, len(texts)) for act, texts in _SAYS.items()}

    def _plan_acts(self, latest: str) -> list[str]:
        events = next(self._turns, {"close"})
        return [act for event, act in _ORACLE_ACTS.items() if event in events]

    def _phrase_act(self, act: str) -> str:
        texts = self._unsaid[act]
        return texts.pop() if len(texts) > 1 else texts[0]


def decline_voucher(text: str, seed: int) -> str:
    """Returns a turn in place of `text` that names the limit and hands out nothing; the agent keeps its thoughts.

    Only its plan is another, as it becomes part of what the agent reads of itself later.
    """
    try:
        seen, _, _ = turn_format.parse(text).think.rpartition("Plan:")
    except turn_format.MalformedTurn:
        seen = ""
    rng, acts = random.Random(seed), ("limit", "close")
    response = " ".join(rng.choice(_SAYS[act]) for act in acts)
    return turn_format.render_reply(turn_format.Reply(f"{seen}Plan: {', '.join(acts)}.", response, "chat"))


def _read_demand(texts: Sequence[str]) -> str:
    """What a customer seems to want, from what was said so far (newest last); "" while it is unclear."""
    for text in reversed(texts):
        for demand, cue in _CUES:
            if re.search(cue, text.lower()):
                return demand
    return ""
