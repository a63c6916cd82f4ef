"""Calls of tools as Qwen2.5's chat template has them: in the prompt, and in what the model writes.

The model calls a tool by writing

    <tool_call>
    {"name": "find_order", "arguments": {"number": 4711}}
    </tool_call>

and may write words before and between calls. What it writes is either read as a whole or passed on as it stands: an
answer with one call that cannot be read is plain text. `read_output` reads a whole text, `OutputReader` one that comes
in pieces; both give the same answer.
"""

import hashlib
import json
import re
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

SILENCE = "…"
"""What a client reads where the model wrote nothing that is visible: some clients fail on an empty answer."""

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_SPACE = re.compile(r"[ \t\r\n]*")  # JSON's
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_TOOLS = """# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>{signatures}
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{{"name": <function-name>, "arguments": <args-json-object>}}
</tool_call>"""


class ToolCall(NamedTuple):
    """A call that the model wrote."""

    id: str
    name: str
    arguments: str  # a JSON object

    def to_object(self) -> dict[str, Any]:
        """Returns it as an item of `tool_calls` in the OpenAI protocol; a streamed one also has an `index`."""
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.arguments}}


class Output(NamedTuple):
    """What the model wrote, taken apart."""

    content: str | None  # never empty or white space; None only beside calls
    calls: list[ToolCall]


def write_system(system: str | None, tools: Sequence[Mapping[str, Any]]) -> str:
    """Writes the system message of a conversation with `tools`; without tools, it is `system`, or "".

    `system` is the conversation's own, or what the model's template adds where it has none
    (`Tokenizer.find_default_system`); None if there is neither.
    """
    if not tools:
        return system or ""
    signatures = "".join(f"\n{write_json(tool)}" for tool in tools)
    return ("" if system is None else f"{system}\n\n") + _TOOLS.format(signatures=signatures)


def write_calls(content: str | None, calls: Sequence[Mapping[str, Any]], *, field: str = "tool_calls") -> str:
    """Writes an assistant's message with tool calls, from a client's history, as the model would have written it.

    Args:
      content: its words; None or "" if it has none.
      calls: its `tool_calls`, in the OpenAI protocol. Keys that the protocol does not know are ignored.
      field: where `calls` stand in the request, for messages.

    Raises:
      ValueError: when one of the calls is none, naming the field in quotes.
    """
    if not isinstance(calls, list | tuple):
        raise refuse_field(field, "a list of tool calls", calls)
    parts = [content] if content else []
    for number, call in enumerate(calls):
        here = f"{field}[{number}]"
        function = read_function(call, here)
        try:
            arguments = _parse_object(function.get("arguments"))
        except ValueError:
            raise refuse_field(
                f"{here}.function.arguments", "a JSON object as text", function.get("arguments")
            ) from None
        parts.append(f'{_OPEN}\n{{"name": "{function["name"]}", "arguments": {arguments}}}\n{_CLOSE}')
    return "\n".join(parts)


def read_output(
    text: str, tools: Sequence[Mapping[str, Any]], *, key: str, parallel: bool = True, forced: bool = False
) -> Output:
    """Takes apart what the model wrote, up to its end-of-turn token.

    Beside calls, content is what stands before, between and after them, joined by newlines; white space around the
    tags is theirs. An answer without calls, or with one that cannot be read, is the text as written: JSON that does not
    parse, arguments that are no object, another name than those of `tools`, a tag without its counterpart. Where
    nothing visible is written, content is `SILENCE`.

    Args:
      text: what the model wrote.
      tools: those that it may call, as in a request; with none, a tag is text.
      key: what tells this answer from all others, such as the id of the completion; the ids of calls come from it.
      parallel: whether to read on after the first call. If not, what is written after it is left out.
      forced: whether nothing but calls could be written. A last one that a limit cut off is left out then.
    """
    end = text.rfind(_CLOSE) if forced else -1
    whole = text[: end + len(_CLOSE)] if end >= 0 else text
    try:
        pieces, found = _take_apart(whole, {tool["function"]["name"] for tool in tools}, parallel)
    except ValueError:
        pieces, found = [], []
    if not found:
        return Output(text if text.strip() else SILENCE, [])
    # The first piece keeps its beginning: it may have been sent before anybody knew that calls would follow.
    words = [pieces[0].rstrip(), *(piece.strip() for piece in pieces[1:])]
    content = "\n".join(piece for piece in words if piece)
    calls = [ToolCall(_make_id(key, number), *call) for number, call in enumerate(found)]
    return Output(content or None, calls)


class OutputReader:
    """Reads what the model writes while it comes: words at once, calls in the end.

    What was sent, the rest and the calls are together what `read_output` says of the whole text. So nothing is sent
    from the first `<tool_call>` on until the text is complete: one call that cannot be read makes all of it content.
    """

    def __init__(self, tools: Sequence[Mapping[str, Any]], **options: Any):
        """The arguments are those of `read_output`, without a text."""
        self._tools, self._options = tools, options
        self._pieces: list[str] = []
        self._held = ""  # not sent: white space that may stand before a tag, or what may be its beginning
        self._sent = 0  # characters
        self._calling = False

    def feed(self, piece: str) -> str:
        """Takes more text and returns the content that can be sent now, which may be ""."""
        self._pieces.append(piece)
        if self._calling:
            return ""
        held, end = self._held + piece, None
        if self._tools:
            tag = held.find(_OPEN)
            self._calling = tag >= 0
            end = tag if self._calling else len(held) - _count_begun(held)
        ready = held[:end].rstrip()
        self._held = held[len(ready) :]
        self._sent += len(ready)
        return ready

    def finish(self) -> tuple[str, list[ToolCall]]:
        """Returns the content that was not sent yet, which may be "", and the calls; to be called once."""
        content, calls = read_output("".join(self._pieces), self._tools, **self._options)
        return (content or "")[self._sent :], calls


def read_function(item: Any, field: str) -> Mapping[str, Any]:
    """Returns `function` of a tool or a call. Raises ValueError unless it has a name."""
    if not isinstance(item, Mapping):
        raise refuse_field(field, "an object", item)
    function = item.get("function")
    if not isinstance(function, Mapping):
        raise refuse_field(f"{field}.function", "an object", function)
    name = function.get("name")
    if not (isinstance(name, str) and _NAME.fullmatch(name)):
        raise refuse_field(f"{field}.function.name", "1 to 128 of the characters a-z, A-Z, 0-9, '_', '.' and '-'", name)
    return function


def _take_apart(text: str, names: set[str], parallel: bool) -> tuple[list[str], list[tuple[str, str]]]:
    """Returns the text around calls, one piece more than there are calls, and the calls' names and arguments.

    Raises ValueError for a call that cannot be read.
    """
    pieces, calls, place = [], [], 0
    while names and (parallel or not calls) and (tag := text.find(_OPEN, place)) >= 0:
        pieces.append(text[place:tag])
        start = _SPACE.match(text, tag + len(_OPEN)).end()
        # Not up to the next `</tool_call>`, which may stand in an argument.
        call, end = _parse_json(text, start)
        place = _SPACE.match(text, end).end()
        if not text.startswith(_CLOSE, place):
            raise ValueError(f"expected {_CLOSE} after a call")
        place += len(_CLOSE)
        if not isinstance(call, dict) or not isinstance(call.get("name"), str) or call["name"] not in names:
            raise ValueError("expected a call with the name of a tool")
        calls.append((call["name"], _write_object(call.get("arguments"))))
    pieces.append(text[place:] if parallel or not calls else "")
    if any(_CLOSE in piece for piece in pieces):
        raise ValueError(f"expected {_OPEN} before {_CLOSE}")
    return pieces, calls


def _parse_object(text: Any) -> str:
    """Returns a JSON object given as text, as the prompt has it. Raises ValueError if it is none."""
    if not isinstance(text, str):
        raise ValueError("expected text")
    start = _SPACE.match(text).end()
    if start == len(text):  # of a tool without arguments, as some servers write them
        return "{}"
    value, end = _parse_json(text, start)
    if _SPACE.match(text, end).end() < len(text):
        raise ValueError("expected nothing after the object")
    return _write_object(value)


def _parse_json(text: str, start: int) -> tuple[Any, int]:
    """Returns the JSON value that begins at `start`, and where it ends. Raises ValueError if there is none."""
    try:
        return json.JSONDecoder().raw_decode(text, start)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _write_object(value: Any) -> str:
    """Writes an object as JSON that every client can read. Raises ValueError if it is none, or cannot be written so."""
    if not isinstance(value, dict):
        raise ValueError("expected an object")
    text = write_json(value)
    text.encode()  # half of a surrogate pair is no text
    return text


def write_json(value: Any) -> str:
    """Writes a value as `tojson` does in chat templates. Raises ValueError for NaN, infinity, and nesting too deep."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _count_begun(text: str) -> int:
    """Counts the characters at the end of `text` that may be the beginning of a `<tool_call>`."""
    return next(size for size in range(len(_OPEN) - 1, -1, -1) if text.endswith(_OPEN[:size]))


def _make_id(key: str, number: int) -> str:
    return "call_" + hashlib.sha256(f"{key}/{number}".encode()).hexdigest()[:24]


def refuse_field(field: str, expected: str, got: Any) -> ValueError:
    """Returns the error that names a field in quotes, what was expected there and what came."""
    return ValueError(f"'{field}': expected {expected}, got {reprlib.repr(got)}")
