"""The turn format and the chat template: parse what the agent wrote, render what others wrote.

A dialogue is one append-only stream of tokens. Only foreign text passes through `encode_*`; sampled ids never do.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from rollouts.types import Message

ACTIONS = ("chat", "voucher")

_TURN = re.compile(
    r"\s*<think>(?P<think>.*?)</think>\s*<response>(?P<response>.*?)</response>\s*"
    r"<action>\s*(?P<action>chat|voucher)\s*</action>\s*",
    re.DOTALL,
)
_TAG = re.compile(r"</?(?:think|response|action)>")
_TAGS = [f"<{slash}{part}>" for part in ("think", "response", "action") for slash in ("", "/")]
_CONTROL = re.compile(r"<\|[^<>|]*\|>")
_STAGE_DIRECTION = re.compile(r"\[\s*(?:end\s*:[^][]*|quit\s*)\]|(?:\(\s*)?system\s+state\s*:[^)\n]*\)?", re.IGNORECASE)
_NESTED = 8  # how often taking something out may make a new one; in honest text it never does
_BEGINNINGS = str.maketrans("", "", "<[:")  # each of what is stripped has one of these in it


class ChatTokenizer(Protocol):
    """What rendering needs of a tokenizer."""

    im_start: int
    im_end: int

    def encode(self, text: str) -> list[int]:
        """Encodes text; control tokens spelled out in it must stay text."""


class Reply(NamedTuple):
    """An agent's output, taken apart."""

    think: str
    response: str
    action: str


class MalformedTurn(ValueError):
    """The agent's output does not follow the turn format."""


def parse(text: str) -> Reply:
    """Parses ``<think>…</think><response>…</response><action>chat|voucher</action>``.

    White space between the parts is allowed. Raises MalformedTurn for anything else: parts missing, doubled, nested or
    reordered, text around them, an empty response or an unknown action.
    """
    match = _TURN.fullmatch(text) if _TAG.findall(text) == _TAGS else None  # more of them would make matching slow
    if match is None:
        raise MalformedTurn(
            f"expected <think>…</think><response>…</response><action>chat|voucher</action>, got {text!r}"
        )
    if not match["response"].strip():
        raise MalformedTurn(f"expected a response with text in it, got {text!r}")
    return Reply(match["think"].strip(), match["response"].strip(), match["action"])


def render(reply: Reply) -> str:
    """Writes a reply in the turn format; `parse` gives it back."""
    return f"<think>{reply.think}</think><response>{reply.response}</response><action>{reply.action}</action>"


def clean(text: str, *marks: re.Pattern[str]) -> str:
    """Strips what foreign text must not carry into the agent's stream: control tokens, the turn format's tags, `marks`.

    Also what is there only once another is taken out of its middle. In text nested deeper than any honest one, the
    characters that they are made of go as well, so that the time stays linear in the length, whoever wrote it.
    """
    for _ in range(_NESTED):
        before = text
        for pattern in (_CONTROL, _TAG, *marks):
            text = pattern.sub("", text)
        if text == before:
            return text.strip()
    return text.translate(_BEGINNINGS).strip()


def clean_response(text: str) -> str:
    """Strips from an agent's response what only users and the system may say: endings and lines of system state."""
    return clean(text, _STAGE_DIRECTION)


def encode_opening(tokenizer: ChatTokenizer, messages: Sequence[Message]) -> list[int]:
    """Renders the first messages in ChatML, up to where the assistant starts to write."""
    return [*_encode(tokenizer, messages), *_assistant(tokenizer)]


def encode_reply(tokenizer: ChatTokenizer, messages: Sequence[Message]) -> list[int]:
    """Renders what follows a sampled turn: the newline after its end-of-turn token, the messages, the next start."""
    return [*tokenizer.encode("\n"), *_encode(tokenizer, messages), *_assistant(tokenizer)]


def _encode(tokenizer: ChatTokenizer, messages: Sequence[Message]) -> list[int]:
    ids = []
    for message in messages:
        text = message.content if message.role == "system" else clean(message.content)
        ids += [tokenizer.im_start, *tokenizer.encode(f"{message.role}\n{text}"), tokenizer.im_end]
        ids += tokenizer.encode("\n")
    return ids


def _assistant(tokenizer: ChatTokenizer) -> list[int]:
    return [tokenizer.im_start, *tokenizer.encode("assistant\n")]
