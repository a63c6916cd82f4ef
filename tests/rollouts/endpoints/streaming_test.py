"""A streamed answer over a connection that a test writes: pieces, cuts, errors, keys, and lines that are none."""

import asyncio
import json

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rollouts.endpoints import answers, streaming
from rollouts.endpoints.answers import Delta, ErrorBody
from rollouts.types import DialogueError
from tests.builders import almost

URL = "http://127.0.0.1:9/v1"


def event(**delta):
    return b"data: " + json.dumps({"choices": [{"delta": delta}]}, ensure_ascii=False).encode() + b"\n\n"


END = b"data: [DONE]\n\n"


class Sends(httpx.AsyncBaseTransport):
    """A server that sends these chunks, and keeps the requests."""

    def __init__(self, *chunks, status=200, error=None):
        self.chunks, self.status, self.error, self.asked = chunks, status, error, []

    async def handle_async_request(self, request):
        self.asked.append(request)
        if self.error:
            raise self.error
        return httpx.Response(self.status, content=self.send())

    async def send(self):
        for chunk in self.chunks:
            yield chunk


def stream(server, **request):
    async def collect():
        async with streaming.open_http(URL, transport=server) as http:
            return [delta async for delta in streaming.stream_answer(http, request)]

    return asyncio.run(collect())


def test_an_answer_comes_in_pieces():
    body = b"".join(
        [
            b": a comment\n\nevent: x\n",
            event(role="assistant", content=None, reasoning_content="Hm."),
            event(content="One line\u2028another\x85 and \U0001f600"),
            event(content="!", action="voucher"),
            b'data: {"choices": [{"delta": {}, "finish_reason": "length"}]}\r\n\r\n',
            b'data: {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 7}}\n\n',
            END,
            b"data: not read any more\n\n",
        ]
    )
    expected = [
        Delta(reasoning="Hm."),
        Delta("One line\u2028another\x85 and \U0001f600"),
        Delta("!", action="voucher"),
        Delta(finish="length"),
        Delta(answer_tokens=7),
    ]
    server = Sends(*(body[start : start + 1] for start in range(len(body))))
    assert stream(server, model="m", messages=[]) == expected == stream(Sends(body))
    asked = json.loads(server.asked[0].content)
    assert asked == {"model": "m", "messages": [], "stream": True, "stream_options": {"include_usage": True}}
    assert server.asked[0].url == f"{URL}/chat/completions"


@pytest.mark.parametrize(
    ("server", "cause", "words"),
    [
        (Sends(event(content="half")), "agent_truncated", "before it was whole"),
        (Sends(b"data: {\n\n", END), "agent_malformed", "a piece of a chat completion"),
        (Sends(b"data: []\n\n", END), "agent_malformed", "a piece of a chat completion"),
        (Sends(event(content=1), END), "agent_malformed", "a piece of a chat completion"),
        (Sends(b'data: {"error": {"message": "out of memory"}}\n\n'), "agent_malformed", "out of memory"),
        (Sends(b"x" * 1_000_001), "agent_malformed", "more than 1,000,000 bytes"),
        (Sends(b'{"error": {"message": "no such\\nmodel"}}', status=404), "agent_http_404", "404: no such model"),
        (Sends(b"<html>" + b"x" * 5000, status=502), "agent_http_502", "502: <html>xxx"),
        (Sends(error=httpx.ConnectError("refused")), "agent_unreachable", "refused"),
        (Sends(error=httpx.ReadTimeout("")), "agent_timeout", "ReadTimeout"),
    ],
)
def test_failures_are_told_in_one_line(server, cause, words):
    with pytest.raises(DialogueError) as raised:
        stream(server)
    assert raised.value.cause == cause and words in str(raised.value)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 500


EVENT = event(content="Hi", reasoning="Hm.", action="chat")[6:].decode()


@given(
    data=st.binary()
    | st.text().map(lambda text: text.encode(errors="surrogatepass"))
    | almost.texts([EVENT], EVENT).map(lambda text: text.encode(errors="surrogatepass"))
    | almost.trees(json.loads(EVENT)).map(lambda tree: json.dumps(tree).encode())
)
@example(data=b"[" * 100_000)
@example(data=b'{"choices": [{"delta": {"content": [{"text": "x"}]}}]}')
def test_whatever_an_event_holds_it_is_a_piece_or_an_error(data):
    try:
        delta = answers.read_delta(data)
    except (ErrorBody, ValueError):
        return
    assert isinstance(delta.content + delta.reasoning + delta.action + delta.finish, str)
    assert delta.answer_tokens is None or 0 <= delta.answer_tokens < 10**9


def test_where_a_server_is(monkeypatch):
    monkeypatch.setenv("STREAMING_KEY", "s3cret")

    async def base_of(url, variable=""):
        async with streaming.open_http(url, variable, Sends()) as http:
            return str(http.base_url), http.headers.get("Authorization")

    assert asyncio.run(base_of("http://127.0.0.1:8000")) == ("http://127.0.0.1:8000/v1/", None)
    assert asyncio.run(base_of("https://a.example/api/v1/", "STREAMING_KEY")) == (
        "https://a.example/api/v1/",
        "Bearer s3cret",
    )
    for url in ("", "127.0.0.1:8000", "ftp://a.example", "http://", "http://me:pw@a.example", "http://a.example?x=1"):
        with pytest.raises(ValueError, match=r"--url: expected http"):
            asyncio.run(base_of(url))
    with pytest.raises(ValueError, match="environment variable STREAMING_NONE, found none"):
        asyncio.run(base_of(URL, "STREAMING_NONE"))


@pytest.mark.parametrize(
    ("server", "cause"),
    [
        (Sends(b"{"), "agent_malformed"),
        (Sends(b"[" * 100_000), "agent_malformed"),
        (Sends(b"1" * 1_000_001), "agent_malformed"),
        (Sends(b"{}", status=500), "agent_http_500"),
        (Sends(error=httpx.ConnectError("refused")), "agent_unreachable"),
    ],
)
def test_objects(server, cause):
    async def ask(server):
        async with streaming.open_http(URL, transport=server) as http:
            return await streaming.ask_object(http, "GET", "models")

    assert asyncio.run(ask(Sends(b'{"data": []}'))) == {"data": []}
    with pytest.raises(DialogueError) as raised:
        asyncio.run(ask(server))
    assert raised.value.cause == cause
