"""Where scenarios come from: the generator, endless, or a released parquet file, epoch after epoch."""

import itertools
import pathlib
import random
from typing import Protocol

import pyarrow
import pyarrow.parquet

from rollouts import fds, released
from rollouts.seeds import fold
from rollouts.types import Scenario

COLUMNS = ("prompt", "extra_info")


class Source(Protocol):
    """Deals scenarios; a cursor is all there is to remember."""

    def train(self, cursor: int, count: int) -> list[Scenario]:
        """Scenarios number cursor .. cursor + count - 1 of the training stream."""

    def held_out(self, count: int, seed: int) -> list[Scenario]:
        """`count` scenarios that `train` never deals."""


class Generated:
    """The gym's own generator."""

    def __init__(self, difficulty: str, seed: int):
        next(fds.scenarios(seed, difficulty=difficulty))  # an unknown difficulty is reported now, not later
        self._difficulty, self._seed = difficulty, seed

    def train(self, cursor: int, count: int) -> list[Scenario]:
        """See Source."""
        stream = fds.scenarios(self._seed, difficulty=self._difficulty, start=cursor)
        return list(itertools.islice(stream, count))

    def held_out(self, count: int, seed: int) -> list[Scenario]:
        """See Source."""
        return list(itertools.islice(fds.scenarios(seed, difficulty=self._difficulty, split="test"), count))


class Released:
    """The authors' records, shuffled anew each epoch; every tenth is held out.

    Raises FileNotFoundError or ValueError, naming config.data.path, for a missing file, other columns or a bad row.
    """

    def __init__(self, path: str, seed: int):
        if not pathlib.Path(path).is_file():
            raise FileNotFoundError(f"config.data.path: expected a parquet file, found none at {path!r}")
        try:
            columns = pyarrow.parquet.read_schema(path).names
        except (pyarrow.ArrowException, OSError) as error:
            raise ValueError(f"config.data.path: {path!r} is not a parquet file: {error}") from None
        if missing := sorted(set(COLUMNS) - set(columns)):
            raise ValueError(f"config.data.path: {path!r} lacks the columns {missing}; it has {columns}")
        self._seed, self._scenarios = seed, []
        for number, row in enumerate(pyarrow.parquet.read_table(path, columns=list(COLUMNS)).to_pylist()):
            try:
                self._scenarios.append(released.from_record(row))
            except (KeyError, TypeError, ValueError, IndexError) as error:
                reason = f"{type(error).__name__}: {error}"
                raise ValueError(f"config.data.path: row {number} of {path!r} is no FDS record: {reason}") from None
        if len(self._scenarios) < 10:
            raise ValueError(f"config.data.path: expected at least 10 records, got {len(self._scenarios)} in {path!r}")
        self._held_out = self._scenarios[9::10]
        del self._scenarios[9::10]

    def train(self, cursor: int, count: int) -> list[Scenario]:
        """See Source."""
        dealt, size = [], len(self._scenarios)
        for number in range(cursor, cursor + count):
            if not dealt or number % size == 0:
                order = list(range(size))
                random.Random(fold(self._seed, "epoch", number // size)).shuffle(order)
            dealt.append(self._scenarios[order[number % size]])
        return dealt

    def held_out(self, count: int, seed: int) -> list[Scenario]:
        """See Source. Raises ValueError if the file holds fewer."""
        if count > len(self._held_out):
            raise ValueError(f"config.eval.scenarios: expected at most {len(self._held_out)} of this file, got {count}")
        return random.Random(fold(seed, "held out")).sample(self._held_out, count)


def source(path: str, difficulty: str, seed: int) -> Source:
    """The source that config.data names."""
    return Released(path, seed) if path else Generated(difficulty, seed)
