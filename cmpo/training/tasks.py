"""Where scenarios come from: the generator, endless, or fixed records, epoch after epoch."""

import itertools
from collections.abc import Sequence
from typing import Protocol

from ml_collections import ConfigDict

from cmpo.distributed import processes
from rollouts.domains.fds import generator
from rollouts.types import Scenario


class Source(Protocol):
    """Deals scenarios; a cursor is all there is to remember."""

    def train(self, cursor: int, count: int) -> Sequence[Scenario]:
        """Scenarios number cursor .. cursor + count - 1 of the training stream."""

    def held_out(self, count: int, seed: int) -> Sequence[Scenario]:
        """`count` scenarios, about orders that `train` never deals."""


class Generated:
    """The gym's own generator."""

    def __init__(self, difficulty: str, seed: int):
        next(generator.scenarios(seed, difficulty=difficulty))  # an unknown difficulty is reported now, not later
        self._difficulty, self._seed = difficulty, seed

    def train(self, cursor: int, count: int) -> list[Scenario]:
        """See Source."""
        stream = generator.scenarios(self._seed, difficulty=self._difficulty, start=cursor)
        return list(itertools.islice(stream, count))

    def held_out(self, count: int, seed: int) -> list[Scenario]:
        """See Source."""
        return list(itertools.islice(generator.scenarios(seed, difficulty=self._difficulty, split="test"), count))


def source(data: ConfigDict, seed: int) -> Source:
    """The source that `data`, a run's config.data, names; what it needs on disk is prepared by the first process.

    Raises FileNotFoundError or ValueError, naming the field, for a file that is missing, damaged or something else.
    """
    if data.endless and not data.path:
        return Generated(data.difficulty, seed)
    from rollouts.domains.fds import tfds_dataset  # takes half a second, and few runs need it

    directory = processes.once(lambda: tfds_dataset.prepare(data.difficulty, data.path, data.dir))
    opened = []
    processes.everywhere(
        lambda: opened.append(tfds_dataset.Recorded(directory, seed))
    )  # where one cannot, none goes on
    return opened[0]
