"""The embedded evaluators: a whole conversation, retraced through the rules and scored item by item.

Each item is a short formula over what happened (`latent.EVENTS`), in which mood, and over the words themselves. The
items are those of `rollouts.domains.fds.rubrics`; what they mean is in the prompts.
"""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from rollouts.domains.fds.embedded import latent, reading
from rollouts.domains.fds.embedded.latent import Mood
from rollouts.domains.fds.embedded.reading import Case

_MATTER = {"listen", "ask", "explain_true", "limit", "note", "offer", "voucher", "close"}
_LIES = {"explain_false", "unbacked", "promise"}
_MACHINE = re.compile(r"\b(?:an? (?:ai|bot|language model|machine)|artificial intelligence|as an ai)\b", re.IGNORECASE)
_LONG_WORD = 6.0  # letters a word, on average
_LONG_SENTENCE = 20.0  # words a sentence, on average


class Step(NamedTuple):
    """One turn of the agent, retraced."""

    text: str
    events: frozenset[str]
    before: Mood
    after: Mood


def trace_turns(case: Case, turns: Sequence[dict[str, str]]) -> list[Step]:
    """Returns the agent's turns in a transcript (see `reading.read_transcript`), and the moods around them."""
    mood, replies, steps = latent.start_mood(case.customer), [], []
    for turn in turns:
        if turn["role"] != "agent":
            continue
        events = reading.read_reply(turn["text"], replies, case, turn["voucher"])
        replies.append(turn["text"])
        before, mood = mood, latent.apply_events(case.customer, mood, events)
        steps.append(Step(turn["text"], events, before, mood))
    return steps


def score_communication(case: Case, steps: Sequence[Step]) -> dict[str, int]:
    """Scores the fourteen items of communication, each 0, 1 or 2."""
    sentences = [text for step in steps for text in re.split(r"(?<=[.!?])\s+|\n", step.text.lower().strip()) if text]
    words = [word for sentence in sentences for word in re.findall(r"[a-z']+", sentence)]
    beginnings = {" ".join(sentence.split()[:2]) for sentence in sentences}
    letters = sum(map(len, words)) / max(1, len(words))
    last = steps[-1].after
    upset = [step for step in steps if step.before.anger > 0 or step.before.heard == 0]
    met = sum("listen" in step.events for step in upset) / max(1, len(upset))
    heard_by = next((number for number, step in enumerate(steps) if step.after.heard), len(steps))
    return {
        "identity": 0 if any(_MACHINE.search(step.text) for step in steps) else 2,
        "novelty": _deduct_faults(steps, {"repeat"}),
        "focus": _deduct_faults(steps, {"spam", "nothing"}),
        "style_match": 2 if not upset or met >= 0.5 else 1 if met > 0 else 0,
        "complexity_match": _score_ratio(_LONG_SENTENCE / max(1.0, len(words) / max(1, len(sentences)))),
        "substance": 2 if all(step.events & _MATTER for step in steps) else int(_share_of_turns(steps, _MATTER) >= 0.5),
        "promise_limits": _deduct_faults(steps, {"promise", "unbacked"}),
        "concise": _deduct_faults(steps, {"long", "spam"}),
        "sincere": _deduct_faults(steps, {"apology", "unbacked"}),
        "sentence_variety": 2
        if len(beginnings) >= 0.75 * len(sentences)
        else int(len(beginnings) * 2 > len(sentences)),
        "transitions": max(0, 2 - sum(_ignores_state(step) for step in steps)),
        "issue_depth": int(last.evidence == 2) + int(last.facts or last.noted),
        "user_level": _score_ratio(_LONG_WORD / max(1.0, letters)),
        "responsiveness": 2 if heard_by == 0 else int(heard_by < len(steps)),
    }


def score_logic(case: Case, steps: Sequence[Step]) -> dict[str, int]:
    """Scores the items of logic: profiling, motive and strategy 0, 1 or 2, the others 0 or 1."""
    customer, last = case.customer, steps[-1].after
    events = frozenset().union(*(step.events for step in steps))
    early = [step for step in steps if step.before.evidence < 2]
    dealt_with = {
        "refund_insistence": (last.heard > 0, last.limits > 0),
        "refund_priority": (last.limits > 0, last.deal == 2 or last.facts > 0),
        "compensation_flexible": (last.evidence == 2, last.deal == 2 or last.facts > 0),
        "feedback_focus": (last.heard == 2, last.noted > 0),
    }
    better_without = customer.demand in ("refund_insistence", "feedback_focus") or customer.supported is False
    turned_back = any(
        ("promise" in step.events and step.before.limits)
        or (step.events & {"offer", "voucher"} and step.before.deal == 3)
        for step in steps
    )
    return {
        "profiling": int(last.heard > 0) + int(last.heard > 0 and last.anger == 0),
        "motive": sum(dealt_with[customer.demand]),
        "strategy": ((2, 0, 1) if better_without else (1, 0, 2))[last.voucher],
        "procedure": int(not any(step.events & {"offer", "voucher", "close"} for step in early)),
        "truthfulness": int(not events & _LIES),
        "fairness": int(not (customer.supported is False and events & {"offer", "voucher"})),
        "consistency": int(not turned_back),
        "closing": int(latent.find_end(customer, last) == "rated" and (last.patience > 0 or last.over > 0)),
        "out_of_domain": int("spam" not in events),
    }


def score_compensation(case: Case, steps: Sequence[Step]) -> dict[str, int]:
    """Scores how the voucher came about, each item 0, 1 or 2. Raises UnreadablePrompt if none was issued."""
    step = next((step for step in steps if "voucher" in step.events), None)
    if step is None:
        raise reading.UnreadablePrompt("expected a conversation in which a voucher was issued")
    mood = step.before
    looked = mood.evidence == 2
    return {
        "negotiated": 2 if mood.deal == 2 else int(mood.deal == 1 or "offer" in step.events),
        "timing": int(looked) + int(mood.heard > 0),
        "evidence": int(looked) + int(looked and case.customer.supported is not False),
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


def _share_of_turns(steps: Sequence[Step], events: set[str]) -> float:
    return sum(bool(step.events & events) for step in steps) / len(steps)


def _score_ratio(ratio: float) -> int:
    """Returns 2 if a limit is kept (limit / measured is at least 1), 1 if it is exceeded by at most half, else 0."""
    return 2 if ratio >= 1 else int(ratio >= 2 / 3)


def _ignores_state(step: Step) -> bool:
    """Whether a turn asks again for evidence that was given, or offers or closes before it was given."""
    again = "ask" in step.events and step.before.evidence == 2
    return again or bool(step.events & {"offer", "voucher", "close"} and step.before.evidence < 2)
