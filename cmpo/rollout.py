"""Collects dialogues: the clients, the agent and play, set up from a config and run to their end."""

import asyncio
import contextlib
import itertools
import pathlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from cmpo import processes
from models.tokenizer import Tokenizer
from rollouts import play
from rollouts.client import ChatClient, Endpoint
from rollouts.engine import Engine
from rollouts.meter import Meter
from rollouts.policy import PolicyAgent
from rollouts.scripted import ScriptedAgent
from rollouts.types import PRINCIPLES, Dialogue, Scenario

Agents = Callable[[], contextlib.AbstractAsyncContextManager[play.Agent]]
"""Opens an agent for one collection of dialogues."""


class RolloutsFailed(RuntimeError):
    """Too many dialogues failed for the run to go on; the message says which endpoint did what."""


def policy_agents(engine: Engine, tokenizer: Tokenizer) -> Agents:
    """The policy with the weights that the engine holds."""

    @contextlib.asynccontextmanager
    async def agents() -> AsyncIterator[play.Agent]:
        async with engine:
            yield PolicyAgent(engine, tokenizer)

    return agents


def scripted_agents(style: str) -> Agents:
    """A scripted agent, see `rollouts.scripted.HABITS`."""
    agent = ScriptedAgent(style)

    @contextlib.asynccontextmanager
    async def agents() -> AsyncIterator[play.Agent]:
        yield agent

    return agents


def collect(
    config: ConfigDict,
    agents: Agents,
    scenarios: Sequence[Scenario],
    *,
    repeats: int,
    seed: int,
    judged: bool = True,
    clients: Mapping[str, ChatClient] | None = None,
    done: Callable[[], None] = lambda: None,
) -> list[Dialogue]:
    """Plays every scenario `repeats` times against the config's endpoints; see `play.play_all`.

    Each process plays its share of the scenarios, and every process gets all dialogues. `clients` are those of a run,
    whose limits and counts last; default: new ones.

    Raises RolloutsFailed if more than config.train.max_failed_fraction of the dialogues failed; BudgetReached or
    ReplayMiss, and gives the dialogues up, if an endpoint may not be asked.
    """
    asked = clients or chat_clients(config)
    numbers = np.array_split(np.arange(len(scenarios)), jax.process_count())[jax.process_index()]
    share = [scenarios[number] for number in numbers]
    first = int(numbers[0]) * repeats if len(numbers) else 0

    async def run() -> list[Dialogue]:
        async with contextlib.AsyncExitStack() as stack:
            user = await stack.enter_async_context(asked["user"])
            judge = await stack.enter_async_context(asked["judge"]) if judged else None
            agent = await stack.enter_async_context(agents())
            table = play.Table(
                user,
                judge,
                max_turns=config.episode.max_turns,
                farewell=config.episode.farewell,
                format_outcome=config.episode.format_outcome,
                judge_weights={name: config.judge.weights[name] for name in PRINCIPLES},
            )
            return await play.play_all(agent, table, share, repeats=repeats, seed=seed, first=first, done=done)

    dialogues = list(itertools.chain(*processes.everywhere(lambda: asyncio.run(run()))))
    failed = [dialogue for dialogue in dialogues if not dialogue.ok]
    if len(failed) > config.train.max_failed_fraction * len(dialogues):
        causes = ", ".join(f"{count} {cause}" for cause, count in Counter(d.failure for d in failed).most_common())
        raise RolloutsFailed(
            f"{len(failed)} of {len(dialogues)} dialogues failed ({causes}); the last: {failed[-1].failure_message}"
        )
    return dialogues


def chat_clients(config: ConfigDict, workdir: pathlib.Path | None = None) -> dict[str, ChatClient]:
    """A client for each endpoint of the config, by name; the counts of their budgets are kept in `workdir`.

    Raises ValueError, naming the field, if one cannot be asked. Asks nobody.
    """
    here = {"process": jax.process_index(), "processes": jax.process_count()}
    clients = {}
    for name in ("user", "judge"):
        asked = endpoint(config[name])
        meter = Meter(name, asked, workdir and workdir / "spent", **here)
        clients[name] = ChatClient(name, asked, meter=meter, **config.endpoints)
    return clients


def spent(clients: Mapping[str, ChatClient]) -> dict[str, float]:
    """What the run has spent so far, by endpoint and measure, for the metrics."""
    found = {}
    for name, client in clients.items():
        total = client.meter.total()
        found |= {
            f"{name}_calls": total.calls,
            f"{name}_tokens": total.tokens,
            f"{name}_cost": client.meter.cost(total),
        }
    return found


def endpoint(config: ConfigDict) -> Endpoint:
    """The endpoint that config.user or config.judge describes."""
    fields: dict[str, Any] = {name: value for name, value in config.items() if name != "weights"}
    return Endpoint(**fields)
