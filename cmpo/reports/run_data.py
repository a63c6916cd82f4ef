"""Reads what a run left on disk, for all that show it: numbers by step, config, domain, and where its dialogues are."""

import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from cmpo.algorithms.budgets import budgets_of
from cmpo.run import files, schema
from cmpo.run.log import read_metrics
from cmpo.run.workdir import fill_in
from rollouts import domains
from rollouts.domain import Bound, Domain

_EVALUATED = ".transcripts.jsonl"


class Run(NamedTuple):
    """A run as it is on disk."""

    folder: pathlib.Path
    name: str
    config: Mapping[str, Any]
    records: Sequence[Mapping[str, Any]]  # of metrics.jsonl
    domain: Domain
    budgets: Sequence[float]  # [C]; [] where the config has none

    @property
    def step(self) -> int:
        """The last step that is done; 0 before the first."""
        return self.records[-1]["step"] if self.records else 0

    def find_bound(self) -> Bound | None:
        """Finds the best that any agent can do with the run's config; None where it is not known."""
        return self.domain.find_bound(fill_in(schema.default_config(self.domain), self.config))


class Batch(NamedTuple):
    """A file of dialogues: those of a step, or of an evaluation."""

    key: str  # in links: the step's number, or the name of the evaluation's file
    title: str
    step: int | None
    path: pathlib.Path


def load_run(workdir: str | os.PathLike) -> Run:
    """Loads the run in `workdir`. Raises FileNotFoundError if it holds none, ValueError if a file is damaged."""
    folder = pathlib.Path(workdir)
    for name, what in (("metrics.jsonl", "a line of numbers per step"), ("config.json", "the run's configuration")):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name}: no such file; expected {what}, written by python -m cmpo.main")
    config = files.read_object(folder / "config.json")
    domain = domains.load(config)
    held = isinstance(config.get("pid"), Mapping) and "target" in config["pid"]
    budgets = budgets_of(domain, config) if held else []
    name = config.get("name") or folder.resolve().name
    return Run(folder, name, config, read_metrics(folder), domain, budgets)


def select_phase(records: Sequence[Mapping[str, Any]], name: str) -> list[Mapping[str, Any]]:
    """Selects the records of one phase, sft or rl."""
    return [record for record in records if record["phase"] == name]


def list_batches(run: Run) -> Iterator[Batch]:
    """Lists the files of dialogues, steps before evaluations.

    Transcripts beyond the run's present step, which a restart may leave behind, are not among them.
    """
    for path in sorted(run.folder.glob("transcripts/step_*.jsonl")):
        step = int(path.stem.removeprefix("step_"))
        if step <= run.step:
            yield Batch(str(step), f"Step {step}", step, path)
    for path in sorted(run.folder.glob(f"evaluation_*{_EVALUATED}")):
        key = path.name.removesuffix(_EVALUATED)
        yield Batch(key, f"Evaluation of {key.removeprefix('evaluation_')}", None, path)
