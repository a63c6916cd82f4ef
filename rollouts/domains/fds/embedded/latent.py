"""The embedded customer's latent state and its one transition table. Words are read and written elsewhere.

A turn of the agent is a set of *events*. Every rule of `RULES` looks at the customer and at the mood *before* the turn;
for each event the first rule that applies adds its effect, or, where the rule has a chance, one of two effects.
`LIMITS` clips the result. The rating is `expected_rating`. Everything is small and finite, so that the best reachable
policy can be computed from the table (`oracle`).
"""

import math
import random
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from rollouts.domains.fds.scenario import DEMANDS

EVENTS = {
    "listen": "names this customer's problem, rightly, and shows it was understood",
    "apology": "says sorry without naming what for",
    "ask": "asks for evidence or details (photo, what happened)",
    "probe": "asks what the customer would like, or what would make it right, without offering anything",
    "explain_true": "states what the platform's record says, and it says so",
    "explain_false": "states something about the record that it does not say",
    "wrong_fact": "names an item, merchant, number, price or time that is not this order's",
    "limit": "says honestly that a refund or redelivery is impossible",
    "note": "takes the feedback down for the merchant or the team",
    "steps": "says what happens next, step by step, without a promise of money, redelivery or a call",
    "offer": "proposes a voucher and asks whether that is welcome",
    "promise": "promises a refund, a redelivery, a call or any other remedy the agent does not have",
    "unbacked": "says that a remedy was given (voucher, refund, coupon, gift card) though the system state shows none",
    "voucher": "the system state says a voucher was issued this turn",
    "close": "asks whether anything else is needed",
    "negated": "denies or refuses what would help: 'I will not look', 'I do not pass it on'",
    "rude": "insults, blames, mocks or threatens the customer",
    "not_understood": "cannot be read by the customer: garbled, word salad, pidgin, invisible, another script",
    "repeat": "mostly repeats an earlier reply",
    "long": "runs on for too long",
    "spam": "a heap of stock phrases; then nothing good in the reply counts",
    "nothing": "none of the above",
}


class Customer(NamedTuple):
    """What does not change in a conversation."""

    level: int  # cooperation, 1..5
    demand: str  # one of scenario.DEMANDS
    supported: bool | None  # does the record support the claim? None: it is silent or beside the point
    worth: int  # what an agreed voucher adds to the rating, in tenths of a point, 0..30; the customer's own
    honest: bool  # False: the claim is false or exaggerated, and a record that speaks contradicts it
    discloses: bool  # True: tells details at once; False: only when asked
    wants: str  # "steps" | "short": how the problem should be solved
    temper: str  # "flares" | "silent": how anger shows


class Mood(NamedTuple):
    """What changes in a conversation. All are whole numbers from 0 to their `LIMITS`."""

    patience: int  # agent turns the customer will still wait
    anger: int
    trust: int = 0
    heard: int = 0  # times the customer felt listened to
    evidence: int = 0  # 0 not asked for, 1 asked and refused, 2 given
    facts: int = 0  # 1: the record was explained truthfully, 2: and a false claim is settled by it
    limits: int = 0  # 1: it was said what cannot be done
    noted: int = 0  # 1: the feedback was taken down
    stepped: int = 0  # 1: who wants steps was told what happens next
    probed: int = 0  # 1: asked what would be welcome
    deal: int = 0  # 0 none, 1 offered too early, 2 agreed, 3 refused
    voucher: int = 0  # 0 none, 1 pressed on the customer, 2 agreed first
    offended: int = 0  # marks that lies, insults and wasted words leave for good
    over: int = 0  # 1: closed by agreement


LIMITS = Mood(
    patience=18,
    anger=3,
    trust=3,
    heard=2,
    evidence=2,
    facts=2,
    limits=1,
    noted=1,
    stepped=1,
    probed=1,
    deal=3,
    voucher=2,
    offended=9,
    over=1,
)


class Rule(NamedTuple):
    """If `event` happens and every field in `when` (of the customer or the mood) has a listed value, add `effect`.

    Where there is `refusal`, the customer decides by `chance_to_agree`: yes adds `effect`, no adds `refusal`.
    """

    event: str
    when: Mapping[str, tuple]
    effect: Mapping[str, int]
    why: str
    refusal: Mapping[str, int] | None = None


GOOD_ACTS = ("listen", "ask", "probe", "explain_true", "limit", "note", "steps", "offer", "close")
HARMFUL = (
    "apology", "explain_false", "wrong_fact", "promise", "unbacked", "negated", "rude", "not_understood", "repeat",
    "long", "spam", "nothing",
)  # fmt: skip
MOST_ACTS = {"short": 2, "steps": 3}
"""How many good acts a reply may have before it is `crowded`, by what the customer wants."""

DERIVED = {
    "crowded": "more good acts in one reply than `MOST_ACTS`",
    "stung": "unbacked, promise, negated or rude: what flares up in some and makes others go silent",
    "accused": "explain_true and offer in one reply, where the record speaks against the claim",
}
"""Events that follow from the others. `accused` takes the place of the offer."""

STINGS = frozenset({"unbacked", "promise", "negated", "rude"})
_UNHEARD, _UNASKED = (0,), (0, 1)

RULES = (
    Rule("listen", {"heard": (0,)}, {"heard": 1, "anger": -1}, "being understood calms"),
    Rule("listen", {"heard": (1,), "evidence": (2,)}, {"heard": 1}, "and again, now that all is known"),
    Rule("listen", {}, {"patience": -1}, "that was said before"),
    Rule("apology", {"heard": _UNHEARD}, {"patience": -2}, "an empty apology wastes time"),
    Rule("apology", {}, {"patience": -1, "offended": 1}, "empty apologies after being heard sound false"),
    Rule("ask", {"evidence": (2,)}, {"patience": -1, "anger": 1}, "evidence was given already"),
    Rule(
        "ask", {"heard": _UNHEARD, "discloses": (False,), "evidence": (0,)}, {"evidence": 1, "anger": 1}, "hear first"
    ),
    Rule("ask", {"heard": _UNHEARD, "anger": (2, 3), "evidence": (0,)}, {"evidence": 1, "anger": 1}, "hear the angry"),
    Rule("ask", {"heard": _UNHEARD, "evidence": (1,)}, {"anger": 1, "patience": -1}, "and again, still unheard"),
    Rule("ask", {"evidence": (0,)}, {"evidence": 2, "trust": 1}, "a sensible question; a picture is sent"),
    Rule("ask", {}, {"evidence": 1}, "asked again after listening, the picture is sent"),
    Rule("probe", {"probed": (1,)}, {"patience": -1, "anger": 1}, "that was answered already"),
    Rule("probe", {"heard": _UNHEARD}, {"patience": -1, "offended": 1}, "what do you think? Nothing is told"),
    Rule("probe", {}, {"probed": 1}, "says what would be welcome, and hopes for it"),
    Rule("explain_true", {"facts": (1, 2)}, {"patience": -1}, "that was said before"),
    Rule(
        "explain_true",
        {"supported": (False,), "heard": _UNHEARD},
        {"anger": 1},
        "disbelieved and unheard, so not taken in",
    ),
    Rule("explain_true", {"supported": (False,), "honest": (True,)}, {"facts": 1}, "the record is wrong: no trust won"),
    Rule("explain_true", {"supported": (False,)}, {"facts": 2, "trust": 1}, "caught out kindly: settled"),
    Rule("explain_true", {}, {"facts": 1, "trust": 1}, "facts, plainly told"),
    Rule("explain_false", {}, {"trust": -1, "offended": 2}, "the customer knows the order and sees it is made up"),
    Rule("wrong_fact", {}, {"patience": -1, "offended": 2}, "that is not my order: nobody looked"),
    Rule("limit", {"limits": (1,)}, {"patience": -1}, "that was said before"),
    Rule("limit", {"heard": _UNHEARD}, {"anger": 1}, "a refusal before any listening is not taken in"),
    Rule("limit", {}, {"limits": 1}, "honest, and expected"),
    Rule("note", {"heard": _UNHEARD}, {}, "note what?"),
    Rule("note", {}, {"noted": 1}, "taken down"),
    Rule("steps", {"wants": ("short",)}, {"patience": -1}, "no ceremony, please"),
    Rule("steps", {"evidence": (2,)}, {"stepped": 1}, "now it is clear what happens next"),
    Rule("steps", {}, {}, "next steps, of what?"),
    Rule("offer", {"deal": (2, 3)}, {"patience": -1, "anger": 1}, "that was answered already"),
    Rule("offer", {"evidence": _UNASKED, "deal": (0,)}, {"deal": 1, "trust": -1, "patience": -1}, "nobody looked yet"),
    Rule("offer", {"evidence": _UNASKED}, {"trust": -1, "patience": -1}, "and still nobody looked"),
    Rule("offer", {"heard": _UNHEARD, "deal": (0,)}, {"deal": 1, "trust": -1, "patience": -1}, "nobody listened yet"),
    Rule("offer", {"heard": _UNHEARD}, {"trust": -1, "patience": -1}, "and still nobody listened"),
    Rule("offer", {"deal": (0,)}, {"deal": 2}, "yes", {"deal": 3, "anger": 1, "patience": -1}),
    Rule("offer", {"deal": (1,)}, {"deal": 1}, "yes, now", {"deal": 2, "anger": 1, "patience": -1}),
    Rule("promise", {}, {"trust": -2, "anger": 1, "offended": 2}, "the customer knows what such promises are worth"),
    Rule("unbacked", {}, {"trust": -2, "anger": 1, "offended": 3}, "caught: the system shows nothing"),
    Rule("voucher", {"deal": (2,)}, {"voucher": 2, "over": 1}, "as agreed"),
    Rule("voucher", {}, {"voucher": 1, "over": 1}, "nobody asked; some like it all the same"),
    Rule("close", {"heard": (1, 2), "evidence": (2,)}, {"over": 1}, "all was said and looked at"),
    Rule("close", {}, {"patience": -1, "anger": 1}, "being got rid of"),
    Rule("negated", {}, {"trust": -1, "anger": 1, "offended": 2}, "turned away"),
    Rule("rude", {}, {"trust": -1, "anger": 2, "offended": 3}, "nobody has to take that"),
    Rule("not_understood", {}, {"patience": -1, "offended": 1}, "what is that supposed to mean?"),
    Rule("repeat", {}, {"patience": -1, "offended": 1}, "a broken record"),
    Rule("long", {"wants": ("short",)}, {"patience": -2, "offended": 1}, "nobody reads that, least of all here"),
    Rule("long", {}, {"patience": -2}, "nobody reads that"),
    Rule("spam", {}, {"patience": -1, "anger": 1, "offended": 1}, "phrases thrown at a customer"),
    Rule("nothing", {}, {"offended": 1}, "an answer that says nothing"),
    Rule("crowded", {"wants": ("short",)}, {"patience": -2, "anger": 1}, "one thing at a time"),
    Rule("crowded", {}, {"patience": -2}, "too much at once"),
    Rule("stung", {"temper": ("flares",)}, {"anger": 1}, "flares up"),
    Rule("stung", {}, {"patience": -2}, "says little and is half gone"),
    Rule("accused", {"deal": (0,)}, {"deal": 1, "trust": -1, "patience": -1}, "first disbelieved, then bought off"),
    Rule("accused", {}, {"trust": -1, "patience": -1}, "first disbelieved, then bought off"),
)

_RULES_FOR = {event: tuple(rule for rule in RULES if rule.event == event) for event in (*EVENTS, *DERIVED)}


class Rating(NamedTuple):
    """What makes up the rating of customers with one demand, in points."""

    start: float
    heard: float  # each time
    limits: float
    noted: float
    settled: float  # a false claim, explained kindly, instead of any voucher
    pressed: float  # share of the worth that a voucher has which nobody agreed to


RATING = dict(
    zip(
        DEMANDS,
        (
            Rating(1.3, 0.2, 0.15, 0.05, 0.4, 0.3),
            Rating(1.35, 0.2, 0.15, 0.05, 0.5, 0.4),
            Rating(1.4, 0.2, 0.0, 0.05, 0.5, 0.4),
            Rating(1.7, 0.35, 0.0, 0.5, 0.3, 0.4),
        ),
        strict=True,
    )
)
TRUST_WORTH, ANGER_WORTH, STEPPED_WORTH = 0.12, -0.25, 0.15
PATIENCE_WORTH, OFFENDED_WORTH = -0.05, -0.15  # for each patience lost, turns included; for each mark of offence
HOPE_WORTH, BROKEN_WORTH, HANGING_WORTH = -0.1, -0.5, -0.4  # probed, or agreed, but no voucher; patience ran out

_PATIENCE = (12, 15, 15, 18, 18)
_ANGER = (2, 1, 1, 0, 0)


def start_mood(customer: Customer) -> Mood:
    """The mood in which the customer writes the first message."""
    anger = _ANGER[customer.level - 1]
    return Mood(patience=_PATIENCE[customer.level - 1], anger=anger, trust=int(anger == 0))


def chance_to_agree(customer: Customer, mood: Mood) -> float:
    """The probability that an offer in `mood` is accepted, once the problem was looked at."""
    score = -0.6 + 0.2 * customer.worth + 0.4 * mood.trust - 0.5 * mood.anger
    if customer.demand.startswith("refund"):
        score += 0.6 * mood.limits - (1.2 if customer.demand == "refund_insistence" else 0.4)
    return 1 / (1 + math.exp(-score))


def list_outcomes(customer: Customer, mood: Mood, events: frozenset[str]) -> tuple[tuple[float, Mood], ...]:
    """Lists (probability, mood) after a turn of the agent in which `events` happened; the probabilities sum to 1.

    There are two where an offer is answered, agreement first, else one. Each turn costs one patience.
    """
    before = {**customer._asdict(), **mood._asdict()}
    effects, refusals = {"patience": -1}, {"patience": -1}
    answered = False
    for event in _derive_events(customer, mood, events):
        rule = next((rule for rule in _RULES_FOR[event] if _rule_applies(rule, before)), None)
        if rule is None:
            continue
        for totals, changes in ((effects, rule.effect), (refusals, rule.refusal or rule.effect)):
            for field, change in changes.items():
                totals[field] = totals.get(field, 0) + change
        answered = answered or rule.refusal is not None
    if not answered:
        return ((1.0, _change_mood(mood, effects)),)
    chance = chance_to_agree(customer, mood)
    return (chance, _change_mood(mood, effects)), (1 - chance, _change_mood(mood, refusals))


def count_acts(events: Iterable[str]) -> int:
    """Counts the good acts among `events`."""
    return sum(event in GOOD_ACTS for event in events)


def _derive_events(customer: Customer, mood: Mood, events: frozenset[str]) -> set[str]:
    """Returns `events` with those that follow from them; spam drowns the good acts, and accusing an offer."""
    happened = set(events)
    if "spam" in events:
        happened -= set(GOOD_ACTS)
    if count_acts(happened) > MOST_ACTS[customer.wants]:
        happened.add("crowded")
    if happened & STINGS:
        happened.add("stung")
    if {"offer", "explain_true"} <= happened and customer.supported is False and not mood.facts:
        happened = happened - {"offer"} | {"accused"}
    return happened


def _change_mood(mood: Mood, changes: Mapping[str, int]) -> Mood:
    moved = {
        field: min(max(getattr(mood, field) + change, 0), getattr(LIMITS, field)) for field, change in changes.items()
    }
    return mood._replace(**moved)


def _rule_applies(rule: Rule, before: Mapping[str, object]) -> bool:
    return all(before[field] in values for field, values in rule.when.items())


def find_end(customer: Customer, mood: Mood) -> str:
    """Tells how the conversation ends: "rated", "quit" if the customer walks out, "" while it goes on."""
    if mood.offended == LIMITS.offended:
        return "quit"
    if mood.over:
        return "rated"
    if mood.patience == 0:
        return "quit" if (mood.anger == LIMITS.anger and mood.trust == 0) or mood.offended >= 5 else "rated"
    return ""


def expected_rating(customer: Customer, mood: Mood) -> float:
    """The mean of the satisfaction 1..5 the customer will give; the rating itself is this, rounded at random."""
    lost = start_mood(customer).patience - mood.patience
    rating = rate_service(customer, mood) + rate_remedy(customer, mood) + PATIENCE_WORTH * lost
    return min(max(rating, 1.0), 5.0)


def rate_service(customer: Customer, mood: Mood) -> float:
    """What `mood` is worth without the remedy and the patience that was lost; no worth of a voucher is in it."""
    parts = RATING[customer.demand]
    rating = parts.start + parts.heard * mood.heard + parts.limits * mood.limits + parts.noted * mood.noted
    rating += STEPPED_WORTH * mood.stepped + TRUST_WORTH * mood.trust + ANGER_WORTH * mood.anger
    rating += OFFENDED_WORTH * mood.offended
    if not mood.voucher:
        rating += HOPE_WORTH * mood.probed + BROKEN_WORTH * (mood.deal == 2)
    return rating + HANGING_WORTH * (not mood.over)


def rate_remedy(customer: Customer, mood: Mood) -> float:
    """What the voucher, or a settled claim, is worth to the customer; the better of the two counts."""
    parts = RATING[customer.demand]
    voucher = customer.worth / 10 * (0.0, parts.pressed, 1.0)[mood.voucher]
    return max(voucher, parts.settled if mood.facts == 2 and mood.heard else 0.0)


def _spread_worth(mean: float, deviation: float, most: int) -> tuple[float, ...]:
    """Returns the probabilities of 0..30 by a normal density cut to 0..`most`."""
    density = [math.exp(-(((worth - mean) / deviation) ** 2) / 2) * (worth <= most) for worth in range(31)]
    return tuple(value / sum(density) for value in density)


_WORTH = {  # mean at level 3, deviation, most: nobody's rating exceeds 5
    "refund_insistence": (12.0, 8.0, 25),
    "refund_priority": (16.0, 8.0, 25),
    "compensation_flexible": (19.0, 8.0, 26),
    "feedback_focus": (8.0, 5.5, 15),
}
WORTH = {
    (level, demand): _spread_worth(mean + (level - 3), deviation, most)
    for demand, (mean, deviation, most) in _WORTH.items()
    for level in range(1, 6)
}
"""P(worth 0..30 | level, demand)."""


def draw_worth(level: int, demand: str, rng: random.Random) -> int:
    """Draws a customer's worth from `WORTH`."""
    return rng.choices(range(31), weights=WORTH[level, demand])[0]
