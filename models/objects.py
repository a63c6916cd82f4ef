"""Text files, and JSON files that hold one object: read strictly, with errors that name the file, and written whole."""

import collections
import json
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def read_object(file: pathlib.Path) -> dict[str, Any]:
    """Reads the object in `file`.

    Raises FileNotFoundError, or ValueError, naming the file, if it holds no JSON object, a key twice, or half a
    surrogate pair.
    """
    text = read_text(file)
    try:
        found = json.loads(text, object_pairs_hook=_refuse_duplicates)
        if _SURROGATE.search(text):
            json.dumps(found, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: expected a JSON object, got {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{file}: expected a JSON object, got {type(found).__name__}")
    return found


def read_text(file: pathlib.Path) -> str:
    """Reads the text in `file`. Raises ValueError, naming the file, if it is not UTF-8."""
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: expected UTF-8, got {error}") from None


def replace_file(file: pathlib.Path, content: str | bytes) -> None:
    """Writes a file: at any moment it is the old one or the new one, never half of either. Raises OSError."""
    partial = file.with_name(file.name + ".partial")
    with partial.open("wb") as stream:
        stream.write(content.encode() if isinstance(content, str) else content)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(file)


def _refuse_duplicates(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    name, count = max(collections.Counter(name for name, _ in pairs).items(), key=lambda item: item[1], default=("", 1))
    if count > 1:
        raise ValueError(f"the key {name!r} {count} times")
    return dict(pairs)
