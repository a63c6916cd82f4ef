"""The platform's records: kinds, what they say of a complaint, their wordings (`records.txt`), and reading one back."""

import functools
import random
import re
from typing import NamedTuple

from rollouts.domains.fds.scenario import Record
from rollouts.domains.fds.shift import Shift
from rollouts.domains.fds.words import bank

SAYS = {"supports": True, "contradicts": False, "beside": None, "silent": None}
"""What a kind of record says of its complaint, as `Record.supports` has it."""


class Kind(NamedTuple):
    """A kind of record."""

    name: str
    complaint: str  # that it is about; "any" where it is beside the point or silent
    says: str  # a key of SAYS
    numbers: tuple[int, int] | None  # the range of its number, ends included; None: it has none
    unseen_numbers: tuple[int, int] | None  # the range in unseen facts
    unseen: bool  # it comes in unseen facts only
    section: tuple[str, ...]


@functools.cache
def list_kinds() -> tuple[Kind, ...]:
    """Lists all kinds of records, in the order of the bank."""
    kinds = []
    for section in dict.fromkeys(template.section for template in bank.load_bank("records")):
        name, complaint, says, numbers, unseen_numbers, *mark = section
        kinds.append(
            Kind(name, complaint, says, _read_range(numbers), _read_range(unseen_numbers), bool(mark), section)
        )
    return tuple(kinds)


def draw_record(complaint: str, says: str, rng: random.Random, shift: Shift) -> Record:
    """Draws a record that `says` (a key of SAYS) something of a complaint: kind, number and wording.

    Unseen facts have kinds that training never has, where the bank has any, and numbers from other ranges.
    """
    kinds = [kind for kind in list_kinds() if kind.complaint in (complaint, "any") and kind.says == says]
    if shift.facts:
        kinds = [kind for kind in kinds if kind.unseen] or kinds
    else:
        kinds = [kind for kind in kinds if not kind.unseen]
    kind = rng.choice(kinds)
    scope = kind.unseen_numbers if shift.facts else kind.numbers
    numbers = (rng.randint(*scope),) if scope else ()
    templates = bank.list_templates("records", kind.section, shift.phrasing)
    text = bank.draw_phrasing(templates, {"n"} if numbers else set(), rng)
    return Record(kind.name, SAYS[says], numbers, text.format(n=numbers[0]) if numbers else text)


def list_wordings(kind: str, numbers: tuple[int, ...]) -> tuple[str, ...]:
    """Lists all wordings of a record, of both splits."""
    number = str(numbers[0]) if numbers else ""
    return tuple(
        text.format(n=number)
        for template in bank.load_bank("records")
        if template.section[0] == kind
        for text in template.texts
    )


def read_record(text: str, supports: bool | None) -> Record:
    """Reads a wording back. One that is not of the bank has the kind "other", and every number in it counts."""
    numbers = tuple(map(int, re.findall(r"\d+", text)))
    kind = _list_patterns().get(re.sub(r"\d+", "{n}", text), "other")
    return Record(kind, supports, numbers, text)


@functools.cache
def _list_patterns() -> dict[str, str]:
    return {text: template.section[0] for template in bank.load_bank("records") for text in template.texts}


def _read_range(text: str) -> tuple[int, int] | None:
    if text == "-":
        return None
    low, high = map(int, text.split("-"))
    return low, high
