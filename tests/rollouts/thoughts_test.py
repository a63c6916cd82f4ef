"""Thoughts are taken out wherever they stand, but in calls."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollouts.thoughts import split_thoughts

CALL = '<tool_call>\n{"name": "find", "arguments": {"who": "<think>a</think>b"}}\n</tool_call>'
PLAIN = '<tool_call>\n{"name": "find", "arguments": {}}\n</tool_call>'


@pytest.mark.parametrize(
    ("text", "thoughts", "rest"),
    [
        ("Hello.", "", "Hello."),
        ("  Hello. ", "", "  Hello. "),
        ("<think>I see.</think>Hello.", "I see.", "Hello."),
        ("\n<think>\nI see.\n</think>\n\nHello.", "I see.", "Hello."),
        ("<think></think>Hello.", "", "Hello."),
        ("<think>I see", "I see", ""),
        ("<think>a</think><think>b</think>Hello.", "a\nb", "Hello."),
        ("Hello <think>secret</think> world", "secret", "Hello world"),
        ("secret</think>Hello.", "secret", "Hello."),
        ("<think>a<think>b</think>c</think>d", "a<think>b\nc", "d"),
        (CALL, "", CALL),
        (f"<think>I look.</think>{CALL}", "I look.", CALL),
        (f"<think>{PLAIN}</think>ok", PLAIN, "ok"),
        (f"{CALL}<think>late", "late", CALL),
        ("<tool_call>never closed <think>x</think>y", "x", "<tool_call>never closed y"),
        ("", "", ""),
    ],
)
def test_thoughts_are_apart_from_words_and_calls(text, thoughts, rest):
    assert split_thoughts(text) == (thoughts, rest)


@given(st.lists(st.sampled_from(["<think>", "</think>", "word", " ", "\n"]), max_size=9).map("".join))
def test_without_calls_no_mark_is_left_and_every_word_is_somewhere(text):
    thoughts, rest = split_thoughts(text)
    assert "<think>" not in rest and "</think>" not in rest
    assert (thoughts + rest).count("word") == text.count("word")


@given(st.lists(st.sampled_from([CALL, PLAIN, "word "]), max_size=6).map("".join))
def test_calls_and_words_alone_are_left_as_they_are(text):
    assert split_thoughts(text) == ("", text)


@pytest.mark.parametrize("again", ["<tool_call>", "</think>", "<think>", "<tool_call><think></think>", "x</think>"])
def test_a_tag_again_and_again_is_read_in_linear_time(again):
    """A model that fell apart writes such; a search that is quadratic would take minutes."""
    begun = time.monotonic()
    split_thoughts(again * 20_000)
    assert time.monotonic() - begun < 10
