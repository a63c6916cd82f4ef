"""Noise in a customer's words: typing mistakes, capitals, emoji and so on. Marks in brackets stay as they are."""

import random
import re
from collections.abc import Callable, Sequence

from rollouts.domains.fds.words import bank

TYPO_SHARE = 0.4
"""How many of the words of four letters or more get a typing mistake, in a message that has any."""

CHANCES = {"typos": 0.5, "capitals": 0.25, "emoji": 0.4, "filler": 0.3, "language": 0.3, "attached": 1.0}
"""How often a message has each kind of noise where there are several; a kind that is alone touches every message."""

_PICTURE = re.compile(r"\[Sent Picture: [^\]]*\]")
_MARK = re.compile(r"(\[[^\]]*\])")
_WORD = re.compile(r"[A-Za-z]{4,}")
_SENTENCE_END = re.compile(r"(?<=[.!?]) +(?=[^\[ ])")
_KEYS = {  # neighbours on the keyboard
    key: "".join(row[max(0, place - 1) : place] + row[place + 1 : place + 2])
    for row in ("qwertyuiop", "asdfghjkl", "zxcvbnm")
    for place, key in enumerate(row)
}


def add_noise(text: str, kinds: Sequence[str], rng: random.Random) -> str:
    """Adds noise of `kinds` (keys of `shift.NOISES`) to a message, each with its chance."""
    for kind in kinds:
        if len(kinds) == 1 or rng.random() < CHANCES[kind]:
            text = _NOISES[kind](text, rng)
    return text


def _add_typos(text: str, rng: random.Random) -> str:
    def mistype(match: re.Match) -> str:
        return _mistype_word(match[0], rng) if rng.random() < TYPO_SHARE else match[0]

    return _change_words(text, lambda words: _WORD.sub(mistype, words))


def _mistype_word(word: str, rng: random.Random) -> str:
    """Swaps two letters, leaves one out, doubles one or hits a key beside it; the first letter stays."""
    place = rng.randrange(1, len(word) - 1)
    before, letter, after = word[:place], word[place], word[place + 1 :]
    kind = rng.choice(("swap", "omit", "double", "miss"))
    if kind == "swap" and after[0] != letter:
        return before + after[0] + letter + after[1:]
    if kind == "omit":
        return before + after
    if kind == "double":
        return before + letter * 2 + after
    missed = rng.choice(_KEYS[letter.lower()])
    return before + (missed.upper() if letter.isupper() else missed) + after


def _write_capitals(text: str, rng: random.Random) -> str:
    return _change_words(text, str.upper)


def _add_emoji(text: str, rng: random.Random) -> str:
    def dress(words: str) -> str:
        ending = " " * (len(words) - len(words.rstrip()))
        return (
            f"{words.rstrip()} {_draw_line('emoji', rng) * rng.choice((1, 1, 2, 3))}{ending}"
            if words.strip()
            else words
        )

    return _change_words(text, dress)


def _add_filler(text: str, rng: random.Random) -> str:
    return f"{_draw_line('filler', rng)} {text}"


def _add_language(text: str, rng: random.Random) -> str:
    """Puts a phrase of another language between two sentences, or first."""
    phrase = _draw_line("language", rng)
    places = [0, *(match.end() for match in _SENTENCE_END.finditer(text))]
    place = rng.choice(places)
    return f"{text[:place]}{phrase} {text[place:]}"


def _attach_pictures(text: str, rng: random.Random) -> str:
    return _PICTURE.sub(lambda match: _draw_line("attached", rng), text)


_NOISES = {
    "typos": _add_typos,
    "capitals": _write_capitals,
    "emoji": _add_emoji,
    "filler": _add_filler,
    "language": _add_language,
    "attached": _attach_pictures,
}


def _change_words(text: str, change: Callable[[str], str]) -> str:
    """Applies `change` to what is outside of marks in brackets."""
    return "".join(part if place % 2 else change(part) for place, part in enumerate(_MARK.split(text)))


def _draw_line(key: str, rng: random.Random) -> str:
    return bank.draw_phrasing(bank.list_templates("noise", (key,), False), set(), rng)
