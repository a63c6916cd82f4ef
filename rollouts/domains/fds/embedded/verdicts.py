"""The embedded process judge: scores a turn of the agent by the four principles of `rubrics.PRINCIPLES`.

What a good act is worth follows from the rules in `latent`: it is *useful* if it brings the conversation forward, and
*untimely* if it costs patience, trust or temper instead. What is false, rude or senseless is scored by event.
"""

from typing import NamedTuple

from rollouts.domains.fds.embedded import latent
from rollouts.domains.fds.embedded.latent import Customer, Mood

SENSELESS = frozenset({"rude", "not_understood"})
"""A turn with one of these has 0 on every principle."""

LIES = frozenset({"explain_false", "wrong_fact", "promise", "unbacked"})
"""A turn with one of these has 0 on quality and rules."""

FAULTS = frozenset({"apology", "repeat", "long", "negated", "crowded"})
"""Each takes half a point of quality."""

EMPTY = frozenset({"nothing", "spam"})

GIVES = frozenset({"offer", "voucher"})
PROGRESS = ("heard", "facts", "limits", "noted", "stepped", "probed", "over")


class Sorted(NamedTuple):
    """The good acts of a turn, by what they do."""

    useful: frozenset[str]
    untimely: frozenset[str]


def score_turn(customer: Customer, mood: Mood, events: frozenset[str]) -> dict[str, float | str]:
    """Scores a turn by the four principles, each 0, 0.5 or 1: in it `events` happened, in the mood before it."""
    acts = sort_acts(customer, mood, events)
    if latent.count_acts(events) > latent.MOST_ACTS[customer.wants]:
        events = events | {"crowded"}
    faults = len(events & FAULTS) + bool(acts.untimely and not acts.useful)  # beside the point
    scores = {
        "persona": _score_persona(customer, mood, events, acts),
        "stage": _score_stage(mood, events, acts),
        "quality": 0.0 if events & (LIES | EMPTY) else max(0.0, 1.0 - 0.5 * faults),
        "rules": _score_rules(customer, mood, events),
    }
    if events & SENSELESS:
        scores = dict.fromkeys(scores, 0.0)
    turn = ", ".join(sorted(events))
    return {"reason": f"evidence {mood.evidence}, heard {mood.heard}, anger {mood.anger}; turn: {turn}", **scores}


def sort_acts(customer: Customer, mood: Mood, events: frozenset[str]) -> Sorted:
    """Sorts the good acts among `events`, each taken alone; what changes nothing is neither useful nor untimely."""
    ((_, silent),) = latent.list_outcomes(customer, mood, frozenset())
    useful, untimely = set(), set()
    for act in events & {*latent.GOOD_ACTS, "voucher"}:
        afters = [after for _, after in latent.list_outcomes(customer, mood, frozenset({act}))]
        advances = any(getattr(after, field) > getattr(silent, field) for after in afters for field in PROGRESS)
        advances |= any(after.evidence == 2 > mood.evidence or after.deal == 2 > mood.deal for after in afters)
        best = afters[0]  # of an offer, the answer yes
        costs = best.patience < silent.patience or best.anger > silent.anger or best.trust < silent.trust
        if costs:
            untimely.add(act)
        elif advances:
            useful.add(act)
    return Sorted(frozenset(useful), frozenset(untimely))


def _score_persona(customer: Customer, mood: Mood, events: frozenset[str], acts: Sorted) -> float:
    """Who is unheard is listened to before anything is asked or denied; later, the turn suits the customer's ways."""
    if events & {"negated", "spam"}:
        return 0.0
    if mood.heard == 0:
        kind = events & {"listen", "apology", "note"}
        return 0.5 * bool(kind) + 0.5 * ("listen" in events and not acts.untimely)
    ill_suited = "crowded" in events or (customer.wants == "short" and events & {"long", "steps"})
    return 0.5 if ill_suited or events & {"apology", "nothing"} else 1.0


def _score_stage(mood: Mood, events: frozenset[str], acts: Sorted) -> float:
    """A turn brings the case forward by what its stage needs, and neither skips a stage nor goes back.

    What is false, empty or unfriendly harms at any stage.
    """
    if (events & GIVES and (mood.evidence < 2 or mood.deal == 3)) or events & (LIES | EMPTY | {"negated"}):
        return 0.0
    if "apology" in events and not acts.useful:
        return 0.0
    needed = acts.useful - ({"close"} if mood.evidence < 2 else set())
    return 0.5 * bool(needed or not acts.untimely) + 0.5 * bool(needed and not acts.untimely)


def _score_rules(customer: Customer, mood: Mood, events: frozenset[str]) -> float:
    """No compensation before evidence, agreement and a word on a record that contradicts; words and facts agree."""
    gives = events & GIVES
    if events & LIES or (gives and (mood.evidence < 2 or mood.deal == 3)):
        return 0.0
    doubtful = gives and customer.supported is False and not mood.facts
    pressed = "voucher" in events and mood.deal != 2
    return 0.5 if doubtful or pressed or "negated" in events else 1.0
