"""Thoughts that a model writes as ``<think>…</think>`` among words and calls of tools, told from what others may read.

What endpoints answer is read by `rollouts.endpoints.thoughts`, which knows more marks and forgives less.
"""

import re
from typing import NamedTuple

_PARTS = re.compile(r"(<tool_call>.*?</tool_call>)|<think>(.*?)(?:</think>\s*|\Z)", re.DOTALL)
_ORPHAN = re.compile(r"((?:(?!<tool_call>|<think>).)*?)</think>\s*", re.DOTALL)


class SplitText(NamedTuple):
    """A text, its thoughts apart."""

    thoughts: str  # one after the other, each in a line of its own
    rest: str


def split_thoughts(text: str) -> SplitText:
    """Takes all thoughts out of a text, one that was cut off and those that it forgot to open as well.

    Within a call of a tool nothing is a thought; a call within a thought is thought only.
    """
    thoughts = []

    def take_out(part: re.Match[str]) -> str:
        if part[1]:
            return part[1]
        thoughts.append(part[2])
        return ""

    def take_off_orphans(text: str) -> str:
        while orphan := _ORPHAN.match(text):
            thoughts.append(orphan[1])
            text = text[orphan.end() :]
        return text

    # First those whose beginning a chat template wrote, at last the ends of thoughts that had others within.
    rest = take_off_orphans(_PARTS.sub(take_out, take_off_orphans(text)))
    return SplitText("\n".join(filter(None, map(str.strip, thoughts))), rest.lstrip() if thoughts else rest)
