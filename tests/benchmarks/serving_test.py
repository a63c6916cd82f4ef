"""What the benchmarks of the server make of what they measured, and whether the soak's clients notice what is wrong."""

import asyncio
import pathlib
import random
import sys

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from benchmarks import contest, serving, soak
from benchmarks.serving import Load, Model, Sizes
from benchmarks.serving_acts import ACTS, Unexpected, Visit
from tests.builders import servers
from tests.builders.engines import engine_of

LOADS = {"reading": Load(8, 1, "prompt tokens/s"), "both": Load(8, 4, "new tokens/s")}
MODEL = Model("m", pathlib.Path("m"), None, range(10, 20), Sizes(4, 2, LOADS, 1))
COLUMNS = ("reading, 1 stream", "reading, 4 streams", "both, 1 stream", "both, 4 streams")


def test_the_report_divides_ours_by_each_peer_and_counts_equal_answers(capsys):
    def figures(*values, answers):
        return {**dict(zip(COLUMNS, values, strict=True)), "answers": answers}

    found = {
        "ours": figures(100, 400, 10, 40, answers=["a", "b"]),
        "peer": figures(50, 800, 20, 10, answers=["a", "c"]),
    }
    records = serving.report(MODEL, found)
    assert [(record["what"], record["ratio"]) for record in records] == [
        ("serving m: reading, 1 stream", 2.0),
        ("serving m: reading, 4 streams", 0.5),
        ("serving m: both, 1 stream", 0.5),
        ("serving m: both, 4 streams", 4.0),
        ("serving m: both, 4 streams", 4.0),
    ]
    assert [record["peer_name"] for record in records[-2:]] == ["peer", "ours, 1 stream"]
    assert "| peer | 50 | 800 | 20 | 10 | 0.50 | 1 of 2 |" in capsys.readouterr().out


def test_no_prompt_comes_twice():
    prompts = [
        tuple(prompt)
        for load in LOADS.values()
        for count in (2, 4)
        for run in range(2)
        for prompt in serving.make_prompts(MODEL, load, count, run)
    ]
    assert len(set(prompts)) == len(prompts) == 24 and {len(prompt) for prompt in prompts} == {8}
    assert set().union(*prompts) <= set(MODEL.tokens)


def test_a_figure_that_grows_has_its_slope_per_minute(capsys):
    looks = [{"memory": 100.0 + number, "streams": 0.0} for number in range(20)]
    memory, streams = soak.report(looks, "note")
    assert memory["trend_per_minute"] == pytest.approx(60 / soak.EVERY)
    assert (memory["ours"], memory["peer"], streams["ratio"], streams["note"]) == (119.0, 104.0, 1.0, "note")
    assert "| memory | 104.0 | 119.0 | 105.5, 109.5, 113.5, 117.5 | +30.00 |" in capsys.readouterr().out


def test_a_server_that_does_not_start_is_shown_with_what_it_said():
    command = [sys.executable, "-c", "print('no such flag'); raise SystemExit(2)"]
    with pytest.raises(ChildProcessError, match="did not start:\nno such flag"), contest.serving(lambda port: command):
        pass


async def run_act(url, name, seed=0):
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as client:
        return await ACTS[name].run(Visit(client, "k", random.Random(seed)))


@pytest.fixture(scope="module")
def careless():
    """A server that answers whatever comes, at once, and says nothing."""

    async def answer(request):
        return JSONResponse({"choices": [{"index": 0, "message": {"content": ""}, "finish_reason": None}]}, 201)

    paths = ("/v1/chat/completions", "/v1/completions")
    app = Starlette(routes=[Route(path, answer, methods=["POST"]) for path in paths])
    with servers.serving(app, guard={"max_body_bytes": 10**12, "read_timeout": 0.3}) as url:
        yield url


LEAVING = {name for name in ACTS if name.startswith("left") and "mid-stream" not in name}
DEAF = LEAVING | {"stream that nobody reads", "half-open connection"}  # who do not wait for an answer
BELOW = {"no HTTP", "slow sender"}  # not answered by the application


@pytest.mark.parametrize("name", sorted(set(ACTS) - DEAF - BELOW))
def test_every_act_notices_a_server_that_answers_whatever_comes(careless, name):
    with pytest.raises(Unexpected):
        asyncio.run(run_act(careless, name))


@pytest.fixture(scope="module")
def url():
    served = servers.served_of(engine_of(slots=4, capacity=1024, max_new_tokens=12), name="tiny")
    with servers.serving(served) as url:
        yield url


@pytest.mark.parametrize("name", sorted(name for name, act in ACTS.items() if act.good))
def test_what_is_asked_well_is_answered_and_the_same_when_asked_once_more(url, name):
    async def ask_again(asked):
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as client:
            return await asked.ask_again(client)

    asked = asyncio.run(run_act(url, name))
    assert asked and asyncio.run(ask_again(asked[0])) == asked[0].answer
