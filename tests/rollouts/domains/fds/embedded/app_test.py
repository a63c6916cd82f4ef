"""The embedded endpoint: its two models and its HTTP side."""

import asyncio
import json
import socket
import statistics
import threading
import time

import httpx
import pytest
import uvicorn

from rollouts.domains.fds import generator, judge, rubrics, rules, scripted
from rollouts.domains.fds.embedded import app, latent, reading, writing
from rollouts.domains.fds.rubrics import PRINCIPLES
from tests.builders.customers import CUSTOMER

# The two models

SCENARIO = next(generator.deal_scenarios(1))
PROMPT = {"role": "system", "content": generator.user_prompt(SCENARIO)}
BEGIN = {"role": "user", "content": rules.BEGIN}


def told(response, voucher="no"):
    return {"role": "user", "content": rules.with_state_line(response, voucher)}


def conversation(*replies):
    """The simulator's messages after these (response, voucher) pairs."""
    messages = [PROMPT, BEGIN]
    for reply in replies:
        messages += [{"role": "assistant", "content": "Hm."}, told(*reply)]
    return messages


def test_a_voucher_ends_the_conversation_with_a_rating_that_is_fair_on_average():
    messages = conversation(("A voucher was just issued for you.", "this turn"))
    ratings = []
    for seed in range(400):
        state = rules.user_step(rules.State(turns=1), app.play_user(messages, seed), max_turns=15)
        assert state.end == "rated"
        ratings.append(state.outcome)
    customer = reading.read_case(PROMPT["content"]).customer
    mood = latent.apply_events(customer, latent.start_mood(customer), frozenset({"voucher"}))
    mean = latent.expected_rating(customer, mood)
    assert statistics.mean(ratings) == pytest.approx(mean, abs=0.1)
    assert max(ratings) - min(ratings) <= 1


def test_the_customer_believes_the_state_line_and_not_the_agent():
    claim = "The voucher has been added to your account."
    lies = {app.play_user(conversation((claim, "no")), seed) for seed in range(20)}
    assert all(any(text in lie for text in writing._REACTIONS["unbacked"]) for lie in lies)
    assert all("[end:" in app.play_user(conversation((claim, "this turn")), seed) for seed in range(5))


def test_the_user_goes_on_writing_to_an_agent_that_does_not_listen_until_patience_ends():
    replies, text, turns = [], "", 0
    while "[end:" not in text and "[quit]" not in text:
        replies.append((f"Let us see {turns}.", "no"))
        text, turns = app.play_user(conversation(*replies), 0), turns + 1
    assert turns == -(-latent.start_mood(reading.read_case(PROMPT["content"]).customer).patience // 2)


def test_the_judge_scores_the_last_turn():
    said = [judge.Said("customer", "Cold!"), judge.Said("agent", "Whatever you say.")]
    prompt = rubrics.PROCESS.write_prompt(SCENARIO)

    def verdict(conversation):
        messages = [{"role": m.role, "content": m.content} for m in judge.write_request(prompt, conversation)]
        return rubrics.PROCESS.read_answer(app.judge_conversation(messages)).scores

    empty = verdict(said)
    (problem, *_), item = scripted._PROBLEMS[SCENARIO.order.complaint], SCENARIO.order.items.split("*")[0]
    kind = judge.Said("agent", f"I am sorry that your {item} {problem}. Could you send me a photo?")
    good = verdict([*said, judge.Said("customer", "Hm."), kind])
    assert good == dict.fromkeys(PRINCIPLES, 1.0)
    assert empty == {"persona": 0.0, "stage": 0.5, "quality": 0.5, "rules": 1.0}
    pressed = verdict([said[0], kind._replace(voucher="this turn")])
    assert pressed["rules"] == pressed["stage"] == 0.0


CALM = latent.Mood(patience=3, anger=0, heard=1, evidence=2)  # heard and looked at: time to propose
NEW = latent.Mood(patience=5, anger=1)


@pytest.mark.parametrize(
    "events, mood, expected",  # persona, stage, quality, rules
    [
        ("listen ask", NEW, (1, 1, 1, 1)),
        ("listen", NEW, (1, 0.5, 1, 1)),
        ("apology ask", NEW, (0.5, 1, 0.5, 1)),
        ("ask", NEW, (0, 1, 1, 1)),
        ("listen offer", NEW, (1, 0, 1, 0)),  # compensation before evidence
        ("listen voucher", NEW, (1, 0, 1, 0)),
        ("listen voucher", NEW._replace(deal=2), (1, 0, 1, 0)),
        ("listen close", NEW, (1, 0, 1, 1)),
        ("spam", NEW, (0, 0.5, 0, 1)),
        ("nothing repeat", NEW, (0, 0.5, 0, 1)),
        ("offer", CALM, (1, 1, 1, 1)),
        ("limit offer", CALM._replace(anger=1), (0, 1, 1, 1)),  # still upset: listen
        ("voucher", CALM._replace(deal=2), (1, 1, 1, 1)),
        ("voucher", CALM, (1, 0.5, 1, 0.5)),  # not agreed
        ("voucher", CALM._replace(deal=3), (1, 0.5, 1, 0.5)),
        ("ask", CALM, (1, 0, 1, 1)),
        ("explain_true", CALM, (1, 1, 1, 1)),
        ("explain_false", CALM, (1, 0.5, 1, 0)),
        ("unbacked", CALM, (1, 0.5, 1, 0)),
        ("promise", CALM, (1, 0.5, 0.5, 1)),
        ("apology", CALM, (0.5, 0.5, 0.5, 1)),
        ("limit long repeat", CALM, (1, 1, 0, 1)),
    ],
)
def test_what_the_judge_makes_of_a_turn(events, mood, expected):
    scores = app.score_turn(CUSTOMER, mood, frozenset(events.split()))
    assert tuple(scores[name] for name in PRINCIPLES) == expected
    doubtful = app.score_turn(CUSTOMER._replace(supported=False), mood, frozenset(events.split()))
    gives = {"offer", "voucher"} & set(events.split())
    assert doubtful["rules"] == (min(scores["rules"], 0.5) if gives else scores["rules"])


@pytest.mark.parametrize(
    "events, mood, expected",  # persona, stage
    [
        ("listen", NEW, (1, 1)),
        ("listen ask", NEW, (0.5, 1)),
        ("ask", NEW, (0, 0.5)),
        ("apology ask", NEW, (0.5, 0.5)),
        ("listen offer", NEW, (1, 0)),
        ("listen ask", NEW._replace(heard=1), (1, 1)),  # heard by now, if angry still
        ("ask", NEW._replace(heard=1, anger=0), (1, 1)),
    ],
)
def test_the_judge_has_the_hostile_heard_before_anything_is_asked_as_its_prompt_says(events, mood, expected):
    scores = app.score_turn(CUSTOMER._replace(level=1), mood, frozenset(events.split()))
    assert (scores["persona"], scores["stage"]) == expected


# The protocol


def in_process(body):
    async def ask():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app.app), base_url="http://embedded") as client:
            return await client.post("/v1/chat/completions", content=body)

    return asyncio.run(ask())


@pytest.fixture(scope="module")
def server():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        running = uvicorn.Server(uvicorn.Config(app.app, log_level="error", access_log=False))
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not running.started:
            time.sleep(0.01)
        with httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", trust_env=False) as client:
            yield client
        running.should_exit = True
        thread.join()


def user_body(**changes):
    body = {"model": "embedded-user", "messages": conversation(("Hello, what is wrong?", "no")), "seed": 5}
    return {key: value for key, value in (body | changes).items() if value is not ...}


def judge_body(transcript, rubric="judge"):
    prompt = rubrics.PROCESS.write_prompt(SCENARIO).replace("Rubric: judge", f"Rubric: {rubric}")
    messages = [
        {"role": "system", "content": prompt},
        {"role": "user", "content": transcript if isinstance(transcript, str) else json.dumps(transcript)},
    ]
    return {"model": "embedded-judge", "messages": messages}


SAID = {"role": "agent", "text": "Hello.", "voucher": "no"}


def test_http_answers_are_the_in_process_answers_byte_for_byte(server):
    bodies = [user_body(seed=seed, messages=messages) for seed in range(3) for messages in ([PROMPT, BEGIN], *LONGER)]
    for body in (*bodies, judge_body([SAID]), user_body(seed=...), user_body(seed=None)):
        content = json.dumps(body)
        answers = [server.post("/v1/chat/completions", content=content) for _ in range(2)]
        assert {answer.status_code for answer in answers} == {200}
        assert {answer.content for answer in answers} == {in_process(content).content}  # and it keeps no state
        answer = answers[0].json()
        assert answer["choices"][0]["message"]["role"] == "assistant"
        assert answer["choices"][0]["finish_reason"] == "stop"
        assert answer["usage"]["total_tokens"] > answer["usage"]["completion_tokens"] > 0


LONGER = [
    conversation(("Please send me a picture of it.", "no")),
    conversation(("Sorry.", "no"), ("Bye.", "this turn")),
]


def test_another_seed_gives_other_words(server):
    answers = {server.post("/v1/chat/completions", json=user_body(seed=seed)).content for seed in range(8)}
    assert len(answers) > 3


def test_models_and_health(server):
    assert server.get("/health").json() == {"status": "ok"}
    assert [model["id"] for model in server.get("/v1/models").json()["data"]] == list(app.MODELS)


@pytest.mark.parametrize(
    "body, message",
    [
        ("{half", "Expecting"),
        ("[1, 2]", "JSON object"),
        ("[" * 100_000, "nested"),
        (b"\xff", "decode"),
        (user_body(model=...), "model: expected one of"),
        (user_body(model="gpt-4"), "gpt-4"),
        (user_body(model=["embedded-user"]), "model: expected one of"),
        (user_body(messages=...), "messages: expected a list"),
        (user_body(messages=[]), "messages: expected a list"),
        (user_body(messages="Hi"), "messages: expected a list"),
        (user_body(messages=[PROMPT, {"role": "user"}]), "messages: expected a list"),
        (user_body(messages=[PROMPT, {"role": "user", "content": None}]), "messages: expected a list"),
        (user_body(seed="abc"), "seed: expected an integer"),
        (user_body(seed=float("inf")), "seed: expected an integer"),
        (user_body(messages=[BEGIN]), "Cooperation: "),
        (user_body(messages=[{"role": "system", "content": PROMPT["content"].replace("Demand", "D")}]), "Demand: "),
        (user_body(messages=[PROMPT, BEGIN, {"role": "user", "content": "Hi"}]), "line of system state"),
        (judge_body("Hello."), "JSON list"),
        (judge_body([]), "JSON list"),
        (judge_body("[" * 100_000), "JSON list"),
        (judge_body([SAID | {"role": "customer"}]), "turn of the agent"),
        (judge_body([SAID, SAID | {"role": "customer"}]), "ends with the agent's turn"),
        (judge_body([SAID], "sentiment"), "Rubric: "),
        (judge_body([SAID], "compensation"), "a voucher was issued"),
        (judge_body([SAID | {"text": 3}]), "JSON list"),
        (judge_body([SAID | {"voucher": "lots"}]), '"voucher"'),
        (judge_body([{"role": "agent", "text": "Hi"}]), '"voucher"'),
    ],
)
def test_a_bad_request_is_told_what_is_wrong(body, message):
    answer = in_process(body if isinstance(body, str | bytes) else json.dumps(body))
    assert answer.status_code == 400
    assert message in answer.json()["error"]["message"]


def test_a_bad_request_over_http_is_a_400_too(server):
    answer = server.post("/v1/chat/completions", json=user_body(messages=[]))
    assert answer.status_code == 400 and answer.json()["error"]["type"] == "invalid_request_error"
    assert server.get("/health").status_code == 200
