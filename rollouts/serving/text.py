"""The text of a turn while it is drawn: whole characters only, and up to the first stop."""

from collections.abc import Callable, Iterable, Sequence

_LONGEST = 8  # tokens of one character; more of them are no text


class TextStream:
    """Decodes tokens as they come.

    Attributes:
      text: what may be shown, whatever comes next.
      stopped: whether one of the stops was written; then `text` ends before it, and nothing follows.
      kept: tokens of which `text` is made; all of them at the end, but for those after a stop.
    """

    def __init__(
        self, decode: Callable[[Sequence[int]], str], stops: Sequence[str] = (), *, silent: Iterable[int] = ()
    ):
        """`silent` are tokens without a text: the one that ends a turn."""
        self._decode, self._stops, self._silent = decode, tuple(stops), frozenset(silent)
        self._written, self._open = "", []  # text of whole characters, and tokens of one that is not yet whole
        self._ends = [0]  # length of the text after each token
        self.text, self.stopped, self.kept = "", False, 0

    def feed(self, ids: Sequence[int], *, last: bool = False) -> None:
        """Takes tokens that were drawn; no more follow the `last` ones."""
        if self.stopped:
            return
        for token in ids:
            before = len(self._written)
            self._add_token(int(token))
            self._ends.append(len(self._written))
            if self._find_stop(before):
                return
        if last and self._open:
            before = len(self._written)
            self._close_character()
            self._ends[-1] = len(self._written)
            if self._find_stop(before):
                return
        sure = len(self._written) if last else len(self._written) - self._count_doubtful()
        self.text = self._written[:sure]
        self.kept = len(self._ends) - 1 if last else self._count_tokens(sure)

    def _add_token(self, token: int) -> None:
        if token in self._silent:
            self._close_character()
            return
        self._open.append(token)
        text = self._decode(self._open)
        if not text.endswith("\N{REPLACEMENT CHARACTER}") or len(self._open) == _LONGEST:
            self._close_character()

    def _close_character(self) -> None:
        self._written += self._decode(self._open) if self._open else ""
        self._open = []

    def _find_stop(self, before: int) -> bool:
        """Looks for a stop that ends behind `before`; cuts the text there."""
        if not self._stops:
            return False
        begin = max(0, before - max(map(len, self._stops)) + 1)
        found = [place for stop in self._stops if (place := self._written.find(stop, begin)) >= 0]
        if not found:
            return False
        self.text, self.stopped = self._written[: min(found)], True
        # All tokens with a part in the text; the last one may have written more than is shown.
        self.kept = next(count for count, end in enumerate(self._ends) if end >= min(found))
        return True

    def _count_doubtful(self) -> int:
        """Counts the characters at the end that may be the beginning of a stop."""
        longest = max(map(len, self._stops), default=1) - 1
        for size in range(min(longest, len(self._written)), 0, -1):
            if any(stop.startswith(self._written[-size:]) for stop in self._stops):
                return size
        return 0

    def _count_tokens(self, length: int) -> int:
        """Counts the first tokens whose text lies within the first `length` characters."""
        count = len(self._ends) - 1 - len(self._open)
        while self._ends[count] > length:
            count -= 1
        return count
