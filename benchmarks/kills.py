"""Kills a run with SIGKILL at random moments, resumes it each time, and compares with a run that was left alone.

    python -m benchmarks.kills [--kills=20] [--seed=0] [--config=configs/tau2.py:smoke]

A run, by default the smoke run of FDS, is started, killed after a random time, started again, and so on until it ends;
then another, until there were enough kills. Compared to the bit: everything in the last checkpoint (parameters,
optimizer, reference, controller, seed, step, cursor), every field of every line of metrics.jsonl but for what was timed
and spent, every transcript. Exits with 1 if anything differs. Takes about as many minutes as there are kills.
"""

import argparse
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np
import orbax.checkpoint as ocp

from cmpo.run.log import read_metrics

OWN = ("seconds", "tokens_per_second", "spent")  # a killed run asks once more what was not answered yet


def start(config: str, workdir: pathlib.Path) -> subprocess.Popen:
    """Begins a run in `workdir`, or goes on with it."""
    command = [sys.executable, "-m", "cmpo.main", f"--config={config}", f"--workdir={workdir}"]
    # Restarts need not compile again what the first run compiled.
    cache = {"JAX_COMPILATION_CACHE_DIR": str(workdir.parent / "compiled")}
    cache |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env={**os.environ, **cache}
    )


def wait(process: subprocess.Popen, seconds: float | None = None) -> bool:
    """Whether the run ended well within so many seconds. Raises RuntimeError, with its last words, if it ended ill."""
    try:
        _, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        return False
    if process.returncode:
        raise RuntimeError(f"the run ended with status {process.returncode}:\n{errors[-3000:]}")
    return True


def kill(process: subprocess.Popen) -> None:
    """Ends a run as a power cut would, but for the disk."""
    process.send_signal(signal.SIGKILL)
    process.communicate()


def reached(workdir: pathlib.Path) -> str:
    """How far a run is, from what lies in its workdir."""
    lines = read_metrics(workdir) if (workdir / "metrics.jsonl").exists() else []
    names = [path.name for path in (workdir / "checkpoints").glob("*")]
    whole, partial = sorted(int(name) for name in names if name.isdigit()), sum(not name.isdigit() for name in names)
    journal = sum(path.stat().st_size for path in (workdir / "dialogues").glob("*"))
    step = lines[-1]["step"] if lines else 0
    return (
        f"step {step:2}, checkpoints {whole}{f' and {partial} unfinished' * bool(partial)}, journal {journal:,} bytes"
    )


def outcome(workdir: pathlib.Path) -> dict[str, object]:
    """All that must be equal, by name."""
    with ocp.CheckpointManager(workdir / "checkpoints", item_handlers=ocp.StandardCheckpointHandler()) as manager:
        state = manager.restore(manager.latest_step())
    found: dict[str, object] = {
        f"state{jax.tree_util.keystr(path)}": np.asarray(leaf).tobytes()
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    }
    for number, line in enumerate((workdir / "metrics.jsonl").read_text().splitlines()):
        record = {name: json.dumps(value) for name, value in json.loads(line).items() if name not in OWN}
        found |= {f"line {number} of metrics.jsonl: {name}": value for name, value in record.items()}
    return found | {path.name: path.read_bytes() for path in (workdir / "transcripts").iterdir()}


def differences(one: dict[str, object], other: dict[str, object]) -> list[str]:
    """Names of what is not the same, or not there."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def main() -> None:
    """Runs, kills, compares, prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--config", default="configs/fds.py:smoke")
    arguments = parser.parse_args()
    moments = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as directory:
        alone = pathlib.Path(directory) / "alone"
        wait(start(arguments.config, pathlib.Path(directory) / "first"))  # which compiles
        begun = time.monotonic()
        wait(start(arguments.config, alone))
        seconds, expected = time.monotonic() - begun, outcome(alone)
        print(f"left alone: {seconds:.0f} s, {reached(alone)}; {len(expected)} things to compare", flush=True)
        kills, runs, wrong = 0, 0, []
        while kills < arguments.kills:
            runs += 1
            workdir = pathlib.Path(directory) / f"killed_{runs}"
            while True:
                process, moment = start(arguments.config, workdir), moments.uniform(0, seconds)
                if wait(process, moment if kills < arguments.kills else None):
                    break
                kill(process)
                kills += 1
                print(f"kill {kills:2} of run {runs}, after {moment:4.1f} s: {reached(workdir)}", flush=True)
            differ = differences(expected, outcome(workdir))
            wrong += differ
            print(f"run {runs} ended: {len(differ)} of {len(expected)} differ {differ[:5] or ''}", flush=True)
    print(f"{kills} kills, {runs} runs, {len(wrong)} differences")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
