"""Writes to disk at once what was paid for, so that whoever goes on with the work does not ask endpoints again.

A page holds the dialogues of one piece of work (such as a step) as they end, and every answer of an endpoint as it
comes. So a dialogue that was given up is not paid for twice either. Each process writes its own file. Dialogues are
used again only under the same head, which names, for example, the weights that sampled them and the settings. A file is
a sequence of frames (length, CRC-32, MessagePack); what follows a damaged frame is ignored.
"""

import dataclasses
import glob
import json
import pathlib
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from flax import serialization

from cmpo.run import files
from models.objects import replace_file
from rollouts.endpoints import recording
from rollouts.types import Dialogue, Message, Task, Turn

_FRAME = struct.Struct(">II")


class Journal:
    """The pages of a run's steps, in DIR/dialogues. The page of step 0 holds the demonstrations."""

    def __init__(self, workdir: pathlib.Path):
        self._directory = workdir / "dialogues"

    def open_page(self, step: int, head: Mapping[str, Any]) -> "Page":
        """Returns the page of step number `step`; see `Page`."""
        return Page(self._directory / f"step_{step:06d}", head)

    def remove_pages(self, step: int) -> None:
        """Removes the pages up to `step`, as a checkpoint holds what came of them."""
        for path in self._directory.glob("step_*.frames"):
            if int(path.name.split("_")[1]) <= step:
                path.unlink(missing_ok=True)


class Page:
    """The dialogues and answers of one piece of work, in files whose names begin with `path`. A context manager.

    `head` says what the dialogues depend on, in values that MessagePack can hold. Dialogues with another head are
    ignored. An answer is used for every request that is the same, to the same server.

    Attributes:
      numbers: the numbers of the dialogues that are kept.
      failures: number of a dialogue -> causes of its failures.
    """

    def __init__(self, path: pathlib.Path, head: Mapping[str, Any]):
        self._stem, self._head = path, dict(head)

    def __enter__(self) -> "Page":
        self._path = own = self._stem.with_name(f"{self._stem.name}_{jax.process_index()}.frames")
        self._found: list[dict[str, Any]] = []
        self._answers: dict[str, dict[str, str]] = {}
        self.failures: dict[int, list[str]] = {}
        kept = [self._head]  # the frames of this process's own file
        for path in self._list_files():
            head, *frames = _read_frames(path) or [{}]
            frames = [frame for frame in frames if "request" in frame or head == self._head]
            for frame in frames:
                if "request" in frame:
                    self._answers[frame["request"]] = {name: frame[name] for name in frame if name != "request"}
                elif "failure" in frame:
                    self.failures.setdefault(frame["number"], []).append(frame["failure"])
                else:
                    self._found.append(frame)
            kept += frames if path == own else []
        self.numbers = {frame["number"] for frame in self._found}
        with files.name_file_in_errors(own):
            own.parent.mkdir(exist_ok=True)
            replace_file(own, b"".join(map(_pack_frame, kept)))
            self._file = own.open("ab")
        return self

    def __exit__(self, *_):
        with files.name_file_in_errors(self._path):  # a full disk may be noticed only here
            self._file.close()

    def read_dialogues(self, tasks: Sequence[Task], repeats: int) -> dict[int, Dialogue]:
        """Returns the dialogues that were kept before, by number; number i is of task ``i // repeats``."""
        dialogues = {}
        for frame in self._found:
            number, fields = frame["number"], dict(frame["dialogue"])
            task = tasks[number // repeats] if number < repeats * len(tasks) else None
            if task and frame.get("task") == task.digest:  # older journals have no digest
                fields |= {"turns": tuple(map(_decode_turn, fields["turns"])), "replaced": tuple(fields["replaced"])}
                dialogues[number] = Dialogue(task, **fields)
        return dialogues

    def add(self, number: int, dialogue: Dialogue) -> None:
        """Keeps a dialogue; of one that failed only the cause, so that it is tried again. Raises OSError."""
        for failure in (*dialogue.replaced, *([] if dialogue.ok else [dialogue.failure])):
            self._write_frame({"number": number, "failure": failure})
        if dialogue.ok:
            fields = {field.name: getattr(dialogue, field.name) for field in dataclasses.fields(dialogue)}
            task, turns = fields.pop("task"), fields.pop("turns")
            fields |= {"turns": list(map(_encode_turn, turns)), "replaced": list(dialogue.replaced)}
            self.numbers.add(number)
            self._write_frame({"number": number, "task": task.digest, "dialogue": fields})

    def kept(self, request: Mapping[str, Any]) -> Mapping[str, str]:
        """See `recording.Memory`."""
        return self._answers.get(recording.hash_request(request), {})

    def record(self, request: Mapping[str, Any], answer: str, **beside: str) -> str:
        """See `recording.Memory`. Raises OSError, naming the file."""
        digest = recording.hash_request(request)
        self._answers[digest] = {"answer": answer, **beside}
        self._write_frame({"request": digest, **self._answers[digest]})
        return answer

    def remove(self) -> None:
        """Deletes what all processes wrote, once it is part of something else."""
        for path in self._list_files():
            path.unlink(missing_ok=True)

    def _list_files(self) -> list[pathlib.Path]:
        return sorted(self._stem.parent.glob(f"{glob.escape(self._stem.name)}_*.frames"))

    def _write_frame(self, frame: dict[str, Any]) -> None:
        with files.name_file_in_errors(self._path):
            self._file.write(_pack_frame(frame))
            self._file.flush()


def _pack_frame(frame: Mapping[str, Any]) -> bytes:
    data = serialization.msgpack_serialize(frame)
    return _FRAME.pack(len(data), zlib.crc32(data)) + data


def _read_frames(path: pathlib.Path) -> list[dict[str, Any]]:
    """Reads the frames of a file up to the first damaged one."""
    data, frames, start = path.read_bytes(), [], 0
    while len(data) >= start + _FRAME.size:
        size, checksum = _FRAME.unpack_from(data, start)
        end = start + _FRAME.size + size
        if len(content := data[start + _FRAME.size : end]) < size or zlib.crc32(content) != checksum:
            break
        frames.append(serialization.msgpack_restore(content))
        start = end
    return frames


def _encode_turn(turn: Turn) -> dict[str, Any]:
    """Turns a turn into what MessagePack can hold. Notes become JSON, which keeps the order of names."""
    messages = [[message.role, message.content] for message in turn.messages]
    return {**vars(turn), "messages": messages, "notes": json.dumps(dict(turn.notes))}


def _decode_turn(fields: Mapping[str, Any]) -> Turn:
    """Gives back the turn that `_encode_turn` was given."""
    messages = tuple(Message(*message) for message in fields["messages"])
    return Turn(**{**fields, "messages": messages, "notes": json.loads(fields["notes"])})
