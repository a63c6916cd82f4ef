"""Shifts: their names on the command line and in a prompt, there and back."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollouts.domains.fds.shift import NO_SHIFT, NOISES, Shift, parse_shift, read_words

SHIFTS = st.builds(
    Shift,
    phrasing=st.booleans(),
    noise=st.sets(st.sampled_from(tuple(NOISES))).map(lambda kinds: tuple(kind for kind in NOISES if kind in kinds)),
    facts=st.booleans(),
)


@pytest.mark.parametrize(
    "text, shift",
    [
        ("none", NO_SHIFT),
        ("phrasing", Shift(phrasing=True)),
        ("facts", Shift(facts=True)),
        ("noise", Shift(noise=tuple(NOISES))),
        ("all", Shift(True, tuple(NOISES), True)),
        ("noise=capitals", Shift(noise=("capitals",))),
        ("facts,noise=emoji+typos", Shift(noise=("typos", "emoji"), facts=True)),
    ],
)
def test_names(text, shift):
    assert parse_shift(text) == shift


@given(SHIFTS)
def test_every_shift_comes_back_from_its_name_and_its_words_from_a_prompt(shift):
    assert parse_shift(str(shift)) == shift
    assert read_words(shift.words) == Shift(shift.phrasing, shift.noise)


@pytest.mark.parametrize("text", ["", "al", "noise=", "noise=rain", "phrasing,", "none,facts", "phrasing=typos"])
def test_an_unknown_name_is_refused_with_the_known_ones(text):
    with pytest.raises(ValueError, match="shift: expected none, all, or of phrasing, facts, noise, noise=KIND"):
        parse_shift(text)


def test_unknown_words_and_noise_are_refused():
    with pytest.raises(ValueError, match=re.escape("way of writing: expected 'ordinary', or")):
        read_words("in unusual phrases; in rhyme")
    with pytest.raises(ValueError, match="noise: expected kinds among"):
        Shift(noise=("emoji", "typos"))
