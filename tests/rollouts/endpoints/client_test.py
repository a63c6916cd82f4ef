"""The HTTP client against a real server on loopback that misbehaves."""

import asyncio
import http.server
import json
import socket
import threading
import time

import pytest

from rollouts.endpoints import client
from rollouts.endpoints.client import ChatClient, Endpoint
from rollouts.types import DialogueError, Message
from tests.builders.dialogues import FDS

ASK = [Message("system", "Be brief."), Message("user", "Süß? 你好")]


def answer(content):
    return 200, json.dumps({"choices": [{"message": {"role": "assistant", "content": content}}]}).encode()


class Server:
    """Gives the planned (status, body) answers in turn, the last one for ever, and keeps the requests."""

    def __init__(self):
        self.plan, self.requests, self.delay, self.headers = [answer("Hello.")], [], 0.0, {}
        self.busy = self.most_busy = 0
        lock, server = threading.Lock(), self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with lock:
                    server.requests.append((self.path, dict(self.headers), json.loads(body)))
                    status, content = server.plan.pop(0) if len(server.plan) > 1 else server.plan[0]
                    server.busy += 1
                    server.most_busy = max(server.most_busy, server.busy)
                time.sleep(server.delay)
                with lock:
                    server.busy -= 1
                if status == "hang up":
                    self.close_connection = True
                    return
                self.send_response(status)
                for name, value in ({"Content-Length": str(len(content))} | server.headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.handle_error = lambda *_: None  # clients that have timed out
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"

    def close(self):
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def server():
    running = Server()
    yield running
    running.close()


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    """The client's waits between attempts, which are not waited."""
    slept, sleep = [], asyncio.sleep

    async def no_sleep(seconds):
        slept.append(seconds)
        await sleep(0)

    monkeypatch.setattr(client.asyncio, "sleep", no_sleep)
    return slept


def ask(url, times=1, **options):
    async def run():
        app = FDS.embedded
        async with ChatClient("judge", Endpoint(url, "some-model", **options), embedded=app) as chat:
            return await asyncio.gather(*(chat.chat(ASK, seed=seed) for seed in range(times)))

    return asyncio.run(run())


def failure(url, **options):
    with pytest.raises(DialogueError) as caught:
        ask(url, **options)
    assert "judge" in str(caught.value) and url in str(caught.value)
    return caught.value


def test_the_request_follows_the_protocol(server):
    assert ask(server.url, temperature=0.5, max_tokens=7) == ["Hello."]
    ((path, headers, body),) = server.requests
    assert path == "/v1/chat/completions"
    assert "Authorization" not in headers and headers["Accept-Encoding"] == "identity"
    assert body == {
        "model": "some-model",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Süß? 你好"}],
        "temperature": 0.5,
        "max_tokens": 7,
        "seed": 0,
    }


def test_a_slash_at_the_end_of_the_url_does_not_matter(server):
    ask(server.url + "/")
    assert server.requests[0][0] == "/v1/chat/completions"


def test_the_key_is_sent_as_bearer(server, monkeypatch):
    monkeypatch.setenv("CLIENT_TEST_KEY", "s3cret")
    ask(server.url, api_key_env="CLIENT_TEST_KEY")
    assert server.requests[0][1]["Authorization"] == "Bearer s3cret"


@pytest.mark.parametrize("value", [None, ""])
def test_a_missing_key_is_named(server, monkeypatch, value):
    monkeypatch.delenv("CLIENT_TEST_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("CLIENT_TEST_KEY", value)
    with pytest.raises(ValueError, match="config.judge.api_key_env.*CLIENT_TEST_KEY"):
        ask(server.url, api_key_env="CLIENT_TEST_KEY")
    assert not server.requests


@pytest.mark.parametrize(
    "url", ["", "localhost:8000/v1", "ftp://x/v1", "http://", "http://a/v1,", "http://a/v1,embedded", "http://a:x/v1"]
)
def test_a_url_that_is_none_is_refused(url):
    with pytest.raises(ValueError, match="config.judge.url"):
        ChatClient("judge", Endpoint(url, "m"))


@pytest.mark.parametrize("url", ["http://me:s3cret@x/v1", "http://x/v1?key=s3cret", "http://x/v1#s3cret"])
def test_a_url_with_a_secret_is_refused_and_not_shown(url):
    with pytest.raises(ValueError, match="config.judge.url.*config.judge.api_key_env") as caught:
        ChatClient("judge", Endpoint(url, "m"))
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"concurrency": 0},
        {"retries": -1},
        {"read_timeout": 0.0},
        {"total_timeout": float("nan")},
        {"breaker_failures": 0},
        {"budget_calls": -1},
        {"budget_cost": 1.0},  # without prices
        {"response_format": "json"},
    ],
)
def test_a_setting_out_of_range_is_named(options):
    (name,) = options
    with pytest.raises(ValueError, match=f"config.judge.{name}: expected "):
        ChatClient("judge", Endpoint("http://x/v1", "m", **options))


def test_a_format_is_asked_for_where_one_is_given(server):
    async def run():
        async with ChatClient("judge", Endpoint(server.url, "m")) as chat:
            await chat.chat(ASK, seed=0, response_format={"type": "json_object"})

    asyncio.run(run())
    assert server.requests[0][2]["response_format"] == {"type": "json_object"}


def test_a_refused_port_is_tried_again_and_reported(waits):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert failure(f"http://127.0.0.1:{port}/v1", retries=2).cause == "judge_unreachable"
    assert len(waits) == 2


def test_an_answer_in_time_after_errors_is_an_answer(server, waits):
    server.plan = [(500, b"oops"), (429, b"slow down"), (503, b""), answer("At last.")]
    assert ask(server.url, retries=3) == ["At last."]
    assert len(server.requests) == 4
    for number, waited in enumerate(waits, start=1):  # jittered, doubling
        assert 0.25 * 2**number <= waited <= 0.5 * 2**number
    assert len(waits) == 3


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 599])
def test_what_may_pass_is_tried_again_but_not_for_ever(server, status):
    server.plan = [(status, b"not now")]
    error = failure(server.url, retries=2)
    assert error.cause == f"judge_http_{status}" and "not now" in str(error)
    assert len(server.requests) == 3


@pytest.mark.parametrize("status", [301, 400, 401, 404, 422])
def test_what_will_not_pass_is_not_tried_again(server, status, waits):
    server.plan = [(status, b"bad model name"), answer("Never asked.")]
    error = failure(server.url)
    assert error.cause == f"judge_http_{status}" and "bad model name" in str(error)
    assert len(server.requests) == 1 and not waits


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>busy</html>",
        b'{"choices": ',
        b"\xff\xfe",
        b"[]",
        b'"choices"',
        b"null",
        b"{}",
        b'{"choices": []}',
        b'{"choices": null}',
        b'{"choices": [{"message": "Hi"}]}',
        b'{"choices": [{"message": {"content": null}}]}',
        b'{"choices": [{"message": {"content": ["Hi"]}}]}',
        b'{"choices": [{"message": {"content": "\\ud83d"}}]}',
        b"[" * 100_000,
        answer("")[1],
        answer(" \n")[1],
    ],
)
def test_an_answer_without_text_is_malformed(server, body):
    server.plan = [(200, body)]
    assert failure(server.url, retries=1).cause == "judge_malformed"
    assert len(server.requests) == 2


def test_an_answer_that_breaks_off_is_a_failure(server):
    server.plan = [("hang up", b"")]
    assert failure(server.url, retries=1).cause == "judge_unreachable"
    assert len(server.requests) == 2


def test_a_slow_answer_times_out(server):
    server.delay = 30
    start = time.perf_counter()
    assert failure(server.url, read_timeout=0.1, retries=1).cause == "judge_timeout"
    assert time.perf_counter() - start < 30
    assert len(server.requests) == 2
    server.delay = 0.2
    assert ask(server.url, read_timeout=10.0) == ["Hello."]


def test_no_more_requests_are_open_than_allowed(server):
    server.delay = 0.02
    assert ask(server.url, times=9, concurrency=3) == ["Hello."] * 9
    assert server.most_busy == 3
    assert sorted(body["seed"] for *_, body in server.requests) == list(range(9))


def test_the_embedded_endpoint_refuses_like_any_other():
    with pytest.raises(DialogueError) as caught:
        ask("embedded")
    assert caught.value.cause == "judge_http_400" and "some-model" in str(caught.value)
