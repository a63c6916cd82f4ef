"""Computes the frontiers of the embedded gym and keeps them beside its rules, where `oracle` reads them.

    .venv/bin/python -m benchmarks.frontiers        # a minute; whenever the rules changed

A test fails while the rules are others than those that the file was computed by.
"""

import itertools

from rollouts.domains.fds.embedded import kept, oracle

DIFFICULTIES, KNOWS = ("hard", "normal"), ("messages", "all")


def main() -> None:
    """Computes all and writes the file."""
    keys = [(difficulty, knows, "test") for difficulty, knows in itertools.product(DIFFICULTIES, KNOWS)]
    kept.write_frontiers({key: oracle.solve_prices(*key)._asdict() for key in keys})


if __name__ == "__main__":
    main()
