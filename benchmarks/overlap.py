"""What it saves to play a batch beside the update on the one before, by how long user and judge take to answer.

    python -m benchmarks.overlap [--json=FILE] [--latency=0,0.5,2] [--steps=8]

The default model, after a short phase 1, against the embedded user and judge, each of whose answers is held back for
the latency. Every run is made with and without config.train.one_step_off; figures are medians over the steps but the
first two, which compile.
"""

import argparse
import asyncio
import os
import pathlib
import statistics
import tempfile
import unittest.mock

import jax

from benchmarks import contest
from cmpo import main
from cmpo.run.log import read_metrics
from configs import fds
from rollouts.endpoints.client import ChatClient


def config(steps: int, one_step_off: bool):
    """The default run, cut short; its policy has learnt the turn format."""
    made = fds.get_config()
    made.sft.dialogues = 384
    made.train.update({"sft_steps": 150, "rl_steps": steps, "checkpoint_every": 1000, "one_step_off": one_step_off})
    return made


def seconds(workdir: pathlib.Path, steps: int, latency: float, *, one_step_off: bool) -> dict[str, float]:
    """Median seconds of a step of phase 2, by phase and in all."""
    chat = ChatClient.chat

    async def late(client, messages, **options):
        await asyncio.sleep(latency)
        return await chat(client, messages, **options)

    with unittest.mock.patch.object(ChatClient, "chat", late):
        main.train(config(steps, one_step_off), workdir)
    took = [record["seconds"] for record in read_metrics(workdir) if record["phase"] == "rl"][2:]
    phases = {phase: statistics.median(one[phase] for one in took) for phase in took[0]}
    return phases | {"all": statistics.median(sum(one.values()) for one in took)}


def compare() -> None:
    """Prints the table; with --json, writes it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=pathlib.Path, help="also write the figures there")
    parser.add_argument("--latency", default="0,0.5,2", help="seconds of an answer, separated by commas")
    parser.add_argument("--steps", type=int, default=8, help="of phase 2")
    arguments = parser.parse_args()
    records = []
    with tempfile.TemporaryDirectory() as directory:
        jax.config.update("jax_compilation_cache_dir", os.path.join(directory, "compiled"))
        print("| latency, s | a step, s | waiting for dialogues | one step off, s | waiting | ratio |")
        print("|---:|---:|---:|---:|---:|---:|")
        for latency in map(float, arguments.latency.split(",")):
            runs = [
                seconds(pathlib.Path(directory, f"{latency}-{off}"), arguments.steps, latency, one_step_off=off)
                for off in (False, True)
            ]
            figures = " | ".join(f"{one['all']:.2f} | {one['sample']:.2f}" for one in runs)
            plain, ahead = (one["all"] for one in runs)
            print(f"| {latency:g} | {figures} | {plain / ahead:.2f} |", flush=True)
            values = {"ours": ahead, "peer": plain, "peer_name": "one batch after another", "ratio": plain / ahead}
            records.append({"what": f"a step, answers after {latency:g} s", **values, "unit": "s", "note": str(runs)})
    contest.write(arguments.json, records)


if __name__ == "__main__":
    compare()
