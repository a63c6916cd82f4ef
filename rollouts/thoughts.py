"""Thoughts that a model writes as ``<think>…</think>`` among words and calls of tools, told from what others may read.

What endpoints answer is read by `rollouts.endpoints.thoughts`, which knows more marks and forgives less.
"""

import re
from typing import NamedTuple

_CLOSE_CALL, _CLOSE = "</tool_call>", "</think>"
_SPACE = re.compile(r"\s*")
_OPENED = re.compile("<tool_call>|<think>")


class SplitText(NamedTuple):
    """A text, its thoughts apart."""

    thoughts: str  # one after the other, each in a line of its own
    rest: str


def split_thoughts(text: str) -> SplitText:
    """Takes all thoughts out of a text, one that was cut off and those that it forgot to open as well.

    Within a call of a tool nothing is a thought; a call within a thought is thought only.
    """
    # First those whose beginning a chat template wrote, at last the ends of thoughts that had others within.
    begun, text = _take_off_orphans(text)
    whole, text = _take_out_thoughts(text)
    ended, rest = _take_off_orphans(text)
    thoughts = [*begun, *whole, *ended]
    return SplitText("\n".join(filter(None, map(str.strip, thoughts))), rest.lstrip() if thoughts else rest)


def _take_out_thoughts(text: str) -> tuple[list[str], str]:
    """Takes out what is between tags; in time linear in the text, which may be one tag again and again."""
    thoughts, rest, place, begun = [], [], 0, 0
    last = text.rfind(_CLOSE_CALL)
    while opened := _OPENED.search(text, place):
        if opened[0] == "<think>":
            rest.append(text[begun : opened.start()])
            end = text.find(_CLOSE, opened.end())
            thoughts.append(text[opened.end() : end if end >= 0 else len(text)])
            place = begun = _SPACE.match(text, end + len(_CLOSE)).end() if end >= 0 else len(text)
        else:  # one that does not end is text
            whole = opened.end() <= last
            place = text.index(_CLOSE_CALL, opened.end()) + len(_CLOSE_CALL) if whole else opened.end()
    return thoughts, "".join([*rest, text[begun:]])


def _take_off_orphans(text: str) -> tuple[list[str], str]:
    """Takes off what ends as a thought before anything is opened."""
    opened = _OPENED.search(text)
    end = opened.start() if opened else len(text)
    *thoughts, rest = text[:end].split(_CLOSE)
    return thoughts, (rest.lstrip() if thoughts else rest) + text[end:]
