"""An LLM as the user of tau2-bench, over real HTTP."""

import asyncio
import json

from rollouts.domains.tau2.llm_user import LlmUser
from rollouts.endpoints.client import ChatClient, Endpoint
from tests.builders.tau2_traces import Saying, play
from tests.faults.server import Server


def test_an_llm_as_the_user_is_asked_as_the_official_simulator_asks_it(package, telecom):
    """The same messages and tools reach the endpoint, call by call."""
    from tau2.user.user_simulator import UserSimulator
    from tau2.utils import llm_utils

    task, bodies = telecom[0], []
    environment = package.registry.get_env_constructor("telecom")()
    script = [
        {"content": "My phone is broken."},
        {"tool_calls": [("check_status_bar", {}), ("check_network_status", {})]},
        {"content": "It shows nothing."},
        {"content": "Fine. ###STOP###"},
    ]

    async def answer(body):
        said = script[len(bodies)]
        bodies.append(json.loads(body))
        calls = [
            {"id": f"c{number}", "type": "function", "function": {"name": name, "arguments": json.dumps(given)}}
            for number, (name, given) in enumerate(said.get("tool_calls", []))
        ]
        message = {"role": "assistant", "content": said.get("content"), "tool_calls": calls}
        return 200, json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}).encode()

    async def converse(url):
        async with ChatClient("user", Endpoint(url, "m")) as client:
            user = LlmUser(package, "telecom", task.source, client, seed=0)
            return await play(package, task, Saying("What does it show?"), user)

    with Server(answer=answer) as server:
        dialogue, episode = asyncio.run(converse(server.url))
    assert dialogue.end == "user_stop" and len(bodies) == 4 and len({body["seed"] for body in bodies}) == 4
    official = UserSimulator(tools=environment.get_user_tools(), instructions=str(task.source.user_scenario))
    theirs = official.get_init_state()
    theirs.messages.extend(message for message in episode.world.messages[:-1] if heard_by_user(message))
    expected = llm_utils.to_litellm_messages(theirs.system_messages + theirs.flip_roles())
    assert [without_ids(one) for one in bodies[-1]["messages"]] == [without_ids(one) for one in expected]
    assert bodies[-1]["tools"] == [tool.openai_schema for tool in environment.get_user_tools()]


def heard_by_user(message):
    if message.role == "tool":
        return message.requestor == "user"
    return message.role == "user" or not message.tool_calls


def without_ids(message):
    calls = message.get("tool_calls") or []
    asked = [(call["function"]["name"], call["function"]["arguments"]) for call in calls]
    return message["role"], message["content"] or "", asked


def test_an_endpoint_that_does_not_answer_is_a_failure_and_no_score(package, telecom):
    task = telecom[0]

    async def converse():
        async with ChatClient("user", Endpoint("http://127.0.0.1:9/v1", "m", retries=0)) as client:
            return await play(package, task, Saying(), LlmUser(package, "telecom", task.source, client, seed=0))

    dialogue, _ = asyncio.run(converse())
    assert (dialogue.ok, dialogue.failure) == (False, "user_unreachable")
