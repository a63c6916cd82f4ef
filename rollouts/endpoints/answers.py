"""Reading what a server sends: answers of the chat-completions protocol, and Retry-After. Nothing here is trusted."""

import datetime
import email.utils
import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from rollouts.endpoints import thoughts

_FINISHES = {
    **dict.fromkeys(("", "stop", "eos", "eos_token", "stop_sequence", "end_turn", "complete"), ""),
    **dict.fromkeys(("length", "max_tokens", "model_length", "max_output_tokens"), "length"),
    **dict.fromkeys(("content_filter", "safety"), "content_filter"),
}
"""What servers call the reasons why a model stopped, and what they are called here."""

_REASONING = ("reasoning_content", "reasoning", "thinking")
"""Where servers keep the thoughts of a message: vLLM, SGLang and DeepSeek; vLLM since 0.12 and OpenRouter; Ollama."""

_LONGEST = 10  # times the estimated bytes of a token: there is no text whose tokens are that long on average


class Answer(NamedTuple):
    """What a model wrote and what its server says of it."""

    content: str
    prompt_tokens: int | None = None  # None: the server does not say
    answer_tokens: int | None = None  # thoughts included
    reasoning: str | None = None  # thoughts that the server keeps apart; None: it has no place for them
    finish: str = ""  # why the model stopped: "": it was done | length | content_filter | refusal | another word


class NoAnswer(ValueError):
    """A completion that is not what was asked for: a whole, plain answer. `cause` is what it is counted by."""

    def __init__(self, cause: str, message: str):
        super().__init__(message)
        self.cause = cause


class ErrorBody(ValueError):
    """A server's word on what went wrong, sent as an answer; `status` as it would have been, None if it says none."""

    def __init__(self, status: int | None, message: str):
        super().__init__(message)
        self.status = status


def read(body: bytes) -> Answer:
    """Reads the body of an answer.

    Raises ErrorBody if it is an error, and ValueError if it is nothing that is known: not UTF-8, not JSON, no chat
    completion, or with other content than text.
    """
    try:
        found = json.loads(body.decode())
        if error := _error(found):
            raise error
        choice = found["choices"][0]
        if error := _error(choice):
            raise error
        message = choice["message"]
        content, reasoning, refusal = _parts(message.get("content"))
        for field in _REASONING:
            reasoning = _joined(message.get(field)) if reasoning is None else reasoning
        refusal = _joined(message.get("refusal")) or refusal
        answer = Answer(content or refusal, *_counts(found.get("usage")), reasoning, _finish(choice, message, refusal))
        "".join(text or "" for text in (answer.content, answer.reasoning, answer.finish)).encode()  # no half surrogates
    except ErrorBody:
        raise
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        streamed = body.lstrip().startswith(b"data:")
        raise ValueError(
            f"expected a chat completion with text{', got a stream, which was not asked for' if streamed else ''}"
        ) from None
    return answer


def plain(answer: Answer) -> str:
    """What a user or a judge says: the answer without thoughts. Raises NoAnswer unless it is whole and plain text."""
    _check_finish(answer, allowed=("",))
    text, flaw = thoughts.split(answer.content)
    if flaw == "truncated":
        raise NoAnswer(flaw, f"was cut off amid its thoughts: {_tail(answer)}")
    if flaw:
        raise NoAnswer(flaw, f"answered with thoughts in the midst of the answer: {_tail(answer)}")
    if not text.strip():
        thought = text != answer.content or (answer.reasoning or "").strip()
        raise NoAnswer("malformed", f"answered without text{f', it only thought: {_tail(answer)}' if thought else ''}")
    return text


def turn(answer: Answer) -> str:
    """What an agent wrote, with its thoughts before it as `<think>…</think>`, wherever the server put them.

    Cut off or refused, it is the agent's turn all the same. Raises NoAnswer if there is none.
    """
    _check_finish(answer, allowed=("", "length", "refusal"))
    text, reasoning = answer.content, answer.reasoning
    if "<think>" not in text:
        if reasoning is not None:
            text = f"<think>{reasoning}</think>{text}" if text.strip() else f"<think>{reasoning}"
        elif "</think>" in text:  # the chat template wrote the beginning
            text = f"<think>{text}"
    if answer.finish != "length" and not (answer.content.strip() or (reasoning or "").strip()):
        raise NoAnswer("malformed", "answered without text")
    return text


def counted(count: int | None, estimate: int) -> int:
    """The tokens of a text: as the server counts them, unless it does not or its tokens would be too long to be true.

    Fewer than one for 30 bytes are not believed.
    """
    return estimate if count is None or count * _LONGEST < estimate else count


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


def _check_finish(answer: Answer, *, allowed: tuple[str, ...]) -> None:
    if answer.finish in allowed:
        return
    amid = "answer" if thoughts.split(answer.content).answer.strip() else "thoughts"
    cause, what = {
        "length": ("truncated", f"was cut off amid its {amid}"),
        "content_filter": ("filtered", "was stopped by a content filter"),
        "refusal": ("refused", "refused to answer"),
        "tool_calls": ("malformed", "called a tool, which nobody offered"),
    }.get(answer.finish, ("malformed", f"stopped for a reason that is not known, finish_reason {answer.finish!r:.50}"))
    raise NoAnswer(cause, f"{what}: {_tail(answer)}")


def _tail(answer: Answer) -> str:
    return repr((answer.content.strip() or answer.reasoning or "")[-200:])


def _error(found: Any) -> ErrorBody | None:
    """The error that a body or a choice holds: `{"error": …}`, or `{"object": "error", …}`; None if it holds none."""
    error = found if found.get("object") == "error" else found.get("error")
    if not error:
        return None
    if not isinstance(error, Mapping):
        return ErrorBody(None, str(error))
    statuses = (str(error.get(name)) for name in ("code", "status"))
    status = next((int(status) for status in statuses if re.fullmatch("[45][0-9][0-9]", status)), None)
    return ErrorBody(status, str(error.get("message") or dict(error)))


def _finish(choice: Mapping, message: Mapping, refusal: str) -> str:
    if message.get("tool_calls") or message.get("function_call"):
        return "tool_calls"  # nobody offered tools
    if refusal.strip():
        return "refusal"
    reason = choice.get("finish_reason") or ""
    return _FINISHES.get(reason.lower(), reason)


def _parts(content: Any) -> tuple[str, str | None, str]:
    """Text, thoughts and refusal of a message's content: a text, nothing, or a list of parts."""
    if not isinstance(content, list):
        return _joined(content) or "", None, ""
    kinds: dict[str, list[str]] = {"text": [], "thinking": [], "refusal": []}
    for part in content:
        kind = {"output_text": "text", "reasoning": "thinking"}.get(part["type"], part["type"])
        names = {"text": ("text",), "thinking": ("thinking", "reasoning", "text"), "refusal": ("refusal",)}[kind]
        texts = [part[name] for name in names if name in part]
        kinds[kind].append(_joined(texts[0]) or "")
    text, thinking, refusal = ("".join(texts) for texts in kinds.values())
    return text, thinking if kinds["thinking"] else None, refusal


def _joined(value: Any) -> str | None:
    """A text that may come in parts. Raises TypeError for anything else."""
    if isinstance(value, list):
        value = "".join(part["text"] for part in value)
    if value is not None and not isinstance(value, str):
        raise TypeError("expected text")
    return value


def _counts(usage: Any) -> tuple[int | None, int | None]:
    """The tokens of prompt and answer.

    Where one is missing, it is what the total leaves. Where the total is more than both, the rest were thoughts, which
    some servers count nowhere else. A total alone is put down to the prompt.
    """
    usage = usage if isinstance(usage, Mapping) else {}
    prompt, answer, total = (_count(usage.get(f"{name}_tokens")) for name in ("prompt", "completion", "total"))
    if total is None:
        return prompt, answer
    if prompt is None:
        rest = total - (answer or 0)
        return (rest if rest >= 0 else None), answer
    rest = total - prompt
    return prompt, (rest if rest >= 0 else None) if answer is None else max(answer, rest)


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**9 else None
