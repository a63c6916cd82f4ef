"""A soak of the server: 64 clients at a time that come, go, leave in the middle of answers, and misbehave.

    python -m benchmarks.serving_soak [--minutes=15] [--clients=64] [--json=FILE]

`python -m cmpo.serve` serves a tiny model with random weights in a process of its own: the server is soaked, not the
model. Each client does one thing after another (ACTS), drawn by chance. What is asked well must be answered with status
200; what is not must get its status; nobody waits for those who leave. Every few seconds the memory and open files of
the server are noted, what /metrics says of conversations, streams and requests, and how long /metrics took. After a
warm-up, the first fifth of the time, nothing may grow: see benchmarks/soak.py. Then all clients are gone, for so long
that no conversation may come back, and one comes with a message: no request may be under way, and no stream open but
this one's.

Some of the answers, KEPT requests and conversations drawn by chance, are asked for once more of a new server, one at a
time: they must be the same, to the last character. Exits with status 1 where something was not as it must be.
"""

import argparse
import asyncio
import collections
import pathlib
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import NamedTuple

import httpx

from benchmarks import contest, soak
from benchmarks.serving_acts import ACTS, Asked, Visit
from models import hf
from tests.builders import engines, servers

KEPT = 300
FAULTS = 3  # of each act, that are told
KEY, AGE = "a-key-of-the-soak", 30
FLAGS = (
    "--slots=16",
    "--context_length=1024",
    "--max_body_bytes=100000",
    "--read_timeout=2",
    "--conversations=1000",
    f"--conversation_seconds={AGE}",
    "--api_key_env=SOAK_KEY",
)
GAUGES = ("cmpo_conversations", "cmpo_open_streams", "cmpo_requests_under_way")


class Tally(NamedTuple):
    """What became of it all."""

    done: collections.Counter[str]  # by act
    wrong: collections.Counter[str]  # by act
    faults: list[str]  # the first ones of each act
    kept: list[Sequence[Asked]]  # to be asked for once more


def open_client(url: str) -> httpx.AsyncClient:
    """Opens a client with the key."""
    limits, headers = httpx.Limits(max_connections=None), {"Authorization": f"Bearer {KEY}"}
    return httpx.AsyncClient(base_url=url, headers=headers, limits=limits, timeout=120, trust_env=False)


async def look(url: str, pid: int) -> dict[str, float]:
    """Looks at a server: its process, what its /metrics says, and how long that took."""
    async with open_client(url) as client:  # a connection of its own, which no other client can spoil
        started = time.perf_counter()
        lines = (await client.get("/metrics")).text.splitlines()
        taken = time.perf_counter() - started
    values = {name: sum(float(line.split()[-1]) for line in lines if line.startswith(name)) for name in GAUGES}
    gauges = {name.removeprefix("cmpo_").replace("_", " "): value for name, value in values.items()}
    return {**soak.look(pid), **gauges, "/metrics, ms": 1000 * taken}


async def visit(url: str, pid: int, clients: int, seconds: float) -> tuple[list[dict[str, float]], Tally]:
    """Has `clients` at a time do what they do; returns the looks and the tally."""
    end, looks = time.monotonic() + seconds, []
    tally = Tally(collections.Counter(), collections.Counter(), [], [])
    names, weights, answered = list(ACTS), [act.weight for act in ACTS.values()], 0

    def keep(asked: Sequence[Asked], rng: random.Random) -> None:
        """Keeps each of those that were answered with the same chance."""
        nonlocal answered
        answered += 1
        if len(tally.kept) < KEPT:
            tally.kept.append(asked)
        elif (place := rng.randrange(answered)) < KEPT:
            tally.kept[place] = asked

    async def come_and_go(number: int) -> None:
        rng = random.Random(number)
        while time.monotonic() < end:
            (name,) = rng.choices(names, weights)
            tally.done[name] += 1
            try:
                async with asyncio.timeout(120):
                    asked = await ACTS[name].run(Visit(client, KEY, rng))
            except Exception as error:  # an answer that cannot be read is as wrong as none
                tally.wrong[name] += 1
                if tally.wrong[name] <= FAULTS:
                    passed = seconds - end + time.monotonic()
                    tally.faults.append(f"{name}, after {passed:.1f} s: {error!r:.500}")
            else:
                if asked:
                    keep(asked, rng)
            await asyncio.sleep(rng.expovariate(10))

    async def watch() -> None:
        while time.monotonic() < end:
            await asyncio.sleep(soak.EVERY)
            looks.append(await look(url, pid))

    async with open_client(url) as client:
        await asyncio.gather(watch(), *map(come_and_go, range(clients)))
    return looks, tally


async def run_soak(
    server: contest.Server, clients: int, seconds: float
) -> tuple[list[dict[str, float]], Tally, dict[str, float]]:
    """Returns the looks, the tally, and a look at what was left when all were gone."""
    looks, tally = await visit(server.url, server.pid, clients, seconds)
    await asyncio.sleep(AGE + 1)
    async with open_client(server.url) as client:
        await ACTS["a message"].run(Visit(client, KEY, random.Random()))
    return looks, tally, await look(server.url, server.pid)


async def ask_alone(url: str, kept: Sequence[Sequence[Asked]]) -> list[str]:
    """Asks for what was kept once more, one at a time; says what is different."""
    different = []
    async with open_client(url) as client:
        for conversation in kept:
            for number, asked in enumerate(conversation):
                if (found := await asked.ask_again(client)) != asked.answer:
                    different.append(f"turn {number} of {asked.body}: {asked.answer}, and alone {found}")
                    break
    return different


def main() -> None:
    """Prints what was done and what became of the server; with --json, writes it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--clients", type=int, default=64, help="at a time")
    parser.add_argument("--json", type=pathlib.Path, help="also write the figures there")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        model = pathlib.Path(directory, "tiny")
        hf.save(model, engines.CONFIG, engines.params(scale=8))
        servers.trained().save(model)

        def command(port: int) -> list[str]:
            return [sys.executable, "-m", "cmpo.serve", f"--hf={model}", f"--port={port}", *FLAGS]

        with contest.serving(command, {"SOAK_KEY": KEY}) as server:
            looks, tally, left = asyncio.run(run_soak(server, arguments.clients, 60 * arguments.minutes))
            log = server.log.read_text(errors="replace")
        with contest.serving(command, {"SOAK_KEY": KEY}) as server:
            different = asyncio.run(ask_alone(server.url, tally.kept))
    good = sum(tally.done[name] for name, act in ACTS.items() if act.good)
    print(f"{arguments.minutes:g} minutes, {arguments.clients} clients at a time\n\n| | done | not as it must be |")
    print("|---|---:|---:|")
    for name in ACTS:
        print(f"| {name} | {tally.done[name]:,} | {tally.wrong[name]:,} |")
    leaked = left["open streams"] - 1
    traces = log.count("Traceback (most recent call last)")
    print(f"\n{len(tally.kept)} answers asked for alone: {len(different)} different")
    print(f"at the end: {left}; tracebacks of the server: {traces}\n")
    note = f"{arguments.minutes:g} minutes, {good} requests and conversations, {sum(tally.wrong.values())} wrong"
    records = soak.report(looks, f"{note}; {len(different)} of {len(tally.kept)} other than alone")
    contest.write(arguments.json, records)
    problems = [*tally.faults, *different[:5]]
    problems += [f"{leaked:g} streams open that nobody can come back to"] if leaked > 0 else []
    problems += [f"{left['requests under way']:g} requests under way"] if left["requests under way"] else []
    problems += [f"{traces} tracebacks, the last one:\n{log[log.rindex('Traceback') :][-1500:]}"] if traces else []
    sys.exit("\n".join(["", *problems]) if problems else 0)


if __name__ == "__main__":
    main()
