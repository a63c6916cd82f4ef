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
    lines, rows = list(files.read_lines(path)), []
    for number, line in lines:
        try:
            rows.append(files.parse_object(line))
        except ValueError as error:
            if not torn or number < lines[-1][0]:
                raise ValueError(f"{path}:{number}: {error}") from None
    return rows
