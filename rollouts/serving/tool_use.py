"""What a request of the OpenAI protocol says about tools."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rollouts.tool_calls import read_function, refuse_field, write_json


class ToolUse(NamedTuple):
    """What a request says about tools."""

    offered: tuple[Mapping[str, Any], ...]  # for the system message
    callable: tuple[Mapping[str, Any], ...]  # which of them the answer may call
    forced: bool  # the answer must be calls, and nothing else
    parallel: bool  # it may be more than one

    @property
    def names(self) -> list[str]:
        """The names of the tools that the answer may call."""
        return [tool["function"]["name"] for tool in self.callable]


def read_tool_use(request: Mapping[str, Any]) -> ToolUse:
    """Reads `tools`, `tool_choice` and `parallel_tool_calls` of a chat completion's request.

    Raises:
      ValueError: when one of them is not what the protocol says, naming the field in quotes.
    """
    offered = request.get("tools")
    if offered is None:
        offered = []
    if not isinstance(offered, list):
        raise refuse_field("tools", "a list of tools", offered)
    names: list[str] = []
    for number, tool in enumerate(offered):
        name = _check_tool(tool, f"tools[{number}]")
        if name in names:
            raise ValueError(f"'tools[{number}].function.name': expected different names, got {name!r} twice")
        names.append(name)
    parallel = request.get("parallel_tool_calls")
    if not isinstance(parallel, bool | None):
        raise refuse_field("parallel_tool_calls", "true or false", parallel)
    chosen, forced = _read_choice(request.get("tool_choice"), names)
    may_call = tuple(tool for tool, name in zip(offered, names, strict=True) if name in chosen)
    named = forced and request["tool_choice"] != "required"  # one tool: it is one call that is asked for
    return ToolUse(tuple(offered), may_call, forced, parallel is not False and not named)


def _read_choice(choice: Any, names: Sequence[str]) -> tuple[Sequence[str], bool]:
    """Returns the names that may be called, and whether one must be."""
    match choice:
        case None | "auto":
            return names, False
        case "none":
            return (), False
        case "required" if names:
            return names, True
        case {"type": "function", "function": {"name": str(name)}} if name in names:
            return (name,), True
        case {"type": "function", "function": {"name": str(name)}} if names:
            raise ValueError(f"'tool_choice.function.name': expected one of {', '.join(names)}, got {name!r:.80}")
        case "required" | {"type": "function", "function": {"name": str()}}:
            raise ValueError("'tool_choice': expected a call of one of 'tools', got none of them; give tools")
    expected = "auto, none, required or {'type': 'function', 'function': {'name': …}}"
    raise refuse_field("tool_choice", expected, choice)


def _check_tool(tool: Any, field: str) -> str:
    """Returns the name of a tool. Raises ValueError unless it can be written into a prompt and called."""
    function = read_function(tool, field)
    if tool.get("type") != "function":
        raise refuse_field(f"{field}.type", "'function', the only type of tool that is supported", tool.get("type"))
    for name, kind, expected in (
        ("description", str, "text"),
        ("parameters", Mapping, "a JSON schema"),
        ("strict", bool, "true or false"),
    ):
        if not isinstance(function.get(name), kind | None):
            raise refuse_field(f"{field}.function.{name}", expected, function[name])
    kind = (function.get("parameters") or {}).get("type", "object")
    if kind != "object":
        raise refuse_field(f"{field}.function.parameters.type", "'object'", kind)
    try:
        write_json(tool).encode()
    except ValueError as error:
        raise ValueError(f"'{field}': expected a tool that can be written as JSON: {error}") from None
    return function["name"]
