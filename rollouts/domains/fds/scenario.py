"""What an order's dispute is about: who complains, about which order, wanting what."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from rollouts.types import Message, Task

DEMANDS = ("refund_insistence", "refund_priority", "compensation_flexible", "feedback_focus")
"""The four extrinsic demand modes, in the order of the released data's `core_need_type` 1..4."""

LEVELS = ("highly uncooperative", "uncooperative", "generally cooperative", "cooperative", "highly cooperative")
"""The five cooperation levels; level n is LEVELS[n - 1]."""


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

    items: str  # "Beef Burger*1, Cola*2"
    merchant: str
    complaint: str  # a key of `generator.COMPLAINTS`
    supported: bool | None  # does the platform's record support the complaint? None: it is silent
    record: str  # what the platform's record says, one sentence; "" if it is silent
    signals: tuple[tuple[str, str], ...]  # (name, value) pairs as the agent sees them


@dataclasses.dataclass(frozen=True)
class Scenario(Task):
    """Everything that is settled before the first word."""

    persona: Persona
    demand: str  # one of DEMANDS
    order: Order
    agent_prompt: str  # the agent's system prompt

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
        """See Task."""
        fields = dataclasses.asdict(self)
        del fields["agent_prompt"]
        return fields
