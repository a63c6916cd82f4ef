"""Phase 1's data: dialogues as `messages` JSONL, written by an agent that plays, or brought by the user."""

import json
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np

from cmpo import files
from cmpo.batch import Stream
from models.tokenizer import Tokenizer
from rollouts import chat, episode
from rollouts.types import Dialogue, Message

Conversation = list[Message]


def from_dialogue(dialogue: Dialogue) -> Conversation:
    """The agent's side of a dialogue: system, user, assistant, user, …"""
    conversation = [Message("system", dialogue.scenario.agent_prompt)]
    for turn in dialogue.turns:
        conversation += [Message("user", turn.user), Message("assistant", turn.text)]
    return conversation


def write(path: pathlib.Path, conversations: Iterable[Conversation]) -> None:
    """Writes one ``{"messages": [{"role": …, "content": …}, …]}`` a line; the file appears whole or not at all."""
    lines = ({"messages": [vars(message) for message in conversation]} for conversation in conversations)
    files.replace(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def read(path: str | pathlib.Path) -> list[Conversation]:
    """Reads what `write` writes, which is the authors' format.

    Raises FileNotFoundError, or ValueError naming the line that is no conversation: system, then user and assistant
    in turn, every assistant message in the turn format.
    """
    if not pathlib.Path(path).is_file():
        raise FileNotFoundError(f"config.sft.path: expected a JSONL file, found none at {str(path)!r}")
    conversations = []
    for number, line in enumerate(pathlib.Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        try:
            conversation = [Message(message["role"], message["content"]) for message in json.loads(line)["messages"]]
            roles = [message.role for message in conversation]
            if roles != ["system", *["user", "assistant"] * (len(roles) // 2)] or len(roles) < 3:
                raise ValueError(f"expected the roles system, user, assistant, user, …, got {roles}")
            for message in conversation[2::2]:
                chat.parse(message.content)
        except (ValueError, KeyError, TypeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise ValueError(f"config.sft.path: line {number} of {str(path)!r} is no conversation: {reason}") from None
        conversations.append(conversation)
    if not conversations:
        raise ValueError(f"config.sft.path: {str(path)!r} holds no conversation")
    return conversations


def encode(tokenizer: Tokenizer, conversation: Sequence[Message], room: int) -> Stream:
    """Renders a conversation as the stream that sampling it would have made; the mask is on what the agent wrote.

    As there, it ends before a turn that would not fit in `room` tokens; the stream is empty if that is the first.
    """
    tokens, mask = [], []
    incoming = chat.encode_opening(tokenizer, [*conversation[:1], _heard(conversation[1])])
    for user, assistant in zip(conversation[1::2], conversation[2::2], strict=True):
        if tokens:
            incoming = chat.encode_reply(tokenizer, _heard(user))
        written = [*tokenizer.encode(assistant.content), tokenizer.im_end]
        if len(tokens) + len(incoming) + len(written) > room:
            break
        tokens += [*incoming, *written]
        mask += [False] * len(incoming) + [True] * len(written)
    count = len(tokens)
    return Stream(
        tokens=np.array(tokens, np.int32),
        mask=np.array(mask, bool),
        logprobs=np.zeros(count, np.float32),
        turns=np.zeros(count, np.int32),
    )


def _heard(message: Message) -> Message:
    return Message(message.role, episode.without_marks(message.content))
