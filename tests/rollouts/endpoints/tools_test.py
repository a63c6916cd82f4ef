"""An endpoint that plays somebody with tools: what is sent, what is read, and what is no answer."""

import asyncio
import json

import pytest

from rollouts.endpoints import answers
from rollouts.endpoints.answers import NoAnswer
from rollouts.endpoints.client import ChatClient, Endpoint
from rollouts.types import CallingMessage, DialogueError, Message, ResultMessage
from tests.faults.server import Server

TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
CALL = {"id": "x", "type": "function", "function": {"name": "look", "arguments": '{"at": "it"}'}}


def completion(content=None, *calls, finish="tool_calls", **message):
    choice = {"message": {"role": "assistant", "content": content, "tool_calls": list(calls), **message}}
    return json.dumps({"choices": [choice | {"finish_reason": finish}]}).encode()


def step(content=None, *calls, **options):
    words, found = answers.extract_step(answers.read_answer(completion(content, *calls, **options)))
    return words, [(call.id, call.name, call.arguments) for call in found]


def call(**function):
    return {"function": {"name": "look", "arguments": "{}"} | function}


def test_words_and_calls_are_read():
    assert step("Hello.", finish="stop") == ("Hello.", [])
    assert step(None, CALL) == ("", [("call_0", "look", '{"at": "it"}')])
    assert step("Wait.", CALL, call(), finish="stop") == (
        "Wait.",
        [("call_0", "look", '{"at": "it"}'), ("call_1", "look", "{}")],
    )
    assert step("<think>Hm.</think>", CALL) == ("", [("call_0", "look", '{"at": "it"}')])
    assert step(None, call(arguments={"at": 1})) == ("", [("call_0", "look", '{"at": 1}')])
    assert step(None, call(arguments="")) == step(None, call(arguments=None)) == ("", [("call_0", "look", "{}")])


@pytest.mark.parametrize(
    ("content", "calls", "options", "cause"),
    [
        (None, [], {"finish": "stop"}, "malformed"),
        ("Hello.", [], {}, "malformed"),  # it says that there are calls
        (None, [call(arguments="{")], {}, "malformed"),
        (None, [call(arguments="[1]")], {}, "malformed"),
        (None, [call(name=None)], {}, "malformed"),
        (None, [call(arguments='{"a":' * 9999)], {}, "malformed"),
        (None, [{"id": "1"}], {}, "malformed"),
        (None, ["look"], {}, "malformed"),
        ("Hel", [], {"finish": "length"}, "truncated"),
    ],
)
def test_what_is_neither_is_no_answer(content, calls, options, cause):
    with pytest.raises(NoAnswer) as error:
        step(content, *calls, **options)
    assert error.value.cause == cause


def ask(url, messages, seed=1, **options):
    async def run():
        settings = {"retries": 0} | {name: options.pop(name) for name in ("retries", "backoff") if name in options}
        async with ChatClient("user", Endpoint(url, "m", **settings), **options) as client:
            return await client.ask_with_tools(messages, [TOOL], seed=seed)

    return asyncio.run(run())


def test_what_is_asked_holds_tools_calls_and_results_and_is_recorded(tmp_path):
    messages = [
        Message("system", "You have a phone."),
        CallingMessage("assistant", "", [CALL]),
        ResultMessage("tool", "It is off.", "x"),
    ]
    bodies = []

    async def answer(body):
        bodies.append(json.loads(body))
        return 200, completion(None, CALL)

    with Server(answer=answer) as server:
        words, (found,) = ask(server.url, messages, record=str(tmp_path))
        assert (words, found.name, found.arguments) == ("", "look", '{"at": "it"}')
        assert ask(server.url, messages, record=str(tmp_path)) == (words, [found])  # and it is not asked again
    assert len(bodies) == 1 and bodies[0]["tools"] == [TOOL]
    assert bodies[0]["messages"] == [
        {"role": "system", "content": "You have a phone."},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": "It is off.", "tool_call_id": "x"},
    ]
    assert ask("http://127.0.0.1:9/v1", messages, replay=str(tmp_path)) == (words, [found])


def test_an_unusable_call_is_asked_for_again_with_another_seed():
    seeds = []

    async def answer(body):
        seeds.append(json.loads(body)["seed"])
        return 200, completion(None, call(arguments="{" if len(seeds) < 3 else "{}"))

    with Server(answer=answer) as server:
        words, calls = ask(server.url, [Message("user", "Hm?")], retries=2, backoff=0.0)
        assert words == "" and calls[0].arguments == "{}" and len(set(seeds)) == 3
        seeds.clear()
        with pytest.raises(DialogueError) as error:
            ask(server.url, [Message("user", "Hm?")], retries=1, backoff=0.0)
    assert error.value.cause == "user_malformed" and "arguments that are no object" in str(error.value)
