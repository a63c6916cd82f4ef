"""What the lab costs: hundreds of whole runs, and its dialogues beside those of the gym with words.

    .venv/bin/python -m benchmarks.lab [--runs=200] [--json=FILE]

The runs have as many steps and dialogues as `make train`: 60 steps of 12 scenarios, 4 dialogues of each. CPU seconds
are those of this process in all its threads; on a machine that is busy with other things they say more than the clock.
A program is compiled once; `cmpo.lab` keeps it on disk, here nothing is kept. The gym's dialogues are played by a
scripted agent through text and judged, as the trainer's are, but for the language model; the lab's by its policy.
"""

import argparse
import dataclasses
import functools
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from benchmarks import contest
from cmpo.lab import learning
from cmpo.lab.grids import CHUNK
from cmpo.lab.plan import LabConfig
from cmpo.training import clients, collecting, tasks
from configs import fds
from rollouts import domains

SCENARIOS = 128  # of the gym with words


class Took(NamedTuple):
    """Seconds of the clock and of the processor."""

    wall: float
    cpu: float


def measure(work: Callable[[], Any]) -> tuple[Any, Took]:
    """Measures what `work` takes; returns what it returned, and that."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = jax.block_until_ready(work())
    return result, Took(time.perf_counter() - wall, time.process_time() - cpu)


def time_runs(runs: int) -> tuple[Took, Took, Took]:
    """Times what it takes to clone a start, to compile, and to make `runs` runs of other seeds and budgets."""
    config = LabConfig(rests=0)
    start, cloning = measure(lambda: learning.make_start(config))

    def run_one(target, seed):
        return learning.train(dataclasses.replace(config, target=target), seed, start)

    targets, seeds = 0.05 + 0.7 * jnp.arange(CHUNK) / CHUNK, jnp.arange(CHUNK)
    compiled, compiling = measure(lambda: jax.jit(jax.vmap(run_one)).lower(targets, seeds).compile())
    chunks = -(-runs // CHUNK)
    _, running = measure(lambda: [compiled(targets, seeds + CHUNK * chunk) for chunk in range(chunks)])
    return cloning, compiling, Took(*(seconds * runs / (chunks * CHUNK) for seconds in running))


def time_dialogues(count: int) -> tuple[Took, float]:
    """Times `count` dialogues of the lab's policy; returns that, and their mean number of turns."""
    config = LabConfig(scenarios=count // LabConfig().dialogues)
    start = learning.make_start(config)
    play = jax.jit(functools.partial(learning.play_batch, config=config, policy=start))
    play(jax.random.key(0))
    batch, took = measure(lambda: play(jax.random.key(1)))
    return took, float(learning.summarize_batch(batch.rewards).turns)


def time_gym() -> tuple[Took, float]:
    """Times SCENARIOS dialogues of a scripted agent with the embedded user and judge; returns that, and their turns."""
    config = fds.get_config()
    agent = collecting.serve_agent(domains.load(config).scripted_agent(config, "generous"))
    found = tasks.open_source(config).train(0, SCENARIOS)
    options = {"repeats": 1, "seed": 0, "clients": clients.make_clients(config)}
    collecting.collect_dialogues(config, agent, found[:4], **options)  # reads its banks of words
    dialogues, took = measure(lambda: collecting.collect_dialogues(config, agent, found, **options))
    return took, sum(len(dialogue.turns) for dialogue in dialogues) / len(dialogues)


def name_processor() -> str:
    """Returns what the system calls its processor, and how many cores there are."""
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    return f"{name}, {os.cpu_count()} cores"


def main() -> None:
    """Prints the figures; with --json, writes them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--json", type=pathlib.Path, help="also write the figures there")
    arguments = parser.parse_args()
    print(f"{name_processor()}; load {os.getloadavg()[0]:.1f} at the beginning\n", flush=True)
    cloning, compiling, running = time_runs(arguments.runs)
    print("| | seconds | CPU seconds |\n|---|---:|---:|")
    parts = {"clone the start": cloning, "compile": compiling, f"{arguments.runs} runs": running}
    for name, took in parts.items():
        print(f"| {name} | {took.wall:.1f} | {took.cpu:.1f} |")
    whole = Took(*map(sum, zip(*parts.values(), strict=True)))
    print(f"| all of it | {whole.wall:.1f} | {whole.cpu:.1f} |\n")
    count = 8192
    (ours, turns), (theirs, gym_turns) = time_dialogues(count), time_gym()
    rates = {"the lab": (count, ours, turns), "the gym with words": (SCENARIOS, theirs, gym_turns)}
    print("| | dialogues | turns | dialogues a second | dialogues a CPU second |\n|---|---:|---:|---:|---:|")
    for name, (played, took, mean) in rates.items():
        print(f"| {name} | {played} | {mean:.1f} | {played / took.wall:,.0f} | {played / took.cpu:,.0f} |")
    ratio = (count / ours.cpu) / (SCENARIOS / theirs.cpu)
    print(f"\nratio of dialogues a CPU second: {ratio:,.0f}")
    runs = {"what": f"{arguments.runs} runs of CMPO", "ours": whole.cpu, "peer": 120.0, "peer_name": "two minutes"}
    speed = {"what": "dialogues", "ours": count / ours.cpu, "peer": SCENARIOS / theirs.cpu, "peer_name": "the gym"}
    records = [
        runs | {"ratio": 120.0 / whole.cpu, "unit": "CPU s", "note": "cloning and compiling included"},
        speed | {"ratio": ratio, "unit": "1/CPU s", "note": "by a small policy; by a script through text"},
    ]
    contest.write(arguments.json, [record | {"note": f"{record['note']}; {name_processor()}"} for record in records])


if __name__ == "__main__":
    main()
