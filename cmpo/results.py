"""The files that `cmpo.evaluate` writes, read again by whoever compares or draws them."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from cmpo import files
from cmpo.measures import MEASURES

_NEEDED = (
    ("agent",),
    ("user", "url"),
    ("judge", "url"),
    ("prompts", "user"),
    ("config", "user", "url"),
    ("config", "data", "path"),
    ("config", "data", "difficulty"),
    *(("summary", name, field) for name in MEASURES for field in ("mean", "std")),
)
_NEEDED_OF_ROW = (("seed",), ("scenario",), *(("values", name) for name in MEASURES))


def read(path: str | pathlib.Path) -> dict[str, Any]:
    """A result. Raises OSError, or ValueError, naming the file, if it is none."""
    found = files.read_object(pathlib.Path(path))
    rows, missing = found.get("dialogues"), _missing(found, _NEEDED)
    if isinstance(rows, list) and rows:
        missing += [f"dialogues' {name}" for row in rows for name in _missing(row, _NEEDED_OF_ROW)]
    else:
        missing.append("dialogues")
    if missing:
        raise ValueError(f"{path}: expected a file that cmpo.evaluate wrote, found none of its {missing[0]}")
    return found


def _missing(tree: Any, needed: Sequence[Sequence[str]]) -> list[str]:
    return [".".join(names) for names in needed if not _has(tree, names)]


def _has(tree: Any, names: Sequence[str]) -> bool:
    for name in names:
        if not (isinstance(tree, Mapping) and name in tree):
            return False
        tree = tree[name]
    return True
