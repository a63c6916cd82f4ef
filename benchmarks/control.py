"""How the controller behaves in the lab: gains, forms, step responses, budgets that cannot be held, and ones that can.

    .venv/bin/python -m benchmarks.control [--only=gains,steps] [--out=runs/control] [--figures=docs]

Each of EXPERIMENTS is one or more grids of `cmpo.lab`. Their histories are kept in --out, so that the same command goes
on where it stopped and draws again without computing. It prints a table of each, and draws what there is: docs/pid.md
says what it shows. All of it takes a quarter of an hour of one core, alone.
"""

import argparse
import pathlib
from typing import NamedTuple

import numpy as np

from benchmarks import control_pictures
from cmpo.cli import command
from cmpo.lab import grids
from cmpo.lab.grids import Grid
from cmpo.lab.learning import History

EXPERIMENTS = {
    "gains": ("kp=0.0,0.5,2.0,4.0,8.0 ki=0.02,0.05,0.15,0.5 form=incremental,positional seeds=8",),
    "steps": (
        "kp=4.0 steps=120 rests=1 final_fraction=1.0 learning_rate=0.01 change_at=60 target_change=0.0,0.2 seeds=16",
        "kp=4.0 steps=120 rests=1 final_fraction=1.0 learning_rate=0.01 change_at=60 judge_scale=3.0 seeds=16",
        "kp=4.0 steps=120 rests=1 final_fraction=1.0 learning_rate=0.01 change_at=60 difficulty_after=normal seeds=16",
    ),
    "infeasible": (
        "credit=instant,cost_to_go kp=0.5,4.0 rests=1 seeds=16",
        "credit=cost_to_go target=0.1 lambda_max=1.0 kp=4.0 rests=1 seeds=16",
    ),
    "held": (
        "target=0.05,0.15,0.3,0.5,0.7 kp=6.0 ki=0.2 scenarios=48 steps=120 final_fraction=0.02 rests=25 seeds=20",
        "target=0.05,0.15,0.3,0.5,0.7 scenarios=48 steps=120 final_fraction=0.02 ki=0.2 kp=4.0 learning_rate=0.01 "
        "rests=25 seeds=10",
    ),
    "forms": ("normalize=center,group,scaled,batch target=0.15,0.3,0.5 kp=4.0 rests=40 seeds=20",),
    "price_scale": ("price_scale=one_plus_lambda target=0.15,0.3,0.5 kp=4.0 rests=40 seeds=20",),
    "holding": (
        "every=4 target=0.15,0.3,0.5 kp=4.0 rests=40 seeds=20",
        "smoothing_of=proportional smoothing=0.3 target=0.15,0.3,0.5 kp=4.0 rests=40 seeds=20",
        "smoothing_of=both smoothing=0.3 target=0.15,0.3,0.5 kp=4.0 rests=40 seeds=20",
    ),
}
"""Name -> grids as `python -m cmpo.lab --grid` reads them. What a grid does not name is the default of `LabConfig`."""


class Runs(NamedTuple):
    """Histories of a grid."""

    grid: Grid
    histories: dict[str, History]  # without policies: []


def compute_runs(text: str, path: pathlib.Path) -> Runs:
    """Makes the runs of a grid, or reads them from `path` if they were made before."""
    grid, fields = grids.read_grid(text), History._fields[:-1]
    if path.exists():
        with np.load(path) as kept:
            if str(kept["grid"]) == text:
                found = {name: History(*kept[name], policy=()) for name in grid.configs}
                return Runs(grid, found)
    found = {name: history._replace(policy=()) for name, history in grids.run_grid(grid).items()}
    arrays = {name: np.stack([getattr(history, field) for field in fields]) for name, history in found.items()}
    np.savez_compressed(path, grid=text, **arrays)
    return Runs(grid, found)


def main() -> None:
    """Computes, prints and draws."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(EXPERIMENTS), help="names of EXPERIMENTS, with commas between them")
    parser.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path("runs/control"), help="where histories are kept"
    )
    parser.add_argument("--figures", type=pathlib.Path, help="a directory for the pictures")
    arguments = parser.parse_args()
    names = arguments.only.split(",")
    if unknown := set(names) - set(EXPERIMENTS):
        parser.error(f"--only: expected names of {', '.join(EXPERIMENTS)}, got {', '.join(sorted(unknown))}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    command.keep_programs()
    for name in names:
        found = []
        for number, text in enumerate(EXPERIMENTS[name]):
            print(f"\n{name}: {text}\n", flush=True)
            found.append(compute_runs(text, arguments.out / f"{name}_{number}.npz"))
            print(grids.format_findings(grids.summarize_grid(*found[-1])), flush=True)
        if arguments.figures and (draw := control_pictures.PICTURES.get(name)):
            path = arguments.figures / f"pid_{name}.png"
            control_pictures.save_picture(draw(*((runs.grid, runs.histories) for runs in found)), path)
            print(f"\n{path}", flush=True)


if __name__ == "__main__":
    main()
