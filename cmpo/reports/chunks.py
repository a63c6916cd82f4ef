"""Packs values so that a page can carry them: JSON that may stand in HTML, and compressed chunks of it."""

import gzip
import json
from typing import Any

_LEVEL = 6


def write_json(value: Any) -> str:
    """Writes a value as JSON that ends no script element: ASCII, without "<". Half a character stays what it is.

    Raises ValueError for a number that is not finite.
    """
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


def compress_json(value: Any) -> bytes:
    """Compresses a value as JSON, by gzip; the same value always gives the same bytes."""
    return gzip.compress(write_json(value).encode(), _LEVEL, mtime=0)
