"""Finds what a statement of the record has besides the record: doubt, causes, blame, other things and units.

`claims` tells whether the words of a record are in a sentence. Here is what turns such a sentence into a lie, or a
sentence with the words of another record into the truth.
"""

import functools
import re
from collections.abc import Collection

from rollouts.domains.fds.embedded.language import find_classes, load_foods
from rollouts.domains.fds.embedded.phrases import compile_table, has_phrase, load_tables, load_words

PER_HOUR = 60
_OTHER_CLASSES = frozenset("dpsomxrjwiu")  # a word that can be one of these tells of nothing; see `lexicon.txt`
_UNITS = load_words("units")
_TELLING_ADVERBS = load_words("telling")  # what tells of something though its class is that of words that do not
_EARLY = frozenset(["early", "earlier", "sooner", "ahead"])
_CLAUSES = re.compile(
    r" (?:, )?(?:but|however|although|though|whereas|while|and(?= (?:i|we|you|that|this|the|he|she|it)\b))(?= )| , "
)
_PART = {"half": 30, "quarter": 15, "3 quarters": 45}
_ABOUT = re.compile(r" (?:about|around|almost|nearly|roughly|approximately|some|close to) (\d{1,4})(?= )")
NEAR_SHARE = 0.1  # "about 50" is right of what is not more than this share away
_COUNTED = (
    (re.compile(r" (?:a |an |one )?(half|3 quarters|(?:a )?quarter) (?:of )?(?:an |one )?hour(?= )"), "part"),
    (re.compile(r" (an|one|a|\d{1,2})(?: whole| full)? hours? and (?:a )?(half|3 quarters|quarter)(?= )"), "and part"),
    (re.compile(r" (\d{1,2}) and a half hours(?= )"), "halves"),
    (re.compile(r" (an|one|a|\d{1,2})(?: whole| full)? hours?(?: and| ,)? (\d{1,2}) minutes(?= )"), "and minutes"),
)


def stem_word(word: str) -> str:
    """Takes the ending off a word."""
    for ending in ("ing", "ed", "es", "s"):
        if word.endswith(ending) and len(word) > len(ending) + 2:
            word = word[: -len(ending)]
            break
    return word[:-1] if word.endswith("e") and len(word) > 3 else word


def write_durations(text: str) -> str:
    """Writes parts of hours as minutes: "an hour and 18 minutes" as "78 minutes". Plain hours stay hours."""
    for pattern, kind in _COUNTED:
        text = pattern.sub(lambda match, kind=kind: f" {_count_minutes(match, kind)} minutes", text)
    return text


def write_numbers(text: str, known: Collection[int]) -> str:
    """Writes a known number in place of one that is said to be about it."""

    def find_near(match: re.Match[str]) -> str:
        said = int(match[1])
        near = [number for number in known if abs(said - number) <= NEAR_SHARE * number]
        return f" {min(near, key=lambda number: abs(said - number)) if near else said}"

    return _ABOUT.sub(find_near, text)


def _count_minutes(match: re.Match[str], kind: str) -> int:
    if kind == "part":
        return _PART[match[1].removeprefix("a ")]
    hours = int(match[1]) if match[1].isdigit() else 1
    if kind == "halves":
        return hours * PER_HOUR + 30
    return hours * PER_HOUR + (_PART[match[2]] if kind == "and part" else int(match[2]))


def split_reversal(text: str) -> tuple[str, bool]:
    """Takes out what says that the rest is not so ("hardly", "it would be a lie to say that"); was there any?"""
    plain = compile_table("reversed").sub("", text)
    return f" {' '.join(plain.split())} ", plain != text


def split_clauses(text: str) -> list[str]:
    """Splits a sentence into clauses, one space on each side."""
    return [f" {clause.strip()} " for clause in _CLAUSES.split(text) if clause.strip()]


def drop_own_words(text: str) -> str:
    """Takes out the clauses in which the agent speaks of itself or concludes, where others are left."""
    clauses = [clause.strip() for clause in split_clauses(text) if not _is_own(clause)]
    return f" {' , '.join(clauses)} " if clauses else text


def _is_own(clause: str) -> bool:
    return has_phrase("own words", clause) and not has_phrase("frame", clause)


def find_additions(text: str, own: Collection[str], claims: Collection[str]) -> bool:
    """Does a sentence that has the words of the record say more than it: a cause, a blame, other things, other units?

    Args:
      text: the sentence.
      own: stems of the words of the record, in all its wordings.
      claims: names of the tables "claim …" that the record fits.
    """
    known = set(own) | _list_plain_words() | _list_claim_words(tuple(sorted(claims)))
    if known & _EARLY:
        known |= _EARLY
    for clause in split_clauses(text):
        frame = compile_table("frame").search(clause)
        if _is_own(clause):
            continue
        said = clause[frame.end() :] if frame and len(clause) - frame.end() > 8 else clause
        cause = compile_table("cause").search(said)
        if cause and not any(_is_telling(word) and stem_word(word) in own for word in said[cause.end() :].split()):
            return True
        if has_phrase("blame", said):
            return True
        if any(_is_telling(word) and stem_word(word) not in known for word in said.split()):
            return True
    return False


def _is_telling(word: str) -> bool:
    if not word.isalpha() or word.startswith(("xitem", "xmerchant", "xmoney")):
        return False
    return word in _UNITS | _TELLING_ADVERBS or word in load_foods() or not set(find_classes(word)) & _OTHER_CLASSES


@functools.cache
def _list_claim_words(claims: tuple[str, ...]) -> frozenset[str]:
    """The words by which claims are told, without units of time and measure."""
    lines = " ".join(line for claim in claims for line in load_tables()[f"claim {claim.replace('_', ' ')}"])
    return frozenset(stem_word(word) for word in re.findall(r"[a-z]+", lines) if word not in _UNITS | _TELLING_ADVERBS)


@functools.cache
def _list_plain_words() -> frozenset[str]:
    """Stems of words that every statement of a record may have."""
    return frozenset(map(stem_word, load_words("plain in a statement")))
