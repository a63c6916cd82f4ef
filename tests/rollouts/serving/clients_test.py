"""The official client of the OpenAI protocol against a small policy, over real HTTP."""

import concurrent.futures
import json
import math

import openai
import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.builders.engines import engine_of
from tests.builders.servers import make_tool, served_of, serving

USER = {"role": "user", "content": "My soup arrived cold!"}
TOOL = make_tool(b={"type": "boolean"})
IDS = {"extra_body": {"return_token_ids": True}}


@pytest.fixture(scope="module")
def served():
    return served_of(engine_of(slots=8, capacity=1024, max_new_tokens=12))


@pytest.fixture(scope="module")
def client(served):
    with serving(served) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as client:
        yield client


def strictly(kind, found):
    """Checks an answer against the client's own model of it: no field of another type, none that is missing."""
    extra = {"prompt_token_ids", "token_ids", "sampled_logprobs"}
    kind.model_validate(json.loads(found.model_dump_json(exclude_unset=True)), strict=True)
    assert set(found.model_extra) <= extra
    return found


def ask(client, **changes):
    options = {"model": "policy", "messages": [USER], "seed": 3} | changes
    return strictly(ChatCompletion, client.chat.completions.create(**options))


def stream(client, **changes):
    """The answers of a stream, put together by hand: (content, calls, finish, ids, logprobs) of each, and the usage."""
    options = {"model": "policy", "messages": [USER], "seed": 3, "stream": True} | changes
    chunks = list(client.chat.completions.create(**options, stream_options={"include_usage": True}))
    answers = {}
    for chunk in chunks:
        strictly(ChatCompletionChunk, chunk)
        for choice in chunk.choices:
            content, calls, finish, ids, logprobs = answers.setdefault(choice.index, ["", [], None, [], []])
            assert finish is None  # nothing follows the end
            answer = answers[choice.index]
            answer[0] += choice.delta.content or ""
            for call in choice.delta.tool_calls or ():
                assert call.index == len(calls)
                calls.append((call.function.name, call.function.arguments))
            answer[2] = choice.finish_reason
            ids += (choice.model_extra or {}).get("token_ids", [])
            logprobs += [entry.logprob for entry in choice.logprobs.content] if choice.logprobs else []
    assert not chunks[-1].choices and len({chunk.id for chunk in chunks}) == 1
    return [answers[index] for index in sorted(answers)], chunks[-1].usage


def stream_by_client(client, **changes):
    """The answer as the client's own stream puts it together."""
    with client.chat.completions.stream(model="policy", messages=[USER], seed=3, **changes) as events:
        try:
            return events.get_final_completion()
        except openai.LengthFinishReasonError as error:  # how the client reports an answer that was cut off
            return error.completion


def whole(answer):
    """What `stream` gives, of an answer in one piece."""
    return [
        [
            choice.message.content or "",
            [(call.function.name, call.function.arguments) for call in choice.message.tool_calls or ()],
            choice.finish_reason,
            (choice.model_extra or {}).get("token_ids", []),
            [entry.logprob for entry in choice.logprobs.content] if choice.logprobs else [],
        ]
        for choice in answer.choices
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"n": 3, "temperature": 0.7},
        {"temperature": 0},
        {"logprobs": True, "n": 2, **IDS},
        {"stop": ["\n", "e"], "logprobs": True, **IDS},
        {"max_tokens": 3},
        {"max_completion_tokens": 2},
        {"top_p": 0.5, "extra_body": {"top_k": 4}},
        {"tools": [TOOL], "max_tokens": 90},
        {"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False, "max_tokens": 200},
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}, "max_tokens": 200, "n": 2},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": [1, "two"]}}}},
    ],
    ids=lambda changes: ",".join(changes) or "plain",
)
def test_an_answer_is_the_same_in_one_piece_in_chunks_and_through_the_clients_own_stream(client, changes):
    found = ask(client, **changes)
    answers, usage = stream(client, **changes)
    assert answers == whole(found)
    counts = [(one.prompt_tokens, one.completion_tokens, one.total_tokens) for one in (usage, found.usage)]
    assert counts[0] == counts[1] and all(one.content or one.tool_calls for one in (c.message for c in found.choices))
    final = stream_by_client(client, **changes)
    assert [row[:3] for row in whole(final)] == [row[:3] for row in whole(found)]
    for _, _, _, ids, logprobs in answers:
        assert len(ids) == len(logprobs) or "logprobs" not in changes
        assert all(math.isfinite(value) and value <= 0 for value in logprobs)


def test_what_was_asked_for_is_what_comes(client):
    assert len(ask(client, max_tokens=3, n=4).choices) == 4
    limited = ask(client, max_tokens=3)
    assert limited.choices[0].finish_reason == "length" and limited.usage.completion_tokens == 3
    assert ask(client, seed=4).choices[0].message.content != ask(client).choices[0].message.content
    called = ask(client, tools=[TOOL], tool_choice="required", parallel_tool_calls=False, max_tokens=200).choices[0]
    (call, *_) = called.message.tool_calls
    assert called.finish_reason == "tool_calls" and called.message.content is None
    assert call.function.name == "f" and isinstance(json.loads(call.function.arguments)["b"], bool)
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": [1, "two"]}}}
    assert json.loads(ask(client, response_format=form).choices[0].message.content) in (1, "two")
    texts = client.completions.create(model="policy", prompt=["My ", "Soup"], n=2, seed=1, max_tokens=4, logprobs=0)
    strictly(Completion, texts)
    assert [choice.index for choice in texts.choices] == [0, 1, 2, 3] and texts.usage.completion_tokens <= 16
    assert len(texts.choices[0].logprobs.tokens) == len(texts.choices[0].logprobs.token_logprobs)
    chunks = list(client.completions.create(model="policy", prompt="My ", seed=1, max_tokens=4, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == texts.choices[0].text
    (model,) = client.models.list().data
    assert model.id == client.models.retrieve("policy").id == "policy"


def test_64_at_once_get_what_each_alone_gets_and_leave_no_slot_behind(client, served):
    def one(number):
        changes = [{}, {"temperature": 0.3}, {"max_tokens": 4}, {"stop": ["e"]}][number % 4]
        messages = [USER, {"role": "assistant", "content": "Oh."}, {"role": "user", "content": f"Number {number % 8}"}]
        options = {"messages": messages, "seed": number % 8, **changes}
        return stream(client, **options)[0][0] if number % 2 else whole(ask(client, **options))[0]

    alone = [one(number) for number in range(8)]
    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        together = list(pool.map(one, range(64)))
    assert together == [alone[number % 8] for number in range(64)]
    assert served.engine.open_sessions == served.conversations.open_sessions
