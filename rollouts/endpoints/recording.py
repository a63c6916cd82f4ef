"""Exchanges with endpoints on disk: recorded once, answered from there for ever.

An exchange is a file named by a hash of its request: the endpoint's name and the request's body (model, messages,
temperature, seed, …), but neither URL nor key. Files are written elsewhere and linked into place, so that none is ever
seen half-written, and never changed: of two who record the same request, on this machine or another, the first wins.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import uuid
from collections.abc import Mapping
from typing import Any, Protocol

from rollouts.types import DialogueError


class Memory(Protocol):
    """Answers that are not asked for again."""

    def kept(self, request: Mapping[str, Any]) -> Mapping[str, str]:
        """What is kept of the answer to a request: `answer`, and what was said beside it; {} if there is none."""

    def record(self, request: Mapping[str, Any], answer: str, **beside: str) -> str:
        """Keeps an answer; returns the one that stands."""


def digest(request: Mapping[str, Any]) -> str:
    """What a request is known by: a hash of the endpoint's name and the body."""
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()


class ReplayMiss(LookupError):
    """A run that is replayed asked something that was not recorded."""


class Recording:
    """The exchanges below `directory`. Seeds make requests distinct, so that a request has one answer in a run."""

    def __init__(self, directory: str | os.PathLike):
        self._directory = pathlib.Path(directory)

    def kept(self, request: Mapping[str, Any]) -> dict[str, str]:
        """See Memory."""
        entry = self._read(request, ".json")
        return {name: value for name, value in entry.items() if name != "request"}

    def replay(self, request: Mapping[str, Any]) -> dict[str, str]:
        """What became of a request when it was recorded, as `kept` has it.

        Raises:
          DialogueError: as it was raised then, where no answer was ever recorded.
          ReplayMiss: if there is no trace of the request; the message names it.
        """
        kept = self.kept(request)
        if not kept:
            failure = self._read(request, ".failed.json")
            if not failure:
                last = request["messages"][-1] if request["messages"] else {}
                raise ReplayMiss(
                    f"config.endpoints.replay: {self._directory} holds no answer of {request['endpoint']} "
                    f"(model {request['model']}, seed {request['seed']}) to {len(request['messages'])} messages, "
                    f"the last {json.dumps(last, ensure_ascii=False)[:200]}; looked for {self._path(request, '.json')}"
                )
            raise DialogueError(failure["cause"], failure["message"])
        return kept

    def record(self, request: Mapping[str, Any], answer: str, **beside: str) -> str:
        """Keeps an answer; returns the one that stands, which is another's where that came first."""
        self._write(request, ".json", {"answer": answer, **beside})
        return self._read(request, ".json")["answer"]

    def record_failure(self, request: Mapping[str, Any], error: DialogueError) -> None:
        """Keeps that a request failed; an answer to it, earlier or later, counts instead."""
        self._write(request, ".failed.json", {"cause": error.cause, "message": str(error)})

    def _path(self, request: Mapping[str, Any], suffix: str) -> pathlib.Path:
        name = digest(request)
        return self._directory / name[:2] / (name + suffix)

    def _read(self, request: Mapping[str, Any], suffix: str) -> dict[str, Any]:
        path = self._path(request, suffix)
        try:
            entry = json.loads(path.read_text(encoding="utf-8"))
            if entry["request"] != request:
                raise ValueError
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{path}: expected the exchange of that name, found a damaged file; remove it") from None
        return entry

    def _write(self, request: Mapping[str, Any], suffix: str, outcome: Mapping[str, str]) -> None:
        path = self._path(request, suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
        with partial.open("w", encoding="utf-8") as file:
            json.dump({"request": request, **outcome}, file, ensure_ascii=False)
            file.flush()
            os.fsync(file.fileno())
        try:
            with contextlib.suppress(FileExistsError):
                os.link(partial, path)
        finally:
            partial.unlink()
