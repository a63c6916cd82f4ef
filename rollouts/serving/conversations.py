"""Finds the stream of a conversation that comes back longer, so that no token goes through the model twice.

The server keeps, for each answer, the conversation up to it as the client will send it, and the tokens as they were
read and sampled. A request that goes on from there appends to that stream; one that goes on from an earlier answer gets
a new stream that begins with the same tokens. Text that the model wrote is never encoded.
"""

import collections
import dataclasses
import hashlib
import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from rollouts.engine.engine import Engine, EngineSession


class Said(NamedTuple):
    """A message in the form in which two are compared."""

    role: str
    content: str
    calls: tuple[tuple[str, str], ...] = ()  # of tools: name and arguments, as JSON with sorted keys


@dataclasses.dataclass
class Known:
    """A conversation up to an answer of ours."""

    dialogue: str  # of which it is a state: what the ledger and the client call it
    ids: np.ndarray  # [T] int32, its stream
    outputs: tuple[str, ...]  # what the agent wrote in it, whole, turn by turn
    count: int  # its messages, the answer among them
    others: str  # hash of the messages that are not the agent's
    session: EngineSession | None  # whose stream is all of it, or its beginning; None: it has gone on
    name: str  # x-session-id
    used: float


class Place(NamedTuple):
    """Where a request goes on."""

    session: EngineSession
    dialogue: str
    begun: np.ndarray  # [T] int32: what the stream begins with; the session may lack its end, or have nothing yet
    outputs: tuple[str, ...]  # that the agent wrote in it
    count: int  # messages that this is: the first ones of the request


class Conversations:
    """The conversations of one model. Not for several threads.

    `most` of them are kept, each for `age` seconds after it was last used; `ended` is told of a dialogue to which
    nobody can come back.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        most: int,
        age: float,
        ended: Callable[[str], None] = lambda dialogue: None,
        clock: Callable[[], float] = time.monotonic,
        name_dialogue: Callable[[], str] = lambda: secrets.token_hex(8),
    ):
        self._engine, self._most, self._age, self._ended = engine, most, age, ended
        self._clock, self._name_dialogue = clock, name_dialogue
        self._known: collections.OrderedDict[str, Known] = collections.OrderedDict()  # the longest unused first
        self._named: dict[str, str] = {}  # x-session-id -> its newest entry in `_known`
        self._living: collections.Counter[str] = collections.Counter()  # dialogue -> entries, and requests under way

    def __len__(self) -> int:
        return len(self._known)

    @property
    def open_sessions(self) -> int:
        """Streams that are kept for those who may come back."""
        return sum(known.session is not None for known in self._known.values())

    def find(self, told: str, messages: Sequence[Said], name: str = "") -> Known | None:
        """Finds the longest beginning of a conversation that is known.

        Args:
          told: what else the stream depends on: tools.
          messages: the conversation.
          name: its x-session-id. The agent's own messages may then be other ones than it wrote; "": they must not.
        """
        self.drop_old()
        keys = _chain_hashes(told, messages)
        named = self._known.get(self._named.get(name, ""))
        if named and named.count < len(messages) and named.others == hash_others(told, messages[: named.count]):
            return self._touch(self._named[name])
        for count in range(len(messages) - 1, 0, -1):
            if messages[count - 1].role == "assistant" and keys[count - 1] in self._known:
                return self._touch(keys[count - 1])
        return None

    def _touch(self, key: str) -> Known:
        known = self._known[key]
        known.used = self._clock()
        self._known.move_to_end(key)
        return known

    def go_on(self, known: Known | None, answers: int = 1) -> list[Place]:
        """Returns a place for each answer to a request that goes on from `known`; None: from the beginning."""
        dialogue = known.dialogue if known else self._name_dialogue()
        sessions = [self._engine.open() for _ in range(answers)]
        if known and known.session:
            sessions[0].close()
            sessions[0], known.session = known.session, None
        begun = (known.ids, known.outputs, known.count) if known else (np.zeros(0, np.int32), (), 0)
        self._living[dialogue] += answers
        return [Place(session, dialogue, *begun) for session in sessions]

    def release(self, place: Place) -> None:
        """Closes the session of a request whose answer is not kept."""
        place.session.close()
        self._leave(place.dialogue)

    def keep(
        self, place: Place, ids: np.ndarray, output: str, told: str, messages: Sequence[Said], name: str = ""
    ) -> None:
        """Keeps a conversation up to the answer that was just given, its last message.

        Args:
          place: where the request went on.
          ids: [T] int32, the stream.
          output: what the agent wrote, whole.
          told: see `find`.
          messages: the conversation as the client will send it.
          name: its x-session-id.
        """
        key = _chain_hashes(told, messages)[-1]
        self._forget(key)  # the same conversation, sampled once more
        self._known[key] = Known(
            place.dialogue,
            ids,
            (*place.outputs, output),
            len(messages),
            hash_others(told, messages),
            place.session,
            name,
            self._clock(),
        )
        if name:
            self._named[name] = key
        self.drop_old()

    def dialogue_of(self, name: str) -> str | None:
        """Returns the dialogue of an x-session-id."""
        known = self._known.get(self._named.get(name, ""))
        return known and known.dialogue

    def drop_old(self) -> None:
        """Lets go of those that nobody came back to for long, and of the oldest if there are too many."""
        latest = self._clock() - self._age
        while self._known and (len(self._known) > self._most or next(iter(self._known.values())).used < latest):
            self._forget(next(iter(self._known)))

    def close(self) -> None:
        """Lets go of all."""
        for key in list(self._known):
            self._forget(key)

    def _forget(self, key: str) -> None:
        if (known := self._known.pop(key, None)) is None:
            return
        if known.session:
            known.session.close()
        if self._named.get(known.name) == key:
            del self._named[known.name]
        self._leave(known.dialogue)

    def _leave(self, dialogue: str) -> None:
        self._living[dialogue] -= 1
        if not self._living[dialogue]:
            del self._living[dialogue]
            self._ended(dialogue)


def hash_others(told: str, messages: Sequence[Said]) -> str:
    """Hashes what everybody but the agent said."""
    return _hash(told, *(message for message in messages if message.role != "assistant"))


def sort_arguments(text: str) -> str:
    """Writes a call's arguments in one form, whatever a client's JSON looks like; what is no JSON stays as it is."""
    try:
        return json.dumps(json.loads(text), sort_keys=True, ensure_ascii=False)
    except (ValueError, RecursionError):
        return text


def describe_tools(tools: Sequence[Mapping] | None) -> str:
    """Writes tools as one text, to compare them."""
    return json.dumps(tools, sort_keys=True) if tools else ""


def _chain_hashes(told: str, messages: Sequence[Said]) -> list[str]:
    """Returns a hash of each beginning of a conversation, in one walk."""
    hashes, before = [], told
    for message in messages:
        before = _hash(before, message)
        hashes.append(before)
    return hashes


def _hash(*parts: str | Said) -> str:
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()
