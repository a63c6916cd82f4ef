"""An API key is read from the environment, sent, and seen nowhere else."""

import asyncio
import json
import logging

import pytest

from rollouts.endpoints.client import ChatClient, Endpoint
from rollouts.types import DialogueError, Message
from tests.faults.server import Server

KEY = "sk-test-0123456789abcdef"


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("KEYS_TEST_KEY", KEY)


async def tell(content):
    return 200, json.dumps({"choices": [{"message": {"content": f"Your key is {KEY}."}}]}).encode()


def telling(status):
    """Servers that repeat the key, as some do: 'Incorrect API key provided: …'."""

    async def answer(content):
        return status, f"Incorrect API key provided: {KEY}".encode()

    return answer


def ask(answer, record, **options):
    async def run(url):
        client = ChatClient("user", Endpoint(url, "m", api_key_env="KEYS_TEST_KEY", retries=0), record=str(record))
        async with client:
            try:
                return client, await client.chat([Message("user", "Hm?")], seed=0)
            except DialogueError as error:
                return client, error

    with Server(answer=answer) as server:
        client, outcome = asyncio.run(run(server.url))
        assert [entry.headers["authorization"] for entry in server.log] == [f"Bearer {KEY}"]
        return client, outcome


@pytest.mark.parametrize("answer", [tell, telling(200), telling(401), telling(500)])
def test_what_a_server_repeats_is_blotted_out(answer, tmp_path, caplog):
    with caplog.at_level(logging.DEBUG):
        client, outcome = ask(answer, tmp_path)
    assert "[the API key]" in str(outcome)
    kept = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(kept) == 1
    assert KEY not in "".join([str(outcome), repr(outcome), repr(client), repr(vars(client)), caplog.text, *kept])


@pytest.mark.parametrize("value", [f"{KEY}\n", f" {KEY}", f"{KEY}é", f"{KEY} {KEY}"])
def test_a_key_that_is_none_is_refused_and_not_shown(value, monkeypatch):
    monkeypatch.setenv("KEYS_TEST_KEY", value)
    with pytest.raises(ValueError, match="config.user.api_key_env: .* in KEYS_TEST_KEY") as caught:
        ChatClient("user", Endpoint("http://x/v1", "m", api_key_env="KEYS_TEST_KEY"))
    assert KEY not in str(caught.value)


def test_a_dummy_key_may_be_a_word_of_an_answer(monkeypatch, tmp_path):
    monkeypatch.setenv("KEYS_TEST_KEY", "EMPTY")

    async def answer(content):
        return 200, json.dumps({"choices": [{"message": {"content": "The bag was EMPTY."}}]}).encode()

    async def run(url):
        async with ChatClient("user", Endpoint(url, "m", api_key_env="KEYS_TEST_KEY")) as client:
            return await client.chat([Message("user", "Hm?")], seed=0)

    with Server(answer=answer) as server:
        assert asyncio.run(run(server.url)) == "The bag was EMPTY."
