"""The turn format: words, or calls of tools as Qwen2.5 writes them; thoughts may come first, in ``<think>…</think>``.

See `rollouts.domain.TurnFormat`; this module is one.
"""

import json
import re
from collections.abc import Sequence
from typing import NamedTuple

from models.tokenizer import Tokenizer
from rollouts import chat, tool_calls
from rollouts.domains.tau2.world import Action
from rollouts.engine.grammar import Grammar
from rollouts.thoughts import split_thoughts

_ANY_NAME = re.compile(r'<tool_call>\s*\{\s*"name"\s*:\s*"([^"]*)"')


class AgentOutput(NamedTuple):
    """An agent's output, taken apart."""

    thought: str
    content: str | None  # for the user, unless there are calls; None only beside calls
    calls: list[Action]
    malformed: bool  # calls were begun that cannot be read, or call a tool that there is not: then all is content


def read_output(text: str, tools: Sequence[str]) -> AgentOutput:
    """Takes an output apart; `tools` are the names of those that may be called.

    It reads as `cmpo.serve --reasoning` does.
    """
    thoughts, rest = split_thoughts(text)
    offered = [{"function": {"name": name}} for name in tools]
    content, calls = tool_calls.read_output(rest, offered, key="")
    made = [Action(call.name, json.loads(call.arguments)) for call in calls]
    return AgentOutput(thoughts, content, made, not made and "<tool_call>" in rest)


def parse(text: str) -> AgentOutput:
    """Takes an output apart, whatever tools there are. Raises ValueError for calls that cannot be read."""
    output = read_output(text, _ANY_NAME.findall(text))
    if output.malformed:
        raise ValueError(f"expected calls as <tool_call>\\n{{…}}\\n</tool_call>, got {text!r}")
    return output


def write_thought(thought: str, output: str) -> str:
    """Writes a thought before an output; `parse` takes both apart."""
    return f"<think>{thought}</think>{output}"


def write_calls(calls: Sequence[Action], content: str = "") -> str:
    """Writes calls as the agent writes them; `parse` gives them back."""
    asked = [{"function": {"name": call.name, "arguments": json.dumps(call.arguments)}} for call in calls]
    return tool_calls.write_calls(content, asked)


def hear(text: str) -> str:
    """Returns what agent and user hear of each other: `text` without control tokens."""
    return chat.clean_text(text)


def grammar(tokenizer: Tokenizer, vocab_size: int) -> Grammar | None:
    """See `rollouts.domain.TurnFormat`: free text has none."""
    return None
