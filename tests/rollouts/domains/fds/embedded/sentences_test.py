"""The bank of sentences in `sentences/`: each must be read as a person would take it."""

import pathlib

import pytest

from rollouts.domains.fds.embedded import latent, reading
from rollouts.domains.fds.embedded.case import Case
from rollouts.domains.fds.scenario import Item, Record
from rollouts.domains.fds.shift import Shift

CUSTOMER = latent.Customer(
    level=3,
    demand="refund_priority",
    supported=True,
    worth=12,
    honest=True,
    discloses=True,
    wants="short",
    temper="flares",
)


def make_case(items, merchant, ordered, delivered, complaint, text, supports, numbers=()):
    """A case; items are (name, quantity, cents)."""
    record = Record("other" if text else "silent", supports, numbers, text)
    items = tuple(Item(*item) for item in items)
    return Case(
        CUSTOMER._replace(supported=supports),
        items,
        merchant,
        ordered,
        delivered,
        complaint,
        complaint,
        record,
        "",
        "plain",
        "calm",
        Shift(),
    )


THAI = ([("Pad Thai", 1, 1150), ("Cola", 2, 250)], "Golden Wok", "18:05", "18:52")
BURGER = ([("Beef Burger", 1, 990), ("Fries", 1, 350)], "Burger Barn", "19:10", "20:28")
SOUP = ([("Noodle Soup", 1, 890), ("Spring Rolls", 2, 400)], "Noodle House", "12:15", "12:50")
PIZZA = ([("Margherita Pizza", 1, 1000), ("Garlic Bread", 1, 420)], "Mama Rosa", "20:00", "20:41")
KEBAB = ([("Lamb Kebab", 1, 1290), ("Mango Lassi", 1, 380)], "Samaka Grill", "13:05", "13:40")
CHICKEN = ([("Fried Chicken", 1, 1090), ("Coleslaw", 1, 290)], "Corner Kitchen", "17:30", "18:02")
SALAD = ([("Caesar Salad", 1, 920), ("Ice Tea", 1, 260)], "Green Bowl", "19:45", "20:35")
SUSHI = ([("Sushi Set", 1, 1890)], "Blue Harbour", "18:40", "19:15")

LATE, COLD, SPILL = "late delivery", "food temperature", "damaged packaging"
MISSING, TASTE, RAW = "missing items", "taste below expectations", "not fresh or undercooked"

CASES = {
    "cold": make_case(*THAI, COLD, "courier held the food 40 minutes", True, (40,)),
    "quick": make_case(*THAI, COLD, "delivered 8 minutes after pickup", False, (8,)),
    "late": make_case(*BURGER, LATE, "delivered 48 minutes late", True, (48,)),
    "ontime": make_case(*BURGER, LATE, "delivered on time", False),
    "spill": make_case(*SOUP, SPILL, "handover photo shows a sealed bag", False),
    "leak": make_case(*SOUP, SPILL, "courier reported a spilled bag", True),
    "missing": make_case(*PIZZA, MISSING, "all items scanned at pickup", False),
    "short": make_case(*PIZZA, MISSING, "merchant packed one item less", True),
    "taste": make_case(*KEBAB, TASTE, "5 taste complaints today", True, (5,)),
    "praise": make_case(*KEBAB, TASTE, "no other taste complaints today", False),
    "raw": make_case(*CHICKEN, RAW, "kitchen temperature normal at 74 degrees", False, (74,)),
    "oven": make_case(*CHICKEN, RAW, "kitchen reported an oven fault", True),
    "silent": make_case(*SALAD, LATE, "", None),
    "recipe": make_case(*KEBAB, TASTE, "merchant changed the recipe this week", True),
    "road": make_case(*BURGER, COLD, "36 minutes between pickup and delivery", True, (36,)),
    "ride": make_case(*BURGER, COLD, "ride of 12 minutes in a heat bag", False, (12,)),
    "bag": make_case(*THAI, COLD, "courier reported the heat bag as broken", True),
    "phone": make_case(*SOUP, SPILL, "customer changed the phone number 3 days ago", None, (3,)),
    "aside": make_case(*SUSHI, MISSING, "merchant changed its opening hours last week", None),
}

SHORT = "Hello, my name is Tom and I am here for you today. I have read all that you wrote, and I take it as it is."
LONG = (
    "Hello, my name is Tom and I am here for you today. I have read all that you wrote, and I take it as it is. We are "
    "a small team with a big heart, we love our work, and we know that a good evening can be a wonderful thing. My own "
    "family often sits together on such evenings, and then we talk about the day and all of that. What a day it was."
)


def read_bank():
    """Yields (file and line, section, events, case, issued, text, earlier)."""
    for path in sorted((pathlib.Path(__file__).parent / "sentences").glob("*.txt")):
        section = ""
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if line.startswith("== "):
                section = line[3:]
            elif line and not line.startswith("#"):
                events, state, said = line.split(" | ", 2)
                name, _, issued = state.partition(", ")
                text, *earlier = said.replace("{long}", LONG).replace("{short}", SHORT).split(" <- ")
                yield f"{path.stem}:{number}", section, frozenset(events.split()), name, issued or "no", text, earlier


BANK = list(read_bank())


def read(name, issued, text, earlier):
    return reading.read_reply(text, earlier, CASES[name], issued)


@pytest.mark.parametrize("event", latent.EVENTS)
def test_sentences_are_read_as_a_person_takes_them(event):
    wrong = {}
    for where, section, events, name, issued, text, earlier in BANK:
        found = read(name, issued, text, earlier)
        if section == event and found != events:
            wrong[where] = f"{text!r} is {sorted(events)}, was read as {sorted(found)}"
    assert not wrong, "\n".join(f"{where}: {what}" for where, what in wrong.items())
