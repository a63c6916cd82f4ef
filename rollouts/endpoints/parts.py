"""Takes apart, while it is written, an answer that a model writes in parts: <name>…</name>, one after the other."""

import re
from collections.abc import Iterator
from typing import NamedTuple

_PARTS = {
    **dict.fromkeys(("think", "thinking", "thought", "reasoning"), "think"),
    **dict.fromkeys(("response", "answer"), "agent"),
    "action": "action",
}
"""What models call the parts of an answer, and what they are called here. Any other tag is text."""

_OPENING = re.compile(rf"\s*<({'|'.join(_PARTS)})>")


class Piece(NamedTuple):
    """A piece of an answer; pieces of the same part that follow each other belong together."""

    part: str  # think | agent: what is said | action | note: of the program, not of the agent
    text: str


class PartReader:
    """Reads one answer. What is in no part is said."""

    def __init__(self):
        self._held = ""  # not yet told apart
        self._name = ""  # of the part that is being written
        self._plain = False  # is the rest in no part?

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
            elif any(f"<{name}>".startswith(self._held.lstrip()) for name in _PARTS):
                return
            else:
                self._plain = True

    def finish(self) -> Iterator[Piece]:
        """Yields what was held back; the answer is whole."""
        if self._held.strip():
            yield from self._take(len(self._held))

    def _take(self, length: int) -> Iterator[Piece]:
        taken, self._held = self._held[:length], self._held[length:]
        if taken:
            yield Piece(_PARTS.get(self._name, "agent"), taken)


def _count_common(text: str, closing: str) -> int:
    """Counts the characters at the end of `text` that `closing` may begin with."""
    return next((size for size in range(len(closing) - 1, 0, -1) if text.endswith(closing[:size])), 0)
