"""The embedded user's latent state and its one transition table. No text here: words are read and written elsewhere.

A turn of the agent is a set of *events*. Every rule of `RULES` looks at the customer and at the mood *before* the turn;
for each event the first rule that applies adds its effect. `LIMITS` clips the result. The rating is `expected_rating`.
Everything is small, finite and deterministic, so that the best reachable policy can be computed from the table.
"""

from collections.abc import Mapping
from typing import NamedTuple

EVENTS = {
    "listen": "names this customer's problem and shows it was understood",
    "apology": "says sorry without naming what for",
    "ask": "asks for evidence or details",
    "explain_true": "states what the platform's record says, and it says so",
    "explain_false": "states something about the record that it does not say",
    "limit": "says honestly that a refund or redelivery is impossible",
    "note": "takes the feedback down for the merchant or the team",
    "offer": "proposes a voucher and asks whether that is welcome",
    "promise": "promises a refund, a redelivery or a call",
    "unbacked": "says a voucher was sent although the system state says none was",
    "voucher": "the system state says a voucher was issued this turn",
    "close": "asks whether anything else is needed",
    "repeat": "mostly repeats an earlier reply",
    "long": "runs on for too long",
    "spam": "a heap of stock phrases; then nothing else in the reply counts",
    "nothing": "none of the above",
}


class Customer(NamedTuple):
    """What does not change in a conversation."""

    level: int  # cooperation, 1..5
    demand: str  # one of scenario.DEMANDS
    supported: bool | None  # does the record support the claim? None: it is silent


class Mood(NamedTuple):
    """What changes in a conversation. All are whole numbers from 0 to their `LIMITS`."""

    patience: int  # agent turns the customer will still wait
    anger: int
    trust: int = 0
    heard: int = 0  # times the customer felt listened to
    evidence: int = 0  # 0 not asked for, 1 asked and refused, 2 given
    facts: int = 0  # 1: the record was explained truthfully
    limits: int = 0  # 1: it was said what cannot be done
    noted: int = 0  # 1: the feedback was taken down
    deal: int = 0  # 0 none, 1 offered too early, 2 agreed, 3 refused
    voucher: int = 0  # 0 none, 1 pressed on the customer, 2 agreed first
    over: int = 0  # 1: closed by agreement


LIMITS = Mood(patience=7, anger=3, trust=2, heard=2, evidence=2, facts=1, limits=1, noted=1, deal=3, voucher=2, over=1)


class Rule(NamedTuple):
    """If `event` happens and every field in `when` (of the customer or the mood) has a listed value, add `effect`."""

    event: str
    when: Mapping[str, tuple]
    effect: Mapping[str, int]
    why: str


_REFUND, _PRIORITY, _FLEXIBLE, _FEEDBACK = (
    "refund_insistence",
    "refund_priority",
    "compensation_flexible",
    "feedback_focus",
)
_UNHEARD, _HEARD = (0,), (1, 2)
_NO_EVIDENCE = (0, 1)

RULES = (
    Rule("listen", {"heard": (0,)}, {"heard": 1, "anger": -1}, "being understood calms"),
    Rule(
        "listen", {"heard": (1,), "demand": (_FEEDBACK,)}, {"heard": 1}, "who came to be heard wants to be heard twice"
    ),
    Rule("apology", {"heard": _UNHEARD}, {"patience": -1}, "an empty apology wastes a turn"),
    Rule("apology", {}, {"anger": 1}, "empty apologies after being heard sound false"),
    Rule("ask", {"evidence": (2,)}, {"patience": -1, "anger": 1}, "evidence was given already"),
    Rule(
        "ask",
        {"level": (1,), "heard": _UNHEARD, "evidence": (0,)},
        {"evidence": 1, "anger": 1},
        "hear the hostile first",
    ),
    Rule("ask", {"level": (1,), "heard": _UNHEARD}, {"anger": 1}, "and again, still without listening"),
    Rule("ask", {"evidence": (0,)}, {"evidence": 2, "trust": 1}, "a sensible question; a picture is sent"),
    Rule("ask", {"evidence": (1,)}, {"evidence": 1, "trust": 1}, "asked again after listening, the picture is sent"),
    Rule("explain_true", {"facts": (1,)}, {"patience": -1}, "that was said before"),
    Rule(
        "explain_true",
        {"supported": (False,), "heard": _UNHEARD},
        {"facts": 1, "anger": 1},
        "contradicted before being heard",
    ),
    Rule("explain_true", {}, {"facts": 1, "trust": 1}, "facts, plainly told"),
    Rule("explain_false", {}, {"trust": -1}, "the customer knows the order and sees it is made up"),
    Rule("limit", {"limits": (1,)}, {"patience": -1}, "that was said before"),
    Rule(
        "limit", {"demand": (_REFUND,), "heard": _UNHEARD}, {"limits": 1, "anger": 1}, "a refusal before any listening"
    ),
    Rule("limit", {}, {"limits": 1}, "honest, and expected"),
    Rule("note", {"demand": (_FEEDBACK,)}, {"noted": 1}, "what this customer came for"),
    Rule("note", {}, {}, "polite, no more"),
    Rule("offer", {"demand": (_REFUND,), "deal": (0, 1)}, {"deal": 3}, "only money back will do"),
    Rule(
        "offer", {"deal": (0,), "evidence": _NO_EVIDENCE}, {"deal": 1, "trust": -1}, "bought off before anybody looked"
    ),
    Rule(
        "offer",
        {"demand": (_PRIORITY,), "deal": (0, 1), "trust": (0,)},
        {"patience": -1},
        "not won over by the untrusted",
    ),
    Rule("offer", {"deal": (0,), "evidence": (2,)}, {"deal": 2}, "the problem was looked at: agreed"),
    Rule("offer", {"deal": (1,), "evidence": (2,)}, {"deal": 1}, "offered again, after looking: agreed"),
    Rule("offer", {}, {"patience": -1}, "asked again"),
    Rule("promise", {}, {"trust": -2, "anger": 1}, "the customer knows what such promises are worth"),
    Rule("unbacked", {}, {"trust": -2, "anger": 2}, "caught: the system shows no voucher"),
    Rule("voucher", {"deal": (2,)}, {"voucher": 2, "over": 1}, "as agreed"),
    Rule("voucher", {}, {"voucher": 1, "over": 1}, "nice to have, but nobody asked"),
    Rule("close", {"heard": _HEARD, "evidence": (2,)}, {"over": 1}, "all was said and looked at"),
    Rule("close", {}, {"anger": 1}, "being got rid of"),
    Rule("repeat", {}, {"patience": -1, "anger": 1}, "a broken record"),
    Rule("long", {}, {"patience": -1}, "nobody reads that"),
    Rule("spam", {}, {"patience": -1, "anger": 1}, "phrases thrown at a customer"),
    Rule("nothing", {}, {"patience": -1}, "an answer that says nothing"),
)

_RULES_FOR = {event: tuple(rule for rule in RULES if rule.event == event) for event in EVENTS}

RATING = {  # demand: starting rating, worth of being heard (each time), of a voucher pressed on / agreed, of facts (*)
    _REFUND: (1.3, 0.3, 0.7, 0.8, 0.4),
    _PRIORITY: (1.3, 0.3, 1.0, 2.5, 0.7),
    _FLEXIBLE: (1.3, 0.3, 1.2, 2.7, 0.7),
    _FEEDBACK: (1.7, 0.6, 0.3, 0.4, 0.4),
}  # (*) where the record contradicts the claim and the customer was heard: accepting that, instead of any voucher
TRUST_WORTH, ANGER_WORTH, NOTED_WORTH = 0.2, -0.3, 0.6

_PATIENCE = (5, 5, 5, 6, 7)
_ANGER = (2, 1, 1, 0, 0)


def start_mood(customer: Customer) -> Mood:
    """The mood in which the customer writes the first message."""
    return Mood(
        patience=_PATIENCE[customer.level - 1], anger=_ANGER[customer.level - 1], trust=int(customer.level >= 4)
    )


def apply_events(customer: Customer, mood: Mood, events: frozenset[str]) -> Mood:
    """The mood after a turn of the agent in which `events` happened. Each turn costs one patience."""
    if "spam" in events:
        events = events & {"spam", "voucher", "repeat", "long"}
    before = {**customer._asdict(), **mood._asdict()}
    after = mood._asdict()
    after["patience"] -= 1
    for event in events:
        rule = next((rule for rule in _RULES_FOR[event] if _rule_applies(rule, before)), None)
        for field, change in rule.effect.items() if rule else ():
            after[field] += change
    return Mood(**{field: min(max(value, 0), getattr(LIMITS, field)) for field, value in after.items()})


def find_end(customer: Customer, mood: Mood) -> str:
    """Tells how the conversation ends: "rated", "quit" if the customer walks out, "" while it goes on."""
    if mood.over or (customer.demand == _FEEDBACK and mood.heard == 2 and mood.noted):
        return "rated"
    if mood.patience == 0:
        return "quit" if mood.anger == LIMITS.anger and mood.trust == 0 else "rated"
    return ""


def expected_rating(customer: Customer, mood: Mood) -> float:
    """The mean of the satisfaction 1..5 the customer will give; the rating itself is this, rounded at random."""
    base, heard, pressed, agreed, settled = RATING[customer.demand]
    remedy = (0.0, pressed, agreed)[mood.voucher]
    if customer.supported is False and mood.facts and mood.heard:
        remedy = max(remedy, settled)
    rating = base + heard * mood.heard + remedy + NOTED_WORTH * mood.noted
    rating += TRUST_WORTH * mood.trust + ANGER_WORTH * mood.anger
    return min(max(rating, 1.0), 5.0)


def _rule_applies(rule: Rule, before: Mapping[str, object]) -> bool:
    return all(before[field] in values for field, values in rule.when.items())
