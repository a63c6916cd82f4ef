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
_CONTROL = re.compile(r"<\|[^<>|]*\|>")
_STAGE_DIRECTION = re.compile(r"\[\s*(?:end\s*:[^\]]*|quit)\s*\]|\(?\s*system\s+state\s*:[^)\n]*\)?", re.IGNORECASE)


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
    match = _TURN.fullmatch(text)
    if match is None or any(_TAG.search(match[part]) for part in ("think", "response")):
        raise MalformedTurn(
            f"expected <think>…</think><response>…</response><action>chat|voucher</action>, got {text!r}"
        )
    if not match["response"].strip():
        raise MalformedTurn(f"expected a response with text in it, got {text!r}")
    return Reply(match["think"].strip(), match["response"].strip(), match["action"])


def render(reply: Reply) -> str:
    """Writes a reply in the turn format; `parse` gives it back."""
    return f"<think>{reply.think}</think><response>{reply.response}</response><action>{reply.action}</action>"


def clean(text: str) -> str:
    """Strips what foreign text must not carry into the agent's stream: control tokens and the turn format's tags."""
    while (cleaner := _TAG.sub("", _CONTROL.sub("", text))) != text:  # removing one may complete another
        text = cleaner
    return text.strip()


def clean_response(text: str) -> str:
    """Strips from an agent's response what only users and the system may say: endings and lines of system state."""
    while (cleaner := clean(_STAGE_DIRECTION.sub("", text))) != text:  # as above, and a tag may hide inside one
        text = cleaner
    return text


def encode_opening(tokenizer: ChatTokenizer, messages: Sequence[Message]) -> list[int]:
    """Renders the first messages in ChatML, up to where the assistant starts to write."""
    return [*_encode(tokenizer, messages), *_assistant(tokenizer)]


def encode_reply(tokenizer: ChatTokenizer, message: Message) -> list[int]:
    """Renders what follows a sampled turn: the newline after its end-of-turn token, the message, the next start."""
    return [*tokenizer.encode("\n"), *_encode(tokenizer, [message]), *_assistant(tokenizer)]


def _encode(tokenizer: ChatTokenizer, messages: Sequence[Message]) -> list[int]:
    ids = []
    for message in messages:
        text = message.content if message.role == "system" else clean(message.content)
        ids += [tokenizer.im_start, *tokenizer.encode(f"{message.role}\n{text}"), tokenizer.im_end]
        ids += tokenizer.encode("\n")
    return ids


def _assistant(tokenizer: ChatTokenizer) -> list[int]:
    return [tokenizer.im_start, *tokenizer.encode("assistant\n")]
