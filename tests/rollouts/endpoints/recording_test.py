"""Record and replay: what is kept, by whom, what is answered from it, and that it is never half-written."""

import asyncio
import json
import multiprocessing
import os

import pytest

from rollouts.endpoints.client import ChatClient, Endpoint, ReplayMiss
from rollouts.endpoints.recording import Recording
from rollouts.types import DialogueError, Message
from tests.faults.server import Server, completion

ASK = [Message("user", "Süß? 你好")]
REQUEST = {"endpoint": "user", "model": "m", "messages": [{"role": "user", "content": "Hm?"}], "seed": 1}


def counting(prefix="Answer"):
    """Another answer each time."""
    count = 0

    async def answer(_):
        nonlocal count
        count += 1
        return 200, json.dumps({"choices": [{"message": {"content": f"{prefix} {count}."}}]}).encode()

    return answer


def ask(url="http://127.0.0.1:9/v1", *seeds, name="user", model="m", record="", replay="", **options):
    """The outcome of the requests with `seeds`, one after the other; by default, nobody is there."""

    async def run():
        async with ChatClient(name, endpoint, record=str(record), replay=str(replay)) as client:
            for seed in seeds:
                try:
                    outcomes.append(await client.chat(ASK, seed=seed))
                except DialogueError as error:
                    outcomes.append((error.cause, str(error)))
        return outcomes

    outcomes = []
    endpoint = Endpoint(url, model, **{"retries": 0} | options)
    return asyncio.run(run())


def test_a_replay_answers_as_it_was_and_asks_nobody(tmp_path):
    with Server(lambda number, body: "error" if body["seed"] == 2 else "", counting()) as server:
        recorded = ask(server.url, 1, 2, 3, record=tmp_path)
        assert recorded[0] == "Answer 1." and recorded[1][0] == "user_http_500" and recorded[2] == "Answer 2."
        assert ask(server.url, 3, 2, 1, replay=tmp_path) == recorded[::-1]
        assert len(server.log) == 3
    assert ask("http://127.0.0.1:9/v1", 1, 2, 3, replay=tmp_path, api_key_env="NOT_SET") == recorded


def test_what_is_recorded_is_not_asked_again(tmp_path):
    with Server(answer=counting()) as server:
        assert ask(server.url, 1, 1, 2, 1, record=tmp_path) == ["Answer 1.", "Answer 1.", "Answer 2.", "Answer 1."]
        assert ask(server.url + "/", 1, 2, record=tmp_path, concurrency=3) == ["Answer 1.", "Answer 2."]
        assert len(server.log) == 2


def test_a_failure_is_asked_again_and_an_answer_takes_its_place(tmp_path):
    with Server(lambda number, body: "error" if number == 0 else "") as server:
        assert ask(server.url, 1, 1, record=tmp_path)[1] == "Grüß dich."
        assert ask(server.url, 1, replay=tmp_path) == ["Grüß dich."]


def test_recordings_made_before_the_settings_of_a_requests_words_are_still_answered_from(tmp_path):
    request = {"model": "m", "messages": [{"role": "user", "content": "Süß? 你好"}], "temperature": 1.0}
    request = {"endpoint": "user", **request, "max_tokens": 256, "seed": 7}
    Recording(tmp_path).record(request, "<think>As it was kept then.</think>Cold!")
    (path,) = tmp_path.rglob("*.json")
    assert path.stem.startswith("51afec07da1474b17c12")  # as it was named then
    assert ask("http://127.0.0.1:9/v1", 7, replay=tmp_path) == ["Cold!"]
    Recording(tmp_path).record(request | {"seed": 8}, "<think>It was kept then that I")
    ((cause, message),) = ask("http://127.0.0.1:9/v1", 8, replay=tmp_path)
    assert cause == "user_truncated" and "kept then that I" in message


def test_how_a_setting_is_spelt_changes_no_request_and_what_an_answer_depends_on_does(tmp_path):
    spelt = {"max_tokens_field": "max_completion_tokens", "seed_field": "none"}
    with Server(answer=counting()) as server:
        assert ask(server.url, 1, 2, record=tmp_path, **spelt) == ["Answer 1.", "Answer 2."]
        assert ask(server.url, 2, 1, record=tmp_path) == ["Answer 2.", "Answer 1."]
        for change in ({"temperature_field": "none"}, {"extra_body": '{"top_p": 0.5}'}):
            (answer,) = ask(server.url, 1, record=tmp_path, **change)
            assert answer not in ("Answer 1.", "Answer 2.")


def test_an_agents_turn_is_replayed_with_its_thoughts_and_with_where_it_was_cut_off(tmp_path):
    bodies = [completion("Hi.", reasoning="hm"), completion("Hi, I a", "length")]

    async def answer(_):
        return 200, bodies.pop(0)

    async def turns(url, **directory):
        async with ChatClient("agent", Endpoint(url, "m"), **directory) as client:
            return [await client.ask_for_turn(ASK, seed=seed) for seed in range(2)]

    with Server(answer=answer) as server:
        recorded = asyncio.run(turns(server.url, record=str(tmp_path)))
    assert recorded == [("<think>hm</think>Hi.", False), ("Hi, I a", True)]
    assert asyncio.run(turns("http://127.0.0.1:9/v1", replay=str(tmp_path))) == recorded


def test_an_answer_that_is_none_is_recorded_and_replayed_as_the_failure_that_it_was(tmp_path):
    with Server(lambda number, body: "cut_off") as server:
        recorded = ask(server.url, 1, record=tmp_path, retries=1)
        assert recorded[0][0] == "user_truncated" and len(server.log) == 2
        assert ask(server.url, 1, replay=tmp_path) == recorded


@pytest.mark.parametrize("change", [{"name": "judge"}, {"model": "n"}, {"temperature": 0.3}, {"max_tokens": 5}])
def test_another_request_is_a_miss_that_is_named(tmp_path, change):
    with Server() as server:
        ask(server.url, 7, record=tmp_path)
    name, model = change.get("name", "user"), change.get("model", "m")
    with pytest.raises(
        ReplayMiss, match=rf"config.endpoints.replay: .* of {name} \(model {model}, seed 7\).*Süß. 你好"
    ):
        ask("http://127.0.0.1:9/v1", 7, replay=tmp_path, **change)
    with pytest.raises(ReplayMiss, match="seed 8"):
        ask("http://127.0.0.1:9/v1", 8, replay=tmp_path)


def test_of_two_answers_to_one_request_the_first_stands_for_both(tmp_path):
    async def run(url):
        async with ChatClient("user", Endpoint(url, "m"), record=str(tmp_path)) as client:
            return await asyncio.gather(*(client.chat(ASK, seed=0) for _ in range(8)))

    with Server(answer=counting()) as server:
        answers = asyncio.run(run(server.url))
        assert len(server.log) == 8
    assert len(set(answers)) == 1
    assert ask("http://127.0.0.1:9/v1", 0, replay=tmp_path) == answers[:1]


def race(directory, number, barrier):
    recording = Recording(directory)
    for seed in range(200):
        barrier.wait(60)
        request = {**REQUEST, "seed": seed}
        assert recording.record(request, f"{number} " + "x" * 10_000) == recording.kept(request)["answer"]


def test_processes_may_record_at_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(4)
    racers = [context.Process(target=race, args=(tmp_path, number, barrier)) for number in range(4)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert [racer.exitcode for racer in racers] == [0] * 4
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 200 and all(path.suffix == ".json" for path in files)


def die_before_it_counts(path):
    """In a process of its own."""
    os.link = lambda *_: os._exit(0)
    Recording(path).record(REQUEST, "half")


def test_a_writer_that_dies_leaves_nothing_that_is_read(tmp_path):
    writer = multiprocessing.get_context("spawn").Process(target=die_before_it_counts, args=(tmp_path,))
    writer.start()
    writer.join()
    assert writer.exitcode == 0
    recording = Recording(tmp_path)
    assert len(list(tmp_path.rglob("*.partial"))) == 1
    assert recording.kept(REQUEST) == {}
    assert recording.record(REQUEST, "whole") == "whole"


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"request": {}, "answer": "x"}'])
def test_a_damaged_entry_is_named(tmp_path, damage):
    recording = Recording(tmp_path)
    recording.record(REQUEST, "fine")
    (path,) = tmp_path.rglob("*.json")
    path.write_text(damage)
    with pytest.raises(ValueError, match=path.name):
        recording.kept(REQUEST)


def test_record_and_replay_exclude_each_other():
    with pytest.raises(ValueError, match="config.endpoints"):
        ChatClient("user", Endpoint("embedded", "m"), record="a", replay="b")
