"""Frontiers that were computed once and are kept beside the rules, in `frontiers.json`: computing one takes a while.

`python -m benchmarks.frontiers` writes the file anew. It names the digest of the rules that it was computed by; with
other rules it is of no use, and says nothing.
"""

import functools
import hashlib
import json
import pathlib
from collections.abc import Sequence
from typing import Any

_RULES = ("latent", "signals", "population", "graph", "planning", "oracle")
_HERE = pathlib.Path(__file__).parent
_FILE = _HERE / "frontiers.json"


def digest_rules() -> str:
    """Returns the SHA-256 of all that a frontier follows from."""
    paths = [*(_HERE / f"{name}.py" for name in _RULES), _HERE.parent / "mix.py"]
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in paths)).hexdigest()


def find_columns(difficulty: str, knows: str, split: str) -> dict[str, Any] | None:
    """Returns what `write_frontiers` was given for these arguments; None if it is not kept, or of other rules."""
    return _read_file().get(_name_frontier(difficulty, knows, split))


@functools.cache
def _read_file() -> dict[str, Any]:
    if not _FILE.exists():
        return {}
    found = json.loads(_FILE.read_text(encoding="utf-8"))
    return found["frontiers"] if found["rules"] == digest_rules() else {}


def write_frontiers(frontiers: dict[Sequence[str], dict[str, Any]]) -> None:
    """Writes the columns of frontiers by their (difficulty, knows, split)."""
    named = {_name_frontier(*key): columns for key, columns in frontiers.items()}
    _FILE.write_text(json.dumps({"rules": digest_rules(), "frontiers": named}, indent=1) + "\n", encoding="utf-8")


def _name_frontier(difficulty: str, knows: str, split: str) -> str:
    return f"{difficulty}, {split}, knows {knows}"
