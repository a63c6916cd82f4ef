"""The authors' released FDS records (Apache-2.0 parquet files), read into the same Scenario as the generator's."""

import contextlib
import pathlib
import random
import re
from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Any

import pyarrow
import pyarrow.parquet

from rollouts.domains.fds.embedded import latent
from rollouts.domains.fds.scenario import DEMANDS, LEVELS, Item, Order, Persona, Record, Scenario
from rollouts.seeds import fold

_COMPLAINTS = {
    "Food temperature issue": "food temperature",
    "Food taste below expectations": "taste below expectations",
    "Food not fresh/undercooked": "not fresh or undercooked",
}

_ITEM = re.compile(r"\s*(.+?)\s*\*(\d{1,4})\s*(?:,|$)")

_COLUMNS = ("prompt", "extra_info")
_DETAILS = "extra_info.interaction_kwargs"


def read_records(path: str) -> Iterator[Scenario]:
    """Yields the records of a parquet file, in its order; no two have the same id.

    Raises FileNotFoundError or ValueError, naming config.data.path, for a missing or damaged file, other columns or a
    bad row.
    """
    if not pathlib.Path(path).is_file():
        raise FileNotFoundError(f"config.data.path: expected a parquet file, found none at {path!r}")
    rows: dict[str, int] = {}
    for number, row in enumerate(_iterate_rows(path)):
        scenario = _parse_row(row, number, path)
        if (before := rows.setdefault(scenario.id, number)) != number:
            raise ValueError(
                f"config.data.path: row {number} of {path!r} is not an FDS record: {_DETAILS}: expected a split, "
                f"batch_id and index of its own, got those of row {before}, {scenario.id!r:.100}"
            )
        yield scenario


def _iterate_rows(path: str) -> Iterator[Mapping[str, Any]]:
    with _open_parquet(path) as file:
        columns = file.schema_arrow.names
    if missing := sorted(set(_COLUMNS) - set(columns)):
        raise ValueError(f"config.data.path: {path!r} lacks the columns {missing}; it has {columns}")
    if twice := [name for name in _COLUMNS if columns.count(name) > 1]:
        raise ValueError(f"config.data.path: {path!r} has the columns {twice} more than once")
    with _open_parquet(path) as file:
        for batch in file.iter_batches(256, columns=list(_COLUMNS)):
            yield from batch.to_pylist()


@contextlib.contextmanager
def _open_parquet(path: str) -> Iterator[pyarrow.parquet.ParquetFile]:
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            yield file
    except (
        pyarrow.ArrowException,
        OSError,
        ValueError,
    ) as error:  # such as column names that are not UTF-8, or come twice
        raise ValueError(f"config.data.path: {path!r} is not a parquet file, or a damaged one: {error}") from None


def _parse_row(row: Mapping[str, Any], number: int, path: str) -> Scenario:
    try:
        return from_record(row)
    except ValueError as error:
        raise ValueError(f"config.data.path: row {number} of {path!r} is not an FDS record: {error}") from None


def from_record(record: Mapping[str, Any]) -> Scenario:
    """Turns one row (`prompt`, `extra_info`) into a Scenario; the agent keeps the record's own system prompt.

    The records do not say what the platform knows (`order.supported` is None), nor times, prices or the courier's
    words; those are empty. Nor do they say what a voucher is worth to the customer: the embedded customer's worth is
    drawn from `latent.WORTH` by a hash of the record's id, and its claim counts as honest. Raises ValueError, naming
    the field and what is there, where one is missing, null, of another type or of an unknown value.
    """
    portrait, signals = f"{_DETAILS}.user_profile.user_profile", f"{_DETAILS}.system_signal"
    habits, traits = f"{portrait}.behavioralPatterns", f"{portrait}.inferredAttributes.impliedPersonalityTraits"
    level = _read_number(record, f"{_DETAILS}.user_profile.category_info.category_key", len(LEVELS))
    demand = _read_number(record, f"{_DETAILS}.core_demand.core_need_type", len(DEMANDS))
    count = len(_read_field(record, traits, list))
    persona = Persona(
        level=level,
        communication_style=_read_field(record, f"{habits}.communicationStyle"),
        information_disclosure=_read_field(record, f"{habits}.informationDisclosure"),
        problem_solving=_read_field(record, f"{habits}.problemSolvingApproach"),
        emotional_style="; ".join(_read_field(record, f"{traits}.{number}") for number in range(count)),
    )
    complaint = _read_field(record, f"{signals}.faqType")
    if complaint not in _COMPLAINTS:
        raise ValueError(f"{signals}.faqType: expected one of {sorted(_COMPLAINTS)}, got {complaint!r:.100}")
    shown = {name: _read_field(record, f"{signals}.{name}") for name in ("instantMessageMap", "foodInfo", "rcTag")}
    shown["merchantName"] = _read_field(record, f"{signals}.merchantNameMap.en")
    order = Order(
        items=_read_items(shown["foodInfo"]),
        merchant=shown["merchantName"],
        ordered="",
        delivered="",
        complaint=_COMPLAINTS[complaint],
        tag=_COMPLAINTS[complaint],
        record=Record("silent", None, (), ""),
        courier="",
        signals=tuple(shown.items()),
    )
    name = "-".join(
        str(_read_field(record, f"{_DETAILS}.{part}", str | int)) for part in ("split", "batch_id", "index")
    )
    worth = latent.draw_worth(level, DEMANDS[demand - 1], random.Random(fold(0, "worth", name)))
    return Scenario(name, persona, DEMANDS[demand - 1], order, _system_prompt(record), worth, honest=True)


def _read_items(text: str) -> tuple[Item, ...]:
    """Reads "Soup*1,Rice*2"; a text of another form, or an empty one, is one item. Prompts have items in one line."""
    line = " ".join(text.replace(";", ",").split())
    matches = list(_ITEM.finditer(line))
    if not matches or "".join(match[0] for match in matches) != line:
        return (Item(line or "order", 1, 0),)
    return tuple(Item(match[1], int(match[2]), 0) for match in matches)


def _system_prompt(record: Mapping[str, Any]) -> str:
    """Reads the one message of `prompt`. Raises ValueError if there are several, or if it is not the system's."""
    content, role = _read_field(record, "prompt.0.content"), _read_field(record, "prompt.0.role")
    if role != "system":
        raise ValueError(f"prompt.0.role: expected 'system', got {role!r:.100}")
    if not content.strip():
        raise ValueError(f"prompt.0.content: expected text, got {content!r:.100}")
    if len(_read_field(record, "prompt", list)) > 1:
        raise ValueError(f"prompt: expected one message, got {len(record['prompt'])}")
    return content


def _read_field(record: Mapping[str, Any], path: str, kind: type | UnionType = str) -> Any:
    value: Any = record
    try:
        for key in path.split("."):
            value = value[int(key) if isinstance(value, list) else key]
    except (KeyError, IndexError, TypeError, ValueError):
        raise ValueError(f"{path}: expected {key!r} to be there, got {value!r:.100}") from None
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"{path}: expected {getattr(kind, '__name__', kind)}, got {value!r:.100}")
    return value


def _read_number(record: Mapping[str, Any], path: str, most: int) -> int:
    """Reads a number from 1 to `most`, which may be given as text."""
    value = _read_field(record, path, str | int)
    if str(value) not in map(str, range(1, most + 1)):
        raise ValueError(f"{path}: expected 1 to {most}, got {value!r:.100}")
    return int(value)
