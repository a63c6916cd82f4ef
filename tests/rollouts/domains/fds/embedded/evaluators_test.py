"""The embedded evaluators: every item by hand, full marks within reach, and scores that the rubrics allow."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollouts.domains.fds import generator, judge, rubrics, scripted
from rollouts.domains.fds.embedded import app, evaluators, latent, reading
from rollouts.domains.fds.embedded.reading import Case

CASE = Case(
    latent.Customer(3, "compensation_flexible", True),
    ("Noodle Soup",),
    "Golden Wok",
    "food temperature",
    "courier held the food 40 minutes",
    "plain",
)
GOOD = [  # listens, asks, explains, offers, gives
    ("I am sorry that your soup was cold. Could you send me a photo?", "no"),
    ("Our record shows: courier held the food 40 minutes. Would a voucher be welcome?", "no"),
    ("Here you are, I have sent you a voucher.", "this turn"),
]


def case(**changes):
    return CASE._replace(customer=CASE.customer._replace(**changes))


def transcript(turns):
    said = [{"role": "customer", "text": "Cold!", "voucher": "no"}]
    for text, voucher in turns:
        said += [
            {"role": "agent", "text": text, "voucher": voucher},
            {"role": "customer", "text": "Hm.", "voucher": "no"},
        ]
    return said


def scored(name, turns, of=CASE):
    return evaluators.EVALUATORS[name](of, evaluators.trace_turns(of, transcript(turns)))


def test_a_good_conversation_has_full_marks():
    for rubric in rubrics.EVALUATORS:
        assert scored(rubric.name, GOOD) == {item: scores[-1] for item, scores in rubric.items.items()}


def test_the_trace_is_what_the_customer_went_through():
    first, second, third = evaluators.trace_turns(CASE, transcript(GOOD))
    assert first.events == {"listen", "ask"} and first.before == latent.start_mood(CASE.customer)
    assert first.after == second.before == latent.apply_events(CASE.customer, first.before, first.events)
    assert (second.after.deal, third.after.voucher, third.after.over) == (2, 2, 1)


CLOSE = ("Is there anything else I can do?", "no")
ASK = ("Could you send me a photo?", "no")
WINDING = (
    "I am sorry that your soup was cold and that the courier who was meant to come at once took so many detours "
    "through the town before he rang at your door at last, so could you send me a photo of it as soon as you can?"
)
LEARNED = "Regrettably, temperature irregularities necessitate photographic documentation."
CHATTY = " ".join(
    f"{day} is a fine day for soup." for day in ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
)


@pytest.mark.parametrize(
    "turns, lower",  # what falls below 2, everything else being at 2
    [
        ([*GOOD[:2], ("As an AI I have sent you a voucher.", "this turn")], {"identity": 0}),
        (
            [GOOD[0], *GOOD],  # said twice, which angers, and nobody listens any more
            {"novelty": 1, "transitions": 1, "sentence_variety": 1, "style_match": 1},
        ),
        ([*GOOD, ("Hm.", "earlier")], {"focus": 1, "substance": 1}),
        ([*GOOD, ("Hm.", "earlier"), ("Well.", "earlier")], {"focus": 0, "substance": 1}),
        ([ASK, *GOOD[1:]], {"style_match": 0, "responsiveness": 0}),
        ([ASK, ("I understand that cold soup is no fun.", "no"), *GOOD[1:]], {"responsiveness": 1}),
        ([(WINDING, "no")], {"complexity_match": 0, "issue_depth": 1}),
        (
            [(LEARNED, "no")],  # nobody knows what that is about
            {"user_level": 0, "focus": 1, "substance": 0, "style_match": 0, "responsiveness": 0, "issue_depth": 0},
        ),
        ([*GOOD, ("We will call you tomorrow.", "earlier")], {"promise_limits": 1, "substance": 1}),
        ([(f"{GOOD[0][0]} {CHATTY}", "no"), *GOOD[1:]], {"concise": 1}),
        ([GOOD[0], ("Sorry about this.", "no"), *GOOD[1:]], {"sincere": 1, "substance": 1, "style_match": 1}),
        ([GOOD[0], CLOSE], {"issue_depth": 1}),
        ([CLOSE, *GOOD], {"style_match": 1, "transitions": 1, "responsiveness": 1}),
        (GOOD[:1], {"issue_depth": 1}),
    ],
)
def test_communication_by_hand(turns, lower):
    assert scored("communication", turns) == dict.fromkeys(rubrics.COMMUNICATION.items, 2) | lower


NOTE = ("I understand that cold soup upsets you. I will pass your feedback on to the merchant.", "no")
LIMIT = ("I cannot make a refund from here.", "no")
PROMISE = ("You will get a refund soon.", "no")
OFFER = ("Would a voucher be welcome?", "no")
INVENTED = ("Our record shows that all was perfect.", "no")
GIVE = GOOD[2]
INSISTS = case(demand="refund_insistence")
SPAM = "Sorry cold please photo record shows would voucher note feedback cannot refund. " * 2


@pytest.mark.parametrize(
    "turns, of, lower",  # what falls below the best score
    [
        ([GOOD[0], LIMIT, CLOSE], INSISTS, {}),
        ([GOOD[0], LIMIT, OFFER, GIVE], case(demand="refund_priority", level=4), {}),
        ([GOOD[0], NOTE], case(demand="feedback_focus"), {}),
        ([ASK, *GOOD[1:]], CASE, {"profiling": 0}),
        ([GOOD[0], CLOSE], CASE, {"motive": 1, "strategy": 1}),
        ([GOOD[0], GIVE], CASE, {"motive": 1, "strategy": 0}),
        ([GIVE], CASE, {"profiling": 0, "motive": 0, "strategy": 0, "procedure": 0}),
        ([OFFER, *GOOD], CASE, {"procedure": 0}),
        ([GOOD[0], INVENTED, OFFER, GIVE], CASE, {"truthfulness": 0}),
        (GOOD, case(supported=False), {"strategy": 1, "fairness": 0}),
        ([GOOD[0], LIMIT, PROMISE, CLOSE], INSISTS, {"profiling": 1, "truthfulness": 0, "consistency": 0}),
        ([GOOD[0], OFFER, GIVE], INSISTS, {"motive": 1, "strategy": 0, "consistency": 0}),
        (GOOD[:1], CASE, {"motive": 1, "strategy": 1, "closing": 0}),
        ([(SPAM, "no")], CASE, {"profiling": 0, "motive": 0, "strategy": 1, "closing": 0, "out_of_domain": 0}),
    ],
)
def test_logic_by_hand(turns, of, lower):
    best = {item: scores[-1] for item, scores in rubrics.LOGIC.items.items()}
    assert scored("logic", turns, of) == best | lower


@pytest.mark.parametrize(
    "turns, of, expected",  # negotiated, timing, evidence
    [
        ([GIVE], CASE, (0, 0, 0)),
        ([OFFER, GIVE], CASE, (1, 0, 0)),
        ([ASK, GIVE], CASE, (0, 1, 2)),
        ([GOOD[0], GIVE], CASE, (0, 2, 2)),
        ([GOOD[0], OFFER, GIVE], case(supported=None), (2, 2, 2)),
        ([GOOD[0], OFFER, GIVE], case(supported=False), (2, 2, 1)),
        ([GOOD[0], OFFER, GIVE, ("Goodbye to you then.", "earlier")], CASE, (2, 2, 2)),
    ],
)
def test_compensation_by_hand(turns, of, expected):
    assert tuple(scored("compensation", turns, of).values()) == expected


SAYINGS = st.sampled_from([*(text for texts in scripted._SAYS.values() for text in texts), SPAM, "Hm.", "", "!?", "ß"])
SCENARIOS = [next(generator.deal_scenarios(seed)) for seed in range(8)]


@given(
    st.sampled_from(SCENARIOS),
    st.sampled_from(rubrics.EVALUATORS),
    st.lists(st.tuples(SAYINGS, SAYINGS, st.booleans()), min_size=1, max_size=6),
)
def test_whatever_was_said_the_answer_follows_the_rubric(scenario, rubric, turns):
    said, voucher = [], "no"
    for first, second, gives in turns:
        voucher = "this turn" if gives and voucher == "no" else "earlier" if voucher != "no" else "no"
        said.append(judge.Said("agent", f"{first} {second}", voucher))
    request = [vars(message) for message in judge.write_request(rubric.write_prompt(scenario), said)]
    if rubric is rubrics.COMPENSATION and voucher == "no":
        with pytest.raises(reading.UnreadablePrompt, match="a voucher was issued"):
            app.judge_conversation(request)
    else:
        answer = app.judge_conversation(request)
        assert rubric.read_answer(answer).reason and answer == app.judge_conversation(request)


def test_every_evaluator_is_embedded():
    assert list(evaluators.EVALUATORS) == [rubric.name for rubric in rubrics.EVALUATORS]
