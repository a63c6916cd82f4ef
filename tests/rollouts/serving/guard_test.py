"""The guard before our servers, over real HTTP on loopback: keys, sizes, numbers, times."""

import asyncio
import contextlib
import socket
import subprocess
import sys
import threading
import time

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from rollouts.serving import guard
from tests.builders import commands
from tests.builders.runs import ROOT


async def echo(request):
    return PlainTextResponse(await request.body())


async def slow(request):
    await asyncio.sleep(1.0)
    return PlainTextResponse("done")


async def trickle(request):
    async def parts():
        while True:
            yield b"x"
            await asyncio.sleep(0.05)

    return StreamingResponse(parts())


@contextlib.contextmanager
def served(**options):
    app = Starlette(
        routes=[
            Route("/v1/echo", echo, methods=["POST"]),
            Route("/v1/slow", slow),
            Route("/v1/trickle", trickle),
            Route("/health", slow),
        ]
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(guard.Guard(app, **options), log_level="critical", access_log=False)
        running = uvicorn.Server(config)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not running.started:
            time.sleep(0.01)
        port = listener.getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as client:
            yield client
        running.should_exit = True
        thread.join()


def test_keys():
    with served(api_key="s3cret-key") as client:
        assert client.get("/health").status_code == 200  # whether it lives may be asked by anybody
        for header in (None, "", "Bearer", "Bearer s3cret", "Bearer s3cret-keys", "s3cret-key", "Bearer é"):
            headers = {} if header is None else {"Authorization": header.encode()}
            refused = client.post("/v1/echo", content=b"hi", headers=headers)
            assert refused.status_code == 401 and "s3cret" not in refused.text, header
            assert refused.headers["WWW-Authenticate"] == "Bearer"
        accepted = client.post("/v1/echo", content=b"hi", headers={"Authorization": "Bearer s3cret-key"})
        assert (accepted.status_code, accepted.text) == (200, "hi")


def test_the_key_is_compared_in_constant_time(monkeypatch):
    compared, compare = [], guard.hmac.compare_digest
    monkeypatch.setattr(guard.hmac, "compare_digest", lambda a, b: compared.append((a, b)) or compare(a, b))
    with served(api_key="k") as client:
        assert client.get("/v1/slow", headers={"Authorization": "Bearer x"}).status_code == 401
    assert compared == [(b"x", b"k")]


def test_bodies():
    with served(max_body_bytes=1000) as client:
        for body in (b"", b"x", b"x" * 1000):
            assert client.post("/v1/echo", content=body).content == body
        assert client.post("/v1/echo", content=b"x" * 1001).status_code == 413  # announced
        assert client.post("/v1/echo", content=iter([b"x" * 600] * 2)).status_code == 413  # in chunks
        assert client.post("/v1/echo", content=iter([b"x" * 300] * 3)).content == b"x" * 900
        # A gigabyte is announced and refused, of which nothing is sent.
        address = client.base_url.host, client.base_url.port
        with socket.create_connection(address, timeout=30) as connection:
            connection.sendall(b"POST /v1/echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n")
            assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")


def test_a_slow_sender_and_a_slow_answer_are_cut_off():
    with served(read_timeout=0.1, answer_timeout=0.1) as client:
        address = client.base_url.host, client.base_url.port
        with socket.create_connection(address, timeout=30) as connection:
            connection.sendall(b"POST /v1/echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf")
            assert connection.recv(1000).startswith(b"HTTP/1.1 408 ")
        assert client.get("/v1/slow").status_code == 504
        with pytest.raises(httpx.RemoteProtocolError):
            client.get("/v1/trickle")


def test_too_many_at_a_time_are_sent_away():
    async def run(url):
        async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
            return await asyncio.gather(*(client.get("/v1/slow") for _ in range(5)))

    with served(max_concurrent=3) as client:
        answers = asyncio.run(run(client.base_url))
        assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 503, 503]
        assert {answer.headers.get("Retry-After") for answer in answers if answer.status_code == 503} == {"1"}
        assert client.get("/v1/slow").status_code == 200  # and there is room again


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_needs_no_key(host):
    assert guard.read_api_key(host, "") == ""


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.1", "example.org", ""])
def test_another_address_needs_a_key(host, monkeypatch):
    with pytest.raises(ValueError, match="--api_key_env"):
        guard.read_api_key(host, "")
    monkeypatch.setenv("SERVING_TEST_KEY", "k")
    assert guard.read_api_key(host, "SERVING_TEST_KEY") == "k"


def test_the_embedded_endpoint_refuses_to_be_open():
    command = [sys.executable, "-m", "rollouts.embedded", "--host=0.0.0.0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 1 and done.stderr.startswith("error: --host: 0.0.0.0") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("argument", "message"),
    [("--port=0", "flag --port=0: 0 is not"), ("--prot=1", "Unknown command line flag"), ("80", "unexpected argument")],
)
def test_a_line_that_cannot_be_understood_is_refused_in_one_line(argument, message):
    done = commands.run("rollouts.embedded", argument)
    assert done.returncode == 1 and done.stderr.startswith(f"error: {message}") and done.stderr.count("\n") == 1


def test_a_key_that_is_not_there_is_named(monkeypatch):
    monkeypatch.delenv("SERVING_TEST_KEY", raising=False)
    with pytest.raises(ValueError, match="SERVING_TEST_KEY is not set"):
        guard.read_api_key("127.0.0.1", "SERVING_TEST_KEY")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "[", "8.8.8.8"])
def test_without_a_key_a_foreign_name_that_leads_here_is_refused(host):
    with served() as client:
        answer = client.post("/v1/echo", content=b"x", headers={"Host": host})
        assert answer.status_code == 421 and "Host of this machine" in answer.json()["error"]["message"]
        for own in ("localhost", "127.0.0.1:1", "[::1]:8000"):
            assert client.post("/v1/echo", content=b"x", headers={"Host": own}).status_code == 200
    with served(api_key="k") as client:
        headers = {"Host": host, "Authorization": "bearer k"}
        assert client.post("/v1/echo", content=b"x", headers=headers).status_code == 200
