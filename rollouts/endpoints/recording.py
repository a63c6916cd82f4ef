"""Exchanges with endpoints on disk: recorded once, and answered from there for ever.

An exchange is a file named by a hash of its request: the endpoint's name and the request's body (model, messages,
temperature, seed, …), but neither URL nor key. Files are written under another name and then linked into place, so that
nobody sees a half-written one. They are never changed: of two processes that record the same request, on this machine
or another, the first wins.
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
    """Keeps answers, so that the same request is not sent again."""

    def kept(self, request: Mapping[str, Any]) -> Mapping[str, str]:
        """Returns what is kept of the answer to a request: `answer`, and what came beside it; {} if nothing is kept."""

    def record(self, request: Mapping[str, Any], answer: str, **beside: str) -> str:
        """Keeps an answer; returns the one that counts."""


def hash_request(request: Mapping[str, Any]) -> str:
    """Returns what identifies a request: a hash of the endpoint's name and the body."""
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()


class ReplayMiss(LookupError):
    """A replay asked something that was not recorded."""


class Recording:
    """The exchanges below `directory`. Seeds make requests distinct, so that a request has one answer in a run."""

    def __init__(self, directory: str | os.PathLike):
        self._directory = pathlib.Path(directory)

    def kept(self, request: Mapping[str, Any]) -> dict[str, str]:
        """See Memory."""
        entry = self._read_exchange(request, ".json")
        return {name: value for name, value in entry.items() if name != "request"}

    def replay_answer(self, request: Mapping[str, Any]) -> dict[str, str]:
        """Returns the recorded answer to a request, as `kept` does.

        Raises:
          DialogueError: the one that was recorded, if no answer ever was.
          ReplayMiss: if there is no trace of the request; the message names it.
        """
        kept = self.kept(request)
        if not kept:
            failure = self._read_exchange(request, ".failed.json")
            if not failure:
                last = request["messages"][-1] if request["messages"] else {}
                raise ReplayMiss(
                    f"config.endpoints.replay: {self._directory} holds no answer of {request['endpoint']} "
                    f"(model {request['model']}, seed {request['seed']}) to {len(request['messages'])} messages, "
                    f"the last {json.dumps(last, ensure_ascii=False)[:200]}; "
                    f"looked for {self._path_of(request, '.json')}"
                )
            raise DialogueError(failure["cause"], failure["message"])
        return kept

    def record(self, request: Mapping[str, Any], answer: str, **beside: str) -> str:
        """Keeps an answer; returns the one that counts, which is another process's if that came first."""
        self._write_exchange(request, ".json", {"answer": answer, **beside})
        return self._read_exchange(request, ".json")["answer"]

    def record_failure(self, request: Mapping[str, Any], error: DialogueError) -> None:
        """Records that a request failed; an answer to it, earlier or later, counts instead."""
        self._write_exchange(request, ".failed.json", {"cause": error.cause, "message": str(error)})

    def _path_of(self, request: Mapping[str, Any], suffix: str) -> pathlib.Path:
        name = hash_request(request)
        return self._directory / name[:2] / (name + suffix)

    def _read_exchange(self, request: Mapping[str, Any], suffix: str) -> dict[str, Any]:
        path = self._path_of(request, suffix)
        try:
            entry = json.loads(path.read_text(encoding="utf-8"))
            if entry["request"] != request:
                raise ValueError
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{path}: expected the exchange of that name, found a damaged file; remove it") from None
        return entry

    def _write_exchange(self, request: Mapping[str, Any], suffix: str, outcome: Mapping[str, str]) -> None:
        path = self._path_of(request, suffix)
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
