"""Collects dialogues: the clients, the agent and play, set up from a config and run to their end."""

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from cmpo import processes
from models.tokenizer import Tokenizer
from rollouts import play
from rollouts.client import ChatClient, Endpoint, check
from rollouts.engine import Engine
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


def serving(agent: play.Agent) -> Agents:
    """An agent that needs nothing opened."""

    @contextlib.asynccontextmanager
    async def agents() -> AsyncIterator[play.Agent]:
        yield agent

    return agents


def scripted_agents(style: str) -> Agents:
    """A scripted agent, see `rollouts.scripted.HABITS`."""
    return serving(ScriptedAgent(style))


def collect(
    config: ConfigDict,
    agents: Agents,
    scenarios: Sequence[Scenario],
    *,
    repeats: int,
    seed: int,
    judged: bool = True,
    done: Callable[[], None] = lambda: None,
) -> list[Dialogue]:
    """Plays every scenario `repeats` times against the config's endpoints; see `play.play_all`.

    Each process plays its share of the scenarios, and every process gets all dialogues.

    Raises RolloutsFailed if more than config.train.max_failed_fraction of the dialogues failed.
    """

    numbers = np.array_split(np.arange(len(scenarios)), jax.process_count())[jax.process_index()]
    share = [scenarios[number] for number in numbers]
    first = int(numbers[0]) * repeats if len(numbers) else 0

    async def run() -> list[Dialogue]:
        async with table(config, judged=judged) as everybody, agents() as agent:
            return await play.play_all(agent, everybody, share, repeats=repeats, seed=seed, first=first, done=done)

    dialogues = list(itertools.chain(*processes.everywhere(lambda: asyncio.run(run()))))
    failed = [dialogue for dialogue in dialogues if not dialogue.ok]
    if len(failed) > config.train.max_failed_fraction * len(dialogues):
        causes = ", ".join(f"{count} {cause}" for cause, count in Counter(d.failure for d in failed).most_common())
        raise RolloutsFailed(
            f"{len(failed)} of {len(dialogues)} dialogues failed ({causes}); the last: {failed[-1].failure_message}"
        )
    return dialogues


@contextlib.asynccontextmanager
async def table(config: ConfigDict, *, judged: bool = True) -> AsyncIterator[play.Table]:
    """The config's user and judge and the rules of its episodes."""
    async with contextlib.AsyncExitStack() as stack:
        user = await stack.enter_async_context(ChatClient("user", endpoint(config.user)))
        judge = await stack.enter_async_context(ChatClient("judge", endpoint(config.judge))) if judged else None
        yield play.Table(
            user,
            judge,
            max_turns=config.episode.max_turns,
            farewell=config.episode.farewell,
            format_outcome=config.episode.format_outcome,
            judge_weights={name: config.judge.weights[name] for name in PRINCIPLES},
        )


def check_endpoints(config: ConfigDict) -> None:
    """Raises ValueError, naming the field, if config.user or config.judge cannot be an endpoint. Asks nobody."""
    for name in ("user", "judge"):
        check(name, endpoint(config[name]))


def endpoint(config: ConfigDict) -> Endpoint:
    """The endpoint that config.user or config.judge describes."""
    fields: dict[str, Any] = {name: value for name, value in config.items() if name != "weights"}
    return Endpoint(**fields)
