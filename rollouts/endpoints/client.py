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
from rollouts.endpoints.settings import EMBEDDED, Endpoint, build_request, check_endpoint, translate_request
from rollouts.seeds import fold
from rollouts.tool_calls import ToolCall
from rollouts.types import DialogueError, Message

__all__ = ["EMBEDDED", "BudgetReached", "ChatClient", "Endpoint", "ReplayMiss", "check_endpoint"]


class ChatClient:
    """Asks one endpoint; an async context manager that may be entered again and keeps its limits, circuits and counts.

    It tries again after broken connections, time-outs, the statuses 408, 409, 425, 429 and 5xx, and unusable answers.
    If that does not help, it raises DialogueError with the cause `{name}_unreachable`, `{name}_timeout`,
    `{name}_http_NNN`, `{name}_error`, `{name}_too_large`, `{name}_malformed`, `{name}_truncated`, `{name}_refused`,
    `{name}_filtered` or, if the circuit breaker let nothing through, `{name}_circuit_open`. A model whose answer was
    not a whole, plain one is asked again with another seed.

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
            check_endpoint(name, endpoint)
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
                await stack.enter_async_context(self._replicas)
            self._open = stack.pop_all()
        return self

    async def __aexit__(self, *_):
        await self._open.aclose()

    @contextlib.contextmanager
    def remember_in(self, memory: Memory) -> Iterator[None]:
        """Within the context, takes answers from `memory` where it holds them, and keeps new answers in it."""
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
          DialogueError: if there is no answer, see the class.
          BudgetReached: if the run may not ask for more.
          ReplayMiss: if a replay asks for what was not recorded.
        """
        asked = build_request(self._endpoint, messages, seed=seed, response_format=response_format)
        return answers.extract_text(await self._find_answer(asked, answers.extract_text))

    async def ask_for_turn(self, messages: Sequence[Message], *, seed: int) -> tuple[str, bool]:
        """Returns an agent's answer to `messages`, thoughts included, and whether it was cut off; raises as `chat`."""
        answer = await self._find_answer(build_request(self._endpoint, messages, seed=seed), answers.extract_turn)
        return answers.extract_turn(answer), answer.finish == "length"

    async def ask_with_tools(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], *, seed: int
    ) -> tuple[str, list[ToolCall]]:
        """Returns the answer to `messages` of somebody who has `tools`, and the calls in it; raises as `chat`.

        `messages` may hold calls and their results: `rollouts.types.CallingMessage`, `ResultMessage`.
        """
        asked = build_request(self._endpoint, messages, seed=seed, tools=tools)
        return answers.extract_step(await self._find_answer(asked, answers.extract_step))

    async def _find_answer(self, asked: dict[str, Any], read: Callable[[Answer], Any]) -> Answer:
        """Returns an answer that `read` can read: the kept one, if the request was asked before, or a new one."""
        key = {"endpoint": self._name, **asked}
        if self._replayed:
            return self._recall_answer(self._replayed.replay_answer(key), read)
        given = key | {"url": self._endpoint.url}  # another server may answer otherwise
        for memory, asked_there in ((self._recorded, key), (self._memory, given)):
            if memory and (kept := memory.kept(asked_there)):
                return self._recall_answer(kept, read)
        try:
            answer = await self._ask_until_answered(asked, read)
        except DialogueError as error:
            if self._recorded:
                await asyncio.to_thread(self._recorded.record_failure, key, error)
            raise
        beside = {} if answer.reasoning is None else {"reasoning": answer.reasoning}
        beside |= {name: value for name in ("finish", "calls") if (value := getattr(answer, name))}
        if self._memory:
            self._memory.record(given, answer.content, **beside)
        if not self._recorded:
            return answer
        await asyncio.to_thread(self._recorded.record, key, answer.content, **beside)
        return self._recall_answer(self._recorded.kept(key), read)

    def _recall_answer(self, kept: Mapping[str, str], read: Callable[[Answer], Any]) -> Answer:
        """Returns a recorded answer. Raises DialogueError if it is unusable; older recordings may hold such answers."""
        beside = {name: kept.get(name, "") for name in ("finish", "calls")}
        answer = Answer(kept["answer"], reasoning=kept.get("reasoning"), **beside)
        try:
            read(answer)
        except NoAnswer as error:
            raise self._describe_failure(error) from None
        return answer

    def _describe_failure(self, error: NoAnswer) -> DialogueError:
        setting = f"; see config.{self._name}.max_tokens ({self._endpoint.max_tokens:,})"
        return DialogueError(
            f"{self._name}_{error.cause}",
            f"config.{self._name}.url {self._endpoint.url} (model {self._endpoint.model}) {error}"
            f"{setting if error.cause == 'truncated' else ''}",
        )

    async def _ask_until_answered(self, asked: dict[str, Any], read: Callable[[Answer], Any]) -> Answer:
        """Sends a request until there is a usable answer, or no further attempt may help."""
        sent, attempt, unfit, last = asked, 0, 0, None
        async with self._slots:
            while True:
                content = json.dumps(translate_request(self._endpoint, sent), ensure_ascii=False).encode()
                try:
                    answer = await self._attempt_once(content, last)
                    read(answer)
                    return answer
                except NoAnswer as error:
                    if attempt == self._endpoint.retries:
                        raise self._describe_failure(error) from None
                    unfit, wait = unfit + 1, 0.0  # the server works; the same seed might give the same answer
                    sent = asked | {"seed": fold(asked["seed"], "again", unfit)}
                except Failure as failure:
                    if not failure.again or attempt == self._endpoint.retries:
                        raise
                    last = failure.replica
                    backoff = self._endpoint.backoff * 2**attempt * random.uniform(0.5, 1.0)
                    wait = min(self._endpoint.max_wait, failure.wait + backoff)
                attempt += 1
                await asyncio.sleep(wait)

    async def _attempt_once(self, content: bytes, avoid: Replica | None) -> Answer:
        """Makes one attempt within the rates and the budget."""
        most = Spent(1, answers.estimate_tokens(content), self._endpoint.max_tokens)
        self.meter.reserve(most)
        spent, taken = Spent(), None
        try:
            taken = await self._wait_for_rates(most.tokens)
            spent = most  # an attempt that is given up may cost something too
            answer = await self._replicas.send_request(content, avoid=avoid)
            wrote = answers.estimate_tokens(f"{answer.reasoning or ''}{answer.content}{answer.calls}".encode())
            spent = Spent(
                1,
                answers.plausible_count(answer.prompt_tokens, most.prompt_tokens),
                answers.plausible_count(answer.answer_tokens, wrote),
            )
        except Failure as failure:
            spent = most if failure.charged else Spent(1 if failure.replica else 0)
            raise
        finally:
            self.meter.settle(most, spent)
            if taken:
                self._tokens.correct_amount(taken, spent.tokens)
        return answer

    async def _wait_for_rates(self, tokens: int) -> Taken:
        """Waits until the rates allow a request; first come, first served."""
        async with self._admission:
            while True:
                now = time.monotonic()
                delay = max(self._requests.seconds_until(1, now), self._tokens.seconds_until(tokens, now))
                if not delay:
                    self._requests.take(1, now)
                    return self._tokens.take(tokens, now)
                await asyncio.sleep(delay)
