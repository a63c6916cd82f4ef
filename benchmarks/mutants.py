"""Breaks the method and its wiring in one place at a time, and sees whether the tests notice.

    python -m benchmarks.mutants                            the mutants made by hand, a few minutes
    python -m benchmarks.mutants --sample=200 [--seed=0]    so many of all that are made systematically; 0: every one
    python -m benchmarks.mutants --only=TEXT [--sample=0]   those whose name has TEXT in it: schedule, cmpo/pid.py
    [--jobs=2] [--json=FILE]

A mutant is killed where a test fails, nothing can be imported, or the tests take much longer than without it. Exits
with 1 where one by hand survives, or more than 10 % of the others. docs/testing.md says what came of it.

Every mutant is tried in a copy of the working tree by a process of its own, forked from one that has imported what
others wrote and none of ours; programs that JAX compiled are kept between them. (mutmut forks after the tests, and so
JAX and its threads, have started, and wraps the functions that we hand to `jax.jit`; cosmic-ray knows one command for
all files, and no mutants of the arguments and results that are the wiring.)
"""

import argparse
import collections
import contextlib
import importlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from benchmarks.mutants_by_hand import HAND, HARMLESS
from benchmarks.mutations import ROOT, TESTS, Mutant, generate

OURS = ("benchmarks", "cmpo", "configs", "models", "rollouts", "tests")
OTHERS = (
    *("jax.numpy", "flax.nnx", "optax", "orbax.checkpoint", "chex", "hypothesis", "pytest", "tensorboardX", "httpx"),
    *("starlette.applications", "tokenizers", "transformers", "uvicorn", "matplotlib.pyplot", "ml_collections"),
    *("absl.flags", "tqdm", "safetensors.numpy"),
)
PATIENCE, LEAST = 4.0, 60.0  # a mutant may take so many times as long as none, and so many seconds anyway


class Fate(NamedTuple):
    """What became of a mutant."""

    mutant: Mutant
    killed: bool
    how: str  # the test that failed, "error", or "time-out"
    seconds: float


class Trial(NamedTuple):
    """Tests that run in a copy of the tree."""

    mutant: Mutant | None  # None: nothing is changed
    tree: pathlib.Path
    process: int
    output: pathlib.Path
    began: float
    limit: float


def copy_tree(destination: pathlib.Path) -> None:
    """Copies what git tracks, or would."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (destination / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, destination / name)


def begin(mutant: Mutant | None, tests: Sequence[str], tree: pathlib.Path, limit: float) -> Trial:
    """Begins to run tests on a mutant in a process of its own."""
    if mutant:
        (tree / mutant.file).write_text(mutant.applied((ROOT / mutant.file).read_text(encoding="utf-8")))
    output = tree.with_suffix(".output")
    process = os.fork()
    if not process:
        status = 2
        try:
            status = _run(tests, tree, output)
        finally:  # nothing of ours may go on in a copy of the process that forked
            os._exit(status)
    return Trial(mutant, tree, process, output, time.monotonic(), limit)


def _run(tests: Sequence[str], tree: pathlib.Path, output: pathlib.Path) -> int:
    """In the forked process: pytest's exit status."""
    os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with output.open("wb") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    for name in [name for name in sys.modules if name.partition(".")[0] in OURS]:
        del sys.modules[name]
    sys.path = [str(tree), *(path for path in sys.path if path and pathlib.Path(path) != ROOT)]
    os.chdir(tree)
    import hypothesis
    import pytest

    # What fails need not be the simplest example, and must not depend on the day.
    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
    hypothesis.settings.register_profile("mutants", deadline=None, phases=phases, derandomize=True, database=None)
    options = ["-x", "-q", "-p", "no:cacheprovider", "--hypothesis-profile=mutants", "--no-header"]
    status = int(pytest.main([*options, *tests]))
    sys.stdout.flush()
    return status


def end(trial: Trial) -> tuple[int | None, float] | None:
    """Status, None for too long, and seconds, of tests that are over; None if they go on."""
    seconds = time.monotonic() - trial.began
    process, status = os.waitpid(trial.process, os.WNOHANG)
    if process:
        found = os.waitstatus_to_exitcode(status), seconds
    elif seconds > trial.limit:
        kill(trial)
        found = None, seconds
    else:
        return None
    with contextlib.suppress(ProcessLookupError):
        os.killpg(trial.process, signal.SIGKILL)  # what tests may have started and left
    if trial.mutant:
        shutil.copyfile(ROOT / trial.mutant.file, trial.tree / trial.mutant.file)
    return found


def kill(trial: Trial) -> None:
    """Ends tests that go on."""
    os.killpg(trial.process, signal.SIGKILL)
    os.waitpid(trial.process, 0)


def words(trial: Trial) -> str:
    """What the tests said."""
    return trial.output.read_text(encoding="utf-8", errors="replace")


def fate(trial: Trial, status: int | None, seconds: float) -> Fate:
    """What became of the mutant. Raises RuntimeError where no test ran."""
    if status in (4, 5):
        raise RuntimeError(f"{trial.mutant.name}: no tests ran:\n{words(trial)[-2000:]}")
    failed = [line for line in words(trial).splitlines() if line.startswith(("FAILED", "ERROR"))]
    how = "time-out" if status is None else failed[0].split(" - ")[0].split(maxsplit=1)[1] if failed else "error"
    return Fate(trial.mutant, status != 0, how if status != 0 else "", seconds)


def limits(mutants: Sequence[Mutant], tree: pathlib.Path) -> dict[tuple[str, ...], float]:
    """How long each set of tests may take, from how long it takes without mutants; compiles what they need, too.

    Raises RuntimeError where a test fails by itself.
    """
    found = {}
    for tests in dict.fromkeys(mutant.tests for mutant in mutants):
        trial = begin(None, tests, tree, limit=3600.0)
        try:
            while not (over := end(trial)):
                time.sleep(0.05)
        except BaseException:
            kill(trial)
            raise
        status, seconds = over
        if status != 0:
            raise RuntimeError(f"{' '.join(tests)}: expected to pass without a mutant, got:\n{words(trial)[-3000:]}")
        found[tests] = max(LEAST, PATIENCE * seconds)
        print(f"{seconds:6.1f} s  {' '.join(tests)}", flush=True)
    return found


def tried(mutants: Sequence[Mutant], jobs: int) -> Iterator[Fate]:
    """Tries mutants, so many at a time, and tells the fate of each as it is known."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as directory:
        trees = [pathlib.Path(directory, f"tree{number}") for number in range(min(jobs, len(mutants)))]
        for tree in trees:
            copy_tree(tree)
        _import_others(pathlib.Path(directory, "compiled"))
        allowed = limits(mutants, trees[0])
        waiting, running, free = list(mutants)[::-1], [], trees
        try:
            while waiting or running:
                while free and waiting:
                    mutant = waiting.pop()
                    running.append(begin(mutant, mutant.tests, free.pop(), allowed[mutant.tests]))
                for trial in list(running):
                    if over := end(trial):
                        running.remove(trial)
                        free.append(trial.tree)
                        yield fate(trial, *over)
                time.sleep(0.05)
        finally:
            for trial in running:
                kill(trial)


def _import_others(compiled: pathlib.Path) -> None:
    """Imports what every test needs and nobody here wrote; JAX starts no thread before its first computation."""
    kept = {"DIR": str(compiled), "MIN_COMPILE_TIME_SECS": "0", "MIN_ENTRY_SIZE_BYTES": "-1"}
    os.environ["JAX_COMPILATION_CACHE_DIR"] = kept.pop("DIR")
    os.environ |= {f"JAX_PERSISTENT_CACHE_{name}": value for name, value in kept.items()}
    os.environ["PYTHONDONTWRITEBYTECODE"], sys.dont_write_bytecode = "1", True  # a mutant may be as long as the last
    for name in OTHERS:
        importlib.import_module(name)


def chosen(sample: int | None, seed: int, only: str) -> list[Mutant]:
    """The mutants by hand, and with `sample` those made systematically: so many at random, or with 0 all."""
    made = [mutant for file in TESTS for mutant in generate(file, (ROOT / file).read_text(encoding="utf-8"))]
    found = list(HAND) if sample is None else made
    found = [mutant for mutant in found if only in mutant.name]
    if sample:
        found = random.Random(seed).sample(found, min(sample, len(found)))
    return sorted(found, key=lambda mutant: mutant.tests)


def report(fates: Sequence[Fate]) -> tuple[str, float]:
    """Tables of what was killed and what survived, and the share that was killed; harmless ones were not."""
    counts, lines, survivors = collections.defaultdict(collections.Counter), [], []
    for one in fates:
        known = HARMLESS.get((one.mutant.file, _change(one.mutant)), "")
        counts[one.mutant.file].update(tried=1, killed=int(one.killed), harmless=int(bool(known) and not one.killed))
        if not one.killed:
            survivors.append(f"{one.mutant.name} {one.mutant.why}\n{_change(one.mutant)}\n  {known or 'SURVIVED'}")
    lines += ["| file | mutants | killed | harmless | survived |", "|---|---:|---:|---:|---:|"]
    total = sum(counts.values(), collections.Counter())
    for name, count in [*counts.items(), ("all", total)]:
        survived = count["tried"] - count["killed"] - count["harmless"]
        lines.append(f"| `{name}` | {count['tried']} | {count['killed']} | {count['harmless']} | {survived} |")
    return "\n".join([*lines, "", *survivors]), total["killed"] / max(1, total["tried"])


def _change(mutant: Mutant) -> str:
    return mutant.change((ROOT / mutant.file).read_text(encoding="utf-8"))


def main() -> None:
    """Tries the mutants that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample", type=int, help="how many of those made systematically, 0: all; default: by hand")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--only", default="", help="those whose name has this in it")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument("--json", type=pathlib.Path, help="a file for all that was found")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    mutants, fates = chosen(arguments.sample, arguments.seed, arguments.only), []
    if not mutants:
        parser.error(f"--only: expected a part of the name of a mutant, got {arguments.only!r}")
    for one in tried(mutants, arguments.jobs):
        fates.append(one)
        end_of_it = f"killed by {one.how}" if one.killed else "SURVIVED"
        print(f"{one.seconds:6.1f} s  {one.mutant.name}: {end_of_it}", flush=True)
    text, share = report(fates)
    print(f"\n{text}\n{100 * share:.1f} % of {len(fates)} mutants killed")
    if arguments.json:
        rows = [one.mutant._asdict() | {"killed": one.killed, "how": one.how, "seconds": one.seconds} for one in fates]
        rows = [row | {"change": _change(one.mutant)} for row, one in zip(rows, fates, strict=True)]
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    by_hand = [one for one in fates if one.mutant in HAND]
    if share < 0.9 or not all(one.killed for one in by_hand):
        sys.exit(1)


if __name__ == "__main__":
    main()
