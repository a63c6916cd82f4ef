"""Writing what must not be found half-written: whole files by replacement, lines by appending. And reading it again.

Errors name the file: the system's own, of a write to an open file, do not.
"""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator


def replace(path: pathlib.Path, text: str) -> None:
    """Writes a file: at any moment it is the old one or the new one, never half of either. Raises OSError."""
    partial = path.with_name(path.name + ".partial")
    with naming(path):
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)


def read_object(path: pathlib.Path) -> dict:
    """The JSON object in a file. Raises ValueError, naming the file, if it holds something else, or OSError."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, too deep, or too many digits
        raise ValueError(f"{path}: expected a JSON object, got {type(error).__name__}: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: expected a JSON object, got {found!r:.100}")
    return found


def append(path: pathlib.Path, text: str) -> None:
    """Adds `text` at the end of a file; when this returns it is on the disk. Raises OSError."""
    with naming(path), path.open("a", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def naming(path: pathlib.Path) -> Iterator[None]:
    """Lets an OSError within say which file could not be written."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, f"cannot write {path}: {error.strerror or error}") from error
