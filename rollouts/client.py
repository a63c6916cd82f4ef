"""The OpenAI-compatible async client for user simulators, judges and agents behind an HTTP endpoint."""

import asyncio
import contextlib
import dataclasses
import json
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rollouts import answers
from rollouts.endpoint import EMBEDDED, FORMATS, Endpoint, check
from rollouts.limits import Taken, Window
from rollouts.meter import BudgetReached, Meter, Spent
from rollouts.recording import Memory, Recording, ReplayMiss
from rollouts.replicas import Failure, Replica, Replicas
from rollouts.types import DialogueError, Message

__all__ = ["EMBEDDED", "BudgetReached", "ChatClient", "Endpoint", "ReplayMiss", "check"]


class ChatClient:
    """Asks one endpoint; an async context manager that may be entered again: its limits, circuits and counts last.

    Broken connections, time-outs, 408, 409, 425, 429, 5xx and answers that are none are tried again; what remains
    raises DialogueError with the cause `{name}_unreachable`, `{name}_timeout`, `{name}_http_NNN`, `{name}_too_large`,
    `{name}_malformed` or, where the circuit breaker let nothing through, `{name}_circuit_open`.

    `record` and `replay` are directories, see `rollouts.recording`; a replay opens no connection and needs no key.
    """

    def __init__(
        self, name: str, endpoint: Endpoint, *, record: str = "", replay: str = "", meter: Meter | None = None
    ):
        if record and replay:
            raise ValueError("config.endpoints: expected record or replay, got both")
        if not replay:
            check(name, endpoint)
        self._name, self._endpoint = name, endpoint
        self._recorded, self._replayed = record and Recording(record), replay and Recording(replay)
        self._replicas = Replicas(name, endpoint)
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
        """Returns the content of the answer to `messages`.

        Raises:
          DialogueError: if there is none, see the class.
          BudgetReached: if the run may not ask for more.
          ReplayMiss: if a replay asks for what was not recorded.
        """
        body = {
            "model": self._endpoint.model,
            "messages": [dataclasses.asdict(message) for message in messages],
            "temperature": self._endpoint.temperature,
            "max_tokens": self._endpoint.max_tokens,
            "seed": seed,
        }
        if response_format is not None and (sent := FORMATS[self._endpoint.response_format](response_format)):
            body["response_format"] = dict(sent)
        request = {"endpoint": self._name, **body}
        if self._replayed:
            return self._replayed.replay(request)
        for memory in filter(None, (self._recorded, self._memory)):
            if (known := memory.answer(request)) is not None:
                return known
        try:
            content = await self._ask(body)
        except DialogueError as error:
            if self._recorded:
                await asyncio.to_thread(self._recorded.record_failure, request, error)
            raise
        if self._memory:
            self._memory.record(request, content)
        return await asyncio.to_thread(self._recorded.record, request, content) if self._recorded else content

    async def _ask(self, body: dict[str, Any]) -> str:
        """Attempts at one request, until there is an answer or no hope."""
        content = json.dumps(body, ensure_ascii=False).encode()
        attempt, last = 0, None
        async with self._slots:
            while True:
                try:
                    return await self._attempt(content, last)
                except Failure as failure:
                    if not failure.again or attempt == self._endpoint.retries:
                        raise
                    last = failure.replica
                    backoff = self._endpoint.backoff * 2**attempt * random.uniform(0.5, 1.0)
                    wait = min(self._endpoint.max_wait, failure.wait + backoff)
                attempt += 1
                await asyncio.sleep(wait)

    async def _attempt(self, content: bytes, avoid: Replica | None) -> str:
        """One attempt, within the rates and the budget."""
        most = Spent(1, answers.estimated_tokens(content), self._endpoint.max_tokens)
        self.meter.reserve(most)
        spent, taken = Spent(), None
        try:
            taken = await self._admit(most.tokens)
            spent = most  # an attempt that is given up may have its price
            answer = await self._replicas.ask(content, avoid=avoid)
            wrote = answers.estimated_tokens(answer.content.encode())
            spent = Spent(
                1,
                most.prompt_tokens if answer.prompt_tokens is None else answer.prompt_tokens,
                wrote if answer.answer_tokens is None else answer.answer_tokens,
            )
        except Failure as failure:
            spent = most if failure.charged else Spent(1 if failure.replica else 0)
            raise
        finally:
            self.meter.settle(most, spent)
            if taken:
                self._tokens.correct(taken, spent.tokens)
        return answer.content

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
