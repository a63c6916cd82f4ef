"""Makes many whole runs of CMPO in seconds: ``python -m cmpo.lab --grid="target=0.15,0.3 seeds=20" --out=lab.json``.

A grid has keys of `cmpo.lab.plan.LabConfig`, each with its values, and the number of seeds; every value is combined
with every other. Runs that differ in numbers alone, such as budgets and gains, are one program; every other choice,
such as credit=instant,cost_to_go, compiles another. The command prints a line for each setting. With --out it writes
what the lines say and the mean curves over seeds as JSON. What the lab is, and what it is not: docs/lab.md.
"""

import dataclasses
import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

from absl import flags

from cmpo.cli import command
from cmpo.lab import grids
from cmpo.lab.grids import Finding, Grid
from cmpo.lab.learning import History
from cmpo.run import files

_GRID = flags.DEFINE_string("grid", None, 'Settings, for example "target=0.15,0.3 credit=instant,dialogue seeds=20".')


def run() -> None:
    """Makes the runs of the grid, prints the table, and writes the file that --out names."""
    grid = grids.read_grid(_GRID.value)
    out = pathlib.Path(command.OUT.value) if command.OUT.value else None
    if out:
        files.make_parent_directory(out)
    command.keep_programs()
    histories = grids.run_grid(grid)
    findings = grids.summarize_grid(grid, histories)
    print(grids.format_findings(findings))
    if out:
        files.replace_file(out, json.dumps(describe_grid(grid, findings, histories), indent=1, allow_nan=False) + "\n")
        print(out)


def describe_grid(grid: Grid, findings: list[Finding], histories: Mapping[str, History]) -> list[dict[str, Any]]:
    """Describes every setting: its config, what came of it, and the mean and deviation over seeds at every step."""
    described = []
    for found in findings:
        history, config = histories[found.name], grid.configs[found.name]
        curves = {
            name: {
                "mean": list(map(_describe_number, values.mean(0).tolist())),
                "deviation": list(map(_describe_number, values.std(0).tolist())),
            }
            for name, values in history._asdict().items()
            if name != "policy"
        }
        finding = {key: _describe_number(value) for key, value in found._asdict().items()}
        described.append({**finding, "seeds": grid.seeds, "config": dataclasses.asdict(config), "curves": curves})
    return described


def _describe_number(value: Any) -> Any:
    """Returns None for a number that is not finite, which JSON does not know; anything else as it is."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    command.run(run, required=["grid"])
