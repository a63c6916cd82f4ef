"""Takes a customer's message apart again: which templates it is made of.

Names, times and numbers are replaced by their slots first; then every run of sentences is looked up, the longest first,
without regard to capitals, as it is and without its first words (`LED`, `leads.txt`). No template begins with another
one's sentences, so there is one way to take a message apart (a test goes through all).
"""

import functools
import re
from collections.abc import Sequence
from typing import NamedTuple

from rollouts.domains.fds.words import bank

BANKS = ("openings", "reactions", "heat", "details", "stances", "hints", "wants", "farewells", "walkouts", "fillers")
"""The banks that sentences of a message come from."""

LED = ("details", "stances", "hints")
"""The banks whose sentences may have a lead before them."""

_PICTURE = re.compile(r"\[Sent Picture: ([^\]]*)\]")
_END = re.compile(r"(?<=[.!?])\s+")
_SLOTS = {"ordered": "time", "delivered": "time", "minutes": "number", "count": "number"}  # others: as they are called
_NUMBERS = re.compile(r"(?P<time>\b\d\d:\d\d\b)|(?P<price>\b\d+\.\d\d\b)|(?P<number>\b\d+\b)")


class Part(NamedTuple):
    """What a run of sentences comes from."""

    bank: str  # one of BANKS, or "pictures"
    section: tuple[str, ...]


def split_message(text: str, names: Sequence[str] = ()) -> list[Part]:
    """Returns the parts of a message without end marks, pictures last.

    Args:
      text: the message.
      names: items and merchant of the order that are not in the banks, as in the authors' records.

    Raises:
      ValueError: naming the sentence that no template has.
    """
    pictures = [Part("pictures", (content,)) for content in _PICTURE.findall(text)]
    text = _PICTURE.sub(" ", text).strip()
    for name in sorted(names, key=len, reverse=True):
        text = text.replace(name, "{name}")
    sentences = split_sentences(mark_slots(text))
    longest = _count_longest()
    parts, place = [], 0
    while place < len(sentences):
        for count in range(min(longest, len(sentences) - place), 0, -1):
            if part := find_part(" ".join(sentences[place : place + count])):
                parts.append(part)
                place += count
                break
        else:
            raise ValueError(f"expected a sentence of the banks, got {sentences[place]!r:.200}")
    return parts + pictures


def find_part(text: str) -> Part | None:
    """Returns the part that a run of sentences with marked slots is, with or without a lead; None: it is none."""
    text = text.lower()
    if part := _list_parts().get(text):
        return part
    lead = _find_leads().match(text)
    part = _list_parts().get(text[lead.end() :]) if lead else None
    return part if part and part.bank in LED else None


def mark_slots(text: str) -> str:
    """Replaces names of the banks by {name}, clock times by {time}, prices by {price} and other numbers by {number}."""
    return _NUMBERS.sub(lambda match: f"{{{match.lastgroup}}}", _find_names().sub("{name}", text))


def split_sentences(text: str) -> list[str]:
    """Splits a text after every end mark that is followed by space."""
    return [sentence for sentence in _END.split(text) if sentence]


def list_phrasings() -> list[tuple[str, Part]]:
    """Lists all phrasings of BANKS as `mark_slots` leaves them, with the part that each is; both splits."""
    found = []
    for name in BANKS:
        for template in bank.load_bank(name):
            for text in template.texts:
                slots = {slot: f"{{{_SLOTS.get(slot, slot)}}}" for slot in template.slots}
                slots |= {slot: "{name}" for slot in ("item", "merchant") if slot in slots}
                found.append((mark_slots(text.format(**slots)), Part(name, template.section)))
    return found


@functools.cache
def _list_parts() -> dict[str, Part]:
    return {text.lower(): part for text, part in list_phrasings()}


@functools.cache
def _find_leads() -> re.Pattern:
    leads = sorted((template.texts[0].lower() for template in bank.load_bank("leads")), key=len, reverse=True)
    return re.compile(rf"(?:{'|'.join(map(re.escape, leads))}) ")


@functools.cache
def _count_longest() -> int:
    return max(len(split_sentences(text)) for text in _list_parts())


@functools.cache
def _find_names() -> re.Pattern:
    names = sorted((template.texts[0] for template in bank.load_bank("names")), key=len, reverse=True)
    return re.compile(rf"\b(?=[A-Z])(?:{'|'.join(map(re.escape, names))})\b")
