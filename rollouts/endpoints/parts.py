"""Takes apart, while it is written, an answer that a model writes in parts: <name>…</name>, one after the other."""

import re
from collections.abc import Iterator
from typing import NamedTuple

_OPENING = re.compile(r"\s*<([a-z_]{1,20})>")
_BEGINNING = re.compile(r"\s*(?:<[a-z_]{0,20})?")  # of what may still become an opening tag
_THOUGHTS = ("think", "thinking", "thought", "reasoning")


class Piece(NamedTuple):
    """A piece of an answer; pieces of the same part that follow each other belong together."""

    part: str  # think | agent: what is said | another part's name | note: of the program, not of the agent
    text: str


class PartReader:
    """Reads one answer. What is no thought is said, in the first part; an answer that has no parts is said as it is."""

    def __init__(self):
        self._held = ""  # not yet told apart
        self._name = self._part = ""  # of the part that is being written, and what it is called here
        self._said = self._plain = False

    def feed(self, text: str) -> Iterator[Piece]:
        """Yields what `text`, which follows what was fed before, adds to the parts."""
        self._held += text
        while self._held:
            if self._plain:
                yield from self._take(len(self._held))
            elif self._name:
                closing = f"</{self._name}>"
                end = self._held.find(closing)
                if end < 0:
                    yield from self._take(len(self._held) - _count_common(self._held, closing))
                    return
                yield from self._take(end)
                self._held, self._name = self._held[len(closing) :], ""
            elif opening := _OPENING.match(self._held):
                self._held, self._name = self._held[opening.end() :], opening[1]
                self._part = self._call(self._name)
            elif _BEGINNING.fullmatch(self._held):
                return
            else:
                self._plain, self._part = True, "agent"

    def finish(self) -> Iterator[Piece]:
        """Yields what was held back; the answer is whole."""
        if self._held.strip():
            self._part = self._part if self._name else "agent"
            yield from self._take(len(self._held))

    def _call(self, name: str) -> str:
        if name in _THOUGHTS:
            return "think"
        part, self._said = (name, True) if self._said else ("agent", True)
        return part

    def _take(self, length: int) -> Iterator[Piece]:
        taken, self._held = self._held[:length], self._held[length:]
        if taken:
            yield Piece(self._part, taken)


def _count_common(text: str, closing: str) -> int:
    """Counts the characters at the end of `text` that `closing` may begin with."""
    return next((size for size in range(len(closing) - 1, 0, -1) if text.endswith(closing[:size])), 0)
