"""The OpenAI-compatible async client for user simulators, judges and agents behind an HTTP endpoint."""

import asyncio
import contextlib
import json
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rollouts.endpoints import answers
from rollouts.endpoints.answers import Answer, NoAnswer
from rollouts.endpoints.limits import Taken, Window
from rollouts.endpoints.meter import BudgetReached, Meter, Spent
from rollouts.endpoints.recording import Memory, Recording, ReplayMiss
from rollouts.endpoints.replicas import Failure, Replica, Replicas
from rollouts.endpoints.settings import EMBEDDED, Endpoint, check, request, spell
from rollouts.seeds import fold
from rollouts.types import DialogueError, Message

__all__ = ["EMBEDDED", "BudgetReached", "ChatClient", "Endpoint", "ReplayMiss", "check"]


class ChatClient:
    """Asks one endpoint; an async context manager that may be entered again: its limits, circuits and counts last.

    Broken connections, time-outs, 408, 409, 425, 429, 5xx and answers that are none are tried again; what remains
    raises DialogueError with the cause `{name}_unreachable`, `{name}_timeout`, `{name}_http_NNN`, `{name}_error`,
    `{name}_too_large`, `{name}_malformed`, `{name}_truncated`, `{name}_refused`, `{name}_filtered` or, where the
    circuit breaker let nothing through, `{name}_circuit_open`. A model that did answer, but not with a whole, plain
    answer, is asked again with another seed.

    `record` and `replay` are directories, see `rollouts.endpoints.recording`; a replay opens no connection and needs no
    key. `embedded` gives the ASGI app that answers where the URL is "embedded".
    """

    def __init__(
        self,
        name: str,
        endpoint: Endpoint,
        *,
        record: str = "",
        replay: str = "",
        meter: Meter | None = None,
        embedded: Callable[[], Any] = lambda: None,
    ):
        if record and replay:
            raise ValueError("config.endpoints: expected record or replay, got both")
        if not replay:
            check(name, endpoint)
        self._name, self._endpoint = name, endpoint
        self._recorded, self._replayed = record and Recording(record), replay and Recording(replay)
        self._replicas = Replicas(name, endpoint, embedded)
        self._requests, self._tokens = Window(endpoint.requests_per_minute), Window(endpoint.tokens_per_minute)
        self.meter = meter or Meter(name, endpoint)
        self._memory: Memory | None = None

    async def __aenter__(self) -> "ChatClient":
        self._slots, self._admission = asyncio.Semaphore(self._endpoint.concurrency), asyncio.Lock()
        async with contextlib.AsyncExitStack() as stack:
            if not self._replayed:
                self.meter.open()
                stack.callback(self.meter.write)
                await stack.enter_async_context(self._replicas)
            self._open = stack.pop_all()
        return self

    async def __aexit__(self, *_):
        await self._open.aclose()

    @contextlib.contextmanager
    def remembering(self, memory: Memory) -> Iterator[None]:
        """Within, what `memory` holds is not asked, and what is asked goes there."""
        self._memory = memory
        try:
            yield
        finally:
            self._memory = None

    async def chat(
        self, messages: Sequence[Message], *, seed: int, response_format: Mapping[str, Any] | None = None
    ) -> str:
        """Returns the answer to `messages`, whole, and without the thoughts before it.

        Raises:
          DialogueError: if there is none, see the class.
          BudgetReached: if the run may not ask for more.
          ReplayMiss: if a replay asks for what was not recorded.
        """
        asked = request(self._endpoint, messages, seed=seed, response_format=response_format)
        return answers.plain(await self._answer(asked, answers.plain))

    async def turn(self, messages: Sequence[Message], *, seed: int) -> tuple[str, bool]:
        """Returns an agent's answer to `messages`, thoughts included, and whether it was cut off; raises as `chat`."""
        answer = await self._answer(request(self._endpoint, messages, seed=seed), answers.turn)
        return answers.turn(answer), answer.finish == "length"

    async def _answer(self, asked: dict[str, Any], read: Callable[[Answer], str]) -> Answer:
        """The answer to a request, one that `read` can read; from where it is kept, if it was asked before."""
        key = {"endpoint": self._name, **asked}
        if self._replayed:
            return self._recalled(self._replayed.replay(key), read)
        given = key | {"url": self._endpoint.url}  # another server may answer otherwise
        for memory, asked_there in ((self._recorded, key), (self._memory, given)):
            if memory and (kept := memory.kept(asked_there)):
                return self._recalled(kept, read)
        try:
            answer = await self._ask(asked, read)
        except DialogueError as error:
            if self._recorded:
                await asyncio.to_thread(self._recorded.record_failure, key, error)
            raise
        beside = {} if answer.reasoning is None else {"reasoning": answer.reasoning}
        beside |= {"finish": answer.finish} if answer.finish else {}
        if self._memory:
            self._memory.record(given, answer.content, **beside)
        if not self._recorded:
            return answer
        await asyncio.to_thread(self._recorded.record, key, answer.content, **beside)
        return self._recalled(self._recorded.kept(key), read)

    def _recalled(self, kept: Mapping[str, str], read: Callable[[Answer], str]) -> Answer:
        """A recorded answer. Raises DialogueError if it is none, which older recordings may hold."""
        answer = Answer(kept["answer"], reasoning=kept.get("reasoning"), finish=kept.get("finish", ""))
        try:
            read(answer)
        except NoAnswer as error:
            raise self._failure(error) from None
        return answer

    def _failure(self, error: NoAnswer) -> DialogueError:
        setting = f"; see config.{self._name}.max_tokens ({self._endpoint.max_tokens:,})"
        return DialogueError(
            f"{self._name}_{error.cause}",
            f"config.{self._name}.url {self._endpoint.url} (model {self._endpoint.model}) {error}"
            f"{setting if error.cause == 'truncated' else ''}",
        )

    async def _ask(self, asked: dict[str, Any], read: Callable[[Answer], str]) -> Answer:
        """Attempts at one request, until there is an answer or no hope."""
        sent, attempt, unfit, last = asked, 0, 0, None
        async with self._slots:
            while True:
                content = json.dumps(spell(self._endpoint, sent), ensure_ascii=False).encode()
                try:
                    answer = await self._attempt(content, last)
                    read(answer)
                    return answer
                except NoAnswer as error:
                    if attempt == self._endpoint.retries:
                        raise self._failure(error) from None
                    unfit, wait = unfit + 1, 0.0  # the server is well; the same seed might give the same
                    sent = asked | {"seed": fold(asked["seed"], "again", unfit)}
                except Failure as failure:
                    if not failure.again or attempt == self._endpoint.retries:
                        raise
                    last = failure.replica
                    backoff = self._endpoint.backoff * 2**attempt * random.uniform(0.5, 1.0)
                    wait = min(self._endpoint.max_wait, failure.wait + backoff)
                attempt += 1
                await asyncio.sleep(wait)

    async def _attempt(self, content: bytes, avoid: Replica | None) -> Answer:
        """One attempt, within the rates and the budget."""
        most = Spent(1, answers.estimated_tokens(content), self._endpoint.max_tokens)
        self.meter.reserve(most)
        spent, taken = Spent(), None
        try:
            taken = await self._admit(most.tokens)
            spent = most  # an attempt that is given up may have its price
            answer = await self._replicas.ask(content, avoid=avoid)
            wrote = answers.estimated_tokens(f"{answer.reasoning or ''}{answer.content}".encode())
            spent = Spent(
                1,
                answers.counted(answer.prompt_tokens, most.prompt_tokens),
                answers.counted(answer.answer_tokens, wrote),
            )
        except Failure as failure:
            spent = most if failure.charged else Spent(1 if failure.replica else 0)
            raise
        finally:
            self.meter.settle(most, spent)
            if taken:
                self._tokens.correct(taken, spent.tokens)
        return answer

    async def _admit(self, tokens: int) -> Taken:
        """Waits until the rates allow a request; first come, first served."""
        async with self._admission:
            while True:
                now = time.monotonic()
                delay = max(self._requests.delay(1, now), self._tokens.delay(tokens, now))
                if not delay:
                    self._requests.take(1, now)
                    return self._tokens.take(tokens, now)
                await asyncio.sleep(delay)
