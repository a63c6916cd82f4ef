"""Collects dialogues: sets up the agent and its partners from a config, and plays tasks to their end."""

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import functools
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from ml_collections import ConfigDict

from cmpo.distributed import processes
from cmpo.run.interrupt import Interrupted
from cmpo.run.journal import Page
from cmpo.training.clients import Clients, make_clients, read_endpoint
from cmpo.training.stops import STOPS, RolloutsFailed
from models.tokenizer import Tokenizer
from rollouts import domains, play
from rollouts.agents.policy import PolicyAgent, check_prompts
from rollouts.agents.remote import RemoteAgent
from rollouts.domain import Episodes
from rollouts.endpoints.client import ChatClient
from rollouts.engine.engine import Engine
from rollouts.seeds import fold
from rollouts.types import Dialogue, Task

T = TypeVar("T")

_POLL = 0.1  # seconds between looks at whether to stop


@dataclasses.dataclass(frozen=True)
class Agents:
    """How to open an agent for one collection of dialogues, and how to check that it can serve the tasks."""

    open: Callable[[], contextlib.AbstractAsyncContextManager[play.Agent]]
    check: Callable[[Sequence[Task]], None] = lambda tasks: None  # raises ValueError, before any request
    identity: str = ""  # tells it from other agents of the same name
    clients: Sequence[ChatClient] = ()  # of endpoints that the agent asks itself


@contextlib.contextmanager
def tell_what_is_kept(kept: Callable[[], str]) -> Iterator[None]:
    """Adds a note to one of STOPS: what is `kept`, and that the same command goes on from there."""
    try:
        yield
    except STOPS as reason:
        reason.add_note(f"({kept()}; the same command goes on from there)")
        raise


def serve_policy(engine: Engine, tokenizer: Tokenizer, version: int | None = None) -> Agents:
    """Serves the policy with the engine's weights. With a `version`, other weights are an error (see `Engine.open`)."""

    @contextlib.asynccontextmanager
    async def open_agent() -> AsyncIterator[play.Agent]:
        async with engine:
            yield PolicyAgent(engine, tokenizer, version)

    return Agents(open_agent, functools.partial(check_prompts, tokenizer, context_length=engine.sampling.capacity))


def serve_agent(agent: play.Agent) -> Agents:
    """Serves an agent that is ready as it is, such as a scripted one."""

    @contextlib.asynccontextmanager
    async def open_agent() -> AsyncIterator[play.Agent]:
        yield agent

    return Agents(open_agent)


def serve_endpoint(config: ConfigDict) -> Agents:
    """Serves the agent behind the endpoint config.agent. Raises ValueError, naming the field, for bad settings."""
    client = ChatClient(
        "agent", read_endpoint(config.agent), embedded=domains.load(config).embedded, **config.endpoints
    )

    @contextlib.asynccontextmanager
    async def open_agent() -> AsyncIterator[play.Agent]:
        async with client:
            yield RemoteAgent(client)

    return Agents(open_agent, identity=config.agent.url, clients=[client])


def collect_dialogues(
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

    Each process plays its share of the tasks, and every process gets all dialogues. `page` keeps dialogues that ended
    and answers of endpoints; what it holds is not played or asked for again. Pass the `clients` of a run, so that their
    limits and counts last over several calls; default: new ones.

    Raises:
      ValueError: for a task that the agent cannot serve, before any request.
      RolloutsFailed: if more than config.train.max_failed_fraction of the dialogues failed, after each was replaced
        up to config.train.replacements times.
      BudgetReached, ReplayMiss: if an endpoint may not be asked; unfinished dialogues are dropped.
      Interrupted: on every process, if `stopping` became true before all dialogues of this process had ended.
    """
    asked = clients or make_clients(config)
    agents.check(tasks)
    numbers = _find_own_share(len(tasks))
    first = int(numbers[0]) * repeats if len(numbers) else 0

    def keep_dialogue(number: int, dialogue: Dialogue) -> None:
        if page:
            page.add(number, dialogue)
        done()

    async def play_share() -> list[Dialogue]:
        share = [tasks[number] for number in numbers]
        async with (
            _remember_answers([*asked.values(), *agents.clients], page),
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
                    done=keep_dialogue,
                )
            )
            return await _await_unless_stopped(stopping, playing, "stopped while dialogues were being played")

    dialogues = list(itertools.chain(*processes.run_everywhere(lambda: _run_to_end(play_share()))))
    failed = [dialogue for dialogue in dialogues if not dialogue.ok]
    if len(failed) > config.train.max_failed_fraction * len(dialogues):
        causes = ", ".join(f"{count} {cause}" for cause, count in Counter(d.failure for d in failed).most_common())
        raise RolloutsFailed(
            f"{len(failed)} of {len(dialogues)} dialogues failed ({causes}); the last: {failed[-1].failure_message}"
        )
    return dialogues


def _run_to_end(work: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine to its end; on another thread where this one has a loop that runs, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    begun = concurrent.futures.Future()

    async def work_on() -> T:
        begun.set_result((asyncio.get_running_loop(), asyncio.current_task()))
        return await work

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        ended = pool.submit(asyncio.run, work_on())
        try:
            return ended.result()
        except KeyboardInterrupt:  # comes to this thread alone
            loop, task = begun.result()
            loop.call_soon_threadsafe(task.cancel)
            raise


@contextlib.asynccontextmanager
async def open_episodes(config: ConfigDict, clients: Clients, *, judged: bool = True) -> AsyncIterator[Episodes]:
    """Opens the clients of the domain's endpoints, and gives the domain's episodes, which ask them."""
    domain = domains.load(config)
    async with contextlib.AsyncExitStack() as stack:
        chats = dict.fromkeys(domain.endpoints)
        for name in domain.endpoints:
            if judged or name != "judge":
                chats[name] = await stack.enter_async_context(clients[name])
        yield domain.episodes(config, chats)


def evaluate_dialogues(
    config: ConfigDict,
    dialogues: Sequence[Dialogue],
    *,
    seed: int,
    clients: Clients | None = None,
    done: Callable[[], None] = lambda: None,
    page: Page | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> list[Mapping[str, Any]]:
    """Asks config.judge to evaluate whole dialogues, see `Domain.evaluate`; a failed dialogue is not asked about.

    Each process asks about its share of the dialogues, and every process gets all evaluations. `page` and `stopping`
    are as for `collect_dialogues`.
    """
    asked, domain = clients or make_clients(config), domains.load(config)

    async def evaluate_one(client: ChatClient, number: int) -> Mapping[str, Any]:
        dialogue, found = dialogues[number], {}
        if dialogue.ok:
            found = await domain.evaluate(config, client, dialogue, seed=fold(seed, number))
        done()
        return found

    async def evaluate_share() -> list[Mapping[str, Any]]:
        async with _remember_answers(asked.values(), page), asked["judge"] as client:
            everybody = asyncio.gather(
                *(evaluate_one(client, int(number)) for number in _find_own_share(len(dialogues)))
            )
            return await _await_unless_stopped(stopping, everybody, "stopped while dialogues were being evaluated")

    return list(itertools.chain(*processes.run_everywhere(lambda: _run_to_end(evaluate_share()))))


@contextlib.asynccontextmanager
async def _remember_answers(clients: Iterable[ChatClient], page: Page | None) -> AsyncIterator[None]:
    """Makes all `clients` keep their answers in `page`, if there is one."""
    with contextlib.ExitStack() as stack:
        for client in clients if page else ():
            stack.enter_context(client.remember_in(page))
        yield


async def _await_unless_stopped(stopping: Callable[[], bool], work: asyncio.Future[T], message: str) -> T:
    """Waits for the result of `work`. If `stopping` becomes true first, cancels `work` and raises Interrupted."""
    while not (work.done() or stopping()):
        await asyncio.wait([work], timeout=_POLL)
    if work.cancel():  # False if it is done
        await asyncio.gather(work, return_exceptions=True)
        raise Interrupted(message)
    return work.result()


def _find_own_share(count: int) -> np.ndarray:
    """Returns the numbers of the pieces of work, out of `count`, that this process does."""
    return np.array_split(np.arange(count), jax.process_count())[jax.process_index()]
