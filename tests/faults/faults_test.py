"""The client against a server that misbehaves: what it reports, how often it tries, how long that takes."""

import asyncio
import os
import time

import pytest

from rollouts.endpoints.client import ChatClient, Endpoint
from rollouts.types import DialogueError, Message
from tests.faults.server import FAULTS, Server

ASK = [Message("user", "Hello?")]
QUICK = {"read_timeout": 0.5, "total_timeout": 0.8, "backoff": 0.01, "max_answer_bytes": 10_000, "max_wait": 0.05}
PATIENT = {"read_timeout": 30.0, "total_timeout": 60.0}  # where nobody hangs, and a busy machine may be slow
CAUSES = {
    "judge_unreachable": ("refuse", "reset", "short"),
    "judge_timeout": ("hang", "drip"),
    "judge_http_429": ("storm", "storm_date"),
    "judge_http_500": ("error",),
    "judge_malformed": ("html", "truncated", "schema", "charset", "compressed", "stream"),
    "judge_error": ("told",),
    "judge_truncated": ("cut_off", "thoughts"),
    "judge_filtered": ("filtered",),
    "judge_refused": ("refused",),
    "judge_too_large": ("huge", "endless"),
}
CAUSE = {fault: cause for cause, faults in CAUSES.items() for fault in faults}


async def outcomes(client, times=1):
    """The answer, or the DialogueError, of each of `times` requests."""
    results = await asyncio.gather(*(client.chat(ASK, seed=seed) for seed in range(times)), return_exceptions=True)
    assert all(isinstance(result, str | DialogueError) for result in results), results
    return results


def ask(url, times=1, **options):
    async def run():
        async with ChatClient("judge", Endpoint(url, "m", **QUICK | options)) as client:
            return await outcomes(client, times)

    return asyncio.run(run())


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_has_its_cause_and_is_tried_again(fault):
    with Server(lambda number, body: fault) as server:
        started = time.perf_counter()
        (error,) = ask(server.url, retries=1)
        assert time.perf_counter() - started < 30
        assert error.cause == CAUSE[fault]
        assert f"config.judge.url {server.url} (model m)" in str(error)
        assert len(server.log) == 2
        assert all(entry.sent < 30_000_000 for entry in server.log)  # what the kernel holds; not the gigabyte


@pytest.mark.parametrize("fault", FAULTS)
def test_an_answer_after_a_fault_is_an_answer(fault):
    with Server(lambda number, body: fault if number == 0 else "") as server:
        assert ask(server.url, retries=1) == ["Grüß dich."]
    # Only now: the client may have the answer before the server has noted that it was sent.
    assert [entry.answered for entry in server.log] == [False, True]


def test_faults_side_by_side_spoil_only_their_own_request():
    names = list(FAULTS)
    with Server(lambda number, body: names[body["seed"] % len(names)] if body["seed"] % 2 else "") as server:
        results = ask(server.url, times=60, retries=0, breaker_failures=99, read_timeout=2.0, total_timeout=3.0)
    for seed, result in enumerate(results):
        if seed % 2:
            assert result.cause == CAUSE[names[seed % len(names)]]
        else:
            assert result == "Grüß dich."


def test_nothing_is_left_behind():
    def files():
        return len(os.listdir("/proc/self/fd"))

    async def run(url):
        async with ChatClient("judge", Endpoint(url, "m", **QUICK, retries=0)) as client:
            await outcomes(client, times=30)
        return len(asyncio.all_tasks())

    names = list(FAULTS)
    with Server(lambda number, body: names[number % len(names)]) as server:
        asyncio.run(run(server.url))
        time.sleep(0.1)
        before = files()
        assert asyncio.run(run(server.url)) == 1
        deadline = time.monotonic() + 30
        while files() > before and time.monotonic() < deadline:  # the server's side closes in its own time
            time.sleep(0.01)
        assert files() <= before


@pytest.mark.parametrize("fault", ["storm", "storm_date"])
def test_retry_after_is_honoured(fault):
    with Server(lambda number, body: fault if number == 0 else "", retry_after=1.0) as server:
        assert ask(server.url, max_wait=5.0, **PATIENT) == ["Grüß dich."]
        waited = server.log[1].time - server.log[0].time
        # A date has whole seconds, so that almost all of the one may be over when it is written.
        assert (1.0 if fault == "storm" else 0.0) <= waited < 4.5


def test_retry_after_is_bounded():
    with Server(lambda number, body: "storm", retry_after=3600.0) as server:
        started = time.perf_counter()
        (error,) = ask(server.url, retries=3, **PATIENT)
        assert error.cause == "judge_http_429" and len(server.log) == 4
        assert time.perf_counter() - started < 30


# The circuit breaker


def breaker(url, **options):
    return Endpoint(url, "m", **QUICK | PATIENT | {"retries": 0, "breaker_failures": 3, "breaker_rest": 0.1} | options)


def test_an_open_circuit_asks_nobody_and_is_named():
    async def run(url):
        async with ChatClient("judge", breaker(url, breaker_wait=0.25)) as client:
            return [(await outcomes(client))[0] for _ in range(5)]

    with Server(lambda number, body: "error") as server:
        server.down = True
        results = asyncio.run(run(server.url))
        assert [error.cause for error in results] == ["judge_http_500"] * 3 + ["judge_circuit_open"] * 2
        assert "3 failures in a row" in str(results[-1]) and "answered 500" in str(results[-1])
        assert len(server.log) == 3 and 1 <= len(server.probes) <= 6


def test_an_outage_is_waited_for_once_however_few_may_ask_at_a_time():
    async def run(url):
        async with ChatClient("judge", breaker(url, breaker_wait=0.5, concurrency=1)) as client:
            started = time.monotonic()
            return await outcomes(client, times=3 + 20), time.monotonic() - started

    with Server(lambda number, body: "error") as server:
        server.down = True
        results, took = asyncio.run(run(server.url))
        assert [error.cause for error in results] == ["judge_http_500"] * 3 + ["judge_circuit_open"] * 20
        assert 0.5 <= took < 5.0


def test_callers_wait_for_a_probe_and_go_on_where_it_succeeds():
    async def run(server):
        async with ChatClient("judge", breaker(server.url, breaker_wait=5.0)) as client:
            assert [error.cause for error in [(await outcomes(client))[0] for _ in range(3)]] == ["judge_http_500"] * 3
            asyncio.get_running_loop().call_later(0.25, heal, server)
            started = time.monotonic()
            assert await outcomes(client, times=20) == ["Grüß dich."] * 20
            return time.monotonic() - started

    def heal(server):
        server.down, server.cue = False, lambda number, body: ""

    with Server(lambda number, body: "error") as server:
        server.down = True
        assert 0.25 <= asyncio.run(run(server)) < 5.0
        assert len(server.log) == 3 + 20
        assert 1 <= len(server.probes) <= 5  # one caller probes for all


def test_where_the_probe_succeeds_but_requests_do_not_one_failure_opens_the_circuit_again():
    async def run(url):
        async with ChatClient("judge", breaker(url, breaker_wait=30.0, breaker_rest=0.3)) as client:
            return [(await outcomes(client))[0].cause for _ in range(5)]

    with Server(lambda number, body: "error") as server:
        assert asyncio.run(run(server.url)) == ["judge_http_500"] * 5
        gaps = [b.time - a.time for a, b in zip(server.log, server.log[1:], strict=False)]
        assert len(server.probes) == 2 and min(gaps[2:]) >= 0.3 > max(gaps[:2])


def test_a_circuit_stays_open_when_the_client_is_entered_again():
    async def run(client):
        async with client:
            return (await outcomes(client))[0].cause

    with Server(lambda number, body: "error") as server:
        server.down = True
        client = ChatClient("judge", breaker(server.url, breaker_wait=0.0, breaker_rest=60.0))
        assert [asyncio.run(run(client)) for _ in range(4)] == ["judge_http_500"] * 3 + ["judge_circuit_open"]


def test_other_answers_than_5xx_keep_the_circuit_closed():
    faults = ["error", "error", "storm", "error", "error", "html"]
    with Server(lambda number, body: faults[number % 6]) as server:
        ask(server.url, times=12, concurrency=1, retries=0, breaker_failures=3, breaker_wait=0.0, **PATIENT)
        assert len(server.log) == 12 and not server.probes


# Replicas


def test_requests_go_to_the_least_busy_replica():
    with Server() as first, Server() as second:
        assert len(ask(f"{first.url}, {second.url}/", times=40, **PATIENT)) == 40
        assert len(first.log) == len(second.log) == 20

    async def slowly(content):
        while len(fast.log) < 31:
            await asyncio.sleep(0.01)
        return 200, b'{"choices": [{"message": {"content": "Slow."}}]}'

    with Server() as fast, Server(answer=slowly) as slow:
        ask(f"{slow.url},{fast.url}", times=40, concurrency=4, **PATIENT)
        assert len(slow.log) < 10 < 30 < len(fast.log)


def test_a_retry_goes_to_another_replica():
    with Server(lambda number, body: "error") as broken, Server() as sound:
        urls = f"{broken.url},{sound.url}"
        assert ask(urls, times=10, retries=1, concurrency=1, **PATIENT) == ["Grüß dich."] * 10
        assert len(sound.log) == 10


def test_a_dead_replica_is_passed_over_and_taken_back():
    async def run(first, second):
        endpoint = breaker(f"{first.url},{second.url}", retries=3, concurrency=1)
        async with ChatClient("judge", endpoint) as client:
            assert await outcomes(client, times=20) == ["Grüß dich."] * 20
            assert len(first.log) == 3
            first.down, first.cue = False, lambda number, body: ""
            await asyncio.sleep(0.15)
            assert await outcomes(client, times=20) == ["Grüß dich."] * 20

    with Server(lambda number, body: "error") as first, Server() as second:
        first.down = True
        asyncio.run(run(first, second))
        assert len(first.log) > 8
