"""A real HTTP server on loopback that plays an OpenAI-compatible endpoint, misbehaves on cue, and keeps its own log."""

import asyncio
import contextlib
import dataclasses
import email.utils
import gzip
import json
import socket
import struct
import threading
import time
from collections.abc import Awaitable, Callable


def completion(content, finish="stop", *, usage=None, **message) -> bytes:
    """The body of a chat completion."""
    choice = {"message": {"role": "assistant", "content": content, **message}, "finish_reason": finish}
    return json.dumps({"choices": [choice], "usage": usage}, ensure_ascii=False).encode()


GOOD = completion("Grüß dich.")

FAULTS = {
    "refuse": "resets the connection before a byte is answered",
    "hang": "never answers",
    "drip": "answers a byte every 20 ms, for ever",
    "reset": "resets the connection in the middle of the body",
    "short": "closes the connection in the middle of the body",
    "storm": "429 with Retry-After in seconds",
    "storm_date": "429 with Retry-After as a date",
    "error": "500",
    "html": "200 with a page for people",
    "truncated": "200 with half a JSON",
    "schema": "200 with a JSON of something else",
    "huge": "200 with a body of a gigabyte, announced",
    "endless": "200 with a body that never ends, in chunks",
    "charset": "200 in Latin-1",
    "compressed": "200 in gzip, which nobody asked for",
    "told": "200 with a JSON of an error",
    "stream": "200 with a stream, which nobody asked for",
    "cut_off": "200 with an answer that was cut off",
    "thoughts": "200 with thoughts that were cut off",
    "filtered": "200 with an answer that a content filter stopped",
    "refused": "200 with a refusal",
}


@dataclasses.dataclass
class Entry:
    """One request as the server saw it."""

    body: dict
    headers: dict[str, str]
    target: str  # what was asked for: a path, or a URL where the server is taken for a proxy
    time: float  # seconds of time.monotonic
    fault: str  # a key of FAULTS; "": none
    sent: int = 0  # bytes of a body
    answered: bool = False  # was a proper answer sent to its end?


class Server:
    """Serves in a thread of its own; a context manager.

    `cue` gets the number of the request, from 0, and its body, and names the fault; `answer` gives a request's status
    and body where there is none.
    """

    def __init__(
        self,
        cue: Callable[[int, dict], str] = lambda number, body: "",
        answer: Callable[[bytes], Awaitable[tuple[int, bytes]]] | None = None,
        *,
        retry_after: float = 0.0,
    ):
        self.cue, self.answer, self.retry_after = cue, answer or _greet, retry_after
        self.log: list[Entry] = []
        self.probes: list[float] = []  # when /models was asked for
        self.tunnels: list[str] = []  # to where, as a proxy; none is dug
        self.down = False  # does /models answer 500?
        self.busy = self.most_busy = 0
        self._loop = asyncio.new_event_loop()
        self._connections: set[asyncio.Task] = set()

    def __enter__(self) -> "Server":
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self._thread.start()
        started.wait()
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self, started: threading.Event) -> None:
        self._loop.run_until_complete(self._serve(started))
        self._loop.close()

    async def _serve(self, started: threading.Event) -> None:
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0, backlog=1024)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        started.set()
        await self._stop.wait()
        server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(task := asyncio.current_task())
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                while await self._request(reader, writer):
                    pass
        except asyncio.CancelledError:  # the server stops
            pass
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Serves one request; says whether the connection stays."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:-2])}
        content = await reader.readexactly(int(headers.get("content-length", 0)))
        method, target, _ = head[0].split(" ")
        if method == "CONNECT":
            self.tunnels.append(target)
            await _send(writer, 403, b"no way")
            return False
        if method == "GET":
            self.probes.append(time.monotonic())
            await _send(writer, 500 if self.down else 200, b"{}")
            return True
        body = json.loads(content)
        entry = Entry(body, headers, target, time.monotonic(), self.cue(len(self.log), body))
        self.log.append(entry)
        self.busy += 1
        self.most_busy = max(self.most_busy, self.busy)
        try:
            if entry.fault:
                return await getattr(self, f"_{entry.fault}")(reader, writer, entry)
            status, answer = await self.answer(content)
            await _send(writer, status, answer)
            entry.answered = status == 200
            return True
        finally:
            self.busy -= 1

    async def _refuse(self, reader, writer, entry) -> bool:
        return _reset(writer)

    async def _hang(self, reader, writer, entry) -> bool:
        await reader.read()  # until the client hangs up
        return False

    async def _drip(self, reader, writer, entry) -> bool:
        await _send(writer, 200, b" ", {"Content-Length": 10**6})
        while True:
            entry.sent += 1
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.02)

    async def _reset(self, reader, writer, entry) -> bool:
        await _send(writer, 200, GOOD[:20], {"Content-Length": len(GOOD)})
        await asyncio.sleep(0.01)  # or the half is lost with the connection
        return _reset(writer)

    async def _short(self, reader, writer, entry) -> bool:
        await _send(writer, 200, GOOD[:20], {"Content-Length": len(GOOD)})
        writer.close()
        return False

    async def _storm(self, reader, writer, entry) -> bool:
        await _send(writer, 429, b"slow down", {"Retry-After": f"{self.retry_after:g}"})
        return True

    async def _storm_date(self, reader, writer, entry) -> bool:
        date = email.utils.formatdate(time.time() + self.retry_after, usegmt=True)
        await _send(writer, 429, b"slow down", {"Retry-After": date})
        return True

    async def _error(self, reader, writer, entry) -> bool:
        await _send(writer, 500, b'{"error": "out of memory"}')
        return True

    async def _html(self, reader, writer, entry) -> bool:
        await _send(writer, 200, b"<html><h1>We are back soon</h1></html>", {"Content-Type": "text/html"})
        return True

    async def _truncated(self, reader, writer, entry) -> bool:
        await _send(writer, 200, GOOD[: len(GOOD) // 2])
        return True

    async def _schema(self, reader, writer, entry) -> bool:
        await _send(writer, 200, b'{"choices": [{"delta": {"content": "Hi"}}]}')
        return True

    async def _huge(self, reader, writer, entry) -> bool:
        await _send(writer, 200, b"", {"Content-Length": 10**9})
        return await self._pour(writer, entry, b" " * 65536)

    async def _endless(self, reader, writer, entry) -> bool:
        await _send(writer, 200, b"", {"Content-Length": None, "Transfer-Encoding": "chunked"})
        return await self._pour(writer, entry, b"10000\r\n" + b" " * 65536 + b"\r\n")

    async def _pour(self, writer, entry, chunk) -> bool:
        while entry.sent < 10**9:
            writer.write(chunk)
            await writer.drain()
            entry.sent += len(chunk)
        return False

    async def _charset(self, reader, writer, entry) -> bool:
        await _send(writer, 200, GOOD.decode().encode("latin-1"), {"Content-Type": "application/json; charset=latin-1"})
        return True

    async def _compressed(self, reader, writer, entry) -> bool:
        await _send(writer, 200, gzip.compress(GOOD), {"Content-Encoding": "gzip"})
        return True

    async def _told(self, reader, writer, entry) -> bool:
        await _send(writer, 200, b'{"error": {"message": "overloaded", "type": "server_error"}}')
        return True

    async def _stream(self, reader, writer, entry) -> bool:
        await _send(writer, 200, b"data: " + GOOD + b"\n\n", {"Content-Type": "text/event-stream"})
        return True

    async def _cut_off(self, reader, writer, entry) -> bool:
        await _send(writer, 200, completion("Grüß d", "length"))
        return True

    async def _thoughts(self, reader, writer, entry) -> bool:
        await _send(writer, 200, completion("", "length", reasoning="Hm. Shall I"))
        return True

    async def _filtered(self, reader, writer, entry) -> bool:
        await _send(writer, 200, completion("", "content_filter"))
        return True

    async def _refused(self, reader, writer, entry) -> bool:
        await _send(writer, 200, completion(None, refusal="I cannot be a customer."))
        return True


async def _greet(content: bytes) -> tuple[int, bytes]:
    return 200, GOOD


async def _send(writer: asyncio.StreamWriter, status: int, body: bytes, headers: dict | None = None) -> None:
    sent = {"Content-Type": "application/json", "Content-Length": len(body)} | (headers or {})
    lines = [f"HTTP/1.1 {status} So", *(f"{name}: {value}" for name, value in sent.items() if value is not None)]
    writer.write("\r\n".join([*lines, "", ""]).encode() + body)
    await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> bool:
    """Ends a connection with RST instead of FIN."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    return False
