"""The OpenAI-compatible async client for user simulators, judges and agents behind an HTTP endpoint."""

import asyncio
import dataclasses
import os
import random
from collections.abc import Sequence

import httpx

from rollouts.types import DialogueError, Message

EMBEDDED = "embedded"
_RETRIED = {408, 409, 425, 429}


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """Where a model is served and how it is asked. Times in seconds."""

    url: str  # base URL ending in /v1, or "embedded"
    model: str
    api_key_env: str = ""  # name of the environment variable that holds the key
    concurrency: int = 64
    connect_timeout: float = 5.0
    read_timeout: float = 120.0
    retries: int = 3
    temperature: float = 1.0
    max_tokens: int = 256


def check(name: str, endpoint: Endpoint) -> None:
    """Raises ValueError if config.{name} names no URL that can be asked, or a key that is not in the environment."""
    if endpoint.url != EMBEDDED and not endpoint.url.startswith(("http://", "https://")):
        raise ValueError(f"config.{name}.url: expected 'embedded' or http(s)://…/v1, got {endpoint.url!r}")
    if endpoint.api_key_env and not os.environ.get(endpoint.api_key_env):
        raise ValueError(f"config.{name}.api_key_env: the environment variable {endpoint.api_key_env} is not set")


class ChatClient:
    """Asks one endpoint; use as an async context manager.

    Connection errors, time-outs, 408, 409, 425, 429 and 5xx are retried with jittered exponential backoff; what
    remains raises DialogueError with `{name}_unreachable`, `{name}_timeout`, `{name}_http_NNN` or `{name}_malformed`.
    """

    def __init__(self, name: str, endpoint: Endpoint):
        check(name, endpoint)
        self._name, self._endpoint = name, endpoint
        self._limit = asyncio.Semaphore(endpoint.concurrency)
        headers = {}
        if endpoint.api_key_env:
            headers["Authorization"] = f"Bearer {os.environ[endpoint.api_key_env]}"
        timeout = httpx.Timeout(endpoint.read_timeout, connect=endpoint.connect_timeout)
        limits = httpx.Limits(max_connections=endpoint.concurrency, max_keepalive_connections=endpoint.concurrency)
        if endpoint.url == EMBEDDED:
            from rollouts.embedded.app import app  # imported where it is used: real endpoints need no gym

            transport, base = httpx.ASGITransport(app=app), "http://embedded/v1/"
        else:
            transport, base = httpx.AsyncHTTPTransport(limits=limits), endpoint.url.rstrip("/") + "/"
        self._http = httpx.AsyncClient(transport=transport, base_url=base, headers=headers, timeout=timeout)

    async def __aenter__(self) -> "ChatClient":
        return self

    async def __aexit__(self, *_):
        await self._http.aclose()

    async def chat(self, messages: Sequence[Message], *, seed: int, response_format: dict | None = None) -> str:
        """Returns the content of the answer to `messages`; `response_format` goes into the request as it is."""
        body = {
            "model": self._endpoint.model,
            "messages": [dataclasses.asdict(message) for message in messages],
            "temperature": self._endpoint.temperature,
            "max_tokens": self._endpoint.max_tokens,
            "seed": seed,
        }
        if response_format is not None:
            body["response_format"] = response_format
        async with self._limit:
            response = await self._post(body)
        try:
            content = response.json()["choices"][0]["message"]["content"]
            if not isinstance(content, str) or not content.strip():
                raise TypeError
            content.encode()  # half a surrogate pair is no text: nothing could send it on
        except (ValueError, KeyError, IndexError, TypeError, RecursionError):
            raise DialogueError(
                f"{self._name}_malformed", f"{self._where} answered without text: {response.text[:200]!r}"
            ) from None
        return content

    @property
    def _where(self) -> str:
        return f"config.{self._name}.url {self._endpoint.url} (model {self._endpoint.model})"

    async def _post(self, body: dict) -> httpx.Response:
        for attempt in range(self._endpoint.retries + 1):
            if attempt:
                await asyncio.sleep(min(30.0, 0.5 * 2**attempt) * random.uniform(0.5, 1.0))
            try:
                response = await self._http.post("chat/completions", json=body)
            except httpx.TimeoutException as error:
                failure = DialogueError(f"{self._name}_timeout", f"{self._where} timed out: {type(error).__name__}")
            except httpx.RequestError as error:  # a broken connection, or an answer that cannot be decoded
                failure = DialogueError(f"{self._name}_unreachable", f"{self._where} cannot be reached: {error}")
            else:
                if response.status_code == 200:
                    return response
                failure = DialogueError(
                    f"{self._name}_http_{response.status_code}",
                    f"{self._where} answered {response.status_code}: {response.text[:200]!r}",
                )
                if response.status_code not in _RETRIED and response.status_code < 500:
                    break
        raise failure
