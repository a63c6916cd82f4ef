"""The authors' released FDS records (Apache-2.0 parquet files), read into the same Scenario as the generator's."""

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow
import pyarrow.parquet

from rollouts.types import DEMANDS, Order, Persona, Scenario

_COMPLAINTS = {
    "Food temperature issue": "food temperature",
    "Food taste below expectations": "taste below expectations",
    "Food not fresh/undercooked": "not fresh or undercooked",
}

_COLUMNS = ("prompt", "extra_info")


def read(path: str) -> Iterator[Scenario]:
    """The records of a parquet file, in its order.

    Raises FileNotFoundError or ValueError, naming config.data.path, for a missing or damaged file, other columns or a
    bad row.
    """
    if not pathlib.Path(path).is_file():
        raise FileNotFoundError(f"config.data.path: expected a parquet file, found none at {path!r}")
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            columns = file.schema_arrow.names
            if missing := sorted(set(_COLUMNS) - set(columns)):
                raise ValueError(f"config.data.path: {path!r} lacks the columns {missing}; it has {columns}")
            batches = file.iter_batches(256, columns=list(_COLUMNS))
            for number, row in enumerate(row for batch in batches for row in batch.to_pylist()):
                yield _checked(row, number, path)
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"config.data.path: {path!r} is not a parquet file, or a damaged one: {error}") from None


def _checked(row: Mapping[str, Any], number: int, path: str) -> Scenario:
    try:
        return from_record(row)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"config.data.path: row {number} of {path!r} is no FDS record: {reason}") from None


def from_record(record: Mapping[str, Any]) -> Scenario:
    """Turns one row (`prompt`, `extra_info`) into a Scenario; the agent keeps the record's own system prompt.

    The records do not say whether the platform's facts support the claim: `order.supported` is None. Raises KeyError
    or TypeError where a field is missing, ValueError where a value is unknown.
    """
    details = record["extra_info"]["interaction_kwargs"]
    profile, demand, signals = details["user_profile"], details["core_demand"], details["system_signal"]
    portrait = profile["user_profile"]
    habits, attributes = portrait["behavioralPatterns"], portrait["inferredAttributes"]
    level, kind, complaint = (
        int(profile["category_info"]["category_key"]),
        int(demand["core_need_type"]),
        signals["faqType"],
    )
    if not (1 <= level <= 5 and 1 <= kind <= len(DEMANDS) and complaint in _COMPLAINTS):
        raise ValueError(f"expected level 1..5, demand 1..4 and a known faqType, got {level}, {kind}, {complaint!r}")
    persona = Persona(
        level=level,
        communication_style=habits["communicationStyle"],
        information_disclosure=habits["informationDisclosure"],
        problem_solving=habits["problemSolvingApproach"],
        emotional_style="; ".join(attributes["impliedPersonalityTraits"]),
    )
    shown = ("instantMessageMap", "foodInfo", "rcTag", "merchantName")
    merchant = signals["merchantNameMap"]["en"]
    values = {**signals, "merchantName": merchant}
    order = Order(
        items=signals["foodInfo"],
        merchant=merchant,
        complaint=_COMPLAINTS[complaint],
        supported=None,
        record="",
        signals=tuple((name, str(values[name])) for name in shown),
    )
    name = f"{details['split']}-{details['batch_id']}-{details['index']}"
    return Scenario(name, persona, DEMANDS[kind - 1], order, record["prompt"][0]["content"])
