"""Servers with ways of their own: what they call a request's fields, what they refuse, and answers that are none."""

import asyncio
import json
import re

import pytest

from rollouts.agents.remote import RemoteAgent
from rollouts.domains.fds.scenario import Scenario
from rollouts.endpoints.client import ChatClient, Endpoint
from rollouts.types import DialogueError, Message
from tests.faults.server import GOOD, Server, completion

ASK = [Message("system", "Be a customer."), Message("user", "Begin."), Message("assistant", "Cold!")]
DEFAULT = {
    "model": "m",
    "messages": [
        {"role": "system", "content": "Be a customer."},
        {"role": "user", "content": "Begin."},
        {"role": "assistant", "content": "Cold!"},
    ],
    "temperature": 1.0,
    "max_tokens": 256,
    "seed": 7,
}


def ask(server, **options):
    """The answer, or the DialogueError."""

    async def run():
        async with ChatClient("user", Endpoint(server.url, "m", **{"backoff": 0.0} | options)) as client:
            return await client.chat(ASK, seed=7)

    try:
        return asyncio.run(run())
    except DialogueError as error:
        return error


def in_turn(*bodies):
    """Answers with these bodies one after the other, and with the last one for ever."""
    left = list(bodies)

    async def answer(_):
        return 200, left.pop(0) if len(left) > 1 else left[0]

    return answer


def without(*names, **fields):
    return {name: value for name, value in DEFAULT.items() if name not in names} | fields


MERGED = [{"role": "user", "content": "Be a customer.\n\nBegin."}, DEFAULT["messages"][2]]
DEVELOPER = [DEFAULT["messages"][0] | {"role": "developer"}, *DEFAULT["messages"][1:]]


@pytest.mark.parametrize(
    ("options", "sent"),
    [
        ({}, DEFAULT),
        ({"max_tokens_field": "max_completion_tokens"}, without("max_tokens", max_completion_tokens=256)),
        ({"temperature_field": "none"}, without("temperature")),
        ({"seed_field": "none"}, without("seed")),
        ({"seed_field": "random_seed"}, without("seed", random_seed=7)),
        ({"system_role": "user"}, without(messages=MERGED)),
        ({"system_role": "developer"}, without(messages=DEVELOPER)),
        ({"extra_body": '{"reasoning_effort": "low"}'}, without(reasoning_effort="low")),
    ],
)
def test_a_request_is_spelt_as_its_server_wants_it(options, sent):
    with Server() as server:
        assert ask(server, **options) == "Grüß dich."
        assert server.log[0].body == sent


def test_a_prompt_without_a_message_after_it_comes_as_the_users():
    async def run(url):
        async with ChatClient("user", Endpoint(url, "m", system_role="user")) as client:
            await client.chat([Message("system", "Hm?")], seed=0)
            await client.chat([Message("user", "Hm?")], seed=0)

    with Server() as server:
        asyncio.run(run(server.url))
        assert [entry.body["messages"] for entry in server.log] == [[{"role": "user", "content": "Hm?"}]] * 2


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_tokens_field", "none"),
        ("temperature_field", "top_p"),
        ("seed_field", ""),
        ("system_role", "assistant"),
        ("extra_body", "{"),
        ("extra_body", "[1]"),
        ("extra_body", '{"x": NaN}'),
        ("extra_body", '{"seed": 1}'),
        ("extra_body", '{"stream": true}'),
        ("extra_body", '{"max_completion_tokens": 1}'),
        ("extra_body", "[" * 100_000),
    ],
)
def test_a_setting_that_is_none_is_named(field, value):
    with pytest.raises(ValueError, match=f"config.user.{field}: expected "):
        ChatClient("user", Endpoint("http://x/v1", "m", **{field: value}))


@pytest.mark.parametrize(
    ("status", "body", "settings"),
    [
        (
            400,
            "Unsupported parameter: 'max_tokens' is not supported with this model.",
            "config.user.max_tokens, config.user.max_tokens_field",
        ),
        (
            400,
            "Unsupported value: 'temperature' does not support 0.2 with this model.",
            "config.user.temperature, config.user.temperature_field",
        ),
        (422, '{"detail":[{"type":"extra_forbidden","loc":["body","seed"],"input":-1}]}', "config.user.seed_field"),
        (400, "System role not supported", "config.user.system_role"),
        (400, "Conversation roles must alternate user/assistant/user/assistant/...", "config.user.system_role"),
        (400, "Developer instruction is not enabled for models/gemma-3-27b-it", "config.user.system_role"),
        (500, "response_format: unknown", "config.user.response_format"),
        (400, "no such model", ""),
        (429, "reduce max_tokens or wait", ""),
    ],
)
@pytest.mark.parametrize("as_answer", [False, True])
def test_a_refusal_that_names_a_parameter_names_the_setting(status, body, settings, as_answer):
    async def refuse(_):
        told = {"error": {"message": body, "code": status}}
        return (200, json.dumps(told).encode()) if as_answer else (status, body.encode())

    with Server(answer=refuse) as server:
        error = ask(server, retries=1)
        assert len(server.log) == (2 if status in (429, 500) else 1)
    assert error.cause == f"user_http_{status}" and body[:20] in str(error)
    assert str(error).endswith(f"; see {settings}") if settings else "; see" not in str(error)


# Answers that are none


def test_a_model_that_did_not_answer_wholly_is_asked_again_with_another_seed():
    bodies = [completion("The ri", "length"), completion("", reasoning="Hm."), completion("Cold. [end:2]")]
    with Server(answer=in_turn(*bodies)) as server:
        assert ask(server, retries=2) == "Cold. [end:2]"
        seeds = [entry.body["seed"] for entry in server.log]
    assert seeds[0] == 7 and len(set(seeds)) == 3
    with Server(answer=in_turn(*bodies)) as server:
        ask(server, retries=2)
        assert [entry.body["seed"] for entry in server.log] == seeds  # the same in every run


def test_what_broke_on_the_way_is_asked_again_with_the_same_seed():
    with Server(lambda number, body: ("html", "error", "told", "")[number]) as server:
        assert ask(server, retries=3) == "Grüß dich."
        assert {entry.body["seed"] for entry in server.log} == {7}


@pytest.mark.parametrize(
    ("body", "cause", "said"),
    [
        (completion("The ri", "length"), "user_truncated", "within its answer.*see config.user.max_tokens .256"),
        (
            completion(None, "length", reasoning="So"),
            "user_truncated",
            "within its thoughts.*see config.user.max_tokens",
        ),
        (completion("<think>So I"), "user_truncated", "within its thoughts.*see config.user.max_tokens"),
        (completion("The", "content_filter"), "user_filtered", "content filter"),
        (completion(None, refusal="No."), "user_refused", "refused to answer: 'No.'"),
        (completion("", reasoning="Cold."), "user_malformed", "only thought: 'Cold.'"),
    ],
)
def test_what_stays_no_answer_is_a_failure_by_its_cause_that_says_what_came(body, cause, said):
    with Server(answer=in_turn(body)) as server:
        error = ask(server, retries=1)
        assert error.cause == cause and re.search(said, str(error)) and len(server.log) == 2
        assert f"config.user.url {server.url} (model m)" in str(error)


def test_a_server_that_answers_but_not_wholly_is_alive():
    with Server(answer=in_turn(completion("The ri", "length"))) as server:
        for _ in range(3):
            assert ask(server, retries=4, breaker_failures=2, breaker_wait=0.0).cause == "user_truncated"
        assert not server.probes


def test_a_word_of_the_server_is_not_the_models():
    with Server(lambda number, body: "told") as server:
        error = ask(server, retries=1)
    assert error.cause == "user_error" and "answered 200 with an error: 'overloaded'" in str(error)


# An agent behind an endpoint

TURN = "<response>Sorry.</response><action>chat</action>"


def serve(*bodies, **options):
    """What a remote agent makes of each of these answers, in one dialogue; and the requests."""

    async def run(url):
        async with ChatClient("agent", Endpoint(url, "m", **options)) as client:
            scenario = Scenario("1", None, "", None, "Serve.", worth=0, honest=True)
            session = await RemoteAgent(client).open(scenario, 0)
            return [await session.reply([Message("user", "Cold!")], seed) for seed, _ in enumerate(bodies)]

    with Server(answer=in_turn(*bodies)) as server:
        return asyncio.run(run(server.url)), [entry.body for entry in server.log]


def test_an_agent_behind_a_reasoning_parser_is_heard_and_remembered_in_the_turn_format():
    samples, requests = serve(
        completion(TURN, reasoning_content="listen first"), completion(f"<think>so</think>{TURN}")
    )
    whole = f"<think>listen first</think>{TURN}"
    assert [(sample.text, sample.stop) for sample in samples] == [
        (whole, "end_of_turn"),
        (f"<think>so</think>{TURN}", "end_of_turn"),
    ]
    assert requests[1]["messages"][2] == {"role": "assistant", "content": whole}


@pytest.mark.parametrize(
    "body", [completion(f"<think>a</think>{TURN[:20]}", "length"), completion(None, "length", reasoning="Let me see")]
)
def test_an_agent_that_was_cut_off_is_cut_off(body):
    ((sample,), requests) = serve(body)
    assert sample.stop == "length" and len(requests) == 1


def test_an_agent_that_a_filter_stopped_is_a_failure_of_its_endpoint():
    with pytest.raises(DialogueError) as caught:
        serve(completion("Sor", "content_filter"), retries=0)
    assert caught.value.cause == "agent_filtered"


def test_an_answer_is_read_as_before_where_a_server_says_nothing_of_it():
    with Server(answer=in_turn(json.dumps({"choices": [{"message": {"content": " Hi.\n"}}]}).encode(), GOOD)) as server:
        assert ask(server) == " Hi.\n"
