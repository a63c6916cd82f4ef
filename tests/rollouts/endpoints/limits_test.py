"""Rates, circuits and budgets: by hand, and against a real server."""

import asyncio
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollouts.endpoints.client import BudgetReached, ChatClient, Endpoint
from rollouts.endpoints.limits import Breaker, Window
from rollouts.endpoints.meter import Meter, Spent
from rollouts.types import DialogueError, Message
from tests.faults.server import Server, completion

ASK = [Message("user", "Hello?")]


def answer(prompt_tokens=None, completion_tokens=None, content="Hi."):
    """What a server answers that reports these tokens."""
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
    body = json.dumps({"choices": [{"message": {"content": content}}], "usage": usage}).encode()

    async def answered(_):
        return 200, body

    return answered


def ask(url, times=1, *, meter=None, **options):
    """Asks one request after the other; returns the client."""

    async def run():
        async with ChatClient("user", endpoint, meter=meter) as client:
            for seed in range(times):
                await client.chat(ASK, seed=seed)
            return client

    endpoint = Endpoint(url, "m", **{"backoff": 0.0, "max_tokens": 10} | options)
    return asyncio.run(run())


# Rates


def test_a_window_by_hand():
    window = Window(3, seconds=60)
    for now in (0.0, 10.0, 20.0):
        assert window.seconds_until(1, now) == 0
        window.take(1, now)
    assert window.seconds_until(1, 25.0) == 35.0  # until the first has left, at 60
    assert window.seconds_until(2, 25.0) == 45.0
    assert window.seconds_until(1, 60.0) == 0
    assert window.seconds_until(99, 60.0) == 20.0  # more than fits: through an empty window
    assert Window(0).seconds_until(10**9, 0.0) == 0


def test_what_was_taken_can_be_corrected():
    window = Window(100, seconds=60)
    taken = window.take(90, 0.0)
    assert window.seconds_until(50, 1.0) == 59.0
    window.correct_amount(taken, 20)
    assert window.seconds_until(50, 1.0) == 0 and window.seconds_until(81, 1.0) == 59.0
    assert window.seconds_until(100, 60.0) == 0
    window.correct_amount(taken, 100)  # too late: it has left
    assert window.seconds_until(100, 60.0) == 0


@given(
    st.lists(st.tuples(st.floats(0, 30), st.integers(1, 50), st.integers(0, 50)), max_size=40),
    st.integers(50, 100),
)
def test_no_window_ever_holds_more_than_its_limit(requests, limit):
    window, now, passed = Window(limit, seconds=60), 0.0, []
    for pause, amount, used in requests:
        now += pause
        while delay := window.seconds_until(amount, now):
            now += delay
        passed.append((now, used := min(used, amount)))
        window.correct_amount(window.take(amount, now), used)
    for start, _ in passed:
        assert sum(amount for time, amount in passed if start <= time < start + 59.999) <= limit


def test_requests_wait_for_the_rate(monkeypatch):
    window = Window(5, seconds=0.3)
    with Server() as server:

        async def run():
            client = ChatClient("user", Endpoint(server.url, "m"))
            monkeypatch.setattr(client, "_requests", window)
            async with client:
                await asyncio.gather(*(client.chat(ASK, seed=seed) for seed in range(12)))

        asyncio.run(run())
        times = [entry.time for entry in server.log]
    assert len(times) == 12
    for first, sixth in zip(times, times[5:], strict=False):
        assert sixth - first > 0.25  # the window's 0.3 s, less the way to the server
    assert times[-1] - times[0] < 1.0


def test_tokens_count_against_their_rate():
    async def run(url):
        async with ChatClient("user", Endpoint(url, "m", max_tokens=10, tokens_per_minute=1000)) as client:
            async with asyncio.timeout(2):
                for seed in range(9):  # 9 x 100 are used, though each sets some 60 aside
                    await client.chat(ASK, seed=seed)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    for seed in range(9, 12):
                        await client.chat(ASK, seed=seed)

    with Server(answer=answer(60, 40)) as server:
        asyncio.run(run(server.url))
        assert 9 <= len(server.log) < 12


# Circuits


def test_a_circuit_by_hand():
    breaker = Breaker(failures=3, rest=5.0)
    breaker.note_failure(0.0, 1.0, "a")
    breaker.note_failure(1.0, 2.0, "b")
    breaker.note_success(2.5)
    for began in (0.0, 1.0, 2.0):  # under way while another succeeded: they hung side by side
        breaker.note_failure(began, 3.0, "c")
    assert breaker.closed
    breaker.note_failure(3.0, 4.0, "d")
    breaker.note_failure(3.0, 4.0, "e")
    assert breaker.closed
    breaker.note_failure(3.0, 4.5, "f")
    assert (
        not breaker.closed
        and breaker.seconds_to_probe(5.0) == 4.5
        and breaker.seconds_to_probe(10.0) == 0
        and breaker.error == "f"
    )
    breaker.note_failure(3.0, 4.6, "late")  # was under way; the outage began before
    breaker.note_probe(False, 10.0)
    assert breaker.opened_at == 4.5 and breaker.error == "late"
    assert not breaker.closed and breaker.seconds_to_probe(10.0) == 5.0
    breaker.note_probe(True, 15.0)
    assert breaker.closed
    breaker.note_failure(15.0, 16.0, "g")  # one is enough after a probe
    assert not breaker.closed
    breaker.note_probe(True, 21.0)
    breaker.note_success(22.0)
    breaker.note_failure(22.0, 23.0, "h")
    assert breaker.closed


# Budgets


def test_the_meter_counts_what_the_server_says():
    with Server(answer=answer(1000, 20)) as server:
        meter = ask(server.url, times=3, prompt_price=2.0, answer_price=10.0).meter
    assert meter.read_total() == Spent(3, 3000, 60)
    assert meter.price_of(meter.read_total()) == pytest.approx((3000 * 2 + 60 * 10) / 1e6)


@pytest.mark.parametrize("said", [None, -1, True, "12", 10**12, 0.5])
def test_the_meter_estimates_what_the_server_does_not_say(said):
    with Server(answer=answer(said, said, content="x" * 30)) as server:
        spent = ask(server.url).meter.read_total()
        sent = len(json.dumps(server.log[0].body))
    assert spent.calls == 1 and spent.answer_tokens == 11  # 30 bytes, three a token, and one
    assert 0 <= spent.prompt_tokens - sent // 3 <= 1


@pytest.mark.parametrize("said", [0, 1])
def test_a_count_too_small_to_be_true_does_not_keep_a_budget_from_being_reached(said):
    with Server(answer=answer(said, said, content="Long words. " * 100)) as server:
        with pytest.raises(BudgetReached, match="config.user.budget_tokens: of 2,000 there are"):
            ask(server.url, times=99, budget_tokens=2000)
        assert len(server.log) == 5  # of 400 tokens and some 30 for the prompt
    with Server(answer=answer(said, said, content="Yes.")) as server:
        assert ask(server.url).meter.read_total().answer_tokens == (2 if said == 0 else 1)  # one token it may well be


def test_thoughts_are_booked_and_so_is_an_answer_that_is_none():
    usage = {"prompt_tokens": 30, "completion_tokens": 10, "total_tokens": 90}  # 50 are thoughts
    bodies = [completion("", "length", reasoning="x" * 300), completion("Hi.", usage=usage)]

    async def answered(_):
        return 200, bodies.pop(0)

    with Server(answer=answered) as server:
        spent = ask(server.url, retries=1).meter.read_total()
    assert spent.calls == 2 and spent.answer_tokens == 101 + 60


def test_failed_attempts_are_calls_and_may_have_been_charged():
    faults = ["error", "storm", "html", ""]
    with Server(lambda number, body: faults[number], answer(7, 5)) as server:
        spent = ask(server.url, retries=3).meter.read_total()
        prompt = spent.prompt_tokens - 7
    assert spent.calls == 4
    assert prompt > 0 and spent.answer_tokens == 10 + 5  # the page for people: as much as was set aside, max_tokens


@pytest.mark.parametrize(
    ("options", "calls"),
    [
        ({"budget_calls": 5}, 5),
        ({"budget_tokens": 1000}, 9),  # 9 x 100 are spent, and 70 + some 40 fit no more
        ({"budget_cost": 0.03, "answer_price": 10.0}, 74),  # 74 x 0.0004 are spent, and 0.0007 fit no more
    ],
)
def test_a_budget_stops_before_it_is_overdrawn(options, calls):
    (name, limit), *_ = options.items()
    with Server(answer=answer(60, 40)) as server:
        with pytest.raises(BudgetReached, match=rf"config.user.{name}: of {limit:,} there are [\d.]+ spent"):
            ask(server.url, times=99, max_tokens=70, **options)
        assert len(server.log) == calls


def test_requests_side_by_side_do_not_overdraw_either():
    async def run(url):
        async with ChatClient("user", Endpoint(url, "m", budget_calls=7)) as client:
            return await asyncio.gather(*(client.chat(ASK, seed=seed) for seed in range(20)), return_exceptions=True)

    with Server() as server:
        results = asyncio.run(run(server.url))
        assert len(server.log) == 7
    assert sum(isinstance(result, BudgetReached) for result in results) == 13


def test_no_dialogue_error_is_made_of_it():
    assert not issubclass(BudgetReached, DialogueError)


def test_counts_outlive_the_process(tmp_path):
    def meter():
        return Meter("user", Endpoint("embedded", "m", budget_calls=5), tmp_path / "spent")

    with Server(answer=answer(60, 40)) as server:
        ask(server.url, times=3, meter=meter())
        assert json.loads((tmp_path / "spent" / "user-0.json").read_text()) == {
            "calls": 3,
            "prompt_tokens": 180,
            "answer_tokens": 120,
        }
        with pytest.raises(BudgetReached, match="of 5 there are 5 spent"):
            ask(server.url, times=3, meter=meter())
        assert len(server.log) == 5


def test_processes_share_what_is_left(tmp_path):
    endpoint = Endpoint("embedded", "m", budget_calls=10)
    first, second = (Meter("user", endpoint, tmp_path, process=number, processes=2) for number in range(2))

    def spend(meter):
        meter.open()
        count = 0
        try:
            while True:
                meter.reserve(Spent(1))
                meter.settle(Spent(1), Spent(1))
                count += 1
        except BudgetReached:
            return count

    assert spend(first) == 5  # half
    assert spend(second) == 2  # half of the 5 that are left
    assert spend(first) == 1
    assert first.read_total() == second.read_total() == Spent(8)


def test_what_a_request_took_is_on_disk_when_it_ends(tmp_path):
    """No more can be lost by a kill than requests under way."""
    meter = Meter("user", Endpoint("embedded", "m"), tmp_path)
    meter.open()
    for count in (1, 2):
        meter.settle(Spent(), Spent(1, 10, 5))
        another = Meter("user", Endpoint("embedded", "m"), tmp_path)
        another.open()
        assert another.read_total() == Spent(count, 10 * count, 5 * count)


def test_a_damaged_count_is_named(tmp_path):
    (tmp_path / "user-0.json").write_text("{")
    meter = Meter("user", Endpoint("embedded", "m"), tmp_path)
    with pytest.raises(ValueError, match=re.escape(str(tmp_path / "user-0.json"))):
        meter.open()
    (tmp_path / "user-0.json").write_text("")  # made, and killed before a word
    meter.open()
    assert meter.read_total() == Spent()
