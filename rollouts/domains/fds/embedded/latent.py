"""The embedded customer's latent state and its one transition table. No text here: words are read and written elsewhere.

A turn of the agent is a set of *events*. Every rule of `RULES` looks at the customer and at the mood *before* the turn;
for each event the first rule that applies adds its effect, or, where the rule has a chance, one of two effects.
`LIMITS` clips the result. The rating is `expected_rating`. Everything is small and finite, so that the best reachable
policy can be computed from the table (`oracle`).
"""

from collections.abc import Mapping
from typing import NamedTuple

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


LIMITS = Mood(18, 3, 3, 2, 2, 2, 1, 1, 1, 1, 3, 2, 9, 1)
