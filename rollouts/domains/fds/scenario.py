"""What an order's dispute is about: who complains, about which order, wanting what."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from rollouts.domains.fds.shift import NO_SHIFT, Shift, parse_shift
from rollouts.types import Message, Task

DEMANDS = ("refund_insistence", "refund_priority", "compensation_flexible", "feedback_focus")
"""The four extrinsic demand modes, in the order of the released data's `core_need_type` 1..4."""

LEVELS = ("highly uncooperative", "uncooperative", "generally cooperative", "cooperative", "highly cooperative")
"""The five cooperation levels; level n is LEVELS[n - 1]."""


COMPLAINTS = {
    "late delivery": "the order came far too late",
    "food temperature": "the food arrived cold",
    "damaged packaging": "the food was spilled",
    "missing items": "part of the order is missing",
    "taste below expectations": "it tasted awful",
    "not fresh or undercooked": "it was raw inside",
}
"""What went wrong, and how the customer means it."""


class Item(NamedTuple):
    """A line of an order."""

    name: str  # "Beef Burger"
    quantity: int
    price: int  # of one, in cents; 0 where it is not known


class Record(NamedTuple):
    """What the platform knows about an order."""

    kind: str  # a `words.records.Kind.name`; "other" for a text that is not of the banks
    supports: bool | None  # True: it supports the complaint, False: contradicts it, None: is silent or beside the point
    numbers: tuple[int, ...]  # those in the text, in its order
    text: str  # the wording, "delivered 48 minutes late"; "" where nothing is known


@dataclasses.dataclass(frozen=True)
class Persona:
    """Intrinsic traits: stable, whatever the order."""

    level: int  # cooperation, 1 (highly uncooperative) .. 5 (highly cooperative)
    communication_style: str
    information_disclosure: str
    problem_solving: str
    emotional_style: str


@dataclasses.dataclass(frozen=True)
class Order:
    """The order in dispute."""

    items: tuple[Item, ...]  # one to three in the gym
    merchant: str
    ordered: str  # clock times, "18:05"; "" where they are not known
    delivered: str
    complaint: str  # what the customer complains of, a key of COMPLAINTS
    tag: str  # what the platform's form says; in some orders another complaint
    record: Record
    courier: str  # what the courier wrote; "" where nothing is known
    signals: tuple[tuple[str, str], ...]  # (name, value) pairs as the agent sees them

    @property
    def supported(self) -> bool | None:
        """Does the platform's record support the complaint? None: it is silent or beside the point."""
        return self.record.supports


@dataclasses.dataclass(frozen=True)
class Scenario(Task):
    """Everything that is settled before the first word."""

    persona: Persona
    demand: str  # one of DEMANDS
    order: Order
    agent_prompt: str  # the agent's system prompt
    worth: int  # secret: what an agreed voucher adds to the rating, in tenths of a point, 0..30
    honest: bool  # secret: False where the claim is false or exaggerated
    shift: Shift = NO_SHIFT

    @property
    def opening(self) -> tuple[Message, ...]:
        """See Task."""
        return (Message("system", self.agent_prompt),)

    @property
    def labels(self) -> dict[str, Any]:
        """See Task."""
        return {"level": self.persona.level, "demand": self.demand, "complaint": self.order.complaint}

    @property
    def description(self) -> Mapping[str, Any]:
        """See Task. `read_description` makes a scenario of it, but for the agent's prompt."""
        fields = dataclasses.asdict(self)
        del fields["agent_prompt"]
        fields["order"]["items"] = [item._asdict() for item in self.order.items]
        fields["order"]["record"] = self.order.record._asdict()
        fields["shift"] = str(self.shift)
        return fields


def read_description(fields: Mapping[str, Any]) -> Scenario:
    """Returns the scenario that a description is of, without the agent's prompt. It may have been through JSON."""
    order = fields["order"]
    record = Record(**{**order["record"], "numbers": tuple(order["record"]["numbers"])})
    facts = {
        **order,
        "items": tuple(Item(**item) for item in order["items"]),
        "record": record,
        "signals": tuple((name, value) for name, value in order["signals"]),
    }
    return Scenario(
        fields["id"],
        Persona(**fields["persona"]),
        fields["demand"],
        Order(**facts),
        "",
        fields["worth"],
        fields["honest"],
        parse_shift(fields["shift"]),
    )


def write_items(items: tuple[Item, ...]) -> str:
    """Writes items as prompts have them: "1 x Beef Burger at 12.50; 2 x Cola at 2.00"."""
    return "; ".join(
        f"{item.quantity} x {item.name}" + (f" at {write_price(item.price)}" if item.price else "") for item in items
    )


def write_price(cents: int) -> str:
    """Writes a price, "12.50"."""
    return f"{cents // 100}.{cents % 100:02}"
