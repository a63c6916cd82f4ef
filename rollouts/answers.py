"""Reading what a server sends: answers of the chat-completions protocol, and Retry-After. Nothing here is trusted."""

import datetime
import email.utils
import json
import re
from typing import NamedTuple


class Answer(NamedTuple):
    """What a model wrote, and how many tokens the server says that took; None where it does not say."""

    content: str
    prompt_tokens: int | None
    answer_tokens: int | None


def read(body: bytes) -> Answer:
    """Reads the body of an answer. Raises ValueError if it is none: not UTF-8, not JSON, or without text."""
    try:
        found = json.loads(body.decode())
        content = found["choices"][0]["message"]["content"]
        content.encode()  # half a surrogate pair is no text: nothing could send it on
        if not content.strip():
            raise ValueError("empty")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        raise ValueError("expected a chat completion with text") from None
    usage = found.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    return Answer(content, _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens")))


def retry_after(header: str | None, now: datetime.datetime) -> float:
    """The seconds that a Retry-After header (RFC 9110, 10.2.3) asks for: a number or a date; 0 if it says neither.

    `now` has a time zone.
    """
    text = (header or "").strip()
    if re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,12})?", text):
        return float(text)
    try:
        date = email.utils.parsedate_to_datetime(text)
        if date.tzinfo is None:  # "-0000": UTC, of a place unknown
            date = date.replace(tzinfo=datetime.UTC)
        return max(0.0, (date - now).total_seconds())
    except (ValueError, TypeError, IndexError, OverflowError):
        return 0.0


def estimated_tokens(text: bytes) -> int:
    """About how many tokens a text has, rather too many: one for every three bytes."""
    return len(text) // 3 + 1


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**9 else None
