"""The embedded endpoint: its table of rules, what it reads and writes, what pays with it, and its HTTP side."""

import asyncio
import functools
import itertools
import json
import random
import socket
import statistics
import threading
import time

import httpx
import pytest
import uvicorn
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rollouts import episode, fds, judge, rubrics, scripted
from rollouts.embedded import app, reading, rules, writing
from rollouts.types import DEMANDS, PRINCIPLES

# The table

DOMAINS = {
    "level": range(1, 6),
    "demand": DEMANDS,
    "supported": (True, False, None),
    **{field: range(limit + 1) for field, limit in rules.LIMITS._asdict().items()},
}
customers = st.builds(rules.Customer, *(st.sampled_from(DOMAINS[field]) for field in rules.Customer._fields))
moods = st.builds(rules.Mood, *(st.sampled_from(DOMAINS[field]) for field in rules.Mood._fields))
happenings = st.frozensets(st.sampled_from(sorted(rules.EVENTS)), max_size=6)


def test_every_rule_speaks_of_known_things_and_has_its_moment():
    assert {rule.event for rule in rules.RULES} == set(rules.EVENTS)
    for rule in rules.RULES:
        assert set(rule.effect) <= set(rules.Mood._fields)
        assert all(set(values) <= set(DOMAINS[field]) for field, values in rule.when.items())
    for event in rules.EVENTS:
        own = [rule for rule in rules.RULES if rule.event == event]
        fields = sorted({field for rule in own for field in rule.when})
        firsts = set()
        for values in itertools.product(*(DOMAINS[field] for field in fields)):
            before = dict(zip(fields, values, strict=True))
            firsts |= {next((number for number, rule in enumerate(own) if rules._applies(rule, before)), None)}
        assert set(range(len(own))) <= firsts, f"a rule of {event} never comes first"


@given(customers, moods, happenings)
def test_transitions_stay_within_limits_and_cost_patience(customer, mood, events):
    after = rules.transition(customer, mood, events)
    assert all(after[place] in DOMAINS[field] for place, field in enumerate(rules.Mood._fields))
    assert after.patience < mood.patience or mood.patience == after.patience == 0
    assert after == rules.transition(customer, mood, frozenset(sorted(events, reverse=True)))
    assert rules.ended(customer, after) in ("", "rated", "quit")
    assert 1 <= rules.expected_rating(customer, after) <= 5
    if "voucher" in events:
        assert after.voucher and rules.ended(customer, after) == "rated"


@given(customers, st.lists(happenings, min_size=7, max_size=7))
def test_every_conversation_ends_within_seven_turns(customer, turns):
    mood = rules.start(customer)
    assert not rules.ended(customer, mood)
    ends = []
    for events in turns:
        mood = rules.transition(customer, mood, events)
        ends.append(rules.ended(customer, mood))
    assert any(ends)


@given(customers, moods, happenings)
def test_spam_drowns_what_else_was_said(customer, mood, events):
    kept = events & {"voucher", "repeat", "long"}
    assert rules.transition(customer, mood, events | {"spam"}) == rules.transition(customer, mood, kept | {"spam"})


@given(customers, moods)
def test_ratings_go_the_right_way(customer, mood):
    rating = functools.partial(rules.expected_rating, customer)
    for field, direction in (("anger", -1), ("trust", 1), ("heard", 1), ("noted", 1), ("voucher", 1)):
        if getattr(mood, field) < getattr(rules.LIMITS, field):
            change = rating(mood._replace(**{field: getattr(mood, field) + 1})) - rating(mood)
            assert change * direction >= 0
    assert rating(mood._replace(patience=0)) == rating(mood)


def test_who_walks_out():
    for customer in (rules.Customer(1, demand, True) for demand in DEMANDS):
        angry = rules.Mood(patience=0, anger=3)
        assert rules.ended(customer, angry) == "quit"
        assert rules.ended(customer, angry._replace(trust=1)) == "rated"
        assert rules.ended(customer, angry._replace(anger=2)) == "rated"
        assert rules.ended(customer, angry._replace(patience=1)) == ""


# What pays: a search over all the conversations of turns with one or two acts

ACTS = ("listen", "ask", "explain_true", "note", "offer", "limit", "close")
TURNS = [frozenset({act}) for act in ACTS] + [frozenset(pair) for pair in itertools.combinations(ACTS[:5], 2)]
WORLD = [rules.Customer(level, demand, fact) for level in (1, 3) for demand in DEMANDS for fact in (True, False)]
NEVER, PRESSED, AGREED = (), (0, 1, 3), (2,)


@functools.cache
def best(customer, mood, deals):
    """The best expected rating from here on, where a voucher may be given only when `mood.deal` is among `deals`."""
    found = 1.0
    for acts in TURNS:
        for events in (acts, acts | {"voucher"}) if mood.deal in deals else (acts,):
            after = rules.transition(customer, mood, events)
            end = rules.ended(customer, after)
            if end == "rated":
                found = max(found, rules.expected_rating(customer, after))
            elif not end:
                found = max(found, best(customer, after, deals))
    return found


def value(customer, deals):
    return best(customer, rules.start(customer), deals)


@pytest.mark.parametrize("customer", WORLD, ids=str)
def test_a_voucher_is_worth_more_agreed_than_pressed(customer):
    never, pressed, agreed = (value(customer, deals) for deals in (NEVER, PRESSED, AGREED))
    if customer.demand == "refund_insistence":  # agrees to none
        assert agreed == never
        assert 0 < pressed - never < 0.8
    elif customer.demand == "feedback_focus" and customer.supported is False:  # the facts, well told, do as much
        assert agreed == pressed == never
    else:
        assert never < pressed < agreed
    mood = rules.Mood(patience=1, anger=0)
    ratings = [rules.expected_rating(customer, mood._replace(voucher=voucher)) for voucher in (0, 1, 2)]
    assert ratings == sorted(set(ratings))


def test_vouchers_pay_most_with_those_who_are_open_to_them():
    worth = {customer: value(customer, AGREED) - value(customer, NEVER) for customer in WORLD}
    open_minded = ("compensation_flexible", "refund_priority")
    least = min(worth[customer] for customer in WORLD if customer.demand in open_minded)
    assert least > 1.5 and least > 2 * max(worth[customer] for customer in WORLD if customer.demand not in open_minded)
    for customer in worth:  # and no less where the record supports them
        assert worth[customer._replace(supported=True)] >= worth[customer._replace(supported=False)] - 1e-9


def test_serving_well_beats_serving_badly_without_any_voucher():
    for customer in WORLD:
        mood, end = rules.start(customer), ""
        while not end:
            mood = rules.transition(customer, mood, frozenset({"nothing"}))
            end = rules.ended(customer, mood)
        assert value(customer, NEVER) > rules.expected_rating(customer, mood) + 0.4


# What is read

CUSTOMER = rules.Customer(3, "refund_priority", True)
ITEMS = (*fds._DISHES, *fds._SIDES)


def case(complaint, item="Pad Thai", record="no abnormal report", customer=CUSTOMER):
    return reading.Case(customer, (item,), "Golden Wok", complaint, record, "")


def spellings(act, complaint):
    """(case, text) for every phrase of an act, with all that may stand in it."""
    for phrase in scripted._SAYS[act]:
        for item in ITEMS if "{item}" in phrase else ITEMS[:1]:
            for record in (*fds.COMPLAINTS[complaint][1:], "no abnormal report"):
                for problem in scripted._PROBLEMS[complaint] if "{problem}" in phrase else ("",):
                    for merchant in fds._MERCHANTS if "{merchant}" in phrase else ("",):
                        text = phrase.format(item=item, record=record, problem=problem, merchant=merchant)
                        yield case(complaint, item, record), text


READ_AS = {"explain": {"explain_true"}, "invent": {"explain_false"}, "grant": {"voucher"}}


@pytest.mark.parametrize("complaint", fds.COMPLAINTS)
@pytest.mark.parametrize("act", scripted._SAYS)
def test_every_scripted_phrase_is_read_as_its_act(act, complaint):
    for order, text in spellings(act, complaint):
        issued = "this turn" if act == "grant" else "no"
        assert reading.read_reply(text, [], order, issued) == READ_AS.get(act, {act}), text
        if act == "grant":
            assert reading.read_reply(text, [], order, "no") == {"unbacked"}, text


@pytest.mark.parametrize("complaint", fds.COMPLAINTS)
def test_a_reply_is_read_as_the_sum_of_its_sentences(complaint):
    rng = random.Random(0)
    for acts in itertools.combinations([act for act in scripted._SAYS if act != "grant"], 3):
        chosen = [rng.choice(list(spellings(act, complaint))) for act in acts]
        order, record = chosen[0][0], chosen[0][0].record
        texts = [text.replace(other.record, record) for other, text in chosen]
        texts = [text.replace(other.items[0], order.items[0]) for (other, _), text in zip(chosen, texts, strict=True)]
        expected = set().union(*(READ_AS.get(act, {act}) for act in acts))
        expected -= {"apology"} if "listen" in acts else set()
        assert reading.read_reply(" ".join(texts), [], order, "no") == expected, texts


@pytest.mark.parametrize(
    "complaint, item, sentence, expected",
    [
        ("food temperature", "Pad Thai", "Sorry, please send a photo of it.", {"ask", "apology"}),  # p-hot-o
        ("damaged packaging", "Pad Thai", "Sorry for the late message.", {"apology"}),  # mess-age
        ("not fresh or undercooked", "Pad Thai", "Sorry for this drawback.", {"apology"}),  # d-raw-back
        ("late delivery", "B", "I am so sorry about this.", {"apology"}),  # a-b-out: a released item is called B
        ("late delivery", "Cola", "I am sorry, have a chocolate.", {"apology"}),
        ("late delivery", "B", "I am so sorry about the B.", {"listen"}),
        ("food temperature", "Pad Thai", "Sorry that it was not hot.", {"listen"}),
        ("not fresh or undercooked", "Pad Thai", "Sorry that it was raw!", {"listen"}),
        ("damaged packaging", "Pad Thai", "Sorry for that mess.", {"listen"}),
        ("late delivery", "Pad Thai", "I see why you are upset.", {"nothing"}),
        ("late delivery", "Pad Thai", "Ok.", {"nothing"}),
        ("late delivery", "Pad Thai", "", {"nothing"}),
        ("late delivery", "Pad Thai", "I cannot refund the order, but would a voucher help?", {"limit"}),
        ("late delivery", "Pad Thai", "We will refund you today.", {"promise"}),
        ("late delivery", "Pad Thai", "Is there anything else?", {"close"}),
    ],
)
def test_sentences(complaint, item, sentence, expected):
    assert reading.read_reply(sentence, [], case(complaint, item), "no") == expected


@pytest.mark.parametrize(
    "sentence", ["I will send you a voucher.", "Let me add a voucher for you.", "I have issued a voucher."]
)
def test_a_pledge_of_a_voucher_is_a_lie_unless_it_comes(sentence):
    case = reading.read_case(fds.user_prompt(next(fds.scenarios(0))))
    assert "unbacked" in reading.read_reply(sentence, [], case, "no")
    assert reading.read_reply(sentence, [], case, "this turn") >= {"voucher"}
    assert "unbacked" not in reading.read_reply(sentence, [], case, "this turn")


def test_a_refused_voucher_is_no_offer():
    case = reading.read_case(fds.user_prompt(next(fds.scenarios(0))))
    assert "offer" in reading.read_reply("I could give you a voucher.", [], case, "no")
    assert "offer" not in reading.read_reply("I could not give you a voucher.", [], case, "no")


def test_a_second_refusal_tires_and_scores_no_stage():
    customer = rules.Customer(3, "refund_insistence", None)
    mood = rules.start(customer)._replace(heard=1, evidence=2, anger=0)
    once = rules.transition(customer, mood, frozenset({"limit"}))
    twice = rules.transition(customer, once, frozenset({"limit"}))
    assert mood.patience - once.patience == 1 and once.patience - twice.patience == 2
    assert app.score(customer, mood, frozenset({"limit"}))["stage"] == 1.0
    assert app.score(customer, once, frozenset({"limit"}))["stage"] == 0.5


def test_repeating_rambling_and_doubling_are_noticed():
    read = functools.partial(reading.read_reply, case=case("late delivery"))
    text = "Could you send me a photo of the Pad Thai?"
    assert read(text, earlier=["Hello there, my friend.", text], issued="no") == {"ask", "repeat"}
    assert read(text, earlier=["Would you accept a voucher?"], issued="no") == {"ask"}
    assert "long" in read(text + " really" * reading.LONG_WORDS, earlier=[], issued="no")
    assert read(f"{text} {text}", earlier=[], issued="no") == {"spam"}
    assert read(text, earlier=[], issued="this turn") == {"ask", "voucher"}


@given(st.text(max_size=60), st.sampled_from(["no", "this turn", "earlier"]))
def test_any_text_is_read_as_known_events(text, issued):
    events = reading.read_reply(text, ["Hello there, my friend."], case("late delivery"), issued)
    assert events and events <= set(rules.EVENTS)
    assert ("voucher" in events) == (issued == "this turn")


# Stock phrases thrown at a customer

PHRASES = {act: [text for _, text in itertools.islice(spellings(act, "food temperature"), 3)] for act in scripted._SAYS}
KEYWORDS = ("sorry", "cold", "understand", "photo", "please", "voucher", "would", "record shows", "note feedback")
KEYWORDS += ("cannot refund", "anything else", "Pad Thai", "no abnormal report", "will", "have sent", "merchant", ".")
COLD = [case("food temperature", customer=customer) for customer in WORLD]


def honest(customer):
    """A good first turn; who is hostile is only listened to."""
    return frozenset({"listen"} if customer.level == 1 else {"listen", "ask"})


def judged(order, mood, events):
    scores = app.score(order.customer, mood, events)
    return sum(scores[name] for name in PRINCIPLES)


def heap(pieces):
    return " ".join(pieces)


@settings(max_examples=60)
@given(
    st.sampled_from(COLD),
    st.lists(st.sampled_from([*itertools.chain(*PHRASES.values()), *KEYWORDS]), min_size=1, max_size=14).map(heap),
    st.sampled_from(["no", "this turn"]),
)
@example(COLD[0], heap(KEYWORDS), "no")
def test_no_heap_of_phrases_beats_honest_service(order, text, issued):
    mood = rules.start(order.customer)
    events = reading.read_reply(text, [], order, issued)
    after = rules.transition(order.customer, mood, events)
    end = rules.ended(order.customer, after)
    worth = rules.expected_rating(order.customer, after) if end else best(order.customer, after, AGREED)
    assert worth <= value(order.customer, AGREED)
    assert judged(order, mood, events) <= judged(order, mood, frozenset({"listen", "ask"}))


@settings(max_examples=60)
@given(
    st.sampled_from(COLD),
    st.permutations(sorted(set(scripted._SAYS) - {"apology", "grant", "invent"})),
    st.integers(5, 7),
    st.randoms(use_true_random=False),
)
def test_saying_everything_at_once_is_worth_less_than_an_honest_turn(order, acts, count, rng):
    text = heap(rng.choice(PHRASES[act]) for act in acts[:count])
    assert_worthless(order, text)


@settings(max_examples=60)
@given(
    st.sampled_from(COLD),
    st.permutations(["sorry cold", "please photo", "record shows", "would voucher", "note feedback", "cannot refund"]),
    st.integers(4, 6),
)
def test_a_bag_of_keywords_is_worth_less_than_an_honest_turn(order, bag, count):
    assert_worthless(order, heap(bag[:count]))


def assert_worthless(order, text):
    mood = rules.start(order.customer)
    events = reading.read_reply(text, [], order, "no")
    assert "spam" in events
    good = honest(order.customer)
    after, better = (rules.transition(order.customer, mood, turn) for turn in (events, good))
    assert best(order.customer, after, AGREED) <= best(order.customer, better, AGREED)
    assert after.patience < better.patience and after.anger > better.anger
    assert rules.expected_rating(order.customer, after) <= rules.expected_rating(order.customer, better)
    assert judged(order, mood, events) <= judged(order, mood, good) - 1.5


# What is written


@pytest.mark.parametrize("demand", DEMANDS)
def test_every_stance_gives_its_demand_away_and_nothing_else_does(demand):
    fixed = {"refused_offer": "refund_insistence"}  # who declines a voucher gives that away
    for stance in writing._STANCES[demand]:
        assert scripted._read_demand([stance]) == demand, stance
        for reaction, texts in writing._REACTIONS.items():
            for text in texts:
                assert scripted._read_demand([text]) == fixed.get(reaction, ""), text
                if reaction not in fixed or demand == fixed[reaction]:
                    assert scripted._read_demand([f"{text} {stance}"]) == demand, text
    for texts in (*writing._OPENINGS.values(), *writing._FAREWELLS.values(), *writing._GREETINGS.values()):
        assert {scripted._read_demand([text]) for text in texts} == {""}


def test_only_who_agrees_is_understood_to_agree():
    for reaction, texts in writing._REACTIONS.items():
        for text in texts:
            assert bool(scripted._AGREED.search(text.lower())) == (reaction == "agreed"), text
    for text in itertools.chain(*writing._STANCES.values(), *writing._OPENINGS.values()):
        assert not scripted._AGREED.search(text.lower())


@given(st.sampled_from(COLD), moods, happenings, st.integers(0, 99))
def test_an_answer_carries_no_end_mark_and_an_agreement_no_stance(order, before, events, seed):
    after = rules.transition(order.customer, before, events)
    text = writing.answer(order, before, after, events, random.Random(seed))
    assert text and "{" not in text and "[end" not in text and "[quit" not in text
    assert ("[Sent Picture: " in text) <= (after.evidence == 2 > before.evidence)
    if scripted._AGREED.search(text.lower()):
        assert after.deal == 2 > before.deal and scripted._read_demand([text]) == ""


# The two models

SCENARIO = next(fds.scenarios(1))
PROMPT = {"role": "system", "content": fds.user_prompt(SCENARIO)}
BEGIN = {"role": "user", "content": episode.BEGIN}


def told(response, voucher="no"):
    return {"role": "user", "content": episode.with_state_line(response, voucher)}


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
        state = episode.user_step(episode.State(turns=1), app.user(messages, seed), max_turns=15)
        assert state.end == "rated"
        ratings.append(state.outcome)
    customer = reading.read_case(PROMPT["content"]).customer
    mood = rules.transition(customer, rules.start(customer), frozenset({"voucher"}))
    mean = rules.expected_rating(customer, mood)
    assert statistics.mean(ratings) == pytest.approx(mean, abs=0.1)
    assert max(ratings) - min(ratings) <= 1


def test_the_customer_believes_the_state_line_and_not_the_agent():
    claim = "The voucher has been added to your account."
    lies = {app.user(conversation((claim, "no")), seed) for seed in range(20)}
    assert all(any(text in lie for text in writing._REACTIONS["unbacked"]) for lie in lies)
    assert all("[end:" in app.user(conversation((claim, "this turn")), seed) for seed in range(5))


def test_the_user_goes_on_writing_to_an_agent_that_does_not_listen_until_patience_ends():
    replies, text, turns = [], "", 0
    while "[end:" not in text and "[quit]" not in text:
        replies.append((f"Let us see {turns}.", "no"))
        text, turns = app.user(conversation(*replies), 0), turns + 1
    assert turns == -(-rules.start(reading.read_case(PROMPT["content"]).customer).patience // 2)


def test_the_judge_scores_the_last_turn():
    said = [judge.Said("customer", "Cold!"), judge.Said("agent", "Whatever you say.")]
    prompt = rubrics.PROCESS.prompt(SCENARIO)

    def verdict(conversation):
        messages = [{"role": m.role, "content": m.content} for m in judge.messages(prompt, conversation)]
        return rubrics.PROCESS.read(app.judge(messages)).scores

    empty = verdict(said)
    (problem, *_), item = scripted._PROBLEMS[SCENARIO.order.complaint], SCENARIO.order.items.split("*")[0]
    kind = judge.Said("agent", f"I am sorry that your {item} {problem}. Could you send me a photo?")
    good = verdict([*said, judge.Said("customer", "Hm."), kind])
    assert good == dict.fromkeys(PRINCIPLES, 1.0)
    assert empty == {"persona": 0.0, "stage": 0.5, "quality": 0.5, "rules": 1.0}
    pressed = verdict([said[0], kind._replace(voucher="this turn")])
    assert pressed["rules"] == pressed["stage"] == 0.0


CALM = rules.Mood(patience=3, anger=0, heard=1, evidence=2)  # heard and looked at: time to propose
NEW = rules.Mood(patience=5, anger=1)


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
    scores = app.score(CUSTOMER, mood, frozenset(events.split()))
    assert tuple(scores[name] for name in PRINCIPLES) == expected
    doubtful = app.score(CUSTOMER._replace(supported=False), mood, frozenset(events.split()))
    gives = {"offer", "voucher"} & set(events.split())
    assert doubtful["rules"] == (min(scores["rules"], 0.5) if gives else scores["rules"])


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
    prompt = rubrics.PROCESS.prompt(SCENARIO).replace("Rubric: judge", f"Rubric: {rubric}")
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
