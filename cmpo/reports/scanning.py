"""Looks through the agent's turns in a run: for patterns of the user and of the domain, for faults, and for copies."""

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

_LINKS = 40  # of a batch, kept for each scanner: who wants all filters the batch


class Scanner(NamedTuple):
    """Finds turns."""

    name: str
    find: Callable[[Sequence[Mapping[str, Any]]], list[int]]  # turns as `dialogues` has them -> numbers, from 0


def make_scanners(patterns: Mapping[str, str], field: str) -> list[Scanner]:
    """Makes a scanner of each pattern, a regular expression in which case does not matter.

    Raises ValueError, naming the `field` that the patterns are from, for one that is none.
    """
    return [_make_scanner(name, pattern, field) for name, pattern in patterns.items()]


def _make_scanner(name: str, pattern: str, field: str) -> Scanner:
    try:
        found = re.compile(pattern, re.IGNORECASE)
    except re.error as error:
        raise ValueError(f"{field}: expected a regular expression, got {pattern!r}: {error}") from None
    return Scanner(name, lambda turns: [number for number, turn in enumerate(turns) if found.search(_words_of(turn))])


def make_fault_scanners(faults: Sequence[str]) -> list[Scanner]:
    """Makes a scanner of each of a domain's faults (`Domain.faults`)."""
    return [Scanner(name, functools.partial(_select_faulty, name)) for name in faults]


def _select_faulty(name: str, turns: Sequence[Mapping[str, Any]]) -> list[int]:
    return [number for number, turn in enumerate(turns) if name in turn["faults"]]


def _words_of(turn: Mapping[str, Any]) -> str:
    return turn["said"] or turn["raw"]


def _find_copies(turns: Sequence[Mapping[str, Any]]) -> list[int]:
    replies = [_words_of(turn) for turn in turns]
    return [number for number, reply in enumerate(replies) if reply and reply in replies[:number]]


COPIES = Scanner("copy of an earlier turn", _find_copies)


def scan_groups(scanners: Sequence[Scanner], groups: Sequence[Mapping[str, Any]]) -> list[list[list[int]]]:
    """Returns for each scanner the places of the turns it finds: [group, dialogue, turn], from 1 as in links."""
    played = [
        (group, dialogue, described["turns"])
        for group, of_group in enumerate(groups, start=1)
        for dialogue, described in enumerate(of_group["dialogues"], start=1)
    ]
    return [
        [[group, dialogue, turn + 1] for group, dialogue, turns in played for turn in scanner.find(turns)]
        for scanner in scanners
    ]


def count_dialogues(places: Sequence[Sequence[int]]) -> int:
    """Counts the dialogues that places are in."""
    return len({(group, dialogue) for group, dialogue, _ in places})


def describe_findings(
    scanners: Sequence[Scanner], found: Mapping[str, Sequence[Sequence[Sequence[int]]]]
) -> list[dict[str, Any]]:
    """Describes for each scanner, by the batch's key: how many dialogues and turns it found, and the first places.

    `found` has the result of `scan_groups` by the batch's key.
    """
    by_scanner = [{key: places[number] for key, places in found.items()} for number in range(len(scanners))]
    return [
        {
            "name": scanner.name,
            "counts": {key: [count_dialogues(places), len(places)] for key, places in of_all.items() if places},
            "links": {key: places[:_LINKS] for key, places in of_all.items() if places},
        }
        for scanner, of_all in zip(scanners, by_scanner, strict=True)
    ]
