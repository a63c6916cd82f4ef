"""The chat template of Qwen2.5: renders what others wrote.

A dialogue is one append-only stream of tokens. Only foreign text passes through `encode_*`; sampled ids never do.
"""

import itertools
import re
from collections.abc import Iterable, Sequence
from typing import Protocol

from rollouts.types import Message

_TOOL = re.compile(r"</?tool_response>")
_CONTROL = re.compile(r"<\|[^<>|]*\|>")
_NESTED = 8  # times that taking a mark out may leave a new one; in honest text it never does
_BEGINNINGS = str.maketrans("", "", "<[:")  # each of what is stripped has one of these in it


class ChatTokenizer(Protocol):
    """What rendering needs of a tokenizer."""

    im_start: int
    im_end: int

    def encode(self, text: str) -> list[int]:
        """Encodes text; control tokens spelled out in it must stay text."""


def clean_text(text: str, *marks: re.Pattern[str]) -> str:
    """Strips what foreign text must not carry into the agent's stream: control tokens, and `marks`.

    It also strips what appears only after another was taken out of its middle. In text that is nested deeper than any
    honest one, it strips the characters that begin them, so that the time is linear in the length of any text.
    """
    for _ in range(_NESTED):
        before = text
        for pattern in (_CONTROL, *marks):
            text = pattern.sub("", text)
        if text == before:
            return text.strip()
    return text.translate(_BEGINNINGS).strip()


def encode_opening(tokenizer: ChatTokenizer, messages: Sequence[Message]) -> list[int]:
    """Renders the first messages in ChatML, up to where the assistant starts to write."""
    return [*_encode_messages(tokenizer, messages), *_open_assistant(tokenizer)]


def encode_reply(tokenizer: ChatTokenizer, messages: Sequence[Message]) -> list[int]:
    """Renders what follows a sampled turn: the newline after its end-of-turn token, the messages, the next start."""
    return [*tokenizer.encode("\n"), *_encode_messages(tokenizer, messages), *_open_assistant(tokenizer)]


def _encode_messages(tokenizer: ChatTokenizer, messages: Sequence[Message]) -> list[int]:
    ids = []
    for by_tools, group in itertools.groupby(messages, lambda message: message.role == "tool"):
        for role, text in [("user", _merge_results(group))] if by_tools else map(_render_message, group):
            ids += [tokenizer.im_start, *tokenizer.encode(f"{role}\n{text}"), tokenizer.im_end]
            ids += tokenizer.encode("\n")
    return ids


def _render_message(message: Message) -> tuple[str, str]:
    """Returns role and text of a message; the system's text is our own and stays as it is."""
    return message.role, message.content if message.role == "system" else clean_text(message.content, _TOOL)


def _merge_results(results: Iterable[Message]) -> str:
    """Merges what tools answered at the same time into one message, as Qwen2.5's template does."""
    return "\n".join(f"<tool_response>\n{clean_text(result.content, _TOOL)}\n</tool_response>" for result in results)


def _open_assistant(tokenizer: ChatTokenizer) -> list[int]:
    return [tokenizer.im_start, *tokenizer.encode("assistant\n")]
