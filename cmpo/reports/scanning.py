"""Looks through what the agent said in a run: for patterns of the user and of the domain, and for copied turns."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

_LINKS = 40  # of a batch, kept for each scanner: who wants all filters the batch


class Scanner(NamedTuple):
    """Finds turns."""

    name: str
    find: Callable[[Sequence[str]], list[int]]  # the agent's replies in a dialogue -> numbers of turns, from 0


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
    return Scanner(name, lambda replies: [number for number, reply in enumerate(replies) if found.search(reply)])


def _find_copies(replies: Sequence[str]) -> list[int]:
    return [number for number, reply in enumerate(replies) if reply and reply in replies[:number]]


COPIES = Scanner("copy of an earlier turn", _find_copies)


class Found:
    """What scanners found in the batches of a run."""

    def __init__(self, scanners: Sequence[Scanner]):
        self._scanners = scanners
        self._links: list[dict[str, list[list[int]]]] = [{} for _ in scanners]
        self._counts: list[dict[str, list[int]]] = [{} for _ in scanners]

    def add(self, key: str, groups: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Scans the groups of a batch; returns the share of dialogues with a hit, by scanner."""
        played = [
            (group, dialogue, [turn["said"] or turn["raw"] for turn in described["turns"]])
            for group, of_group in enumerate(groups, start=1)
            for dialogue, described in enumerate(of_group["dialogues"], start=1)
        ]
        shares = {}
        for scanner, links, counts in zip(self._scanners, self._links, self._counts, strict=True):
            hits = [[*place, turn + 1] for *place, replies in played for turn in scanner.find(replies)]
            hit = len({(group, dialogue) for group, dialogue, _ in hits})
            shares[scanner.name] = hit / len(played) if played else 0.0
            if hits:
                links[key], counts[key] = hits[:_LINKS], [hit, len(hits)]
        return shares

    def describe(self) -> list[dict[str, Any]]:
        """Describes for each scanner, by the batch's key: how many dialogues and turns it found, and where.

        Places are [group, dialogue, turn], from 1 as in links; those of a batch end after some.
        """
        return [
            {"name": scanner.name, "counts": counts, "links": links}
            for scanner, links, counts in zip(self._scanners, self._links, self._counts, strict=True)
        ]
