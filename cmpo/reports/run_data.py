"""Reads what a run or an evaluation left on disk, for all that show it: numbers by step, config, domain, dialogues."""

import hashlib
import itertools
import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from absl import logging

from cmpo.algorithms.budgets import budgets_of
from cmpo.evaluation import results
from cmpo.reports import shapes
from cmpo.run import files, schema
from cmpo.run.json_lines import read_torn_lines
from cmpo.run.workdir import fill_in
from rollouts import domains
from rollouts.domain import Bound, Domain

_EVALUATED = ".transcripts.jsonl"
_DIGEST = 8  # letters


class Run(NamedTuple):
    """A run as it is on disk, or an evaluation alone, which has no steps."""

    folder: pathlib.Path
    name: str
    config: Mapping[str, Any]
    records: Sequence[Mapping[str, Any]]  # of metrics.jsonl
    domain: Domain
    budgets: Sequence[float]  # [C]; [] where the config has none
    result: pathlib.Path | None = None  # the file of an evaluation; None: it is a run

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


def load_source(path: str | os.PathLike) -> Run:
    """Loads the run in a directory, or the evaluation in a file that `cmpo.evaluate` wrote.

    Raises FileNotFoundError if there is neither, ValueError if a file is damaged or no result.
    """
    if not pathlib.Path(path).exists():
        raise FileNotFoundError(
            f"{path}: no such file or directory; expected that of a run, or a file that cmpo.evaluate wrote"
        )
    return load_evaluation(path) if pathlib.Path(path).is_file() else load_run(path)


def load_sources(paths: Sequence[str | os.PathLike]) -> list[Run]:
    """Loads what is to be compared, see `load_source`; no two have the same name.

    Raises ValueError, too, for a run beside an evaluation.
    """
    run, *others = runs = [load_source(path) for path in paths]
    for other in others:
        if (run.result is None) != (other.result is None):
            raise ValueError(
                f"--against: expected {'a run' if run.result is None else 'an evaluation'}, as --workdir is one, got "
                f"{other.result or other.folder}; compare runs with runs, and evaluations with evaluations"
            )
    names = tell_apart([one.name for one in runs], [_list_folders(one) for one in runs])
    return [one._replace(name=name) for one, name in zip(runs, names, strict=True)]


def _list_folders(run: Run) -> Sequence[str]:
    """Lists the folders, from the top, that lead to what the name of a source begins with."""
    folder = run.folder.resolve()
    begins = folder.name if run.result is None else f"{folder.name}/{_name_result(run.result)}"
    return (folder.parent if run.name == begins else folder).parts[1:]


def tell_apart(names: Sequence[str], folders: Sequence[Sequence[str]]) -> list[str]:
    """Makes names differ: those that are the same get as many of their folders as it takes, and then numbers."""
    found = list(names)
    for name in {name for name in names if names.count(name) > 1}:
        places = [place for place, one in enumerate(names) if one == name]
        above = [folders[place] for place in places]
        counts = range(1 + max(map(len, above)))
        versions = [["/".join([*path[max(0, len(path) - count) :], name]) for path in above] for count in counts]
        for place, longer in zip(places, max(versions, key=lambda version: len(set(version))), strict=True):
            found[place] = longer
    return _number_names(found)


def _number_names(names: Sequence[str]) -> list[str]:
    found: list[str] = []
    for name in names:
        numbered = (f"{name} ({number})" for number in itertools.count(2))
        found.append(next(one for one in itertools.chain([name], numbered) if one not in found))
    return found


def load_evaluation(path: str | os.PathLike) -> Run:
    """Loads a result of `cmpo.evaluate`. Raises OSError, or ValueError if it is none."""
    path = pathlib.Path(path)
    found = results.read_result(path)
    domain, config = results.load_domain(found), found["config"]
    name = f"{path.resolve().parent.name}/{_name_result(path)}"
    return Run(path.parent, name, config, [], domain, _read_budgets(domain, config), path)


def load_run(workdir: str | os.PathLike) -> Run:
    """Loads the run in `workdir`. Raises FileNotFoundError if it holds none, ValueError if a file is damaged."""
    folder = pathlib.Path(workdir)
    for name, what in (("metrics.jsonl", "a line of numbers per step"), ("config.json", "the run's configuration")):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name}: no such file; expected {what}, written by python -m cmpo.main")
    config = files.read_object(folder / "config.json")
    domain = _load_domain(folder / "config.json", config)
    name = str(config.get("name") or folder.resolve().name)
    return Run(folder, name, config, _read_records(folder), domain, _read_budgets(domain, config))


def _load_domain(path: pathlib.Path, config: Mapping[str, Any]) -> Domain:
    """Loads the domain of a config in the file `path`. Raises ValueError, naming the field."""
    try:
        shapes.check_sections(config, schema.default_config())
        if not isinstance(domains.name_of(config), str):
            raise ValueError(f"domain: expected a name, got {config['domain']!r:.100}")
        domain = domains.load(config)
        shapes.check_sections(config, schema.default_config(domain))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return domain


def _read_records(folder: pathlib.Path) -> list[dict[str, Any]]:
    records, _ = read_torn_lines(folder / "metrics.jsonl", shapes.check_record)  # a last line may be half-written
    return records


def _read_budgets(domain: Domain, config: Mapping[str, Any]) -> Sequence[float]:
    held = isinstance(config.get("pid"), Mapping) and "target" in config["pid"]
    return budgets_of(domain, config) if held else []


def list_results(run: Run) -> dict[str, pathlib.Path]:
    """Lists the files of the evaluations in a run's folder, or the evaluation's own, by their names."""
    paths = [run.result] if run.result else sorted(run.folder.glob("evaluation_*.json"))
    return {_name_result(path): path for path in paths}


def _name_result(path: pathlib.Path) -> str:
    return path.stem.removeprefix("evaluation_")


def make_key(name: str) -> str:
    """Makes the key of an evaluation, which may stand in a link of the page as it is. No two names share one."""
    quoted = re.sub(r"[^\w.=+-]", "-", name, flags=re.ASCII)
    digest = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:_DIGEST]
    return f"evaluation_{quoted}" + (f"~{digest}" if quoted != name else "")


def select_phase(records: Sequence[Mapping[str, Any]], name: str) -> list[Mapping[str, Any]]:
    """Selects the records of one phase, sft or rl."""
    return [record for record in records if record["phase"] == name]


def list_batches(run: Run) -> Iterator[Batch]:
    """Lists the files of dialogues, steps before evaluations.

    Transcripts beyond the run's present step, which a restart may leave behind, are not among them.
    """
    for path in sorted(run.folder.glob("transcripts/step_*.jsonl")) if run.result is None else ():
        number = re.fullmatch(r"step_(\d{6,})", path.stem, re.ASCII)
        if number and (step := int(number[1])) <= run.step:
            yield Batch(str(step), f"Step {step}", step, path)
    own = run.result and run.result.with_suffix(_EVALUATED)
    for path in filter(pathlib.Path.exists, [own] if own else sorted(run.folder.glob(f"evaluation_*{_EVALUATED}"))):
        name = path.name.removesuffix(_EVALUATED).removeprefix("evaluation_")
        yield Batch(make_key(name), f"Evaluation of {name}", None, path)


def read_batch(batch: Batch) -> tuple[list[dict[str, Any]], bool, int]:
    """Reads the rows of a file of dialogues; whether its last line was cut off, as by a crash; how many were left out.

    Left out are rows without a task, as older versions wrote them. Warnings say both.

    Raises ValueError, naming line and field, if the file is damaged elsewhere or holds something else.
    """
    rows, wrong = read_torn_lines(batch.path, shapes.check_dialogue)
    if wrong is not None:
        logging.warning("the last line is cut off, and left out: %s", wrong)
    found = [row for row in rows if "task" in row]
    if older := len(rows) - len(found):
        logging.warning("%d dialogues without a task, of an older version, are left out: %s", older, batch.path)
    return found, wrong is not None, older
