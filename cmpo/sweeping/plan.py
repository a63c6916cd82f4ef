"""The runs of a sweep, and the starts that they share."""

import ast
import pathlib
import runpy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from cmpo.run.workdir import hash_start
from rollouts.sections import flatten_config


class PlannedRun(NamedTuple):
    """One run of a sweep."""

    name: str  # of its directory: that of the grid and the seed
    label: str  # of its line in the table: that of the grid
    source: str  # config file and variants, as --config has them
    changes: tuple[str, ...]  # FIELD=VALUE
    config: ConfigDict
    start: str  # the same for all runs that have phase 1 in common; "" without one


def plan_runs(grid: Mapping[str, Any], seeds: int, only: Sequence[str] = ()) -> list[PlannedRun]:
    """Plans the runs of a grid, of which `only` these or all, each with training seeds 0 to `seeds` - 1.

    `grid` has `base`, a config file; `runs`: by name a `variant` of it and `changes`; and the `order` of their names.

    Raises ValueError, naming the run, for a name that is not in the grid and a setting that is not in the config.
    """
    if unknown := [name for name in only if name not in grid["runs"]]:
        raise ValueError(f"--only: expected some of {', '.join(grid['order'])}, got {unknown[0]!r}")
    get_config, planned = runpy.run_path(str(grid["base"]))["get_config"], []
    for label in only or grid["order"]:
        run = grid["runs"][label]
        for seed in range(seeds):
            changes = (*run["changes"], f"train.seed={seed}")
            config = _change_config(get_config, label, run["variant"], changes)
            start = hash_start(config) if config.train.sft_steps else ""
            planned.append(
                PlannedRun(f"{label}_{seed}", label, f"{grid['base']}:{run['variant']}", changes, config, start)
            )
    return planned


def list_arguments(run: PlannedRun, workdir: pathlib.Path) -> list[str]:
    """Lists the arguments of `cmpo.main` and `cmpo.evaluate` for a run in `workdir`."""
    return [f"--config={run.source}", f"--workdir={workdir}", *(f"--config.{change}" for change in run.changes)]


def _change_config(
    get_config: Callable[[str], ConfigDict], label: str, variant: str, changes: Sequence[str]
) -> ConfigDict:
    config = get_config(variant)
    known = flatten_config(config.to_dict())
    for change in changes:
        field, _, text = change.partition("=")
        if field not in known:
            raise ValueError(f"{label}: expected FIELD=VALUE with a field of the config, got {change!r}")
        value = text if isinstance(known[field], str) else ast.literal_eval(text)
        config.update_from_flattened_dict({field: value})
    return config
