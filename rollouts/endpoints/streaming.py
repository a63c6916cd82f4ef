"""Answers of an OpenAI-compatible server as they are written, for a person who waits for them.

A dialogue that is played asks whole answers of `rollouts.endpoints.client`, which tries again and keeps counts.
"""

import json
import os
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx

from rollouts.endpoints import answers, proxies
from rollouts.endpoints.answers import Delta
from rollouts.endpoints.replicas import read_body
from rollouts.types import DialogueError

_LONGEST = 1_000_000  # bytes of one event, of an error, or of a list of models
_EXCERPT = 300  # characters of an error that are shown


def open_http(url: str, api_key_env: str = "", transport: httpx.AsyncBaseTransport | None = None) -> httpx.AsyncClient:
    """Opens a connection to the server whose base URL, with or without /v1, is `url`, by the environment's proxy.

    Raises ValueError, naming the flag, for a URL that is none and a key that is not there.
    """
    try:
        base = httpx.URL(url)
        fine = base.scheme in ("http", "https") and base.host and not (base.userinfo or base.query or base.fragment)
    except httpx.InvalidURL:
        fine = False
    if not fine:
        raise ValueError(f"--url: expected http(s)://HOST:PORT/v1, got {url!r:.200}")
    key = os.environ.get(api_key_env, "") if api_key_env else ""
    if api_key_env and not re.fullmatch(r"[!-~]+", key):
        raise ValueError(f"--agent_api_key_env: expected a key in the environment variable {api_key_env}, found none")
    if base.path in ("", "/"):
        base = base.copy_with(path="/v1")
    if transport is None:
        proxy = proxies.find_proxy(str(base))
        transport = proxies.make_transport(proxy) if proxy else httpx.AsyncHTTPTransport()
    # Not compressed: a small body could hold a huge one.
    headers = {"Accept-Encoding": "identity", **({"Authorization": f"Bearer {key}"} if key else {})}
    timeout = httpx.Timeout(120.0, connect=5.0)
    return httpx.AsyncClient(base_url=base, transport=transport, headers=headers, timeout=timeout)


async def ask_object(http: httpx.AsyncClient, method: str, path: str, **options) -> Any:
    """Returns the JSON that a server answers with. Raises DialogueError if there is none."""
    try:
        async with http.stream(method, path, **options) as response:
            body, whole = await read_body(response, _LONGEST)
            _check_status(response, body)
            if not whole:
                raise ValueError(f"more than {_LONGEST:,} bytes")
            return json.loads(body)
    except httpx.RequestError as error:
        raise _describe_failure(http, error) from None
    except (ValueError, RecursionError) as error:
        raise DialogueError("agent_malformed", f"{http.base_url} expected JSON at {path}: {error!s:.200}") from None


async def stream_answer(http: httpx.AsyncClient, request: Mapping[str, Any]) -> AsyncIterator[Delta]:
    """Yields the pieces of the answer to a chat-completions `request`, as they come.

    Raises DialogueError, with the client's causes for the name "agent", if there is no whole answer.
    """
    asked = {**request, "stream": True, "stream_options": {"include_usage": True}}
    try:
        async with http.stream("POST", "chat/completions", json=asked) as response:
            if response.status_code != 200:
                _check_status(response, (await read_body(response, _LONGEST))[0])
            async for line in _split_lines(response):
                if not line.startswith(b"data:"):
                    continue
                data = line.removeprefix(b"data:").strip()
                if data == b"[DONE]":
                    return
                yield answers.read_delta(data)
    except httpx.RequestError as error:
        raise _describe_failure(http, error) from None
    except ValueError as error:  # an error in the stream is one, too
        raise DialogueError("agent_malformed", f"{http.base_url} {error!s:.{_EXCERPT}}") from None
    raise DialogueError("agent_truncated", f"{http.base_url} ended its answer before it was whole")


async def _split_lines(response: httpx.Response) -> AsyncIterator[bytes]:
    """Splits a body at line feeds only: U+2028 and the like are text, which `httpx` takes for the ends of lines."""
    rest = b""
    async for chunk in response.aiter_raw():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.rstrip(b"\r")
        if len(rest) > _LONGEST:
            raise ValueError(f"sent a line of more than {_LONGEST:,} bytes")
    yield rest


def _check_status(response: httpx.Response, body: bytes) -> None:
    if response.status_code != 200:
        told = " ".join(answers.read_error(body).split())
        raise DialogueError(
            f"agent_http_{response.status_code}",
            f"{response.url} answered {response.status_code}: {told:.{_EXCERPT}}",
        )


def _describe_failure(http: httpx.AsyncClient, error: httpx.RequestError) -> DialogueError:
    cause = "timeout" if isinstance(error, httpx.TimeoutException) else "unreachable"
    return DialogueError(f"agent_{cause}", f"{http.base_url} cannot be reached: {str(error) or type(error).__name__}")
