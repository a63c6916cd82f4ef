"""What was paid for and is not yet part of anything else, on disk at once: whoever goes on does not ask again.

A page holds the dialogues of one piece of work as they end, and every answer of an endpoint as it comes, so that a
dialogue which was given up costs nothing either. There is a file for each process that wrote some. Dialogues count only
for who has the same head: the very weights that sampled, say, and the settings. A file is a sequence of frames (length,
CRC-32, MessagePack); what follows a damaged one is ignored.
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
from rollouts.endpoints import recording
from rollouts.types import Dialogue, Message, Task, Turn

_FRAME = struct.Struct(">II")


class Journal:
    """The pages of a run's steps, in DIR/dialogues; that of step 0 has the demonstrations."""

    def __init__(self, workdir: pathlib.Path):
        self._directory = workdir / "dialogues"

    def page(self, step: int, head: Mapping[str, Any]) -> "Page":
        """The page of step number `step`; see `Page`."""
        return Page(self._directory / f"step_{step:06d}", head)

    def forget(self, step: int) -> None:
        """Removes the pages up to `step`, whose outcome a checkpoint holds."""
        for path in self._directory.glob("step_*.frames"):
            if int(path.name.split("_")[1]) <= step:
                path.unlink(missing_ok=True)


class Page:
    """The dialogues and answers of one piece of work, in files that begin with `path`; use as a context manager.

    `head`, which MessagePack and its lists can hold, says what the dialogues depend on: those of another do not count.
    An answer counts for whoever asks the same of the same server.

    Attributes:
      numbers: of the dialogues that are kept.
      failures: number of a dialogue -> causes of its failures.
    """

    def __init__(self, path: pathlib.Path, head: Mapping[str, Any]):
        self._stem, self._head = path, dict(head)

    def __enter__(self) -> "Page":
        self._path = own = self._stem.with_name(f"{self._stem.name}_{jax.process_index()}.frames")
        self._found: list[dict[str, Any]] = []
        self._answers: dict[str, dict[str, str]] = {}
        self.failures: dict[int, list[str]] = {}
        kept = [self._head]  # of our own file
        for path in self._files():
            head, *frames = _read(path) or [{}]
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
        with files.naming(own):
            own.parent.mkdir(exist_ok=True)
            partial = own.with_suffix(".partial")
            partial.write_bytes(b"".join(map(_packed, kept)))
            partial.replace(own)
            self._file = own.open("ab")
        return self

    def __exit__(self, *_):
        with files.naming(self._path):  # a full disk is found out here, too
            self._file.close()

    def dialogues(self, tasks: Sequence[Task], repeats: int) -> dict[int, Dialogue]:
        """The dialogues that are there already, by their number; number i is of task ``i // repeats``."""
        dialogues = {}
        for frame in self._found:
            number, fields = frame["number"], dict(frame["dialogue"])
            task = tasks[number // repeats] if number < repeats * len(tasks) else None
            if task and frame.get("task") == task.digest:  # an older journal has none
                fields |= {"turns": tuple(map(_turn, fields["turns"])), "replaced": tuple(fields["replaced"])}
                dialogues[number] = Dialogue(task, **fields)
        return dialogues

    def add(self, number: int, dialogue: Dialogue) -> None:
        """Keeps a dialogue, or how it failed: that one is worth another try. Raises OSError, naming the file."""
        for failure in (*dialogue.replaced, *([] if dialogue.ok else [dialogue.failure])):
            self._write({"number": number, "failure": failure})
        if dialogue.ok:
            fields = {field.name: getattr(dialogue, field.name) for field in dataclasses.fields(dialogue)}
            task, turns = fields.pop("task"), fields.pop("turns")
            fields |= {"turns": list(map(_fields, turns)), "replaced": list(dialogue.replaced)}
            self.numbers.add(number)
            self._write({"number": number, "task": task.digest, "dialogue": fields})

    def kept(self, request: Mapping[str, Any]) -> Mapping[str, str]:
        """See `recording.Memory`."""
        return self._answers.get(recording.hash_request(request), {})

    def record(self, request: Mapping[str, Any], answer: str, **beside: str) -> str:
        """See `recording.Memory`. Raises OSError, naming the file."""
        digest = recording.hash_request(request)
        self._answers[digest] = {"answer": answer, **beside}
        self._write({"request": digest, **self._answers[digest]})
        return answer

    def remove(self) -> None:
        """Deletes what all processes wrote: it has become part of something else."""
        for path in self._files():
            path.unlink(missing_ok=True)

    def _files(self) -> list[pathlib.Path]:
        return sorted(self._stem.parent.glob(f"{glob.escape(self._stem.name)}_*.frames"))

    def _write(self, frame: dict[str, Any]) -> None:
        with files.naming(self._path):
            self._file.write(_packed(frame))
            self._file.flush()


def _packed(frame: Mapping[str, Any]) -> bytes:
    data = serialization.msgpack_serialize(frame)
    return _FRAME.pack(len(data), zlib.crc32(data)) + data


def _read(path: pathlib.Path) -> list[dict[str, Any]]:
    """The sound frames at the beginning of a file."""
    data, frames, start = path.read_bytes(), [], 0
    while len(data) >= start + _FRAME.size:
        size, checksum = _FRAME.unpack_from(data, start)
        end = start + _FRAME.size + size
        if len(content := data[start + _FRAME.size : end]) < size or zlib.crc32(content) != checksum:
            break
        frames.append(serialization.msgpack_restore(content))
        start = end
    return frames


def _fields(turn: Turn) -> dict[str, Any]:
    """A turn as MessagePack has it; notes as JSON, in whose maps names stay in order."""
    messages = [[message.role, message.content] for message in turn.messages]
    return {**vars(turn), "messages": messages, "notes": json.dumps(dict(turn.notes))}


def _turn(fields: Mapping[str, Any]) -> Turn:
    """What `_fields` was given."""
    messages = tuple(Message(*message) for message in fields["messages"])
    return Turn(**{**fields, "messages": messages, "notes": json.loads(fields["notes"])})
