"""Reads the tables of phrases by which an agent's sentences are understood; `tables/acts.txt` says how to write one."""

import functools
import itertools
import re

from rollouts.domains.fds.embedded.language import read_data

FILES = ("groups.txt", "acts.txt", "remedies.txt", "manners.txt", "facts.txt")

_GROUP = re.compile(r"(?<!\?P)<([a-z][a-z ]*)>")
_GAP = re.compile(r"<(\d)>")


@functools.cache
def compile_table(name: str, remedy: str = "") -> re.Pattern[str]:
    """Compiles a table into one pattern, for sentences with one space between words and around the sentence.

    `remedy` is put in place of <REMEDY>. Raises KeyError if there is no such table.
    """
    phrases = [_write_phrase(line, remedy) for line in load_tables()[name]]
    inside = [phrase for phrase in phrases if not phrase.startswith("^")]
    first = [phrase for phrase in phrases if phrase.startswith("^")]
    choices = [f"(?<= )(?:{'|'.join(inside)})"] * bool(inside) + first
    return re.compile(f"(?:{'|'.join(choices)})(?= )")


def has_phrase(table: str, text: str, remedy: str = "") -> bool:
    """Is a phrase of a table in a text? See `compile_table`."""
    return bool(compile_table(table, remedy).search(text))


@functools.cache
def list_idioms(table: str = "idioms") -> tuple[tuple[re.Pattern[str], str], ...]:
    """Lists what is to be written in place of the phrases of a table of idioms or synonyms: (pattern, words)."""
    pairs = [line.split("=>") for line in load_tables()[table]]
    return tuple(
        (re.compile(f" (?:{_write_phrase(idiom.strip(), '')})(?= )"), f" {words.strip()}".rstrip())
        for idiom, words in pairs
    )


@functools.cache
def load_tables() -> dict[str, tuple[str, ...]]:
    """Returns the lines of each table, by name; those of groups are one phrase each."""
    tables: dict[str, tuple[str, ...]] = {}
    name = ""
    for line in itertools.chain(*map(read_data, FILES)):
        if line.startswith("== "):
            name = line[3:]
            tables[name] = ()
        else:
            tables[name] += tuple(part.strip() for part in line.split(" | ")) if name.startswith("group ") else (line,)
    return tables


def load_words(group: str) -> frozenset[str]:
    """Returns the words of a group as a set. Raises KeyError if there is no such group."""
    return frozenset(load_tables()[f"group {group}"])


def _write_phrase(phrase: str, remedy: str) -> str:
    """Writes groups and gaps of a phrase out."""
    phrase = phrase.replace("<REMEDY>", remedy)
    while match := _GROUP.search(phrase):
        words = "|".join(word for word in load_tables()[f"group {match[1]}"] if word)
        phrase = phrase.replace(match[0], f"(?:{words})")
    phrase = _GAP.sub(r"(?:\\S+ ){0,\1}?", phrase)
    return phrase.replace(" ~~ ", r"(?: \S+){0,9}? ").replace(" ~ ", r"(?: (?!but |, )\S+){0,6}? ")
