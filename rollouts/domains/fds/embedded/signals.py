"""What each message of the embedded customer tells, before it is put in words, with exact probabilities."""

import itertools
import math
import random
import statistics
from typing import NamedTuple

from rollouts.domains.fds.embedded.latent import (
    GOOD_ACTS,
    MOST_ACTS,
    Customer,
    Mood,
    count_acts,
    expected_rating,
    find_end,
    start_mood,
)


class Signal(NamedTuple):
    """What one message of the customer tells."""

    kind: str  # "opening" | "answer" | "farewell" | "walkout"
    reaction: str = ""  # a key of REACTIONS: the strongest thing that happened; "" in openings, farewells and walkouts
    stance: str = ""  # a key of STANCES, noisy given the demand; "": nothing is said of the wish
    hint: int = 0  # of a voucher's worth, noisy: 0 nothing, 1 little, 2 some, 3 much, 4 very much
    picture: bool = False  # a picture is sent
    detail: bool = False  # details of what happened are told
    heat: int = 0  # 0 calm, 1 annoyed, 2 furious; exact in openings, less than the anger in answers of the silent
    rating: int = 0  # 1..5 in farewells
    wants: str = ""  # in openings, as in `latent.Customer`: "steps" | "short"


REACTIONS = {
    "unbacked": "caught: nothing was given, though the agent says so",
    "promise": "does not believe the promise",
    "wrong_fact": "that is not my order",
    "made_up": "the record is invented",
    "rude": "hurt by an insult",
    "negated": "protests at being turned away",
    "not_understood": "cannot make sense of the reply",
    "spam": "phrases are thrown at me",
    "repeat": "that was said before",
    "long": "too much text, or too many things at once",
    "asked_again": "the evidence, the wish or the answer was given already",
    "refused_evidence": "will not prove anything before being heard",
    "early_offer": "a voucher, though nobody has looked yet",
    "refused_offer": "no to the voucher",
    "agreed": "yes to the voucher",
    "agreed_gladly": "yes to the voucher, gladly",
    "evidence": "here is the picture",
    "probed": "says what would be welcome",
    "contradicted": "disputes a record that speaks against the claim",
    "empty": "sorry does not help",
    "dismissed": "is being got rid of too early",
    "listened": "feels understood",
    "facts": "takes the facts",
    "noted": "glad that it is passed on",
    "steps": "glad to know what happens next",
    "limit": "takes it that a refund is impossible",
    "nothing": "and?",
}
"""Reaction -> meaning. `_find_reaction` ranks them."""

STANCES = {
    "refund_only": "wants the money back and nothing else",
    "refund_rather": "would rather have the money back",
    "open": "asks what will be done about it",
    "report": "only wants it to be known",
}


def _spread_hint(worth: int, noise: float) -> tuple[float, ...]:
    """Returns P(hint 1..4 | worth): the worth is blurred by normal noise and cut at `_CUTS`."""
    below = [0.0, *(statistics.NormalDist(worth, noise).cdf(cut) for cut in _CUTS), 1.0]
    return tuple(after - before for before, after in itertools.pairwise(below))


_CUTS = (6.0, 13.0, 20.0)
_SILENT_OPENING, _SILENT_EVIDENCE = 0.5, 0.4  # chance that nothing is said of the worth
_VAGUE, _CLEAR = ([_spread_hint(worth, noise) for worth in range(31)] for noise in (10.0, 4.5))

HINTS = {
    "opening": tuple((_SILENT_OPENING, *((1 - _SILENT_OPENING) * odds for odds in row)) for row in _VAGUE),
    "evidence": tuple((_SILENT_EVIDENCE, *((1 - _SILENT_EVIDENCE) * odds for odds in row)) for row in _VAGUE),
    "probe": tuple((0.0, *row) for row in _CLEAR),
    "offer": tuple((0.0, row[0] + row[1], 0.0, row[2] + row[3], 0.0) for row in _VAGUE),
}
"""Moment -> P(hint 0..4 | worth), a row for each worth 0..30. Given the worth, hints are independent."""

_TOLD = ("", *STANCES)
_SPOKEN = {  # P(stance | demand), when a wish is told: refund_only, refund_rather, open, report
    "refund_insistence": (0.60, 0.25, 0.12, 0.03),
    "refund_priority": (0.25, 0.45, 0.25, 0.05),
    "compensation_flexible": (0.08, 0.22, 0.55, 0.15),
    "feedback_focus": (0.03, 0.07, 0.25, 0.65),
}
_SILENT_WISH = 0.5

STANCE_ODDS = {
    "opening": {d: (_SILENT_WISH, *((1 - _SILENT_WISH) * odds for odds in row)) for d, row in _SPOKEN.items()},
    "evidence": dict.fromkeys(_SPOKEN, (1.0, 0.0, 0.0, 0.0, 0.0)),
    "probe": {demand: (0.0, *row) for demand, row in _SPOKEN.items()},
    "offer": dict.fromkeys(_SPOKEN, (1.0, 0.0, 0.0, 0.0, 0.0)),
}
"""Moment -> demand -> P(stance), of nothing said and of `STANCES` in their order."""


def find_moment(before: Mood, after: Mood) -> str:
    """Returns the moment of `HINTS` that a turn was; "" where an answer tells nothing of worth or wish.

    An offer that is answered goes before a probe, and that before evidence: a message tells of one of them.
    """
    if after.deal >= 2 and after.deal != before.deal:
        return "offer"
    if after.probed > before.probed:
        return "probe"
    return "evidence" if after.evidence == 2 > before.evidence else ""


def list_openings(customer: Customer) -> tuple[tuple[float, Signal], ...]:
    """Lists (probability, signal) of a customer's first message; the probabilities sum to 1."""
    told = Signal("opening", detail=customer.discloses, heat=min(start_mood(customer).anger, 2), wants=customer.wants)
    return _list_told(customer, "opening", told)


def list_signals(
    customer: Customer, before: Mood, after: Mood, events: frozenset[str]
) -> tuple[tuple[float, Signal], ...]:
    """Lists (probability, signal) of the answer to a turn with `events`, which led from one mood to another.

    The probabilities sum to 1. In farewells the rating is `latent.expected_rating` rounded at random.
    """
    end = find_end(customer, after)
    if end == "quit":
        return ((1.0, Signal("walkout")),)
    if end == "rated":
        mean = expected_rating(customer, after)
        low, up = math.floor(mean), mean - math.floor(mean)
        rated = ((1 - up, Signal("farewell", rating=low)), (up, Signal("farewell", rating=low + 1)))
        return tuple((odds, signal) for odds, signal in rated if odds > 0)
    showed = after.evidence == 2 > before.evidence
    told = Signal(
        "answer",
        _find_reaction(customer, before, after, events),
        picture=showed,
        detail=showed and not customer.discloses,
        heat=min(max(after.anger - (customer.temper == "silent"), 0), 2),
    )
    moment = find_moment(before, after)
    return _list_told(customer, moment, told) if moment else ((1.0, told),)


def draw_signal(choices: tuple[tuple[float, Signal], ...], rng: random.Random) -> Signal:
    """Draws one of the signals that `list_openings` or `list_signals` listed."""
    return rng.choices([signal for _, signal in choices], weights=[odds for odds, _ in choices])[0]


def _list_told(customer: Customer, moment: str, told: Signal) -> tuple[tuple[float, Signal], ...]:
    found = []
    for stance, stance_odds in zip(_TOLD, STANCE_ODDS[moment][customer.demand], strict=True):
        for hint, hint_odds in enumerate(HINTS[moment][customer.worth]):
            gladly = told.reaction == "agreed" and hint >= 3
            signal = told._replace(stance=stance, hint=hint, reaction="agreed_gladly" if gladly else told.reaction)
            found.append((stance_odds * hint_odds, signal))
    return tuple((odds, signal) for odds, signal in found if odds > 0)


def _find_reaction(customer: Customer, before: Mood, after: Mood, events: frozenset[str]) -> str:
    if "spam" in events:  # drowns the good acts, as in `latent`
        events = events - set(GOOD_ACTS)
    answered = "offer" in events and after.deal >= 2 and after.deal != before.deal
    told_facts = "explain_true" in events and not before.facts
    happened = {
        "unbacked": "unbacked" in events,
        "promise": "promise" in events,
        "wrong_fact": "wrong_fact" in events,
        "made_up": "explain_false" in events,
        "rude": "rude" in events,
        "negated": "negated" in events,
        "not_understood": "not_understood" in events,
        "spam": "spam" in events,
        "repeat": "repeat" in events,
        "agreed": answered and after.deal == 2,
        "refused_offer": answered and after.deal == 3,
        "contradicted": told_facts and customer.supported is False and after.facts < 2,
        "early_offer": "offer" in events and not answered and before.deal < 2,
        "refused_evidence": "ask" in events and after.evidence < 2,
        "evidence": after.evidence == 2 > before.evidence,
        "probed": after.probed > before.probed,
        "asked_again": _asks_again(before, events),
        "long": "long" in events or count_acts(events) > MOST_ACTS[customer.wants],
        "empty": "apology" in events,
        "dismissed": "close" in events,
        "listened": after.heard > before.heard,
        "facts": told_facts,
        "noted": after.noted > before.noted,
        "steps": after.stepped > before.stepped,
        "limit": after.limits > before.limits,
    }
    return next((name for name, did in happened.items() if did), "nothing")


def _asks_again(before: Mood, events: frozenset[str]) -> bool:
    """Whether a turn asks what was answered already, or asks what is welcome before listening."""
    again = {"ask": before.evidence == 2, "probe": before.probed or not before.heard, "offer": before.deal >= 2}
    return any(event in events and done for event, done in again.items())
