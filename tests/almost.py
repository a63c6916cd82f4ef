"""What is almost right, for hypothesis: valid texts and records that were damaged in a few places."""

import copy
from collections.abc import Iterator, Sequence
from typing import Any

from hypothesis import strategies as st

ODD = st.sampled_from(
    (None, True, False, 0, 1, 2, -1, 6, 0.5, 1e300, float("nan"), float("inf"), 10**400, "", " ", "1", "x", [], {})
    + (["x"], {"x": 1}, [[]], "\ud83d", "\0", "٣", b"x", "9" * 5000)
)
"""What nobody expects in a field."""


@st.composite
def texts(draw, valid: st.SearchStrategy[str], pieces: Sequence[str]) -> str:
    """A valid text in which up to four stretches are cut out, doubled, spelt in capitals or replaced."""
    text = draw(valid)
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(text)))
        end = start + draw(st.sampled_from((0, 1, 2, 7, 30, len(text))))
        old = text[start:end]
        new = draw(st.sampled_from(("", old + old, old.upper(), *pieces)) | st.text(max_size=3))
        text = text[:start] + new + text[end:]
    return text


@st.composite
def trees(draw, valid: Any, values: st.SearchStrategy[Any] = ODD) -> Any:
    """A valid tree of dicts and lists in which up to three places are replaced, removed, renamed or wrapped."""
    tree = [copy.deepcopy(valid)]
    for _ in range(draw(st.integers(0, 3))):
        holder, key = draw(st.sampled_from(list(_places(tree))))
        match draw(st.sampled_from(("replace", "replace", "remove", "rename", "wrap", "spell"))):
            case "remove":
                del holder[key]
            case "rename" if isinstance(holder, dict):
                holder[draw(st.text(max_size=3) | st.just(str(key).upper()))] = holder.pop(key)
            case "wrap":
                holder[key] = [holder[key]]
            case "spell":
                holder[key] = str(holder[key])
            case _:
                holder[key] = draw(values)
        if not tree:
            return draw(values)
    return tree[0]


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    for key, value in list(tree.items() if isinstance(tree, dict) else enumerate(tree)):
        yield tree, key
        if isinstance(value, dict | list):
            yield from _places(value)
