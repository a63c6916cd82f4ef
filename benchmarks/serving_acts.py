"""What clients do to a server in a soak: ask well, leave in the middle, and misbehave."""

import asyncio
import json
import random
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

import httpx

from tests.builders import servers

MODEL = "tiny"
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
WORDS = [
    "my",
    "soup",
    "arrived",
    "cold",
    "user",
    "assistant",
    "agent",
    "customer",
    "service",
    "are",
    "you",
    "a",
    "system",
]
TOOL = servers.make_tool(b={"type": "boolean"})
FORM = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": [1, "two", None]}}}
_FIELDS = {f"field_{number}": {"type": "string"} for number in range(2000)}
MUCH = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object", "properties": _FIELDS}}}


class Unexpected(Exception):
    """The server did not do what it must."""


class Visit(NamedTuple):
    """A client that came to the server."""

    client: httpx.AsyncClient
    key: str
    rng: random.Random

    @property
    def address(self) -> tuple[str, int]:
        """Where the server listens."""
        return self.client.base_url.host, self.client.base_url.port

    def say(self) -> str:
        """Makes words that nobody said before."""
        return " ".join([*self.rng.choices(WORDS, k=self.rng.randint(1, 12)), str(self.rng.getrandbits(40))])

    def make_body(self, **changes: Any) -> dict[str, Any]:
        """Makes a request for a message, good unless `changes` make it another one."""
        message = {"role": "user", "content": self.say()}
        most, seed = self.rng.choice([4, 12, 40]), self.rng.getrandbits(31)
        return {"model": MODEL, "messages": [message], "seed": seed, "max_tokens": most, **changes}


class Asked(NamedTuple):
    """A request and its answer."""

    path: str
    body: Mapping[str, Any]
    headers: Mapping[str, str]
    answer: list[Any]  # of each choice: words, calls and finish

    async def ask_again(self, client: httpx.AsyncClient) -> list[Any]:
        """Asks for the answer once more, not streamed."""
        body = {name: value for name, value in self.body.items() if name != "stream"}
        return (await ask(client, self.path, body, self.headers)).answer


class Act(NamedTuple):
    """What a client does."""

    weight: float
    run: Callable[[Visit], Awaitable[Sequence[Asked] | None]]  # raises Unexpected
    good: bool = False  # is it to be answered?


async def ask(
    client: httpx.AsyncClient, path: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None
) -> Asked:
    """Asks, streamed or not. Raises Unexpected unless it is answered well."""
    headers = headers or {}
    answer = await client.post(path, json=body, headers=headers)
    if answer.status_code != 200:
        raise Unexpected(f"{answer.status_code} {answer.text:.300} to {str(body):.300}")
    found = _join_events(answer.text) if body.get("stream") else answer.json()["choices"]
    choices = [[_list_words(choice), choice["finish_reason"]] for choice in found]
    if not all(finish for _, finish in choices):
        raise Unexpected(f"no end of the answer to {body}: {answer.text[-300:]}")
    return Asked(path, body, headers, choices)


def _list_words(choice: Mapping[str, Any]) -> list[Any]:
    message = choice.get("message", {"content": choice.get("text")})
    calls = [(call["function"]["name"], call["function"]["arguments"]) for call in message.get("tool_calls") or ()]
    return [message["content"] or "", *map(list, calls)]


def _join_events(text: str) -> list[dict[str, Any]]:
    """Puts the choices of a stream together. Raises Unexpected for one without its end."""
    *events, done = [line.removeprefix("data: ") for line in text.split("\n") if line]
    if done != "[DONE]":
        raise Unexpected(f"expected [DONE] at the end of a stream, got {done:.300}")
    joined: dict[int, dict[str, Any]] = {}
    for choice in (choice for event in events for choice in json.loads(event)["choices"]):
        whole = joined.setdefault(choice["index"], {"content": "", "tool_calls": [], "finish_reason": None})
        part = choice.get("delta", {"content": choice.get("text")})
        whole["content"] += part.get("content") or ""
        whole["tool_calls"] += part.get("tool_calls", [])
        whole["finish_reason"] = choice["finish_reason"]
    return [{"message": joined[index], "finish_reason": joined[index]["finish_reason"]} for index in sorted(joined)]


def ask_for(path: str = CHAT, **changes: Any) -> Callable[[Visit], Awaitable[Sequence[Asked]]]:
    """Returns an act: one good request."""

    async def run(visit: Visit) -> Sequence[Asked]:
        return [await ask(visit.client, path, visit.make_body(**changes))]

    return run


async def ask_for_text(visit: Visit) -> Sequence[Asked]:
    """Asks for what comes after some texts."""
    body = visit.make_body(
        prompt=[visit.say() for _ in range(visit.rng.randint(1, 3))], stream=visit.rng.random() < 0.5
    )
    del body["messages"]
    return [await ask(visit.client, TEXT, body)]


def converse(*, named: bool) -> Callable[[Visit], Awaitable[Sequence[Asked]]]:
    """Returns an act: a conversation of some turns.

    Where it is `named`, by its x-session-id, the client does not keep what the server said.
    """

    async def run(visit: Visit) -> Sequence[Asked]:
        headers = {"x-session-id": visit.say()} if named else {}
        messages, asked = [{"role": "system", "content": visit.say()}], []
        for _ in range(visit.rng.randint(2, 6)):
            messages = [*messages, {"role": "user", "content": visit.say()}]
            body = visit.make_body(messages=messages, stream=visit.rng.random() < 0.5)
            asked.append(await ask(visit.client, CHAT, body, headers))
            messages = [*messages, {"role": "assistant", "content": "…" if named else asked[-1].answer[0][0][0]}]
            await asyncio.sleep(visit.rng.random() / 5)
        return asked

    return run


def be_refused(*statuses: int, **changes: Any) -> Callable[[Visit], Awaitable[None]]:
    """Returns an act: a request that must get one of these statuses."""

    async def run(visit: Visit) -> None:
        await _send_refused(visit, json.dumps(visit.make_body(**changes)).encode(), statuses)

    return run


def send_refused(status: int, content: bytes, **headers: str) -> Callable[[Visit], Awaitable[None]]:
    """Returns an act: a request with this content that must get this status."""

    async def run(visit: Visit) -> None:
        await _send_refused(visit, content, (status,), headers)

    return run


async def _send_refused(
    visit: Visit, content: bytes, statuses: Sequence[int], headers: Mapping[str, str] | None = None
) -> None:
    headers = {"Content-Type": "application/json", **(headers or {})}
    answer = await visit.client.post(CHAT, content=content, headers=headers)
    if answer.status_code not in statuses:
        raise Unexpected(f"expected {statuses}, got {answer.status_code} {answer.text:.300} to {content[:300]!r}")
    if answer.status_code != 200 and set(answer.json()["error"]) != {"message", "type", "param", "code"}:
        raise Unexpected(f"expected an error of the OpenAI protocol, got {answer.text:.300}")


# Those that are no client of HTTP, or a bad one.


def write_head(visit: Visit, length: int | str) -> bytes:
    """Writes the head of a request whose body has this length; a text is the header itself."""
    size = f"Content-Length: {length}" if isinstance(length, int) else length
    return f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {visit.key}\r\n{size}\r\n\r\n".encode()


def leave(*, stream: bool, seconds: float, abruptly: bool = False) -> Callable[[Visit], Awaitable[None]]:
    """Returns an act: to ask for a long answer and to leave after up to so many seconds."""

    async def run(visit: Visit) -> None:
        content = json.dumps(visit.make_body(stream=stream, max_tokens=400, n=visit.rng.choice([1, 1, 3]))).encode()
        reader, writer = await asyncio.open_connection(*visit.address)
        writer.write(write_head(visit, len(content)) + content)
        await writer.drain()
        await asyncio.sleep(visit.rng.random() * seconds)
        if abruptly:  # the connection is reset, not closed
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.close()

    return run


async def leave_mid_stream(visit: Visit) -> None:
    """Reads some pieces of a stream, and leaves."""
    body = visit.make_body(stream=True, max_tokens=400)
    async with visit.client.stream("POST", CHAT, json=body) as answer:
        if answer.status_code != 200:
            raise Unexpected(f"expected 200, got {answer.status_code}")
        pieces = visit.rng.randint(1, 10)
        async for _ in answer.aiter_lines():
            pieces -= 1
            if not pieces:
                break


def send_raw(
    status: int, write: Callable[[Visit], Sequence[bytes]], pause: float
) -> Callable[[Visit], Awaitable[None]]:
    """Returns an act: to send these parts, `pause` seconds between two, until there is an answer of this status."""

    async def run(visit: Visit) -> None:
        reader, writer = await asyncio.open_connection(*visit.address)
        try:
            answering = asyncio.create_task(reader.readline())
            for part in write(visit):
                writer.write(part)
                await asyncio.wait([answering], timeout=pause)
                if answering.done():
                    break
            line = await asyncio.wait_for(answering, 30)
        finally:
            writer.close()
        if f" {status} ".encode() not in line:
            raise Unexpected(f"expected {status}, got {line!r}")

    return run


def write_chunks(visit: Visit) -> Sequence[bytes]:
    """Writes a body that is too large, and says its length nowhere."""
    chunk = b"1000\r\n" + b" " * 4096 + b"\r\n"
    return [write_head(visit, "Transfer-Encoding: chunked") + 30 * chunk]


async def stay_silent(visit: Visit) -> None:
    """Connects, sends nothing or half of a head, and goes after a while."""
    _, writer = await asyncio.open_connection(*visit.address)
    writer.write(visit.rng.choice([b"", b"POST ", write_head(visit, 100)[:40], write_head(visit, 100)]))
    await asyncio.sleep(visit.rng.random() * 5)
    writer.close()


ACTS = {
    "a message": Act(6, ask_for(), good=True),
    "a message, streamed": Act(6, ask_for(stream=True), good=True),
    "three at once": Act(1, ask_for(n=3), good=True),
    "likely words only": Act(1, ask_for(temperature=0.7, top_p=0.9, stop=["e"]), good=True),
    "a call of a tool": Act(1, ask_for(tools=[TOOL], tool_choice="required", max_tokens=200), good=True),
    "JSON of a schema": Act(1, ask_for(response_format=FORM), good=True),
    "a text": Act(3, ask_for_text, good=True),
    "a conversation": Act(4, converse(named=False), good=True),
    "a named conversation": Act(4, converse(named=True), good=True),
    "left at once": Act(1, leave(stream=False, seconds=0.0)),
    "left a stream at once": Act(1, leave(stream=True, seconds=0.0, abruptly=True)),
    "left in mid-answer": Act(2, leave(stream=False, seconds=0.5)),
    "left in mid-answer, reset": Act(1, leave(stream=False, seconds=0.5, abruptly=True)),
    "left in mid-stream": Act(2, leave_mid_stream),
    "stream that nobody reads": Act(1, leave(stream=True, seconds=2.0)),
    "broken JSON": Act(1, send_refused(400, b'{"model": "tiny", "messages": [')),
    "no object": Act(1, send_refused(400, b"[1]")),
    "wrong key": Act(1, send_refused(401, b"{}", Authorization="Bearer wrong")),
    "too large": Act(1, send_refused(413, b" " * 100_001)),
    "unknown model": Act(1, be_refused(404, model="gpt")),
    "bad tool": Act(1, be_refused(400, tools=[{"type": "function"}])),
    "tool with a bad schema": Act(
        1, be_refused(400, tools=[{"type": "function", "function": {"name": "f", "parameters": []}}])
    ),
    "n too large": Act(1, be_refused(400, n=17)),
    "no such field": Act(1, be_refused(400, colour="red")),
    "context overflow": Act(1, be_refused(400, messages=[{"role": "user", "content": "soup 1 " * 1000}])),
    "number out of range": Act(1, be_refused(200, 400, max_tokens=2**31)),
    "schema that is too much": Act(0.2, be_refused(400, response_format=MUCH, max_tokens=4)),
    "too large, announced": Act(1, send_raw(413, lambda visit: [write_head(visit, 10**9)], 0.0)),
    "too large, in chunks": Act(1, send_raw(413, write_chunks, 0.0)),
    "slow sender": Act(1, send_raw(408, lambda visit: [write_head(visit, 100), *[b" "] * 50], 0.2)),
    "no HTTP": Act(1, send_raw(400, lambda visit: [visit.rng.randbytes(200) + b"\r\n\r\n"], 0.0)),
    "half-open connection": Act(1, stay_silent),
}
