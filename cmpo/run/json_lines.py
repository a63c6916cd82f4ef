"""Files of JSON objects, one on each line."""

import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from cmpo.run import files


def to_json_value(value: Any) -> Any:
    """Returns `value` with arrays as lists, numpy scalars as Python's, and non-finite floats as None."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {key: to_json_value(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [to_json_value(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_lines(path: pathlib.Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes one JSON object on each line; the file is the old one or the new one, never half of either."""
    files.replace_file(path, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))


def read_lines(path: pathlib.Path, *, torn: bool = False) -> list[dict[str, Any]]:
    """Reads what `write_lines` wrote. With `torn`, a last line that is not an object is left out, as half-written.

    Raises FileNotFoundError, or ValueError naming the line that is not a JSON object.
    """
    rows, wrong = read_torn_lines(path)
    if wrong is not None and not torn:
        raise wrong
    return rows


def read_torn_lines(path: pathlib.Path) -> tuple[list[dict[str, Any]], ValueError | None]:
    """Reads what `write_lines` wrote, and what is wrong with a last line that is not an object, as half-written ones.

    Raises FileNotFoundError, or ValueError naming the line that is not a JSON object and has others behind it.
    """
    rows, wrong = [], None
    for number, line in files.read_lines(path):
        if wrong is not None:
            raise wrong
        try:
            rows.append(files.parse_object(line))
        except ValueError as error:
            wrong = ValueError(f"{path}:{number}: {error}")
    return rows, wrong
