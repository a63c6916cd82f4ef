"""Files of JSON objects, one on each line."""

import json
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
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
    """Reads what `write_lines` wrote. With `torn`, a last line that is no JSON is left out, as half-written.

    Raises FileNotFoundError, or ValueError naming the line that is not a JSON object.
    """
    rows, wrong = read_torn_lines(path)
    if wrong is not None and not torn:
        raise wrong
    return rows


def read_torn_lines(
    path: pathlib.Path, check: Callable[[Mapping[str, Any]], None] = lambda row: None
) -> tuple[list[dict[str, Any]], ValueError | None]:
    """Reads what `write_lines` wrote, and what is wrong with a last line that is no JSON, as half-written ones are not.

    No beginning of an object is JSON: a last line that is, but no object, is damaged like any other.

    Args:
      path: of the file.
      check: raises ValueError for an object that is not as it should be.

    Raises:
      FileNotFoundError: there is none.
      ValueError: names the line that is not a JSON object, or that `check` refuses.
    """
    rows, wrong = [], None
    for number, line in files.read_lines(path):
        if wrong is not None:
            raise wrong
        try:
            row = files.parse_object(line)
        except ValueError as error:
            wrong = ValueError(f"{path}:{number}: {error}")
            if _is_json(line):
                raise wrong from None
            continue
        try:
            check(row)
        except ValueError as error:
            raise ValueError(f"{path}:{number}: {error}") from None
        rows.append(row)
    return rows, wrong


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True
