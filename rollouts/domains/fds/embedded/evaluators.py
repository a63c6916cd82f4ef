"""The embedded evaluators: a whole conversation, retraced through the rules and scored item by item.

Each item is a short formula over what happened (`latent.EVENTS`), in which mood, and over the words themselves. The
items are those of `rollouts.domains.fds.rubrics`; what they mean is in the prompts.
"""

import re
from collections.abc import Callable, Sequence

from rollouts.domains.fds.embedded import latent, verdicts
from rollouts.domains.fds.embedded.case import Case, UnreadablePrompt
from rollouts.domains.fds.embedded.tracing import Step

WORTHWHILE = 12
"""The worth, in tenths of a point, from which on a voucher is the right answer to a customer; near the price of a
budget of 30 % (docs/gym.md)."""

_MATTER = frozenset({"listen", "ask", "probe", "explain_true", "limit", "note", "steps", "offer", "voucher", "close"})
_SPOILS = verdicts.LIES | verdicts.SENSELESS | {"negated"}  # what a good act in the same turn does not make up for
_STEERING = frozenset({"ask", "probe", "offer", "voucher", "close"})
_MACHINE = re.compile(r"\b(?:an? (?:ai|bot|language model|machine)|artificial intelligence|as an ai)\b", re.IGNORECASE)
_LONG_WORD = 6.0  # letters a word, on average
_LONG_SENTENCE = 20.0  # words a sentence, on average
_CURT_REPLY = 4.0  # words a reply, on average


def score_communication(case: Case, steps: Sequence[Step]) -> dict[str, int]:
    """Scores the fourteen items of communication, each 0, 1 or 2.

    Where half of the turns or more cannot be understood, nothing was communicated: all are 0.
    """
    sentences = [text for step in steps for text in re.split(r"(?<=[.!?])\s+|\n", step.text.lower().strip()) if text]
    words = [word for sentence in sentences for word in re.findall(r"[a-z']+", sentence)]
    beginnings = {" ".join(sentence.split()[:2]) for sentence in sentences}
    letters = sum(map(len, words)) / max(1, len(words))
    last, unread = steps[-1].after, sum("not_understood" in step.events for step in steps)
    unheard = [step for step in steps if step.before.heard == 0]
    met = sum("listen" in step.events for step in unheard) / max(1, len(unheard))
    heard_by = next((number for number, step in enumerate(steps) if step.after.heard), len(steps))
    matters = [bool(step.events & _MATTER and not step.events & _SPOILS) for step in steps]
    idle = sum(not verdicts.sort_acts(case.customer, step.before, step.events).useful for step in steps)
    misfits = (
        _deduct_faults(steps, {"rude"})
        if case.customer.wants == "steps"
        else _deduct_faults(steps, {"rude", "long", "steps"})
    )
    scores = {
        "identity": 0 if any(_MACHINE.search(step.text) for step in steps) else 2,
        "novelty": min(_deduct_faults(steps, {"repeat"}), max(0, 2 - idle)),
        "focus": _deduct_faults(steps, {"spam", "nothing", "not_understood", "wrong_fact"}),
        "style_match": min(2 if not unheard or met >= 0.5 else 1 if met > 0 else 0, misfits),
        "complexity_match": min(
            _score_ratio(_LONG_SENTENCE / max(1.0, len(words) / max(1, len(sentences)))),
            _score_ratio(len(words) / len(steps) / _CURT_REPLY),
        ),
        "substance": 2 if all(matters) else int(sum(matters) >= len(steps) / 2),
        "promise_limits": _deduct_faults(steps, {"promise", "unbacked"}),
        "concise": _deduct_faults(steps, {"long", "spam"}),
        "sincere": min(
            _deduct_faults(steps, {"apology", "unbacked", "explain_false", "negated", "rude"}), 2 * (last.heard > 0)
        ),
        "sentence_variety": min(
            2 if len(beginnings) >= 0.75 * len(sentences) else int(len(beginnings) * 2 > len(sentences)),
            _deduct_faults(steps, {"repeat"}),
        ),
        "transitions": max(0, 2 - unread - sum(_ignores_state(case, step) for step in steps)),
        "issue_depth": 0
        if any(step.events & {"explain_false", "wrong_fact"} for step in steps)
        else int(last.evidence == 2) + int(last.facts > 0 or last.noted > 0),
        "user_level": min(_score_ratio(_LONG_WORD / max(1.0, letters)), max(0, 2 - unread)),
        "responsiveness": min(
            2 if heard_by == 0 else int(heard_by < len(steps)), _deduct_faults(steps, {"negated", "rude"})
        ),
    }
    return dict.fromkeys(scores, 0) if 2 * unread >= len(steps) else scores


def score_logic(case: Case, steps: Sequence[Step]) -> dict[str, int]:
    """Scores the items of logic: profiling, motive and strategy 0, 1 or 2, the others 0 or 1."""
    customer, last = case.customer, steps[-1].after
    events = frozenset().union(*(step.events for step in steps))
    early = [step for step in steps if step.before.evidence < 2]
    calmed = last.anger == 0 or last.anger < latent.start_mood(customer).anger
    dealt_with = {
        "refund_insistence": (last.heard > 0, last.limits > 0),
        "refund_priority": (last.limits > 0, last.deal == 2 or last.facts > 0),
        "compensation_flexible": (last.evidence == 2, last.deal == 2 or last.facts > 0),
        "feedback_focus": (last.heard > 0, last.noted > 0),
    }
    turned_back = any(
        ("promise" in step.events and step.before.limits)
        or ("explain_false" in step.events and step.before.facts)
        or (step.events & {"offer", "voucher"} and step.before.deal == 3)
        for step in steps
    )
    unfair = any(
        step.events & {"offer", "voucher"} and customer.supported is False and not step.before.facts for step in steps
    )
    return {
        "profiling": int(last.heard > 0) + int(last.heard > 0 and calmed),
        "motive": sum(dealt_with[customer.demand]),
        "strategy": ((1, 0, 2) if customer.worth >= WORTHWHILE else (2, 0, 1))[last.voucher],
        "procedure": int(not any(step.events & {"offer", "voucher", "close"} for step in early)),
        "truthfulness": int(not events & verdicts.LIES),
        "fairness": int(not (unfair or events & {"rude", "negated", "explain_false"})),
        "consistency": int(not turned_back),
        "closing": int(latent.find_end(customer, last) == "rated" and last.over > 0),
        "out_of_domain": int(not events & {"spam", "not_understood"}),
    }


def score_compensation(case: Case, steps: Sequence[Step]) -> dict[str, int]:
    """Scores how the voucher came about, each item 0, 1 or 2. Raises UnreadablePrompt if none was issued."""
    step = next((step for step in steps if "voucher" in step.events), None)
    if step is None:
        raise UnreadablePrompt("expected a conversation in which a voucher was issued")
    mood = step.before
    looked = mood.evidence == 2
    sound = case.customer.supported is not False or mood.facts > 0
    return {
        "negotiated": 2 if mood.deal == 2 else int(mood.deal == 1 or "offer" in step.events),
        "timing": int(looked) + int(mood.heard > 0),
        "evidence": int(looked) + int(looked and sound),
    }


EVALUATORS: dict[str, Callable[[Case, Sequence[Step]], dict[str, int]]] = {
    "communication": score_communication,
    "logic": score_logic,
    "compensation": score_compensation,
}
"""Evaluators by the name in the prompt's line "Rubric: …"."""


def _deduct_faults(steps: Sequence[Step], faults: set[str]) -> int:
    """Returns 2 if no turn has one of `faults`, 1 if one turn has, else 0."""
    return max(0, 2 - sum(bool(step.events & faults) for step in steps))


def _score_ratio(ratio: float) -> int:
    """Returns 2 if a limit is kept (limit / measured is at least 1), 1 if it is exceeded by at most half, else 0."""
    return 2 if ratio >= 1 else int(ratio >= 2 / 3)


def _ignores_state(case: Case, step: Step) -> bool:
    """Whether a turn asks, offers or closes too early, or again what was answered already."""
    return bool(verdicts.sort_acts(case.customer, step.before, step.events).untimely & _STEERING) or bool(
        step.events & {"offer", "voucher", "close"} and step.before.evidence < 2
    )
