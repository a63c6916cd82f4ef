"""Reads what an LLM would read in place of this endpoint: prompts, the agent's replies, lines of system state."""

import json
import re
from collections.abc import Sequence
from typing import NamedTuple

from rollouts.domains.fds.embedded.latent import Customer
from rollouts.domains.fds.generator import COMPLAINTS
from rollouts.domains.fds.scenario import DEMANDS

LONG_WORDS = 50
SHORT_WORDS = 3  # a sentence below this says nothing
MANY_ACTS = 4  # a reply with more different acts than this is spam
REPEATED_SHARE = 0.6


class Case(NamedTuple):
    """The customer and the order, as their prompt tells them."""

    customer: Customer
    items: tuple[str, ...]
    merchant: str
    complaint: str
    record: str
    style: str


class UnreadablePrompt(ValueError):
    """The prompt lacks a line that the endpoint needs."""


_SUPPORT = {"the record supports it": True, "the record contradicts it": False, "the record is silent": None}


def read_case(prompt: str) -> Case:
    """Reads a user's or a judge's system prompt. Raises UnreadablePrompt naming the line that is missing."""

    def find_line(name: str, pattern: str = r".*") -> str:
        match = re.search(rf"^{name}: ({pattern})$", prompt, re.MULTILINE)
        if match is None:
            raise UnreadablePrompt(f"expected a line '{name}: …' matching {pattern!r} in the system prompt")
        return match[1]

    customer = Customer(
        level=int(find_line("Cooperation", r"[1-5] \([a-z ]+\)")[0]),
        demand=find_line("Demand", "|".join(DEMANDS)),
        supported=_SUPPORT[find_line("Record and complaint", "|".join(_SUPPORT))],
    )
    items = tuple(item.split("*")[0].strip() for item in find_line("Items").split(","))
    complaint = find_line("Complaint", r".* \(.*\)").split(" (")[0]
    style = re.search(r"^Communication style: (.*)$", prompt, re.MULTILINE)
    return Case(
        customer, items, find_line("Merchant"), complaint, find_line("Platform record"), style[1] if style else ""
    )


def read_rubric(prompt: str, known: Sequence[str]) -> str:
    """Returns which of the rubrics `known` a judge's system prompt asks for. Raises UnreadablePrompt if none."""
    match = re.search(rf"^Rubric: ({'|'.join(known)})$", prompt, re.MULTILINE)
    if match is None:
        raise UnreadablePrompt(f"expected a line 'Rubric: …' with one of {tuple(known)} in the system prompt")
    return match[1]


_STATE = re.compile(r"\n\(System state: refunded (?:no|yes); voucher issued (no|this turn|earlier)\)\s*$")


def read_state(content: str) -> tuple[str, str]:
    """Splits a user-side message into the agent's response and when a voucher was issued: no | this turn | earlier."""
    match = _STATE.search(content)
    if match is None:
        raise UnreadablePrompt(f"expected a message that ends with a line of system state, got {content!r}")
    return content[: match.start()], match[1]


_PROBLEM_WORDS = {  # patterns that match from the beginning of a word on
    "late delivery": r"late\b|delay|wait|slow|on time|so long",
    "food temperature": r"cold|warm|lukewarm|hot\b|temperature",
    "damaged packaging": r"spill|damage|leak|packag|messy?\b",
    "missing items": r"missing|incomplete|left out|without",
    "taste below expectations": r"tast|flavou?r|bland",
    "not fresh or undercooked": r"raw\b|undercooked|not fresh|cooked",
}
assert set(_PROBLEM_WORDS) == set(COMPLAINTS)

_NOT = r"(?:cannot|can ?not|can't|unable|not able|impossible|not possible|no way|not allowed)"
_REMEDY = r"(?:refund|money back|redeliver|re-deliver|resend|replacement|new order)"
_SORRY = r"(?:sorry|apolog)"
_WILL = r"(?:\b(?:will|shall)\b|going to|i'll|we'll|let me)"
_UNDERSTOOD = (
    r"(?:sorry|apolog|understand|see why|hear you|hear that|frustrat|disappoint|upset|not acceptable|not right)"
)
_ACTS = (  # the first that matches is what a sentence says
    ("close", r"anything else|something else"),
    ("limit", rf"{_NOT}.*{_REMEDY}|{_REMEDY}.*{_NOT}"),
    (
        "promise",
        rf"{_WILL}.*(?:{_REMEDY}|call you|contact you)|(?:have|been) refunded",
    ),
    (
        "sent",
        rf"(?:have|has|just|is|was|{_WILL}).*(?:issue|send|sent|add|credit|on its way)|voucher is yours",
    ),
    ("offer", r"would|could|may i|shall i|how about|can i|accept|okay|fine"),
    ("ask", r"(?:could|can|would|please|do you).*(?:photo|picture|image|describe|details|tell me|show me|which|when)"),
    ("explain", r"(?:record|log|system|data)s? (?:shows?|says?|confirms?|has|have|lists?)"),
    ("note", r"(?:note|pass|forward|record|share|report).*(?:feedback|merchant|kitchen|team|restaurant|courier)"),
)
_NEEDS_VOUCHER = {"sent", "offer"}
_REFUSAL = re.compile(r"\b(?:no|not|never|cannot|can't)\b")  # in a sentence with one of these, an offer does not count
_COMPILED = tuple((act, re.compile(pattern)) for act, pattern in _ACTS)


def read_reply(response: str, earlier: Sequence[str], case: Case, issued: str) -> frozenset[str]:
    """Returns the events (`latent.EVENTS`) in one response of the agent.

    Args:
      response: what the customer reads.
      earlier: the agent's earlier responses.
      case: the customer and the order that it is about.
      issued: when a voucher was issued, by the system state: no | this turn | earlier.
    """
    events, unfit = set(), 0
    sentences = [text for text in re.split(r"(?<=[.!?])\s+|\n", response.lower().strip()) if text]
    for sentence in sentences:
        said = _read_sentence(sentence, case)
        unfit += len(said) > 2 or sentences.count(sentence) > 1
        events |= said
    if unfit or len(events) > MANY_ACTS:
        events = {"spam"}
    elif not events:
        events = {"nothing"}
    if "listen" in events:
        events.discard("apology")
    if "sent" in events:
        events.discard("sent")
        if issued == "no":
            events.add("unbacked")
    if len(response.split()) > LONG_WORDS:
        events.add("long")
    if any(_measure_overlap(response, reply) > REPEATED_SHARE for reply in earlier):
        events.add("repeat")
    if issued == "this turn":
        events.add("voucher")
    return frozenset(events)


def _read_sentence(sentence: str, case: Case) -> set[str]:
    if len(sentence.split()) < SHORT_WORDS:
        return set()
    matched = {
        act
        for act, pattern in _COMPILED
        if pattern.search(sentence) and (act not in _NEEDS_VOUCHER or "voucher" in sentence)
    }
    meant = matched - {"offer"} if _REFUSAL.search(sentence) else matched
    acts = set([act for act, _ in _ACTS if act in meant][:1])
    if "explain" in acts:
        acts = {"explain_true" if case.record.lower() in sentence else "explain_false"}
    if re.search(_UNDERSTOOD, sentence):
        named = [_PROBLEM_WORDS[case.complaint], *(rf"{re.escape(item.lower())}(?!\w)" for item in case.items)]
        if re.search(rf"(?<!\w)(?:{'|'.join(named)})", sentence):
            acts.add("listen")
        elif re.search(_SORRY, sentence):
            acts.add("apology")
    return acts | (matched if len(matched) > 2 else set())


def _measure_overlap(text: str, other: str) -> float:
    """Returns the share of `text`'s word triples that `other` has too."""
    words, others = text.lower().split(), other.lower().split()
    triples = set(zip(words, words[1:], words[2:], strict=False))
    return len(triples & set(zip(others, others[1:], others[2:], strict=False))) / len(triples) if triples else 0.0


def read_transcript(content: str) -> list[dict[str, str]]:
    """Reads the judge's user message: a JSON list of {"role": customer|agent, "text", "voucher"}."""
    try:
        turns = json.loads(content)
        for turn in turns:
            known = turn["role"] in ("customer", "agent") and turn["voucher"] in ("no", "this turn", "earlier")
            if not (known and isinstance(turn["text"], str)):
                raise TypeError
        if not any(turn["role"] == "agent" for turn in turns):
            raise TypeError
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        raise UnreadablePrompt(
            'expected the conversation as a JSON list of {"role", "text", "voucher"} with a turn of the agent'
        ) from None
    return turns
