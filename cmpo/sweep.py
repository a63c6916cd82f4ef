"""Makes the runs of a grid: ``python -m cmpo.sweep --config=configs/ablations.py --workdir=runs/ablations``.

Run again, it goes on. Runs that have phase 1 in common share it. Each is trained and evaluated; what came of it is a
line of the table in WORKDIR/sweep.md and sweep.json, and a curve in sweep.png. A run that fails is named there and
stops nothing. --list says what there is to do; --print_commands prints the commands of every run, for a scheduler.
"""

import json
import pathlib
import shlex
import signal
import sys
from collections.abc import Mapping, Sequence

from absl import flags

from cmpo.cli import command
from cmpo.evaluation import results
from cmpo.run import files
from cmpo.run.log import read_metrics
from cmpo.sweeping import table
from cmpo.sweeping.plan import PlannedRun, list_arguments, plan_runs
from cmpo.sweeping.runner import RESULT, Runner
from rollouts import domains

_ONLY = flags.DEFINE_list("only", [], "Names of the runs to make, separated by commas; default: all.")
_SEEDS = flags.DEFINE_integer(
    "seeds", 1, "How many training seeds each run is made with.", lower_bound=1, allow_override=True
)
_HELD_OUT = flags.DEFINE_integer("evaluation_seeds", 3, "Sets of held-out tasks of each evaluation.", lower_bound=1)
_JOBS = flags.DEFINE_integer("jobs", 1, "How many runs are made at a time.", lower_bound=1)
_LIST = flags.DEFINE_bool("list", False, "Only say what there is to do.")
_PRINT = flags.DEFINE_bool("print_commands", False, "Only print the commands of every run.")


def run() -> None:
    """Makes the runs that the flags name, or says what there is to do."""
    workdir, runs = pathlib.Path(command.WORKDIR.value), plan_runs(command.CONFIG.value, _SEEDS.value, _ONLY.value)
    with Runner(workdir, jobs=_JOBS.value, evaluation_seeds=_HELD_OUT.value) as runner:
        if _LIST.value:
            print(describe_work(runs, runner))
        elif _PRINT.value:
            print("\n".join(list_commands(runs, runner)))
        else:
            signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
            try:
                failed = runner.run_all(runs)
            except KeyboardInterrupt:
                print(f"{workdir}: stopped; the same command goes on")
                sys.exit(command.STOPPED)
            print(write_table(workdir, runs, runner, failed))


def describe_work(runs: Sequence[PlannedRun], runner: Runner) -> str:
    """Says which runs there are, which are done, and how many steps are left, with the time that steps have taken."""
    left, starts, lines = [run for run in runs if not runner.is_done(run)], {}, []
    for run in runs:
        train, state = run.config.train, "to do" if run in left else "done"
        starts |= {run.start: train.sft_steps} if run.start and run in left else {}
        lines.append(f"{run.name}: {' '.join([run.source, *run.changes])}: {train.rl_steps} steps of phase 2; {state}")
    steps = {"sft": sum(starts.values()), "rl": sum(run.config.train.rl_steps for run in left)}
    lines.append(
        f"{len(left)} of {len(runs)} runs are to do: {steps['rl']} steps of phase 2, and {steps['sft']} of phase 1 for "
        f"{len(starts)} starts that are shared"
    )
    took = {phase: _measure_step(runs, runner, phase) for phase in steps}
    if all(took[phase] is not None or not steps[phase] for phase in steps):
        seconds = sum(steps[phase] * (took[phase] or 0.0) for phase in steps)
        lines.append(f"about {seconds / 60:.0f} minutes of training one after another, by the steps that are done")
    return "\n".join(lines)


def list_commands(runs: Sequence[PlannedRun], runner: Runner) -> list[str]:
    """Lists a line of shell commands for every run, which trains and evaluates it without sharing a start."""
    lines = []
    for run in runs:
        directory = runner.find_directory(run)
        arguments = shlex.join(list_arguments(run, directory))
        train = f"{sys.executable} -m cmpo.main {arguments}"
        evaluate = f"{sys.executable} -m cmpo.evaluate {arguments} --seeds={_HELD_OUT.value}"
        lines.append(f"{train} && {evaluate} --out={shlex.quote(str(directory / RESULT))}")
    return lines


def write_table(workdir: pathlib.Path, runs: Sequence[PlannedRun], runner: Runner, failed: Mapping[str, str]) -> str:
    """Writes sweep.json, sweep.md and sweep.png, and returns the table as Markdown."""
    domain = domains.load(runs[0].config)
    done = [run for run in runs if runner.is_done(run)]
    found = {run.name: results.read_result(runner.find_directory(run) / RESULT) for run in done}
    lines = table.summarize_lines(domain, runs, found, failed)
    text = table.format_lines(domain, lines)
    files.replace_file(workdir / "sweep.json", json.dumps(lines, indent=2) + "\n")
    files.replace_file(workdir / "sweep.md", text + "\n")
    curves = {run.name: [x for x in read_metrics(runner.find_directory(run)) if x["phase"] == "rl"] for run in done}
    table.draw_lines(domain, {name: records for name, records in curves.items() if records}).savefig(
        workdir / "sweep.png", dpi=120
    )
    return text


def _measure_step(runs: Sequence[PlannedRun], runner: Runner, phase: str) -> float | None:
    """Measures the mean seconds of a step of a phase in the runs that have begun; None where none has."""
    took = [
        sum(record["seconds"].values())
        for run in runs
        if (runner.find_directory(run) / "metrics.jsonl").exists()
        for record in read_metrics(runner.find_directory(run))
        if record["phase"] == phase
    ]
    return sum(took) / len(took) if took else None


if __name__ == "__main__":
    command.run(run, required=["config", "workdir"], of_a_run=False)
