"""Dialogues since the last checkpoint, on disk as they end: a run that goes on does not play them again.

A page holds the dialogues of one step, a file for each process that wrote some. It counts only for the very weights
that sampled them. A file is a sequence of frames (length, CRC-32, MessagePack); what follows a damaged one is ignored.
"""

import dataclasses
import pathlib
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from flax import serialization

from cmpo import files
from rollouts.types import Dialogue, Scenario, Turn

_FRAME = struct.Struct(">II")


class Journal:
    """The pages in DIR/dialogues."""

    def __init__(self, workdir: pathlib.Path):
        self._directory = workdir / "dialogues"

    def page(self, step: int, weights: jax.Array) -> "Page":
        """The page of step number `step`, for the weights with these checksums ([arrays] uint32)."""
        return Page(self._directory, step, weights)

    def forget(self, step: int) -> None:
        """Removes the pages up to `step`, whose outcome a checkpoint holds."""
        for path in self._directory.glob("step_*.frames"):
            if int(path.name.split("_")[1]) <= step:
                path.unlink(missing_ok=True)


class Page:
    """The dialogues of one step; use as a context manager."""

    def __init__(self, directory: pathlib.Path, step: int, weights: jax.Array):
        self._directory, self._step, self._head = directory, step, {"weights": np.asarray(weights).tolist()}

    def __enter__(self) -> "Page":
        self._found: list[dict[str, Any]] = []
        own = self._directory / f"step_{self._step:06d}_{jax.process_index()}.frames"
        sound = 0  # bytes of our own file that are kept
        for path in sorted(self._directory.glob(f"step_{self._step:06d}_*.frames")):
            frames, size = _read(path)
            if frames[:1] == [self._head]:
                self._found += frames[1:]
                sound = size if path == own else sound
        self._path = own
        with files.naming(own):
            self._directory.mkdir(exist_ok=True)
            self._file = own.open("r+b" if own.exists() else "w+b")
            self._file.truncate(sound)
            self._file.seek(sound)
        if not sound:
            self._write(self._head)
        return self

    def __exit__(self, *_):
        with files.naming(self._path):  # a full disk is found out here, too
            self._file.close()

    def kept(self, scenarios: Sequence[Scenario], repeats: int) -> dict[int, Dialogue]:
        """The dialogues that are there already, by their number; number i is of scenario ``i // repeats``."""
        kept = {}
        for frame in self._found:
            number, fields = frame["number"], dict(frame["dialogue"])
            scenario = scenarios[number // repeats]
            if frame["scenario"] == scenario.id:
                turns = tuple(Turn(**turn) for turn in fields.pop("turns"))
                kept[number] = Dialogue(scenario, turns=turns, **fields | {"replaced": tuple(fields["replaced"])})
        return kept

    def add(self, number: int, dialogue: Dialogue) -> None:
        """Keeps a dialogue, unless it failed: that one is worth another try. Raises OSError, naming the file."""
        if dialogue.ok:
            fields = dataclasses.asdict(dataclasses.replace(dialogue, scenario=None))
            del fields["scenario"]
            self._write({"number": number, "scenario": dialogue.scenario.id, "dialogue": _lists(fields)})

    def _write(self, frame: dict[str, Any]) -> None:
        data = serialization.msgpack_serialize(frame)
        with files.naming(self._path):
            self._file.write(_FRAME.pack(len(data), zlib.crc32(data)) + data)
            self._file.flush()


def _read(path: pathlib.Path) -> tuple[list[dict[str, Any]], int]:
    """The sound frames at the beginning of a file, and how many bytes they take."""
    data, frames, start = path.read_bytes(), [], 0
    while len(data) >= start + _FRAME.size:
        size, checksum = _FRAME.unpack_from(data, start)
        end = start + _FRAME.size + size
        if len(content := data[start + _FRAME.size : end]) < size or zlib.crc32(content) != checksum:
            break
        frames.append(serialization.msgpack_restore(content))
        start = end
    return frames, start


def _lists(tree: Any) -> Any:
    """Tuples as lists, which is what MessagePack has."""
    if isinstance(tree, dict):
        return {name: _lists(value) for name, value in tree.items()}
    return [_lists(value) for value in tree] if isinstance(tree, list | tuple) else tree
