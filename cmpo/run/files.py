"""Writes files that must never be found half-written, whole ones by replacement and lines by appending; reads them.

Errors name the file. The system's own errors of a write to an open file do not.
"""

import contextlib
import errno
import json
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any

from models import objects

_KINDS = {  # the first bytes of files that people take for text
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "Zstandard",
    b"PK\x03\x04": "a zip archive",
    b"PAR1": "Parquet",
}
_BOM = b"\xef\xbb\xbf"


def replace_file(path: pathlib.Path, content: str | bytes) -> None:
    """Writes a file: at any moment it is the old one or the new one, never half of either. Raises OSError."""
    with name_file_in_errors(path):
        objects.replace_file(path, content)


def make_parent_directory(path: pathlib.Path) -> None:
    """Makes the directory that `path` will be written in. Called early, so that an error comes before hours of work.

    Raises OSError, naming the path, if it cannot be made or `path` is a directory.
    """
    with name_file_in_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))


def read_object(path: pathlib.Path) -> dict[str, Any]:
    """Reads the JSON object in a file. Raises ValueError, naming the file, if it holds something else, or OSError."""
    try:
        return parse_object(path.read_bytes(), infinite=True)  # times in a config may be infinite
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def read_lines(path: pathlib.Path) -> Iterator[tuple[int, bytes]]:
    """Yields the lines of a file with their numbers, from 1, but no blank ones.

    Only a newline ends a line, with or without a carriage return before it. U+2028, U+0085 and the like are text.
    Raises OSError.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            line = line.removeprefix(_BOM) if number == 1 else line
            if line.strip():
                yield number, line.rstrip(b"\r\n")


def parse_object(text: bytes, *, infinite: bool = False) -> dict[str, Any]:
    """Parses a JSON text that is one object: in UTF-8, with every key once. `infinite` allows Infinity and NaN.

    Raises ValueError, which says what came instead.
    """
    if kind := next((kind for beginning, kind in _KINDS.items() if text.startswith(beginning)), None):
        raise ValueError(f"expected a JSON object in UTF-8, got {kind}")
    try:
        options = {} if infinite else {"parse_constant": _refuse_constant}
        found = json.loads(text.decode("utf-8-sig"), object_pairs_hook=_refuse_double_keys, **options)
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, too deep, or too many digits
        raise ValueError(f"expected a JSON object, got {type(error).__name__}: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"expected a JSON object, got {found!r:.100}")
    return found


def _refuse_double_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) < len(pairs):
        raise ValueError(f"a key comes twice in {[key for key, _ in pairs]!r:.300}")
    return found


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not a number")


def expand_home(argument: str) -> str:
    """Replaces ~ by the home directory where a path begins in an argument: shells leave `--out=~/x` unchanged."""
    return re.sub(r"(?:^|(?<==))~[\w.-]*(?=/|$)", lambda found: os.path.expanduser(found[0]), argument)


def append_text(path: pathlib.Path, text: str) -> None:
    """Adds `text` at the end of a file; when this returns it is on the disk. Raises OSError."""
    with name_file_in_errors(path), path.open("a", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def name_file_in_errors(path: pathlib.Path) -> Iterator[None]:
    """Makes an OSError that is raised within say which file could not be written."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, f"cannot write {path}: {error.strerror or error}") from error
