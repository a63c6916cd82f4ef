"""JSON files that hold one object, read strictly."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any


def read_object(file: pathlib.Path) -> dict[str, Any]:
    """The object in `file`. Raises FileNotFoundError, or ValueError naming the file: no JSON object, or a key twice."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: expected a JSON object, got {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{file}: expected a JSON object, got {type(found).__name__}")
    return found


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if twice := {name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else set():
        raise ValueError(f"the key {min(twice)!r} twice")
    return dict(pairs)
