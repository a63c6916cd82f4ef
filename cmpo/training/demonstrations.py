"""The data of phase 1: dialogues as `messages` JSONL. A scripted agent played them, or the user supplies them."""

import json
import math
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from cmpo.run import files
from cmpo.training.packing import Stream
from models.tokenizer import Tokenizer
from rollouts import chat
from rollouts.domain import TurnFormat
from rollouts.types import Dialogue, GivenMessage, Message

Conversation = list[Message]

_ROLES = re.compile("s(?!.*uu)[gut]*a(?:[gut]+a)*")
"""The order of roles, see `_abbreviate_role`."""
_EMPTY_VALUES = (None, "", [], {})
_KEYS_OF_A_LINE = ("tools", "functions", "system", "images", "audios", "videos", "weight")
"""Keys of a line that change what its messages say, or how much they count."""
_HARMLESS_KEYS = {"name", "id", "created_at", "timestamp", "metadata", "cache_control", "annotations"}
"""Other keys of a message, or of a part of one, that change nothing of its text."""


def from_dialogue(dialogue: Dialogue) -> Conversation:
    """Returns the agent's view of a dialogue: system, user, assistant, user, …"""
    conversation = [*dialogue.task.opening]
    for turn in dialogue.turns:
        given = (
            GivenMessage("assistant", message.content) if message.role == "assistant" else message
            for message in turn.messages
        )
        conversation += [*given, Message("assistant", turn.text)]
    return conversation


def write_conversations(path: pathlib.Path, conversations: Iterable[Conversation]) -> None:
    """Writes one ``{"messages": [{"role": …, "content": …}, …]}`` per line; the file appears whole or not at all."""
    lines = ({"messages": [vars(message) for message in conversation]} for conversation in conversations)
    files.replace_file(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def read_conversations(turn_format: TurnFormat, path: str | pathlib.Path) -> list[Conversation]:
    """Reads a file of `write_conversations`, or another one in the same format, which is the authors' (docs/data.md).

    A conversation is a system message, then user and assistant in turn. What tools answer stands in place of a user's
    words, and an assistant's message with the weight 0 is one that the agent did not write; every other one is in the
    turn format.

    Raises FileNotFoundError, or ValueError with the number of a line that is no such conversation.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"config.sft.path: expected a JSONL file, found none at {str(path)!r}")
    conversations = []
    for number, line in files.read_lines(path):
        try:
            conversations.append(_parse_conversation(turn_format, files.parse_object(line)))
        except ValueError as error:
            reason = f"{error!s:.500}"
            raise ValueError(f"config.sft.path: line {number} of {str(path)!r} is no conversation: {reason}") from None
    if not conversations:
        raise ValueError(f"config.sft.path: {str(path)!r} holds no conversation")
    return conversations


def _parse_conversation(turn_format: TurnFormat, line: Mapping[str, Any]) -> Conversation:
    _refuse_extras({name: line[name] for name in _KEYS_OF_A_LINE if name in line}, "")
    found = line.get("messages")
    if not isinstance(found, list):
        raise ValueError(f"messages: expected a list of messages, got {_describe_value(line, 'messages')}")
    conversation = [_parse_message(message, f"messages.{number}") for number, message in enumerate(found)]
    if not _ROLES.fullmatch("".join(map(_abbreviate_role, conversation))):
        roles = [message.role for message in conversation]
        raise ValueError(f"expected the roles system, user, assistant, user, …, got {roles!r:.300}")
    for number, message in enumerate(conversation):
        if is_written(message):
            try:
                turn_format.parse(message.content)
            except ValueError as error:
                raise ValueError(f"messages.{number}.content: {type(error).__name__}: {error}") from None
    return conversation


def is_written(message: Message) -> bool:
    """Whether the agent wrote a message of its conversation."""
    return message.role == "assistant" and not isinstance(message, GivenMessage)


def _abbreviate_role(message: Message) -> str:
    """Returns one letter for who wrote a message: g: an assistant, but not the agent."""
    letters = {"system": "s", "user": "u", "tool": "t", "assistant": "a" if is_written(message) else "g"}
    return letters.get(message.role, "-")


def _parse_message(found: Any, place: str) -> Message:
    if not isinstance(found, dict):
        raise ValueError(f"{place}: expected an object with role and content, got {found!r:.100}")
    if not isinstance(found.get("role"), str):
        raise ValueError(f"{place}.role: expected text, got {_describe_value(found, 'role')}")
    given = found["role"] == "assistant" and found.get("weight") == 0
    known = {"role", "content"} | _HARMLESS_KEYS | ({"weight"} if given else set())
    _refuse_extras({name: value for name, value in found.items() if name not in known}, f"{place}.")
    return (GivenMessage if given else Message)(found["role"], _parse_content(found, f"{place}.content"))


def _parse_content(message: Mapping[str, Any], place: str) -> str:
    """Returns the text of a message. If it comes in parts, they are joined with nothing between them."""
    content = message.get("content")
    if isinstance(content, list) and content:
        content = "".join(_parse_part(part, f"{place}.{number}") for number, part in enumerate(content))
    if not isinstance(content, str):
        raise ValueError(f"{place}: expected text, got {_describe_value(message, 'content')}")
    try:
        content.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{place}: expected text, got half a surrogate pair at character {error.start}") from None
    return content


def _parse_part(found: Any, place: str) -> str:
    if not isinstance(found, dict) or found.get("type") != "text" or not isinstance(found.get("text"), str):
        raise ValueError(f'{place}: expected a part {{"type": "text", "text": …}}, got {found!r:.100}')
    _refuse_extras(
        {name: value for name, value in found.items() if name not in {"type", "text"} | _HARMLESS_KEYS}, f"{place}."
    )
    return found["text"]


def _refuse_extras(extras: Mapping[str, Any], place: str) -> None:
    """Raises ValueError for a value that would be lost. Empty values and a weight of 1, the default, say nothing."""
    for name, value in extras.items():
        if value not in _EMPTY_VALUES and (name, value) != ("weight", 1):
            raise ValueError(
                f"{place}{name}: it would be lost, as a dialogue cannot hold it; expected none, got {value!r:.100}"
            )


def _describe_value(found: Mapping[str, Any], name: str) -> str:
    return f"{found[name]!r:.100}" if name in found else "none"


def encode_conversation(
    tokenizer: Tokenizer, turn_format: TurnFormat, conversation: Sequence[Message], room: float = math.inf
) -> Stream:
    """Encodes a conversation as the stream that sampling it would have made; the mask selects what the agent wrote.

    The stream ends before the first turn that does not fit in `room` tokens, and may be empty.
    """

    tokens, mask, came = [], [], []
    for message in conversation:
        if not is_written(message):
            heard = turn_format.hear(message.content) if message.role == "user" else message.content
            came.append(Message(message.role, heard))
            continue
        incoming = (chat.encode_reply if tokens else chat.encode_opening)(tokenizer, came)
        written = [*tokenizer.encode(message.content), tokenizer.im_end]
        if len(tokens) + len(incoming) + len(written) > room:
            break
        tokens += [*incoming, *written]
        mask += [False] * len(incoming) + [True] * len(written)
        came = []
    count = len(tokens)
    return Stream(
        tokens=np.array(tokens, np.int32),
        mask=np.array(mask, bool),
        logprobs=np.zeros(count, np.float32),
        turns=np.zeros(count, np.int32),
    )


def encode_fitting(
    tokenizer: Tokenizer, turn_format: TurnFormat, conversations: Sequence[Conversation], room: int
) -> list[Stream]:
    """Encodes demonstrations as streams, each up to the last turn that fits in the context of `room` tokens.

    Raises ValueError if there are demonstrations, but no turn of any fits.
    """
    streams = [encode_conversation(tokenizer, turn_format, conversation, room) for conversation in conversations]
    cut = sum(
        np.sum(stream.tokens[stream.mask] == tokenizer.im_end) < sum(map(is_written, conversation))
        for stream, conversation in zip(streams, conversations, strict=True)
    )
    if cut:
        logging.warning(
            "%d of %d demonstrations are longer than config.model.context_length, %d tokens, and end before it",
            *(cut, len(streams), room),
        )
    fitting = [stream for stream in streams if len(stream.tokens)]
    if streams and not fitting:
        raise ValueError(
            f"config.model.context_length: expected room for a turn of at least one of {len(streams)} "
            f"demonstrations, got {room} tokens"
        )
    return fitting
