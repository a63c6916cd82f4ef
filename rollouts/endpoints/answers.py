"""Reading what a server sends: answers of the chat-completions protocol, and Retry-After. Nothing here is trusted."""

import datetime
import email.utils
import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from rollouts.endpoints import thoughts
from rollouts.tool_calls import ToolCall

_FINISHES = {
    **dict.fromkeys(("", "stop", "eos", "eos_token", "stop_sequence", "end_turn", "complete"), ""),
    **dict.fromkeys(("length", "max_tokens", "model_length", "max_output_tokens"), "length"),
    **dict.fromkeys(("content_filter", "safety"), "content_filter"),
}
"""What servers call the reasons why a model stopped, and what they are called here."""

_REASONING = ("reasoning_content", "reasoning", "thinking")
"""Where servers keep the thoughts of a message: vLLM, SGLang and DeepSeek; vLLM since 0.12 and OpenRouter; Ollama."""

_LONGEST = 10  # an estimate over this many times the server's count is right: no text has tokens that long on average


class Answer(NamedTuple):
    """What a model wrote and what its server says of it."""

    content: str
    prompt_tokens: int | None = None  # None: the server does not say
    answer_tokens: int | None = None  # thoughts included
    reasoning: str | None = None  # thoughts that the server keeps apart; None: it has no place for them
    finish: str = ""  # why the model stopped: "": it was done | length | content_filter | refusal | another word
    calls: str = ""  # of tools: a JSON list of objects with name and arguments, the latter as text; "" if there is none


class Delta(NamedTuple):
    """A piece of an answer that is streamed."""

    content: str = ""
    reasoning: str = ""
    action: str = ""  # of a server that shows what the agent's customer hears, and what it did beside
    answer_tokens: int | None = None  # of the whole answer, where the server says it
    finish: str = ""  # see `Answer`


class NoAnswer(ValueError):
    """A completion that is not what was asked for, a whole, plain answer; failures are counted by `cause`."""

    def __init__(self, cause: str, message: str):
        super().__init__(message)
        self.cause = cause


class ErrorBody(ValueError):
    """An error that a server sent as an answer; `status` is the HTTP status that it names, None if it names none."""

    def __init__(self, status: int | None, message: str):
        super().__init__(message)
        self.status = status


def read_answer(body: bytes) -> Answer:
    """Reads the body of an answer.

    Raises ErrorBody if it is an error, and ValueError if it is nothing known: not UTF-8, not JSON, not a chat
    completion, or content other than text.
    """
    try:
        found = json.loads(body.decode())
        if error := _find_error(found):
            raise error
        choice = found["choices"][0]
        if error := _find_error(choice):
            raise error
        message = choice["message"]
        content, reasoning, refusal = _read_parts(message.get("content"))
        for field in _REASONING:
            reasoning = _join_parts(message.get(field)) if reasoning is None else reasoning
        refusal = _join_parts(message.get("refusal")) or refusal
        answer = Answer(
            content or refusal,
            *_read_usage(found.get("usage")),
            reasoning,
            _read_finish(choice, message, refusal),
            _read_calls(message.get("tool_calls")),
        )
        "".join(text or "" for text in (answer.content, answer.reasoning, answer.finish)).encode()  # no half surrogates
    except ErrorBody:
        raise
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        streamed = body.lstrip().startswith(b"data:")
        raise ValueError(
            f"expected a chat completion with text{', got a stream, which was not asked for' if streamed else ''}"
        ) from None
    return answer


def read_delta(data: bytes) -> Delta:
    """Reads the data of one event of a streamed answer.

    Raises ErrorBody if it is an error, and ValueError if it is nothing known.
    """
    try:
        found = json.loads(data.decode())
        if error := _find_error(found):
            raise error
        choice = (found.get("choices") or [{}])[0]
        delta = choice.get("delta") or {}
        reasoning = next((delta[field] for field in _REASONING if delta.get(field)), None)
        content, action = (_join_parts(delta.get(name)) or "" for name in ("content", "action"))
        finish = choice.get("finish_reason") or ""
        return Delta(
            content or _join_parts(delta.get("refusal")) or "",
            _join_parts(reasoning) or "",
            action,
            _read_usage(found.get("usage"))[1],
            _FINISHES.get(finish.lower(), finish),
        )
    except ErrorBody:
        raise
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        raise ValueError("expected a piece of a chat completion") from None


def read_error(body: bytes) -> str:
    """Reads what a server says is wrong, from the body of an answer with a status of an error."""
    try:
        error = _find_error(json.loads(body))
    except (ValueError, AttributeError, RecursionError):
        error = None
    return str(error) if error else body.decode(errors="replace")


def extract_text(answer: Answer) -> str:
    """Returns what a user or judge says: the answer without thoughts. Raises NoAnswer unless it is whole and plain."""
    _check_finish(answer, allowed=("",))
    text, flaw = thoughts.split_thoughts(answer.content)
    if flaw == "truncated":
        raise NoAnswer(flaw, f"was cut off within its thoughts: {_quote_tail(answer)}")
    if flaw:
        raise NoAnswer(flaw, f"answered with thoughts in the middle of the answer: {_quote_tail(answer)}")
    if not text.strip():
        thought = text != answer.content or (answer.reasoning or "").strip()
        raise NoAnswer(
            "malformed", f"answered without text{f', it only thought: {_quote_tail(answer)}' if thought else ''}"
        )
    return text


def extract_turn(answer: Answer) -> str:
    """Returns what an agent wrote, its thoughts first as `<think>…</think>`, wherever the server put them.

    An answer that was cut off, or a refusal, is a turn too. Raises NoAnswer if there is no text.
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


def extract_step(answer: Answer) -> tuple[str, list[ToolCall]]:
    """Returns what somebody with tools says, without thoughts, and the calls that they make; one of both may be empty.

    Raises NoAnswer unless it is whole and plain, and the arguments of each call are a JSON object.
    """
    if not answer.calls:
        return extract_text(answer), []
    _check_finish(answer, allowed=("", "tool_calls"))
    calls = [ToolCall(f"call_{number}", **call) for number, call in enumerate(json.loads(answer.calls))]
    for call in calls:
        try:
            readable = isinstance(json.loads(call.arguments), dict)
        except (ValueError, RecursionError):
            readable = False
        if not (readable and call.name):
            raise NoAnswer(
                "malformed", f"called {call.name} with arguments that are no object: {call.arguments!r:.200}"
            )
    return thoughts.split_thoughts(answer.content).answer.strip(), calls


def plausible_count(count: int | None, estimate: int) -> int:
    """Returns a text's tokens as the server counts them, or our `estimate` if it does not count or counts too few.

    Fewer than one for 30 bytes are too few.
    """
    return estimate if count is None or count * _LONGEST < estimate else count


def read_retry_after(header: str | None, now: datetime.datetime) -> float:
    """Returns the seconds that a Retry-After header (RFC 9110, 10.2.3) asks for, as a number or a date; else 0.

    `now` has a time zone.
    """
    text = (header or "").strip()
    if re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,12})?", text):
        return float(text)
    try:
        date = email.utils.parsedate_to_datetime(text)
        if date.tzinfo is None:  # "-0000": UTC, from an unknown time zone
            date = date.replace(tzinfo=datetime.UTC)
        return max(0.0, (date - now).total_seconds())
    except (ValueError, TypeError, IndexError, OverflowError):
        return 0.0


def estimate_tokens(text: bytes) -> int:
    """Estimates a text's tokens, rather too many: one for every three bytes."""
    return len(text) // 3 + 1


def _check_finish(answer: Answer, *, allowed: tuple[str, ...]) -> None:
    if answer.finish in allowed:
        return
    part = "answer" if thoughts.split_thoughts(answer.content).answer.strip() else "thoughts"
    cause, what = {
        "length": ("truncated", f"was cut off within its {part}"),
        "content_filter": ("filtered", "was stopped by a content filter"),
        "refusal": ("refused", "refused to answer"),
        "tool_calls": ("malformed", "called a tool, which nobody offered"),
    }.get(answer.finish, ("malformed", f"stopped for a reason that is not known, finish_reason {answer.finish!r:.50}"))
    raise NoAnswer(cause, f"{what}: {_quote_tail(answer)}")


def _quote_tail(answer: Answer) -> str:
    return repr((answer.content.strip() or answer.reasoning or "")[-200:])


def _find_error(found: Any) -> ErrorBody | None:
    """Finds the error in a body or a choice: `{"error": …}`, or `{"object": "error", …}`; None if it holds none."""
    error = found if found.get("object") == "error" else found.get("error")
    if not error:
        return None
    if not isinstance(error, Mapping):
        return ErrorBody(None, str(error))
    statuses = (str(error.get(name)) for name in ("code", "status"))
    status = next((int(status) for status in statuses if re.fullmatch("[45][0-9][0-9]", status)), None)
    return ErrorBody(status, str(error.get("message") or dict(error)))


def _read_finish(choice: Mapping, message: Mapping, refusal: str) -> str:
    if message.get("tool_calls") or message.get("function_call"):
        return "tool_calls"  # nobody offered tools
    if refusal.strip():
        return "refusal"
    reason = choice.get("finish_reason") or ""
    return _FINISHES.get(reason.lower(), reason)


def _read_calls(calls: Any) -> str:
    """Returns the calls of a message as `Answer` has them; one that cannot be read has no name."""
    found = []
    for call in calls if isinstance(calls, list) else []:
        function = call.get("function") if isinstance(call, Mapping) else None
        name, arguments = (function.get(key) for key in ("name", "arguments")) if function else (None, None)
        text = arguments if isinstance(arguments, str | None) else json.dumps(arguments)
        found.append({"name": name if isinstance(name, str) else "", "arguments": text or "{}"})
    return json.dumps(found) if found else ""


def _read_parts(content: Any) -> tuple[str, str | None, str]:
    """Returns text, thoughts and refusal of a message's content, which is a text, nothing, or a list of parts."""
    if not isinstance(content, list):
        return _join_parts(content) or "", None, ""
    kinds: dict[str, list[str]] = {"text": [], "thinking": [], "refusal": []}
    for part in content:
        kind = {"output_text": "text", "reasoning": "thinking"}.get(part["type"], part["type"])
        names = {"text": ("text",), "thinking": ("thinking", "reasoning", "text"), "refusal": ("refusal",)}[kind]
        texts = [part[name] for name in names if name in part]
        kinds[kind].append(_join_parts(texts[0]) or "")
    text, thinking, refusal = ("".join(texts) for texts in kinds.values())
    return text, thinking if kinds["thinking"] else None, refusal


def _join_parts(value: Any) -> str | None:
    """Joins a text that may come in parts. Raises TypeError for anything else."""
    if isinstance(value, list):
        value = "".join(part["text"] for part in value)
    if value is not None and not isinstance(value, str):
        raise TypeError("expected text")
    return value


def _read_usage(usage: Any) -> tuple[int | None, int | None]:
    """Returns the tokens of prompt and answer.

    If one is missing, it is what the total leaves for it. If the total is more than both, the rest is thoughts, which
    some servers count nowhere else. A total alone counts as the prompt's.
    """
    usage = usage if isinstance(usage, Mapping) else {}
    prompt, answer, total = (_read_count(usage.get(f"{name}_tokens")) for name in ("prompt", "completion", "total"))
    if total is None:
        return prompt, answer
    if prompt is None:
        rest = total - (answer or 0)
        return (rest if rest >= 0 else None), answer
    rest = total - prompt
    return prompt, (rest if rest >= 0 else None) if answer is None else max(answer, rest)


def _read_count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**9 else None
