"""The lines of a ledger's log. They say what happened; the ledger's state follows from them alone."""

from collections.abc import Sequence
from typing import Annotated, Literal

import pydantic

Amounts = dict[str, pydantic.FiniteFloat]  # by the name of a cost


class _Line(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True)

    time: pydantic.FiniteFloat  # seconds since 1970


class Started(_Line):
    """A server began to write. What it was set to is for the reader: the state does not depend on it."""

    kind: Literal["start"] = "start"
    costs: list[str]  # the names of the domain's, C
    budgets: Amounts
    window: int
    prices: Amounts
    enforce: bool


class Answered(_Line):
    """An answer was sent. The log has no words of anybody, only a hash of the answer's."""

    kind: Literal["answer"] = "answer"
    dialogue: str
    turn: int  # how many answers the conversation had before
    after: str  # the hash of the latest of these; "" if there are none
    answer: str  # the hash of what was sent
    cost: Amounts  # of this answer; costs of 0 are left out
    tokens: int  # sampled
    declined: list[str] = []  # the costs on whose account other words were sent than were sampled


class Reported(_Line):
    """The client said what became of a dialogue; None: it said nothing of that."""

    kind: Literal["report"] = "report"
    dialogue: str
    resolved: bool | None = None
    escalated: bool | None = None
    rating: pydantic.FiniteFloat | None = None


class Ended(_Line):
    """A conversation was let go, and counts from now on."""

    kind: Literal["end"] = "end"
    dialogue: str


class Spread(pydantic.BaseModel):
    """A number and its 95 % interval; None where there is none."""

    model_config = pydantic.ConfigDict(frozen=True)

    value: float | None = None
    low: float | None = None
    high: float | None = None


class BatchClosed(_Line):
    """The controller moved. It is for the reader, as it follows from the lines before."""

    kind: Literal["batch"] = "batch"
    number: int
    costs: Amounts  # means over the dialogues of this batch
    multipliers: Amounts  # after it
    window: dict[str, Spread]  # means over the dialogues of the window
    per_resolution: Spread
    outcomes: dict[str, int]  # how many dialogues of the window
    declined: dict[str, int]  # since the log began
    alarms: list[str]


Event = Started | Answered | Reported | Ended | BatchClosed
_LINES = pydantic.TypeAdapter(Annotated[Event, pydantic.Field(discriminator="kind")])


def parse_event(line: bytes) -> Event:
    """Parses a line. Raises ValueError, naming the field."""
    try:
        return _LINES.validate_json(line)
    except pydantic.ValidationError as error:
        found = error.errors(include_url=False)[0]
        wrong = ": ".join([".".join(map(str, found["loc"])), found["msg"]]).removeprefix(": ")
        raise ValueError(f"expected a line of a ledger, got {line!r:.100}: {wrong}") from None


def keep_costs(names: Sequence[str], amounts: Sequence[float]) -> Amounts:
    """Names the costs [C] that are not 0."""
    return {name: float(amount) for name, amount in zip(names, amounts, strict=True) if amount}
