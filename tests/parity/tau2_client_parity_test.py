"""The benchmark's own client against our server: whatever a policy writes, no dialogue fails because of it."""

import json
import random

import numpy as np
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from rollouts.domains.tau2 import official
from rollouts.engine.engine import Engine, Sampled
from rollouts.engine.sampling import Sampling
from tests.builders import commands
from tests.builders.engines import CONFIG, STOP, params
from tests.builders.servers import served_of, serving, trained

WRITTEN = (
    "Hello.",
    "",
    "<think>###STOP###</think>",
    "###STOP### ###TRANSFER###",
    '<tool_call>\n{"name": "create_task", "arguments": {"user_id": "user_1", "title": "x"}}\n</tool_call>',
    '<tool_call>\n{"name": "get_users", "arguments": {}}\n</tool_call>',
    'Wait.\n<tool_call>\n{"name": "get_users", "arguments": {}}\n</tool_call>',
    '<tool_call>\n{"name": "get_users", "arguments": {"x": [1, {"y": null}]}}\n</tool_call>' * 2,
    '<tool_call>\n{"name": "get_users", "arguments": [1]}\n</tool_call>',
    '<tool_call>\n{"name": "no_such_tool", "arguments": {}}\n</tool_call>',
    '<tool_call>\n{"name": "get_users", "arguments": {',
    "</tool_call>",
    '{"name": "get_users"}',
    "\x00\ufffd\U0001f600",
)


class WritingEngine(Engine):
    """An engine that writes one of `WRITTEN`, by the seed of the turn."""

    async def _sample_turn(self, stream, ids, seed, options, constraint, watch):
        text = random.Random(f"{seed} {stream.length}").choice(WRITTEN)
        drawn = np.array([*trained().encode(text), STOP], np.int32)
        for new in (ids, drawn):
            stream.append(new)
        stream.computed = stream.length
        nothing = np.zeros(len(drawn), np.float32)
        sampled = Sampled(drawn, nothing, nothing, "end_of_turn")
        if watch:
            watch(sampled)
        return sampled


def write_user(stops):
    """An LLM that plays users: it greets, goes on, and stops when it has said so much."""

    async def answer(request):
        body = await request.json()
        said = sum(message["role"] == "assistant" for message in body["messages"])
        content = "###STOP###" if said == stops else f"Please go on, {said}."
        message = {"role": "assistant", "content": content}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        return JSONResponse(
            {"id": "1", "object": "chat.completion", "created": 1, "model": "user", "choices": [choice], "usage": usage}
        )

    async def models(request):
        return JSONResponse({"object": "list", "data": [{"id": "user", "object": "model"}]})

    routes = [Route("/v1/chat/completions", answer, methods=["POST"]), Route("/v1/models", models)]
    return Starlette(routes=routes)


@pytest.mark.parametrize(
    ("domains", "trials", "tasks"), [("mock", 4, []), ("airline,retail,telecom", 1, ["--tasks=1"])]
)
def test_whatever_a_policy_writes_the_client_plays_to_the_end(package, tmp_path, domains, trials, tasks):
    engine = WritingEngine(CONFIG, STOP, Sampling(slots=8, capacity=32768, max_new_tokens=64))
    engine.load(params())
    with serving(served_of(engine, name="random")) as agent, serving(write_user(5)) as user:
        asked = [f"--agent_url={agent}/v1", f"--user_url={user}/v1", f"--domains={domains}", f"--trials={trials}"]
        done = commands.run("cmpo.tau2", *asked, *tasks, f"--out={tmp_path}")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "tau2.json").read_text())
    assert found["package"] == package.name and found["agent"]["name"] == "random"
    for name, summary in found["domains"].items():
        theirs = json.loads((tmp_path / f"{name}_results.json").read_text())
        # An assertion of this task raises, in the client's evaluator, where the agent did not create what it is about.
        assert {one.partition(",")[0] for one in summary["unfinished"]} <= {"create_task_1_with_env_assertions"}
        assert summary["dialogues"] == theirs["num_simulations"] == summary["tasks"] * trials
        assert summary["pass"] == pytest.approx(
            {f"pass^{k}": value for k, value in theirs["metrics"]["pass_at_k"].items()}
        )
        assert summary["scores"]["pass^1"]["mean"] == pytest.approx(theirs["metrics"]["avg_reward"])
        played = official.read_results(tmp_path / f"{name}.json")
        ends = {one.end for one in played if not one.fault}
        assert ends <= {"user_stop", "too_many_errors", "max_steps"}
    assert (tmp_path / "tau2.md").read_text().count("\n") == 3 + len(found["domains"])
    assert done.stdout.startswith("| domain | tasks | Pass^1 |")
