"""Draws orders: items, merchant, times, the platform's record and form, the courier's words."""

import random

from rollouts.domains.fds.scenario import COMPLAINTS, Item, Order, Record, write_price
from rollouts.domains.fds.shift import Shift
from rollouts.domains.fds.words import bank, records

TAG_SHARE = 0.7
"""How often the platform's form names the true complaint."""

ITEM_WEIGHTS = {1: 4, 2: 4, 3: 2}  # how often an order has so many lines
QUANTITY_WEIGHTS = {1: 7, 2: 2, 3: 1}

_PRICES = {"dishes": (690, 1890), "sides": (190, 590)}  # cents, in steps of 10
_UNSEEN_PRICES = {"dishes": (1900, 2990), "sides": (600, 890)}
_DISHES_BY_COMPLAINT = {"damaged packaging": "soft", "not fresh or undercooked": "solid"}
_FIRST_ORDER, _LAST_ORDER = 11 * 60, 22 * 60  # minutes of the day
_USUAL_MINUTES = (24, 45)  # from order to door, where nothing delays it
_LATE_MINUTES, _UNSEEN_LATE_MINUTES = (25, 60), (61, 95)  # on top, where it is late and the record gives no number
_DELAYS = {"late_minutes", "kitchen_start", "food_held", "counter_wait", "door_wait"}  # the number is on top


def draw_order(
    complaint: str, says: str, honest: bool, rng: random.Random, shift: Shift, tag_share: float = TAG_SHARE
) -> Order:
    """Draws an order.

    Args:
      complaint: what the customer complains of, a key of COMPLAINTS.
      says: what the record says of it, a key of `words.records.SAYS`.
      honest: False where the claim is false or exaggerated: an order is not late then.
      rng: a generator of its own.
      shift: whether facts are unseen and the record is worded in held-out phrases.
      tag_share: how often the form names the complaint; another one else.
    """
    record = records.draw_record(complaint, says, rng, shift)
    items = _draw_items(complaint, rng, shift)
    merchant = rng.choice(list_names("merchants", shift.facts))
    ordered, delivered = _draw_times(complaint, record, honest, rng, shift)
    courier = bank.draw_phrasing(bank.list_templates("courier", ("courier",), shift.phrasing), set(), rng)
    others = [name for name in COMPLAINTS if name != complaint]
    tag = complaint if rng.random() < tag_share else rng.choice(others)
    signals = (
        ("items", ", ".join(f"{item.quantity} {item.name} {write_price(item.price)}" for item in items)),
        ("merchant", merchant),
        ("times", f"ordered {ordered}, delivered {delivered}"),
        ("courier", courier),
        ("record", record.text),
        ("tag", tag),
    )
    return Order(items, merchant, ordered, delivered, complaint, tag, record, courier, signals)


def list_names(section: str, unseen: bool, kind: str = "") -> list[str]:
    """Lists the dishes, sides or merchants that training has, or those it never has; `kind`: solid or soft dishes."""
    return [
        template.texts[0]
        for template in bank.load_bank("names")
        if template.section[0] == section and kind in ("", *template.section[1:]) and template.held == unseen
    ]


def _draw_items(complaint: str, rng: random.Random, shift: Shift) -> tuple[Item, ...]:
    """Draws a dish that the complaint can be about, and dishes or sides beside it, no two of one name."""
    first = rng.choice(list_names("dishes", shift.facts, _DISHES_BY_COMPLAINT.get(complaint, "")))
    chosen = [("dishes", first)]
    for _ in range(_weigh(ITEM_WEIGHTS, rng) - 1):
        section = rng.choice(("dishes", "sides"))
        names = [name for name in list_names(section, shift.facts) if (section, name) not in chosen]
        chosen.append((section, rng.choice(names)))
    prices = _UNSEEN_PRICES if shift.facts else _PRICES
    return tuple(
        Item(name, _weigh(QUANTITY_WEIGHTS, rng), rng.randrange(prices[section][0], prices[section][1] + 1, 10))
        for section, name in chosen
    )


def _draw_times(complaint: str, record: Record, honest: bool, rng: random.Random, shift: Shift) -> tuple[str, str]:
    """Draws when it was ordered and delivered, such that record and, if it is honest, complaint are true."""
    minutes = rng.randint(*_USUAL_MINUTES)
    if record.kind in _DELAYS:
        minutes += record.numbers[0]
    elif complaint == "late delivery" and honest and record.supports is not False:
        minutes += rng.randint(*(_UNSEEN_LATE_MINUTES if shift.facts else _LATE_MINUTES))
    ordered = rng.randint(_FIRST_ORDER, _LAST_ORDER)
    return _write_clock(ordered), _write_clock(ordered + minutes)


def _write_clock(minutes: int) -> str:
    return f"{minutes // 60 % 24:02}:{minutes % 60:02}"


def _weigh(weights: dict[int, int], rng: random.Random) -> int:
    return rng.choices(tuple(weights), weights=tuple(weights.values()))[0]
