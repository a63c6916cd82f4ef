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


class Spoken(NamedTuple):
    """A message in the form in which two are compared."""

    role: str
    content: str
    calls: tuple[tuple[str, str], ...] = ()  # of tools: name and arguments, as JSON with sorted keys


@dataclasses.dataclass
class KeptConversation:
    """A conversation up to an answer of ours."""

    dialogue: str  # of which it is a state: what the ledger and the client call it
    ids: np.ndarray  # [T] int32, its stream
    outputs: tuple[str, ...]  # what the agent wrote in it, whole, turn by turn
    count: int  # its messages, the answer among them
    others: str  # hash of the messages that are not the agent's
    session: EngineSession | None  # whose stream is all of it, or its beginning; None: it has gone on


@dataclasses.dataclass
class _Dialogue:
    """What is kept of a conversation."""

    name: str  # its x-session-id
    used: float
    keys: set[str] = dataclasses.field(default_factory=set)  # of its states
    newest: str = ""  # of the keys
    under_way: int = 0  # answers


class Seat(NamedTuple):
    """Where a request goes on."""

    session: EngineSession
    dialogue: str


class Conversations:
    """The conversations of one model. Not for several threads.

    `most` of them are kept, with at most `room` tokens in open streams, each for `age` seconds after it was last used;
    `ended` is told of a dialogue to which nobody can come back.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        most: int,
        room: int,
        age: float,
        ended: Callable[[str], None] = lambda dialogue: None,
        clock: Callable[[], float] = time.monotonic,
        name_dialogue: Callable[[], str] = lambda: secrets.token_hex(8),
    ):
        self._engine, self._most, self._room, self._age, self._ended = engine, most, room, age, ended
        self._clock, self._name_dialogue = clock, name_dialogue
        self._known: dict[str, KeptConversation] = {}  # by a hash of x-session-id, tools and messages
        self._dialogues: collections.OrderedDict[str, _Dialogue] = collections.OrderedDict()  # the longest unused first

    def __len__(self) -> int:
        return len(self._dialogues)

    @property
    def open_sessions(self) -> int:
        """Streams that are kept for those who may come back."""
        return sum(known.session is not None for known in self._known.values())

    def find(self, told: str, messages: Sequence[Spoken], name: str = "") -> KeptConversation | None:
        """Finds the longest beginning of a conversation that is known.

        Args:
          told: what else the stream depends on: tools.
          messages: the conversation.
          name: its x-session-id. Where no beginning is known as it is, the agent's own messages may be other ones than
            it wrote; "": they must not.
        """
        self.drop_old()
        keys = _chain_hashes(f"{name}/{told}", messages)
        for count in range(len(messages) - 1, 0, -1):
            if messages[count - 1].role == "assistant" and keys[count - 1] in self._known:
                return self._known[keys[count - 1]]
        dialogue = self._dialogues.get(self._name_session(name)) if name else None
        newest = dialogue and self._known.get(dialogue.newest)
        if newest and newest.count < len(messages) and newest.others == hash_others(told, messages[: newest.count]):
            return newest
        return None

    def go_on(self, known: KeptConversation | None, answers: int = 1, name: str = "") -> list[Seat]:
        """Returns a place for each answer to a request that goes on from `known`; None: from the beginning."""
        dialogue = known.dialogue if known else self._choose_dialogue(name)
        own = []
        if known and known.session:
            own, known.session = [known.session], None
        sessions = own + [self._engine.open() for _ in range(answers - len(own))]
        self._touch(dialogue, name).under_way += answers
        return [Seat(session, dialogue) for session in sessions]

    def release(self, place: Seat) -> None:
        """Closes the session of a request whose answer is not kept."""
        place.session.close()
        self._settle(place.dialogue)

    def keep(self, place: Seat, known: KeptConversation, told: str, messages: Sequence[Spoken]) -> None:
        """Keeps a conversation up to the answer that was just given, its last message.

        Args:
          place: where the request went on.
          known: what is kept.
          told: see `find`.
          messages: the conversation as the client will send it.
        """
        dialogue = self._touch(place.dialogue)
        key = _chain_hashes(f"{dialogue.name}/{told}", messages)[-1]
        if before := self._known.get(key):  # the same conversation, sampled once more
            self._forget(before)
            self._dialogues[before.dialogue].keys.discard(key)
        self._known[key] = known
        dialogue.keys.add(key)
        dialogue.newest = key
        if before:
            self._settle_if_empty(before.dialogue)
        self._settle(place.dialogue)

    def find_dialogue(self, name: str) -> str | None:
        """Returns the dialogue of an x-session-id; None if it has none."""
        session = self._name_session(name)
        return session if session in self._dialogues else None

    def drop_old(self) -> None:
        """Lets go of those that nobody came back to for long, and of the longest unused if there are too many."""
        latest, idle = self._clock() - self._age, [name for name, one in self._dialogues.items() if not one.under_way]
        held = sum(len(known.ids) for known in self._known.values() if known.session)
        for name in idle:  # those that come later were used later
            if len(self._dialogues) <= self._most and held <= self._room and self._dialogues[name].used >= latest:
                break
            held -= sum(len(known.ids) for known in self._drop(name) if known.session)

    def close(self) -> None:
        """Lets go of all."""
        for name in list(self._dialogues):
            self._drop(name)

    def _choose_dialogue(self, name: str) -> str:
        """Names a dialogue that begins: after its x-session-id, unless another one has that name."""
        session = self._name_session(name) if name else ""
        return session if session and session not in self._dialogues else self._name_dialogue()

    def _name_session(self, name: str) -> str:
        return f"s{_hash(name)[:15]}"

    def _touch(self, name: str, session: str = "") -> _Dialogue:
        dialogue = self._dialogues.setdefault(name, _Dialogue(session, 0.0))
        dialogue.used = self._clock()
        self._dialogues.move_to_end(name)
        return dialogue

    def _settle(self, name: str) -> None:
        """Notes that an answer is no longer under way."""
        self._dialogues[name].under_way -= 1
        self._settle_if_empty(name)
        self.drop_old()

    def _settle_if_empty(self, name: str) -> None:
        if (dialogue := self._dialogues.get(name)) and not (dialogue.keys or dialogue.under_way):
            self._drop(name)

    def _drop(self, name: str) -> list[KeptConversation]:
        """Lets go of a dialogue; returns its states."""
        states = [self._known.pop(key) for key in self._dialogues.pop(name).keys]
        for known in states:
            self._forget(known)
        self._ended(name)
        return states

    def _forget(self, known: KeptConversation) -> None:
        if known.session:
            known.session.close()


def hash_others(told: str, messages: Sequence[Spoken]) -> str:
    """Hashes what everybody but the agent said, and where the agent spoke."""
    return _hash(told, *(message if message.role != "assistant" else "assistant" for message in messages))


def sort_arguments(text: str) -> str:
    """Writes a call's arguments in one form, whatever a client's JSON looks like; what is no JSON stays as it is."""
    try:
        return json.dumps(json.loads(text), sort_keys=True, ensure_ascii=False)
    except (ValueError, RecursionError):
        return text


def describe_tools(tools: Sequence[Mapping] | None) -> str:
    """Writes tools as one text, to compare them."""
    return json.dumps(tools) if tools else ""  # in their order, as the prompt has them


def _chain_hashes(told: str, messages: Sequence[Spoken]) -> list[str]:
    """Returns a hash of each beginning of a conversation, in one walk."""
    hashes, before = [], told
    for message in messages:
        before = _hash(before, message)
        hashes.append(before)
    return hashes


def _hash(*parts: str | Spoken) -> str:
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()
