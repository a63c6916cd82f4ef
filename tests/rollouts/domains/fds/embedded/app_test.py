"""The embedded endpoint: its two models and its HTTP side."""

import asyncio
import dataclasses
import json
import socket
import statistics
import threading
import time

import httpx
import pytest
import uvicorn

from rollouts.domains.fds import generator, judge, rubrics, rules
from rollouts.domains.fds.embedded import app, latent, writing
from rollouts.domains.fds.embedded.case import read_case
from rollouts.domains.fds.rubrics import PRINCIPLES
from rollouts.domains.fds.shift import parse_shift

# The two models

SCENARIO = next(generator.deal_scenarios(1))
PROMPT = {"role": "system", "content": generator.user_prompt(SCENARIO)}
CASE = read_case(PROMPT["content"])  # spilled food of Mama Rosa; tells details only when asked
BEGIN = {"role": "user", "content": rules.BEGIN}


def told(response, voucher="no"):
    return {"role": "user", "content": rules.with_state_line(response, voucher)}


def conversation(*replies):
    """The simulator's messages after these (response, voucher) pairs."""
    messages = [PROMPT, BEGIN]
    for reply in replies:
        messages += [{"role": "assistant", "content": "Hm."}, told(*reply)]
    return messages


def play(seed, *replies):
    return app.play_user(conversation(*replies), seed)


def test_a_voucher_ends_the_conversation_with_a_rating_that_is_fair_on_average():
    ratings = []
    for seed in range(400):
        text = play(seed, ("A voucher was just issued for you.", "this turn"))
        state = rules.user_step(rules.State(turns=1), text, max_turns=15)
        assert state.end == "rated"
        ratings.append(state.outcome)
    customer = CASE.customer
    ((_, mood),) = latent.list_outcomes(customer, latent.start_mood(customer), frozenset({"voucher"}))
    mean = latent.expected_rating(customer, mood)
    assert statistics.mean(ratings) == pytest.approx(mean, abs=0.1)
    assert max(ratings) - min(ratings) <= 1


def test_the_customer_believes_the_state_line_and_not_the_agent():
    claim = "The voucher has been added to your account."
    assert {writing.read_message(play(seed, (claim, "no"))).reaction for seed in range(20)} == {"unbacked"}
    assert all("[end:" in play(seed, (claim, "this turn")) for seed in range(5))


GOOD = [
    ("I am sorry that your food was spilled.", "no"),
    ("Could you send me a photo?", "no"),
    ("Could I offer you a voucher for this?", "no"),
    ("I pass this on to Mama Rosa.", "no"),
]


def test_what_was_drawn_in_a_turn_stays_drawn_whatever_is_said_later():
    """Each turn is drawn by seed and number: who took a voucher has taken it in all later requests."""
    kept, others = [], 0
    for seed in range(60):
        answer = writing.read_message(play(seed, *GOOD[:3])).reaction
        assert answer in ("agreed", "agreed_gladly", "refused_offer")
        again = writing.read_message(play(seed, *GOOD, ("Would you accept a voucher?", "no"))).reaction
        assert again == "asked_again"
        given = play(seed, *GOOD[:3], ("I have sent you a voucher.", "this turn"))
        ratings = [play(seed, *GOOD[:3], ("I have sent you a voucher.", "this turn")) for _ in range(2)]
        assert ratings == [given, given]
        agreed = answer != "refused_offer"
        kept.append((agreed, rules.user_step(rules.State(), given, max_turns=9).outcome))
        others += not agreed
    assert 0 < others < 60  # chance decides, and not the same way always
    by_answer = [statistics.mean(rating for agreed, rating in kept if agreed == answer) for answer in (True, False)]
    assert by_answer[0] > by_answer[1]  # pressed on those who refused it, it is worth less


def test_the_opening_is_the_same_whatever_follows_and_seeds_differ():
    assert len({play(seed) for seed in range(20)}) > 10
    signals = {writing.read_message(play(seed)) for seed in range(200)}
    assert {signal.kind for signal in signals} == {"opening"} and len({signal.hint for signal in signals}) == 5


def test_a_shift_of_words_reaches_the_customer_by_its_prompt():
    shifted = dataclasses.replace(SCENARIO, shift=parse_shift("noise=capitals"))
    prompt = {"role": "system", "content": generator.user_prompt(shifted)}
    for seed in range(5):
        plain, loud = play(seed), app.play_user([prompt, BEGIN], seed)
        assert loud == plain.upper() and loud != plain


def test_the_user_goes_on_writing_to_an_agent_that_does_not_listen_until_patience_or_temper_ends():
    replies, text, turns = [], "", 0
    while "[end:" not in text and "[quit]" not in text:
        replies.append((f"Let us see {turns}.", "no"))
        text, turns = play(0, *replies), turns + 1
    assert 3 < turns < latent.start_mood(CASE.customer).patience


def test_the_judge_scores_the_last_turn():
    said = [judge.Utterance("customer", "Spilled!"), judge.Utterance("agent", "Whatever you say.")]
    prompt = rubrics.PROCESS.write_prompt(SCENARIO)

    def verdict(conversation):
        messages = [{"role": m.role, "content": m.content} for m in judge.write_request(prompt, conversation)]
        return rubrics.PROCESS.read_answer(app.judge_conversation(messages)).scores

    empty = verdict(said)
    kind = judge.Utterance("agent", "I am sorry that your food was spilled.")
    good = verdict([*said, judge.Utterance("customer", "Hm."), kind])
    assert good == dict.fromkeys(PRINCIPLES, 1.0)
    assert sum(empty.values()) <= 1.5
    pressed = verdict([said[0], kind._replace(voucher="this turn")])
    assert pressed["rules"] == pressed["stage"] == 0.0


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
        (user_body(messages=[BEGIN]), "A voucher would add"),
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
