"""Writing what must not be found half-written: whole files by replacement, lines by appending. And reading it again.

Errors name the file: the system's own, of a write to an open file, do not.
"""

import contextlib
import errno
import json
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any

_KINDS = {  # how files begin that are taken for text
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "Zstandard",
    b"PK\x03\x04": "a zip archive",
    b"PAR1": "Parquet",
}
_BOM = b"\xef\xbb\xbf"


def replace(path: pathlib.Path, text: str) -> None:
    """Writes a file: at any moment it is the old one or the new one, never half of either. Raises OSError."""
    partial = path.with_name(path.name + ".partial")
    with naming(path):
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)


def make_room(path: pathlib.Path) -> None:
    """Makes the directory that `path` will be written in; found out now, not when there is much to lose.

    Raises OSError, naming the path, if it cannot be made or `path` is a directory.
    """
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))


def read_object(path: pathlib.Path) -> dict[str, Any]:
    """The JSON object in a file. Raises ValueError, naming the file, if it holds something else, or OSError."""
    try:
        return parse_object(path.read_bytes(), infinite=True)  # a config's times may be
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def read_lines(path: pathlib.Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file and their numbers, from 1, without those that are blank.

    A newline ends a line, with or without a carriage return before it, and nothing else does: U+2028, U+0085 and their
    like are text. Raises OSError.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            line = line.removeprefix(_BOM) if number == 1 else line
            if line.strip():
                yield number, line.rstrip(b"\r\n")


def parse_object(text: bytes, *, infinite: bool = False) -> dict[str, Any]:
    """The object that a JSON text is: UTF-8, every key once, and numbers; Python's Infinity and NaN where `infinite`.

    Raises ValueError, saying what came instead.
    """
    if kind := next((kind for beginning, kind in _KINDS.items() if text.startswith(beginning)), None):
        raise ValueError(f"expected a JSON object in UTF-8, got {kind}")
    try:
        options = {} if infinite else {"parse_constant": _refuse}
        found = json.loads(text.decode("utf-8-sig"), object_pairs_hook=_once_each, **options)
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, too deep, or too many digits
        raise ValueError(f"expected a JSON object, got {type(error).__name__}: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"expected a JSON object, got {found!r:.100}")
    return found


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) < len(pairs):
        raise ValueError(f"a key comes twice in {[key for key, _ in pairs]!r:.300}")
    return found


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


def at_home(argument: str) -> str:
    """A command's argument with the home directory for ~ where a path begins: shells leave `--out=~/x` as it is."""
    return re.sub(r"(?:^|(?<==))~[\w.-]*(?=/|$)", lambda found: os.path.expanduser(found[0]), argument)


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
