"""Noise: what each kind does to a message, how much of it, and what it leaves alone."""

import random
import re
import statistics

import pytest

from rollouts.domains.fds.shift import NOISES
from rollouts.domains.fds.words import noise

TEXT = "The Beef Burger arrived completely cold. [Sent Picture: the cold Beef Burger] I want my money back! [end:2]"
MARKS = re.findall(r"\[[^\]]*\]", TEXT)


def add(kinds, seed, text=TEXT):
    return noise.add_noise(text, kinds, random.Random(seed))


@pytest.mark.parametrize("kind", NOISES)
def test_a_kind_that_is_alone_touches_every_message_and_no_mark_but_pictures(kind):
    for seed in range(200):
        noisy = add((kind,), seed)
        assert noisy == add((kind,), seed)
        assert noisy != TEXT or kind == "typos"  # where no word is hit
        kept = MARKS[1:] if kind == "attached" else MARKS
        assert re.findall(r"\[[^\]]*\]", noisy) == kept


def test_no_kind_is_no_noise():
    assert add((), 0) == TEXT


def test_typos_are_in_as_many_long_words_as_the_module_says_and_keep_the_first_letter():
    before = re.sub(r"\[[^\]]*\]", "", TEXT).split()
    changed, lengths = [], []
    for seed in range(400):
        after = re.sub(r"\[[^\]]*\]", "", add(("typos",), seed)).split()
        assert len(after) == len(before)
        for old, new in zip(before, after, strict=True):
            assert new[0] == old[0]
            if len(re.sub(r"\W", "", old)) >= 4:
                changed.append(new != old)
                lengths.append(abs(len(new) - len(old)))
            else:
                assert new == old
    assert statistics.mean(changed) == pytest.approx(noise.TYPO_SHARE, abs=0.03)
    assert set(lengths) == {0, 1}


def test_what_the_other_kinds_do():
    assert add(("capitals",), 0).startswith("THE BEEF BURGER ARRIVED COMPLETELY COLD. [Sent Picture: the cold")
    assert re.search(r"cold\. [^\w\s\[]+ \[Sent", add(("emoji",), 0))
    assert add(("filler",), 0).endswith(TEXT) and len({add(("filler",), seed) for seed in range(99)}) > 10
    assert {len(add(("language",), seed).split()) - len(TEXT.split()) for seed in range(99)} == {1, 2, 3, 4, 5}
    assert not add(("language",), 0).endswith("!")
    assert "Picture" not in add(("attached",), 0) and re.search(r"\((?:photo|pic|see|attached)", add(("attached",), 0))


@pytest.mark.parametrize("kind", [kind for kind in NOISES if kind != "attached"])
def test_together_each_kind_touches_its_share_of_messages(kind):
    others = tuple(other for other in NOISES if other != kind)
    plain = "Nobody answers here at all, and nothing helps me."
    touched = []
    for seed in range(600):
        noisy = noise.add_noise(plain, tuple(NOISES), random.Random(seed))
        shows = {
            "typos": lambda text: not re.search("nobody answers here at all, and nothing helps me", text.lower()),
            "capitals": lambda text: "NOTHING" in text or "HELPS" in text or "ALL" in text,
            "emoji": lambda text: any(ord(character) > 0x2000 for character in text),
            "filler": lambda text: any(line in text for line in lines("filler")),
            "language": lambda text: any(line.lower() in text.lower() for line in lines("language")),
        }[kind]
        touched.append(shows(noisy))
    assert others and statistics.mean(touched) == pytest.approx(noise.CHANCES[kind], abs=0.08)


def lines(key):
    return [template.texts[0] for template in noise.bank.list_templates("noise", (key,), False)]
