"""The turn format: ``<think>…</think><response>…</response><action>chat|voucher</action>``.

See `rollouts.domain.TurnFormat`; this module is one.
"""

import re
from typing import NamedTuple

from models.tokenizer import Tokenizer
from rollouts import chat
from rollouts.engine.grammar import FREE, VISIBLE, Grammar, Literal, write_grammar

ACTIONS = ("chat", "voucher")

_TURN = re.compile(
    r"\s*<think>(?P<think>.*?)</think>\s*<response>(?P<response>.*?)</response>\s*"
    r"<action>\s*(?P<action>chat|voucher)\s*</action>\s*",
    re.DOTALL,
)
_TAG = re.compile(r"</?(?:think|response|action)>")
_TAGS = [f"<{slash}{part}>" for part in ("think", "response", "action") for slash in ("", "/")]
_STAGE_DIRECTION = re.compile(r"\[\s*(?:end\s*:[^][]*|quit\s*)\]|(?:\(\s*)?system\s+state\s*:[^)\n]*\)?", re.IGNORECASE)


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


def render_reply(reply: Reply) -> str:
    """Writes a reply in the turn format; `parse` gives it back."""
    return f"<think>{reply.think}</think><response>{reply.response}</response><action>{reply.action}</action>"


def clean_text(text: str, *marks: re.Pattern[str]) -> str:
    """Strips control tokens, the turn format's tags, and `marks`; see `rollouts.chat.clean_text`."""
    return chat.clean_text(text, _TAG, *marks)


def hear(text: str) -> str:
    """Returns what agent and customer hear of each other: `text` without endings, system state and the turn's tags."""
    return clean_text(text, _STAGE_DIRECTION)


def grammar(tokenizer: Tokenizer, vocab_size: int) -> Grammar:
    """See `rollouts.domain.TurnFormat`. A response has at least one visible character."""
    opening, between, closing, end = (
        Literal((text,)) for text in ("<think>", "</think><response>", "</response><action>", "</action>")
    )
    pieces = (opening, FREE, between, VISIBLE, closing, Literal(ACTIONS), end)
    return write_grammar(tokenizer, vocab_size, pieces)
