"""An answer in parts is read the same however it is cut into pieces.

``--hypothesis-profile=100k`` tries 10^5 cuts.
"""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollouts.endpoints.parts import PartReader


def read(pieces):
    """Returns the parts of an answer, with what belongs together joined."""
    reader = PartReader()
    found = [piece for text in pieces for piece in reader.feed(text)]
    found += reader.finish()
    assert all(piece.text for piece in found)
    return [
        (part, "".join(piece.text for piece in group)) for part, group in itertools.groupby(found, lambda one: one.part)
    ]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", []),
        (" \n", []),
        ("Hello <b>you</b>.", [("agent", "Hello <b>you</b>.")]),
        (
            "<think>Hm.</think><response>Hi.</response><action>chat</action>",
            [("think", "Hm."), ("agent", "Hi."), ("action", "chat")],
        ),
        (" <think>a < b</think>\n\nHi.", [("think", "a < b"), ("agent", "\n\nHi.")]),
        ("<thinking>Cut off </thin", [("think", "Cut off </thin")]),
        ("<response>Hi.</response", [("agent", "Hi.</response")]),
        ("<response>a</think>b</response>", [("agent", "a</think>b")]),
        ("<", [("agent", "<")]),
        ("<thi", [("agent", "<thi")]),
        ("<Think>x", [("agent", "<Think>x")]),
        ("< think>x", [("agent", "< think>x")]),
        ("<script>x</script>", [("agent", "<script>x</script>")]),
        ("<think>a</think><b>c</b><action>d</action>", [("think", "a"), ("agent", "<b>c</b><action>d</action>")]),
        ("<think></think><response></response>", []),
        ("<think>a</think><think>b</think>c <think>d</think>", [("think", "ab"), ("agent", "c <think>d</think>")]),
        ("<answer>a</answer><action>b</action> c", [("agent", "a"), ("action", "b"), ("agent", " c")]),
    ],
)
def test_parts(text, parts):
    assert read([text]) == parts
    assert read(text) == parts  # a character at a time


TAGS = st.sampled_from(
    ["<think>", "</think>", "<response>", "</response>", "<action>", "</action>", "<", ">", "</", " "]
)


@given(text=st.lists(TAGS | st.text("ab<>/_ \n", max_size=4)).map("".join), cuts=st.lists(st.integers(0, 60)))
def test_cuts_change_nothing(text, cuts):
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    assert read([text[start:end] for start, end in itertools.pairwise(edges)]) == read([text])
