"""The rules of all our servers: loopback unless there is a key, and limits on body, concurrency and time."""

import asyncio
import contextlib
import hmac
import os
import signal
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import uvicorn
from starlette.datastructures import Headers
from starlette.responses import JSONResponse

from rollouts.endpoints.proxies import is_loopback

OPEN = ("/health", "/")
OPEN_BELOW = "/page/files/"
"""Paths that need no key, and where the files of a page are, which asks for the key itself."""

_LAST_SECONDS = 5
_KEEP = {"timeout_keep_alive": 75}  # longer than clients keep a connection: theirs must be the side that closes it


class Guard:
    """ASGI middleware: refuses requests without the key (401), too large (413), too slow (408, 504) or too many (503).

    Without a key it refuses those to other names than this machine's (421).

    It reads the body before it calls the application, so that a slow sender occupies nothing but a place here.
    """

    def __init__(
        self,
        app: Any,
        *,
        api_key: str = "",
        max_body_bytes: int = 4_000_000,
        max_concurrent: int = 1024,
        read_timeout: float = 30.0,
        answer_timeout: float = 300.0,
    ):
        self._app, self._key, self._max_body = app, api_key.encode(), max_body_bytes
        self._max_concurrent, self._read_timeout, self._answer_timeout = max_concurrent, read_timeout, answer_timeout
        self._under_way = 0

    async def __call__(self, scope, receive, send) -> None:
        """Serves one request; passes the server's start and end on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
        elif not self._is_meant(scope):
            message = "expected the Host of this machine: without a key, pages of other names may not ask"
            await _refuse_request(421, message)(scope, receive, send)
        elif not self._may_enter(scope):
            refusal = _refuse_request(
                401, "expected the API key as 'Authorization: Bearer …'", {"WWW-Authenticate": "Bearer"}
            )
            await refusal(scope, receive, send)
        elif self._under_way >= self._max_concurrent:
            message = f"{self._max_concurrent} requests are under way; try again"
            await _refuse_request(503, message, {"Retry-After": "1"})(scope, receive, send)
        else:
            self._under_way += 1
            try:
                await self._serve_request(scope, receive, send)
            finally:
                self._under_way -= 1

    def _is_meant(self, scope) -> bool:
        """Whether a request is for a name of this machine: a foreign page can make its own name lead here.

        With a key the name does not matter.
        """
        try:
            host = httpx.URL(f"http://{Headers(scope=scope).get('host', 'localhost')}").host
        except httpx.InvalidURL:
            host = ""
        return bool(self._key) or is_loopback(host)

    def _may_enter(self, scope) -> bool:
        if not self._key or scope["path"] in OPEN or scope["path"].startswith(OPEN_BELOW):
            return True
        given = Headers(scope=scope).get("authorization", "")
        scheme, _, key = given.partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(key.encode("latin-1"), self._key)

    async def _serve_request(self, scope, receive, send) -> None:
        try:
            async with asyncio.timeout(self._read_timeout):
                body = await self._read_body(scope, receive)
        except TimeoutError:
            await _refuse_request(408, f"the request took longer than {self._read_timeout:g} s")(scope, receive, send)
            return
        if body is None:
            await _refuse_request(413, f"expected at most {self._max_body:,} bytes")(scope, receive, send)
            return
        began, read = False, False

        async def receive_body():
            nonlocal read
            if read:
                return await receive()
            read = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def note_and_send(message):
            nonlocal began
            began = True
            await send(message)

        try:
            async with asyncio.timeout(self._answer_timeout):
                await self._app(scope, receive_body, note_and_send)
        except TimeoutError:
            if began:  # too late for another status; the server ends the connection
                raise
            await _refuse_request(504, f"no answer within {self._answer_timeout:g} s")(scope, receive, send)

    async def _read_body(self, scope, receive) -> bytes | None:
        """Reads the request's body; returns None, without reading on, as soon as it is too large."""
        length = Headers(scope=scope).get("content-length", "0")
        if not (length.isdecimal() and len(length) < 19 and int(length) <= self._max_body):
            return None
        body = bytearray()
        while True:
            message = await receive()
            body += message.get("body", b"")
            if len(body) > self._max_body:
                return None
            if not message.get("more_body"):  # or the client is gone
                return bytes(body)


def read_api_key(host: str, variable: str) -> str:
    """Reads the key from the environment variable `variable`; "" if no variable is named.

    Raises ValueError if the variable is not set, or if `host` is not loopback and there is no key.
    """
    key = os.environ.get(variable, "") if variable else ""
    if variable and not key:
        raise ValueError(f"--api_key_env: the environment variable {variable} is not set")
    if not key and not is_loopback(host):
        raise ValueError(
            f"--host: {host} is open to others; expected --api_key_env=VARIABLE with a key beside it, or 127.0.0.1"
        )
    return key


async def serve_app(
    app: Any,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    api_key_env: str = "",
    listener: socket.socket | None = None,
    **limits,
) -> None:
    """Serves an ASGI application behind a `Guard` with these `limits` until it is interrupted.

    Then requests that are under way have some seconds to end. A `listener` is a socket that is bound to `host` already,
    and listened to in place of `port`.

    Raises ValueError, see `read_api_key`.
    """
    guarded = Guard(app, api_key=read_api_key(host, api_key_env), **limits)
    options = {"log_level": "warning", "access_log": False, "timeout_graceful_shutdown": _LAST_SECONDS, **_KEEP}
    await _Server(uvicorn.Config(guarded, host=host, port=port, **options)).serve(
        None if listener is None else [listener]
    )


class _Server(uvicorn.Server):
    """A server that ends when it is told to, and leaves it at that: the program around it has more to close."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Listens to SIGINT and SIGTERM; the second one does not wait for requests."""
        loop, signals = asyncio.get_running_loop(), (signal.SIGINT, signal.SIGTERM)
        for number in signals:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in signals:
                loop.remove_signal_handler(number)


def _refuse_request(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    kind = "invalid_request_error" if status < 500 else "server_error"
    # The rest of the request is not read, so the connection cannot be used again.
    headers = {"Connection": "close", **(headers or {})}
    return JSONResponse({"error": {"message": message, "type": kind, "param": None, "code": None}}, status, headers)
