"""One attempt at a request: over HTTP, to the least busy of an endpoint's replicas whose circuit is closed."""

import asyncio
import datetime
import os
import re
import time
from collections.abc import Callable
from typing import Any

import httpx

from rollouts.endpoints import answers, proxies
from rollouts.endpoints.answers import Answer
from rollouts.endpoints.limits import Breaker
from rollouts.endpoints.settings import EMBEDDED, Endpoint, list_urls
from rollouts.types import DialogueError

_RETRIED = {408, 409, 425, 429}
_EXCERPT = 2000  # bytes of an error's body that are read
_HINTS = {
    r"response_format": ("response_format",),
    r"max_(completion_)?tokens": ("max_tokens", "max_tokens_field"),
    r"temperature": ("temperature", "temperature_field"),
    r"\b(random_)?seed\b": ("seed_field",),
    r"\broles?\b|developer": ("system_role",),
}
"""Pattern in a server's error message -> settings that may help."""

_SECRET = 16  # characters; shorter keys are dummies such as EMPTY, which may well be words of an answer


class Replica:
    """One of an endpoint's servers."""

    def __init__(self, url: str, breaker: Breaker):
        self.url, self.breaker = url, breaker
        self.proxy: proxies.Proxy | None = None
        self.under_way = self.served = 0


class Failure(DialogueError):
    """An attempt that brought no answer."""

    def __init__(
        self,
        cause: str,
        message: str,
        *,
        again: bool = True,  # may another attempt succeed?
        wait: float = 0.0,  # seconds that the server asks to wait before it
        alive: bool = False,  # does the server work?
        charged: bool = False,  # may the server have done the work, and charge for it?
    ):
        super().__init__(cause, message)
        self.again, self.wait, self.alive, self.charged = again, wait, alive, charged
        self.replica: Replica | None = None  # the one that was asked, if any was


class Replicas:
    """The servers of config.{name}; an async context manager that may be entered again and keeps its circuits."""

    def __init__(self, name: str, endpoint: Endpoint, embedded: Callable[[], Any]):
        self._name, self._endpoint, self._embedded = name, endpoint, embedded
        self._key = os.environ.get(endpoint.api_key_env, "") if endpoint.api_key_env else ""
        self._all = [
            Replica(url, Breaker(endpoint.breaker_failures, endpoint.breaker_rest)) for url in list_urls(endpoint)
        ]

    async def __aenter__(self) -> "Replicas":
        self._recovery = asyncio.Lock()
        self._http = self._open_client()
        return self

    async def __aexit__(self, *_):
        await self._http.aclose()

    def _open_client(self) -> httpx.AsyncClient:
        endpoint, mounts = self._endpoint, {}
        if endpoint.url == EMBEDDED:
            transport = httpx.ASGITransport(app=self._embedded())
        else:
            count = endpoint.concurrency
            limits = httpx.Limits(max_connections=count, max_keepalive_connections=count)
            transport = httpx.AsyncHTTPTransport(limits=limits)
            for replica in self._all:
                if proxy := proxies.find_proxy(replica.url):
                    server, replica.proxy = httpx.URL(replica.url), proxy
                    through = proxies.make_transport(proxy, limits=limits)
                    mounts[f"{server.scheme}://{server.netloc.decode()}"] = through
        # Not compressed: a small body could hold a huge one.
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        timeout = httpx.Timeout(endpoint.read_timeout, connect=endpoint.connect_timeout)
        return httpx.AsyncClient(transport=transport, mounts=mounts, headers=headers, timeout=timeout)

    async def send_request(self, content: bytes, *, avoid: Replica | None = None) -> Answer:
        """Sends the request `content` once, to another replica than `avoid` if there is one. Raises Failure."""
        replica = await self._choose_replica(avoid)
        began = time.monotonic()
        replica.under_way += 1
        try:
            answer = await self._post_request(replica, content)
        except Failure as failure:
            failure.replica = replica
            if failure.alive:
                replica.breaker.note_success(time.monotonic())
            else:
                replica.breaker.note_failure(began, time.monotonic(), str(failure))
            raise
        finally:
            replica.under_way -= 1
            replica.served += 1
        replica.breaker.note_success(time.monotonic())
        return answer

    async def _choose_replica(self, avoid: Replica | None) -> Replica:
        """Returns the least busy replica whose circuit is closed."""
        closed = await self._wait_for_closed()
        return min(closed, key=lambda replica: (replica is avoid, replica.under_way, replica.served))

    async def _wait_for_closed(self) -> list[Replica]:
        """Returns the replicas whose circuit is closed, at least one; waits for it if all are open.

        One caller for all probes the open ones that have rested. If all are open, one must come back within
        config.{name}.breaker_wait of when the last one opened, so that an outage is waited for once, however many
        callers there are and however few of them may ask at a time.
        """
        closed = [replica for replica in self._all if replica.breaker.closed]
        rested = [
            replica for replica in self._all if not replica.breaker.closed and not self._seconds_to_probe(replica)
        ]
        if closed and (not rested or self._recovery.locked()):
            return closed
        async with self._recovery:
            while True:
                opened = [replica for replica in self._all if not replica.breaker.closed]
                await asyncio.gather(
                    *(self._probe_replica(replica) for replica in opened if not self._seconds_to_probe(replica))
                )
                closed = [replica for replica in self._all if replica.breaker.closed]
                if closed:
                    return closed
                left = max(replica.breaker.opened_at for replica in opened) + self._endpoint.breaker_wait
                left -= time.monotonic()
                if left <= 0:
                    raise self._describe_outage()
                await asyncio.sleep(min(left, *(self._seconds_to_probe(replica) for replica in opened)))

    def _describe_outage(self) -> Failure:
        last = max((replica.breaker for replica in self._all), key=lambda breaker: breaker.failed_at)
        return Failure(
            f"{self._name}_circuit_open",
            f"config.{self._name}: {self._endpoint.breaker_failures} failures in a row, and no server came "
            f"back within {self._endpoint.breaker_wait:g} s; the last: {last.error}",
            again=False,
        )

    def _seconds_to_probe(self, replica: Replica) -> float:
        return replica.breaker.seconds_to_probe(time.monotonic())

    async def _probe_replica(self, replica: Replica) -> None:
        try:
            async with (
                asyncio.timeout(self._endpoint.connect_timeout),
                self._http.stream("GET", replica.url + "models") as response,
            ):
                alive = response.status_code < 500
        except (TimeoutError, httpx.RequestError):
            alive = False
        replica.breaker.note_probe(alive, time.monotonic())

    async def _post_request(self, replica: Replica, content: bytes) -> Answer:
        name, endpoint = self._name, self._endpoint
        shown = endpoint.url if endpoint.url == EMBEDDED else replica.url.rstrip("/")
        where = f"config.{name}.url {shown} (model {endpoint.model})"
        where += f" through {replica.proxy.variable}" if replica.proxy else ""
        try:
            async with (
                asyncio.timeout(endpoint.total_timeout),
                self._http.stream("POST", replica.url + "chat/completions", content=content) as response,
            ):
                status, headers = response.status_code, response.headers
                body, complete = await read_body(response, endpoint.max_answer_bytes if status == 200 else _EXCERPT)
        except (TimeoutError, httpx.TimeoutException) as error:
            message = f"{where} timed out: {type(error).__name__}"
            raise Failure(f"{name}_timeout", message, charged=not isinstance(error, httpx.ConnectTimeout)) from None
        except httpx.RequestError as error:
            message = f"{where} cannot be reached: {self._hide_key(str(error)) or type(error).__name__}"
            refused = isinstance(error, httpx.ConnectError | httpx.ProxyError)
            raise Failure(f"{name}_unreachable", message, charged=not refused) from None
        wait = answers.read_retry_after(headers.get("Retry-After"), datetime.datetime.now(datetime.UTC))
        if status != 200:
            raise self._describe_refusal(f"{where} answered {status}", status, body.decode(errors="replace"), wait)
        if not complete:
            message = f"{where} answered with more than config.{name}.max_answer_bytes ({endpoint.max_answer_bytes:,})"
            raise Failure(f"{name}_too_large", message, alive=True, charged=True)
        try:
            answer = answers.read_answer(body)  # a compressed body is malformed: nothing decompresses it
        except answers.ErrorBody as error:
            raise self._describe_refusal(
                f"{where} answered {status} with an error", error.status, str(error), wait
            ) from None
        except ValueError as error:
            text = self._quote_excerpt(body.decode(errors="replace"))
            raise Failure(f"{name}_malformed", f"{where}: {error}, got {text}", alive=True, charged=True) from None
        if len(self._key) < _SECRET:
            return answer
        thought = answer.reasoning and self._hide_key(answer.reasoning)
        return answer._replace(
            content=self._hide_key(answer.content), reasoning=thought, finish=self._hide_key(answer.finish)
        )

    def _describe_refusal(self, what: str, status: int | None, told: str, wait: float) -> Failure:
        """Makes the Failure for a server's `status` (None: it named none) and its words, `told`."""
        told = told[:_EXCERPT]
        settings = [
            f"config.{self._name}.{setting}"
            for named, helpful in _HINTS.items()
            if status != 429 and re.search(named, told, re.IGNORECASE)
            for setting in helpful
        ]
        return Failure(
            f"{self._name}_http_{status}" if status else f"{self._name}_error",
            f"{what}: {self._quote_excerpt(told)}{'; see ' if settings else ''}{', '.join(settings)}",
            again=status is None or status in _RETRIED or status >= 500,
            wait=wait,
            alive=status is None or status < 500,
        )

    def _quote_excerpt(self, text: str) -> str:
        return repr(self._hide_key(text[:_EXCERPT])[:200])

    def _hide_key(self, text: str) -> str:
        """Takes the key out of `text`: servers may repeat it, and it must not get into messages and transcripts."""
        return text.replace(self._key, "[the API key]") if self._key else text


async def read_body(response: httpx.Response, limit: int) -> tuple[bytes, bool]:
    """Reads the body as it was sent, at most `limit` bytes of it; returns it, and whether that is all."""
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > limit:
            return bytes(body[:limit]), False
    return bytes(body), True
