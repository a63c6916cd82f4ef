"""The fault matrix: each way of misbehaving at 20 % of an endpoint's calls, during ten steps of a run.

    python -m benchmarks.faults [--json=FILE] [--only=FAULT,…] [--share=0.2] [--steps=10]

User and judge are asked over HTTP from one server, which otherwise answers as the embedded gym does. A first run goes
without faults; every other one sets out from its checkpoint after phase 1, and so has the same policy to begin with.
Clients try twice, so that some dialogues fail. The server's own log says which requests never had a proper answer: the
dialogues they belong to must not be scored. A run counts as ended if it did all steps. The calls of the first
run include those for its demonstrations.
"""

import argparse
import collections
import contextlib
import dataclasses
import os
import pathlib
import random
import shutil
import statistics
import tempfile
import unittest.mock

import httpx
import jax
import numpy as np

from benchmarks import contest
from cmpo import main
from cmpo.run.log import read_metrics
from cmpo.training import packing
from configs import fds
from rollouts import play
from rollouts.domains.fds.embedded.app import MODELS, app
from rollouts.seeds import fold
from tests.faults.server import FAULTS, Server

SFT_STEPS = 150


def config(steps: int, url: str):
    """A small run whose policy has learnt the turn format."""
    made = fds.get_config("smoke")
    changes = {
        "model.hidden_size": 64,
        "model.intermediate_size": 192,
        "model.num_layers": 2,
        "sft.dialogues": 256,
        "train.sft_steps": SFT_STEPS,
        "train.rl_steps": steps,
        "train.checkpoint_every": steps,
        "train.keep_checkpoints": 3,
        "train.max_failed_fraction": 0.95,
        "engine.grammar": True,
    }
    endpoint = {"url": url, "retries": 1, "backoff": 0.1, "max_wait": 1.0, "read_timeout": 2.0, "total_timeout": 3.0}
    for name in ("user", "judge"):
        changes |= {f"{name}.{field}": value for field, value in endpoint.items()}
    made.update_from_flattened_dict(changes)
    return made


@dataclasses.dataclass
class Watch:
    """What was played with which seed, and what was scored."""

    played: list = dataclasses.field(default_factory=list)  # (seed, dialogue)
    scored: set[int] = dataclasses.field(default_factory=set)  # ids of the turns of dialogues that are in the rewards


@contextlib.contextmanager
def watching():
    """Notes what passes through `play.play_dialogue` and `packing.collect_rewards`."""
    watch, play_one, rewards_of = Watch(), play.play_dialogue, packing.collect_rewards

    async def noted(agent, episodes, task, *, index, seed, **options):
        dialogue = await play_one(agent, episodes, task, index=index, seed=seed, **options)
        (table,) = episodes.begin.args
        if table.judge is not None:
            watch.played.append((seed, dialogue))
        return dialogue

    def scored(dialogues, group_size, *options):
        rewards = rewards_of(dialogues, group_size, *options)
        valid = rewards.turn_mask.reshape(len(dialogues), -1).any(1)
        watch.scored |= {id(dialogue.turns) for dialogue, some in zip(dialogues, valid, strict=True) if some}
        return rewards

    with (
        unittest.mock.patch.object(play, "play_dialogue", noted),
        unittest.mock.patch.object(packing, "collect_rewards", scored),
    ):
        yield watch


def unanswered(log) -> tuple[set, set]:
    """The requests of a server's log, as (model, seed), and those of them that never had a proper answer.

    A model that did answer, but not wholly, is asked again with a seed that follows from the first.
    """
    asked = {(entry.body["model"], entry.body["seed"]) for entry in log}
    answered = {(entry.body["model"], entry.body["seed"]) for entry in log if entry.answered}
    lost = {
        (model, seed)
        for model, seed in asked - answered
        if not any((model, fold(seed, "again", draw)) in answered for draw in range(1, 9))
    }
    return asked, lost


def requests(seed: int) -> set:
    """All that the dialogue played with `seed` may have asked."""
    turns = range(20)
    return {
        (model, fold(seed, name, turn)) for model, name in zip(MODELS, ("user", "judge"), strict=True) for turn in turns
    }


async def gym(content: bytes) -> tuple[int, bytes]:
    """Answers as the embedded endpoint does."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://embedded") as client:
        response = await client.post("/v1/chat/completions", content=content)
        return response.status_code, response.content


def run(workdir: pathlib.Path, fault: str, share: float, steps: int) -> dict:
    """Trains on in `workdir` against a server with `fault` at `share` of the calls; the figures."""
    rng = random.Random(fault)
    with Server(lambda *_: fault if rng.random() < share else "", gym, retry_after=1.0) as server, watching() as watch:
        main.train(config(steps, server.url), workdir)
    rl = [record for record in read_metrics(workdir) if record["phase"] == "rl"]
    asked, lost = unanswered(server.log)
    wrong, silent = 0, 0
    unseen = watch.scored - {id(dialogue.turns) for _, dialogue in watch.played}  # none, or the figures mean nothing
    for seed, dialogue in watch.played:
        own = requests(seed)
        unheard = bool(own & lost)
        wrong += id(dialogue.turns) in watch.scored and (unheard or not dialogue.ok)
        silent += not own & asked  # of which the log knows nothing
    causes = sum((collections.Counter(record["dialogues_failed"]) for record in rl), collections.Counter())
    # The first step compiles.
    return {
        "steps": len(rl),
        "calls": len(server.log),
        "faults": sum(bool(entry.fault) for entry in server.log),
        "failed": dict(causes),
        "ok": sum(record["dialogues_ok"] for record in rl),
        "scored": len(watch.scored),
        "scored_wrongly": wrong + silent + len(unseen),
        "turns": float(np.mean([record["turns_mean"] for record in rl])),
        "seconds": statistics.median(sum(record["seconds"].values()) for record in rl[1:]),
    }


def from_phase_1(source: pathlib.Path, workdir: pathlib.Path) -> None:
    """Copies a run as it was at the end of phase 1."""
    shutil.copytree(source, workdir, ignore=shutil.ignore_patterns("transcripts", "tensorboard", "spent"))
    for checkpoint in (workdir / "checkpoints").iterdir():
        if checkpoint.name != str(SFT_STEPS):
            shutil.rmtree(checkpoint)


def show(fault: str, figures: dict, base: float) -> None:
    """Prints a row of the table."""
    failed = ", ".join(f"{count} {cause}" for cause, count in figures["failed"].items()) or "0"
    counts = " | ".join(str(figures[name]) for name in ("steps", "calls", "faults", "ok"))
    times = f"{figures['seconds']:.2f} | {figures['seconds'] / base:.2f}"
    print(f"| {fault} | {counts} | {failed} | {figures['scored_wrongly']} | {times} |", flush=True)


def matrix() -> None:
    """Prints the table; with --json, writes it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=pathlib.Path, help="also write the figures there")
    parser.add_argument("--only", default=",".join(FAULTS), help="faults, separated by commas; default: all")
    parser.add_argument("--share", type=float, default=0.2, help="of the calls that go wrong")
    parser.add_argument("--steps", type=int, default=10, help="of phase 2")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        jax.config.update("jax_compilation_cache_dir", os.path.join(directory, "compiled"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
        first = pathlib.Path(directory, "none")
        found = {"none": run(first, "none", 0.0, arguments.steps)}
        print(f"faults at {arguments.share:.0%} of calls\n")
        print("| fault | steps | calls | faults | ok | failed | scored wrongly | s a step | over none |")
        print("|---|---:|---:|---:|---:|---|---:|---:|---:|")
        show("none", found["none"], found["none"]["seconds"])
        for fault in arguments.only.split(","):
            from_phase_1(first, first.with_name(fault))
            found[fault] = run(first.with_name(fault), fault, arguments.share, arguments.steps)
            show(fault, found[fault], found["none"]["seconds"])
            shutil.rmtree(first.with_name(fault))
    base = found["none"]["seconds"]
    records = [
        {
            "what": f"a step of phase 2 with {fault} at {arguments.share:.0%} of calls",
            "ours": x["seconds"],
            "peer": base,
            "peer_name": "without faults",
            "ratio": base / x["seconds"],
            "unit": "s",
            "note": f"{x['steps']} steps, {x['scored_wrongly']} dialogues scored wrongly",
            **x,
        }
        for fault, x in found.items()
    ]
    contest.write(arguments.json, records)


if __name__ == "__main__":
    matrix()
