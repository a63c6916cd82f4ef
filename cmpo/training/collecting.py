"""Collects dialogues: the clients, the agent and play, set up from a config and run to their end."""

import asyncio
import contextlib
import dataclasses
import functools
import itertools
import pathlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from ml_collections import ConfigDict

from cmpo.distributed import processes
from cmpo.run.interrupt import Interrupted
from cmpo.run.journal import Page
from cmpo.training.stops import STOPS, RolloutsFailed
from models.tokenizer import Tokenizer
from rollouts import domains, play
from rollouts.agents.policy import PolicyAgent, check_prompts
from rollouts.agents.remote import RemoteAgent
from rollouts.domain import Episodes
from rollouts.endpoints.client import EMBEDDED, ChatClient, Endpoint
from rollouts.endpoints.meter import Meter
from rollouts.engine.engine import Engine
from rollouts.seeds import fold
from rollouts.types import Dialogue, Task

T = TypeVar("T")

_POLL = 0.1  # seconds between looks at whether to stop


@dataclasses.dataclass(frozen=True)
class Agents:
    """How an agent is opened for one collection of dialogues, and what it cannot serve."""

    open: Callable[[], contextlib.AbstractAsyncContextManager[play.Agent]]
    check: Callable[[Sequence[Task]], None] = lambda tasks: None  # raises ValueError, before anybody is asked
    identity: str = ""  # what tells it from others of its name
    clients: Sequence[ChatClient] = ()  # that it asks itself


Clients = Mapping[str, ChatClient]
"""Those who ask the config's endpoints, by name."""


@contextlib.contextmanager
def telling(kept: Callable[[], str]) -> Iterator[None]:
    """Lets one of STOPS say what is `kept`, and that the same command goes on."""
    try:
        yield
    except STOPS as reason:
        reason.add_note(f"({kept()}; the same command goes on from there)")
        raise


def policy_agents(engine: Engine, tokenizer: Tokenizer, version: int | None = None) -> Agents:
    """The policy with the weights that the engine holds; with a `version`, with no others (see `Engine.open`)."""

    @contextlib.asynccontextmanager
    async def agents() -> AsyncIterator[play.Agent]:
        async with engine:
            yield PolicyAgent(engine, tokenizer, version)

    return Agents(agents, functools.partial(check_prompts, tokenizer, context_length=engine.sampling.capacity))


def serving(agent: play.Agent) -> Agents:
    """An agent that needs nothing opened."""

    @contextlib.asynccontextmanager
    async def agents() -> AsyncIterator[play.Agent]:
        yield agent

    return Agents(agents)


def remote_agents(config: ConfigDict) -> Agents:
    """The agent behind the endpoint config.agent. Raises ValueError, naming the field, if it cannot be asked."""
    client = ChatClient("agent", endpoint(config.agent), embedded=domains.load(config).embedded, **config.endpoints)

    @contextlib.asynccontextmanager
    async def agents() -> AsyncIterator[play.Agent]:
        async with client:
            yield RemoteAgent(client)

    return Agents(agents, identity=config.agent.url, clients=[client])


def collect(
    config: ConfigDict,
    agents: Agents,
    tasks: Sequence[Task],
    *,
    repeats: int,
    seed: int,
    judged: bool = True,
    clients: Clients | None = None,
    done: Callable[[], None] = lambda: None,
    page: Page | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> list[Dialogue]:
    """Plays every task `repeats` times against the config's endpoints; see `play.play_all`.

    Each process plays its share of the tasks, and every process gets all dialogues. Those that `page` holds are
    not played again, nor answers it holds asked for; what ends and what is answered is added to it. `clients` are those
    of a run, whose limits and counts last; default: new ones.

    Raises:
      ValueError: for a task that the agent cannot serve, before anybody is asked.
      RolloutsFailed: if more than config.train.max_failed_fraction of the dialogues failed, in spite of
        config.train.replacements.
      BudgetReached, ReplayMiss: if an endpoint may not be asked; the dialogues under way are given up.
      Interrupted: on every process, if `stopping` came true before all dialogues of this one had ended.
    """
    asked = clients or chat_clients(config)
    agents.check(tasks)
    numbers = _share(len(tasks))
    first = int(numbers[0]) * repeats if len(numbers) else 0

    def ended(number: int, dialogue: Dialogue) -> None:
        if page:
            page.add(number, dialogue)
        done()

    async def run() -> list[Dialogue]:
        share = [tasks[number] for number in numbers]
        async with (
            _remembering([*asked.values(), *agents.clients], page),
            open_episodes(config, asked, judged=judged) as episodes,
            agents.open() as agent,
        ):
            playing = asyncio.create_task(
                play.play_all(
                    agent,
                    episodes,
                    share,
                    repeats=repeats,
                    seed=seed,
                    first=first,
                    replacements=config.train.replacements,
                    kept=page.read_dialogues(tasks, repeats) if page else {},
                    failed=page.failures if page else {},
                    done=ended,
                )
            )
            return await _unless(stopping, playing, "stopped while dialogues were being played")

    dialogues = list(itertools.chain(*processes.run_everywhere(lambda: asyncio.run(run()))))
    failed = [dialogue for dialogue in dialogues if not dialogue.ok]
    if len(failed) > config.train.max_failed_fraction * len(dialogues):
        causes = ", ".join(f"{count} {cause}" for cause, count in Counter(d.failure for d in failed).most_common())
        raise RolloutsFailed(
            f"{len(failed)} of {len(dialogues)} dialogues failed ({causes}); the last: {failed[-1].failure_message}"
        )
    return dialogues


@contextlib.asynccontextmanager
async def open_episodes(config: ConfigDict, clients: Clients, *, judged: bool = True) -> AsyncIterator[Episodes]:
    """How dialogues begin by the config, with its endpoints' clients open."""
    domain = domains.load(config)
    async with contextlib.AsyncExitStack() as stack:
        chats = dict.fromkeys(domain.endpoints)
        for name in domain.endpoints:
            if judged or name != "judge":
                chats[name] = await stack.enter_async_context(clients[name])
        yield domain.episodes(config, chats)


def evaluate(
    config: ConfigDict,
    dialogues: Sequence[Dialogue],
    *,
    seed: int,
    clients: Clients | None = None,
    done: Callable[[], None] = lambda: None,
    page: Page | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> list[Mapping[str, Any]]:
    """Asks config.judge to evaluate whole dialogues, see `Domain.evaluate`; nothing is asked of one that failed.

    Each process asks about its share of the dialogues, and every process gets all evaluations. `page` and `stopping`
    as for `collect`.
    """
    asked, domain = clients or chat_clients(config), domains.load(config)

    async def one(client: ChatClient, number: int) -> Mapping[str, Any]:
        dialogue, found = dialogues[number], {}
        if dialogue.ok:
            found = await domain.evaluate(config, client, dialogue, seed=fold(seed, number))
        done()
        return found

    async def run() -> list[Mapping[str, Any]]:
        async with _remembering(asked.values(), page), asked["judge"] as client:
            everybody = asyncio.gather(*(one(client, int(number)) for number in _share(len(dialogues))))
            return await _unless(stopping, everybody, "stopped while dialogues were being evaluated")

    return list(itertools.chain(*processes.run_everywhere(lambda: asyncio.run(run()))))


def chat_clients(config: ConfigDict, workdir: pathlib.Path | None = None) -> dict[str, ChatClient]:
    """A client for each endpoint of the config, by name; the counts of their budgets are kept in `workdir`.

    Raises ValueError, naming the field, if one cannot be asked. Asks nobody.
    """
    if config.judge.votes < 1:
        raise ValueError(f"config.judge.votes: expected 1 or more, got {config.judge.votes}")
    here = {"process": jax.process_index(), "processes": jax.process_count()}
    clients, domain = {}, domains.load(config)
    for name in domain.endpoints:
        if name not in config:
            raise ValueError(f"config.{name}: expected an endpoint, which the domain {config.domain!r} asks, got none")
        asked = endpoint(config[name])
        if asked.url == EMBEDDED and domain.embedded() is None:
            raise ValueError(f"config.{name}.url: the domain {config.domain!r} has no embedded endpoint")
        meter = Meter(name, asked, workdir and workdir / "spent", **here)
        clients[name] = ChatClient(name, asked, meter=meter, embedded=domain.embedded, **config.endpoints)
    return clients


def spent(clients: Clients) -> dict[str, float]:
    """What the run has spent so far, by endpoint and measure, for the metrics."""
    found = {}
    for name, client in clients.items():
        total = client.meter.read_total()
        found |= {
            f"{name}_calls": total.calls,
            f"{name}_tokens": total.tokens,
            f"{name}_cost": client.meter.price_of(total),
        }
    return found


def endpoint(config: ConfigDict) -> Endpoint:
    """The endpoint that config.user, config.judge or config.agent describes."""
    return Endpoint(**{field.name: config[field.name] for field in dataclasses.fields(Endpoint)})


@contextlib.asynccontextmanager
async def _remembering(clients: Iterable[ChatClient], page: Page | None) -> AsyncIterator[None]:
    """Has all `clients` keep their answers in `page`, where there is one."""
    with contextlib.ExitStack() as stack:
        for client in clients if page else ():
            stack.enter_context(client.remember_in(page))
        yield


async def _unless(stopping: Callable[[], bool], work: asyncio.Future[T], message: str) -> T:
    """The result of `work`; where `stopping` comes true before there is one, `work` is given up. Raises Interrupted."""
    while not (work.done() or stopping()):
        await asyncio.wait([work], timeout=_POLL)
    if work.cancel():  # unless it is done
        await asyncio.gather(work, return_exceptions=True)
        raise Interrupted(message)
    return work.result()


def _share(count: int) -> np.ndarray:
    """Which of `count` pieces of work this process does."""
    return np.array_split(np.arange(count), jax.process_count())[jax.process_index()]
