"""A soak: 256 dialogues at a time against an endpoint on this machine, for as long as wanted.

    python -m benchmarks.soak [--minutes=30] [--dialogues=256] [--json=FILE]

User and judge are the embedded endpoint, served in a process of its own; the agent is scripted. Every few seconds the
memory, open files and asyncio tasks of the process that plays are noted, and the memory and files of the server. After
a warm-up, the first fifth of the time, nothing may grow: the table gives the least and most of each, its mean in each
of the other fifths, and its trend, the slope of a straight line through the second half, in units per minute.
"""

import argparse
import asyncio
import itertools
import os
import pathlib
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks import contest
from rollouts import play
from rollouts.domains.fds import generator
from rollouts.domains.fds.episode import Table
from rollouts.domains.fds.scripted import ScriptedAgent
from rollouts.endpoints.client import ChatClient, Endpoint
from rollouts.seeds import fold

EVERY = 2.0  # seconds between two looks


def look(pid: int) -> dict[str, float]:
    """Resident memory and open files of a process."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return {"memory, MB": int(resident.split()[1]) / 1024, "files": len(os.listdir(f"/proc/{pid}/fd"))}


async def soak(url: str, server: int, dialogues: int, seconds: float) -> tuple[list[dict], int, int, int]:
    """Plays `dialogues` at a time; the looks, how many dialogues ended well and how many failed, and tasks left."""
    end, looks, ok, failed = time.monotonic() + seconds, [], 0, 0
    numbers = itertools.count()

    async def worker(table: Table) -> None:
        nonlocal ok, failed
        while time.monotonic() < end:
            number = next(numbers)
            dialogue = await play.play_dialogue(
                agent, table.episodes, scenarios[number % 1000], index=0, seed=fold(0, number)
            )
            ok, failed = ok + dialogue.ok, failed + (not dialogue.ok)

    async def watcher() -> None:
        while time.monotonic() < end:
            await asyncio.sleep(EVERY)
            own, other = look(os.getpid()), look(server)
            looks.append(
                {**own, "tasks": len(asyncio.all_tasks()), **{f"server {name}": x for name, x in other.items()}}
            )

    agent, scenarios = ScriptedAgent("generous"), list(itertools.islice(generator.deal_scenarios(0), 1000))
    options = {"concurrency": dialogues, "connect_timeout": 30.0}
    async with (
        ChatClient("user", Endpoint(url, "embedded-user", **options)) as user,
        ChatClient("judge", Endpoint(url, "embedded-judge", **options)) as judge,
    ):
        table = Table(user, judge)
        await asyncio.gather(watcher(), *(worker(table) for _ in range(dialogues)))
    await asyncio.sleep(0)
    return looks, ok, failed, len(asyncio.all_tasks()) - 1


def report(looks: Sequence[Mapping[str, float]], note: str) -> list[dict[str, Any]]:
    """Prints what became of the figures of the looks, after a warm-up; returns the records, with this note."""
    warm, half, records = looks[len(looks) // 5 :], looks[len(looks) // 2 :], []
    minutes = np.arange(len(half)) * EVERY / 60
    print("| | least | most | mean of fifths 2 to 5 | trend per minute |\n|---|---:|---:|---:|---:|")
    for name in looks[0]:
        values, slope = [seen[name] for seen in warm], np.polyfit(minutes, [seen[name] for seen in half], 1)[0]
        means = ", ".join(f"{np.mean(part):,.1f}" for part in np.array_split(values, 4))
        print(f"| {name} | {min(values):,.1f} | {max(values):,.1f} | {means} | {slope:+.2f} |")
        record = {"what": f"soak: {name}", "ours": max(values), "peer": min(values), "peer_name": "least after warm-up"}
        record |= {"ratio": min(values) / max(values) if max(values) else 1.0, "unit": name, "trend_per_minute": slope}
        records.append({**record, "note": note})
    return records


def main() -> None:
    """Prints the table; with --json, writes it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--dialogues", type=int, default=256, help="at a time")
    parser.add_argument("--json", type=pathlib.Path, help="also write the figures there")
    arguments = parser.parse_args()
    with contest.serving(lambda port: [sys.executable, "-m", "rollouts.embedded", f"--port={port}"]) as server:
        work = soak(f"{server.url}/v1", server.pid, arguments.dialogues, 60 * arguments.minutes)
        looks, ok, failed, left = asyncio.run(work)
    print(f"{arguments.minutes:g} minutes, {arguments.dialogues} dialogues at a time: {ok:,} ended, {failed} failed")
    print(f"{left} tasks left at the end\n")
    note = f"{arguments.minutes:g} minutes, {ok} dialogues ended, {failed} failed, {left} tasks left"
    records = report(looks, note)
    contest.write(arguments.json, records)


if __name__ == "__main__":
    main()
