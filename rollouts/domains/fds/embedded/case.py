"""The case as the embedded endpoint knows it: read from the customer's or the judge's prompt, which say it in words."""

import functools
import re
from typing import NamedTuple

from rollouts.domains.fds.embedded.latent import Customer
from rollouts.domains.fds.scenario import DEMANDS, Item, Record
from rollouts.domains.fds.shift import Shift, read_words
from rollouts.domains.fds.words import records


class Case(NamedTuple):
    """The customer and the order, as their prompt tells them."""

    customer: Customer
    items: tuple[Item, ...]  # at least one
    merchant: str
    ordered: str  # clock times, "18:05"; "" where they are not known
    delivered: str
    complaint: str  # what the customer complains of
    tag: str  # what the platform's form says
    record: Record
    courier: str  # what the courier wrote; "" where nothing is known
    communication_style: str
    emotional_style: str
    shift: Shift  # of the words only: `facts` is False, unseen facts show in the fields above


class UnreadablePrompt(ValueError):
    """The prompt lacks a line that the endpoint needs."""


SUPPORT = {
    "the record supports it": True,
    "the record contradicts it": False,
    "the record is silent": None,
    "the record is about something else": None,
}
DETAILS = {"told at once": True, "told when asked": False}
SOLUTIONS = {"step by step": "steps", "in short": "short"}
TEMPERS = {"flares up": "flares", "goes silent": "silent"}
CLAIMS = {"true": True, "false or exaggerated": False}
UNKNOWN = "unknown"
NO_RECORD = "nothing unusual on record"

_ITEM = re.compile(r"(\d{1,6}) x (.+?)(?: at (\d{1,6})\.(\d\d))?")
_WORTH = re.compile(r"^A voucher would add about ([0-3])\.(\d) points to (?:your|the) rating\.$", re.MULTILINE)
_CLOCK = r"\d\d:\d\d|" + UNKNOWN


@functools.lru_cache(maxsize=1024)  # every request of a dialogue brings its prompt again
def read_case(prompt: str) -> Case:
    """Reads a user's or a judge's system prompt. Raises UnreadablePrompt naming the line that is missing or wrong."""
    lines: dict[str, str] = {}
    for line in prompt.split("\n"):
        name, _, value = line.partition(": ")
        lines.setdefault(name, value)

    def find_line(name: str, pattern: str = r".*") -> str:
        value = lines.get(name)
        if value is None or not re.fullmatch(pattern, value):
            raise UnreadablePrompt(f"expected a line '{name}: …' matching {pattern!r} in the system prompt")
        return value

    def find_known(name: str, pattern: str = r".*") -> str:
        text = find_line(name, pattern)
        return "" if text == UNKNOWN else text

    def find_choice(name: str, choices: dict) -> object:
        return choices[find_line(name, "|".join(choices))]

    worth = _WORTH.search(prompt)
    if worth is None:
        raise UnreadablePrompt("expected a line 'A voucher would add about … points to your rating.' in the prompt")
    supports = find_choice("Record and complaint", SUPPORT)
    customer = Customer(
        level=int(find_line("Cooperation", r"[1-5] \([a-z ]+\)")[0]),
        demand=find_line("Demand", "|".join(DEMANDS)),
        supported=supports,
        worth=int(worth[1] + worth[2]),
        honest=find_choice("Claim", CLAIMS),
        discloses=find_choice("Details", DETAILS),
        wants=find_choice("Solution", SOLUTIONS),
        temper=find_choice("Anger", TEMPERS),
    )
    try:
        shift = read_words(find_line("Way of writing"))
    except ValueError as error:
        raise UnreadablePrompt(str(error)) from None
    record = find_line("Platform record")
    return Case(
        customer=customer,
        items=_read_items(find_line("Items")),
        merchant=find_line("Merchant"),
        ordered=find_known("Ordered", _CLOCK),
        delivered=find_known("Delivered", _CLOCK),
        complaint=find_line("Complaint", r".* \(.*\)").split(" (")[0],
        tag=find_known("Tag of the platform"),
        record=Record("silent", supports, (), "") if record == NO_RECORD else records.read_record(record, supports),
        courier=find_known("Courier wrote"),
        communication_style=find_line("Communication style"),
        emotional_style=find_line("Emotional style"),
        shift=shift,
    )


def _read_items(text: str) -> tuple[Item, ...]:
    matches = [_ITEM.fullmatch(part) for part in text.split("; ")]
    if not all(matches):
        raise UnreadablePrompt(f"expected a line 'Items: 1 x NAME at 12.50; 2 x NAME', got {text!r:.200}")
    return tuple(Item(match[2], int(match[1]), int((match[3] or "") + (match[4] or "") or 0)) for match in matches)
