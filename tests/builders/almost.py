"""What is almost right, for hypothesis: valid texts and records that were damaged in a few places.

All choices come out of one draw of bytes: a draw for each of them would take ten times as long, and 10^5 cases an hour.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hypothesis import strategies as st

ODD = (
    *(None, True, False, 0, 1, 2, 3, -1, 6, 0.5, 2.0, 1e300, float("nan"), float("inf"), 10**400),
    *("", " ", "1", "2", "x", "\ud83d", "\0", "٣", "9" * 5000, [], {}, ["x"], [[]], {"x": 1}, [None]),
)
"""What nobody expects in a field."""

_CHOICES = st.binary(min_size=20, max_size=40)


def texts(valid: Sequence[str], pieces: Sequence[str]) -> st.SearchStrategy[str]:
    """Valid texts in which up to four stretches are cut out, doubled, spelt in capitals or replaced."""

    def damaged(choices: bytes) -> str:
        choose = _chooser(choices)
        text = choose(valid)
        for _ in range(choose(range(5))):
            start = choose(range(len(text) + 1))
            end = start + choose((0, 0, 1, 2, 7, 30, len(text)))
            old = text[start:end]
            match choose(("piece", "piece", "character", "double", "capitals", "cut")):
                case "piece":
                    new = choose(pieces)
                case "character":
                    new = chr(choose(range(0xD800)))
                case "double":
                    new = old + old
                case "capitals":
                    new = old.upper()
                case _:
                    new = ""
            text = text[:start] + new + text[end:]
        return text

    return _CHOICES.map(damaged)


def trees(valid: Any, values: Sequence[Any] = ODD) -> st.SearchStrategy[Any]:
    """A tree of dicts and lists in which up to three places are replaced, removed, renamed, wrapped or spelt out."""

    def damaged(choices: bytes) -> Any:
        choose, tree = _chooser(choices), [copy.deepcopy(valid)]
        for _ in range(choose(range(4))):
            places = list(_places(tree))
            if not places:
                return choose(values)
            holder, key = choose(places)
            match choose(("replace", "replace", "remove", "rename", "wrap", "spell")):
                case "remove":
                    del holder[key]
                case "rename" if isinstance(holder, dict):
                    holder[choose((str(key).upper(), "", "x", "0"))] = holder.pop(key)
                case "wrap":
                    holder[key] = [holder[key]]
                case "spell":
                    holder[key] = str(holder[key])
                case _:
                    holder[key] = copy.deepcopy(choose(values))
        return tree[0] if tree else choose(values)

    return _CHOICES.map(damaged)


def _chooser(choices: bytes) -> Callable[[Sequence[Any]], Any]:
    """Chooses by two bytes at a time; the first option once they are used up."""
    numbers = iter(zip(choices[::2], choices[1::2], strict=False))

    def choose(options: Sequence[Any]) -> Any:
        high, low = next(numbers, (0, 0))
        return options[(256 * high + low) % len(options)]

    return choose


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    for key, value in list(tree.items() if isinstance(tree, dict) else enumerate(tree)):
        yield tree, key
        if isinstance(value, dict | list):
            yield from _places(value)
