"""The embedded evaluators: every item by hand, full marks within reach, and scores that the rubrics allow."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollouts.domains.fds import generator, judge, rubrics
from rollouts.domains.fds.embedded import app, evaluators, latent
from rollouts.domains.fds.embedded.case import Case, UnreadablePrompt
from rollouts.domains.fds.embedded.tracing import trace_turns
from rollouts.domains.fds.scenario import Item
from rollouts.domains.fds.shift import NO_SHIFT
from rollouts.domains.fds.words import bank, records
from tests.builders.customers import CUSTOMER

CASE = Case(
    CUSTOMER._replace(demand="compensation_flexible", worth=20),
    (Item("Noodle Soup", 1, 890),),
    "Golden Wok",
    "18:05",
    "19:20",
    "food temperature",
    "food temperature",
    records.read_record("40 minutes between pickup and delivery", True),
    "",
    "plain",
    "calm",
    NO_SHIFT,
)
GOOD = [  # listens, asks, explains, offers, gives
    ("I am sorry that your soup was cold. Could you send me a photo?", "no"),
    ("Our record shows: 40 minutes between pickup and delivery. Would a voucher be welcome?", "no"),
    ("Here you are, I have sent you a voucher.", "this turn"),
]
YES, NO = "Yes, I would accept a voucher.", "No voucher, thanks."


def case(**changes):
    return CASE._replace(customer=CASE.customer._replace(**changes))


def transcript(turns, answer=YES):
    said = [{"role": "customer", "text": "My Noodle Soup was cold.", "voucher": "no"}]
    for text, voucher in turns:
        said += [
            {"role": "agent", "text": text, "voucher": voucher},
            {"role": "customer", "text": answer if "voucher be welcome" in text else "Hm.", "voucher": "no"},
        ]
    return said


def scored(name, turns, of=CASE):
    return evaluators.EVALUATORS[name](of, trace_turns(of, transcript(turns)))


def test_a_good_conversation_has_full_marks():
    for rubric in rubrics.EVALUATORS:
        assert scored(rubric.name, GOOD) == {item: scores[-1] for item, scores in rubric.items.items()}


def test_the_trace_is_what_the_customer_went_through():
    first, second, third = trace_turns(CASE, transcript(GOOD))
    assert first.events == {"listen", "ask"} and first.before == latent.start_mood(CASE.customer)
    ((_, after),) = latent.list_outcomes(CASE.customer, first.before, first.events)
    assert first.after == second.before == after
    assert (second.after.deal, third.after.voucher, third.after.over) == (2, 2, 1)


@pytest.mark.parametrize(
    "answer, deal",
    [
        (YES, 2),
        (NO, 3),
        ("You can stuff your voucher!", 3),
        ("Oh yes, a voucher would be great!", 2),
        ("OH YES, A VUOCHER WOULD BE GREEAT!", 2),  # noise
        ("NO VOUCHER, THNKS 😡", 3),
    ],
)
def test_the_trace_hears_whether_an_offer_was_accepted(answer, deal):
    assert trace_turns(CASE, transcript(GOOD[:2], answer))[-1].after.deal == deal


def test_before_it_is_answered_an_offer_has_gone_the_likelier_way():
    for worth, deal in ((30, 2), (0, 3)):
        of = case(worth=worth, demand="refund_insistence")
        assert trace_turns(of, transcript(GOOD[:2])[:-1])[-1].after.deal == deal


CLOSE = ("Is there anything else I can do?", "no")
ASK = ("Could you send me a photo?", "no")
WINDING = (
    "I am sorry that your soup was cold and that the courier who was meant to come at once took so many detours "
    "through the town before he rang at your door at last, so could you send me a photo of it as soon as you can?"
)
FALSE = {"novelty": 1, "issue_depth": 0, "substance": 1}
RUDE = {"novelty": 1, "sincere": 1, "style_match": 1, "responsiveness": 1, "substance": 1}
LIED = {"novelty": 1, "promise_limits": 1, "sincere": 1, "substance": 1}
CHATTY = " ".join(
    f"{day} is a fine day for a good bowl of soup."
    for day in ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
)


@pytest.mark.parametrize(
    "turns, lower",  # what falls below 2, everything else being at 2
    [
        ([*GOOD[:2], ("As an AI I have sent you a voucher.", "this turn")], {"identity": 0}),
        ([GOOD[0], *GOOD], {"novelty": 1, "transitions": 1, "sentence_variety": 1}),  # said twice
        ([*GOOD, ("Hm.", "earlier")], {"novelty": 1, "focus": 1, "substance": 1}),
        ([*GOOD, ("Hm.", "earlier"), ("Well.", "earlier")], {"novelty": 0, "focus": 0, "substance": 1}),
        ([ASK, *GOOD[1:]], {"style_match": 0, "sincere": 0, "responsiveness": 0, "transitions": 1}),
        ([ASK, ("I understand that cold soup is no fun.", "no"), *GOOD[1:]], {"responsiveness": 1}),
        ([(WINDING, "no")], {"complexity_match": 0, "issue_depth": 1}),
        ([*GOOD, ("We will call you tomorrow.", "earlier")], {"novelty": 1, "promise_limits": 1, "substance": 1}),
        ([(f"{GOOD[0][0]} {CHATTY}", "no"), *GOOD[1:]], {"concise": 1}),
        ([GOOD[0], ("Sorry about this.", "no"), *GOOD[1:]], {"novelty": 1, "sincere": 1, "substance": 1}),
        ([GOOD[0], CLOSE], {"issue_depth": 1}),
        ([CLOSE, *GOOD], {"novelty": 1, "transitions": 0, "responsiveness": 1, "issue_depth": 1}),
        (GOOD[:1], {"issue_depth": 1}),
        ([*GOOD, ("Our record shows that you never complained.", "earlier")], FALSE | {"sincere": 1}),
        ([*GOOD, ("We talk about a Lasagna from Luigi Palace here.", "earlier")], FALSE | {"focus": 1}),
        ([*GOOD, ("You are an idiot.", "earlier")], RUDE),
        ([*GOOD, ("I have just added a 50 dollar coupon.", "earlier")], LIED),
    ],
)
def test_communication_by_hand(turns, lower):
    assert scored("communication", turns) == dict.fromkeys(rubrics.COMMUNICATION.items, 2) | lower


@pytest.mark.parametrize(
    "garbled", ["\u200b\u200b\u200b", "Not right soup. Please photo xx. Accept voucher yes?", "qwpo zzkj"]
)
def test_what_cannot_be_understood_communicates_nothing(garbled):
    assert set(scored("communication", [(garbled, "no")] * 2).values()) == {0}
    mixed = scored("communication", [*GOOD, (garbled, "earlier")])
    assert sum(mixed.values()) < 28 and mixed["focus"] == mixed["user_level"] == 1


NOTE = ("I understand that cold soup upsets you. I will pass your feedback on to the merchant.", "no")
LIMIT = ("I cannot make a refund from here.", "no")
PROMISE = ("You will get a refund soon.", "no")
OFFER = ("Would a voucher be welcome?", "no")
EXPLAIN = ("Our record shows: 40 minutes between pickup and delivery.", "no")
INVENTED = ("Our record shows that all was perfect.", "no")
GIVE = GOOD[2]
INSISTS = case(demand="refund_insistence", worth=5)
AGAINST = case(supported=False)
SPAM = "Sorry cold please photo record shows would voucher note feedback cannot refund. " * 2


@pytest.mark.parametrize(
    "turns, of, lower",  # what falls below the best score
    [
        ([GOOD[0], LIMIT, CLOSE], INSISTS, {}),
        ([GOOD[0], LIMIT, OFFER, GIVE], case(demand="refund_priority", level=4), {}),
        ([GOOD[0], NOTE, CLOSE], case(demand="feedback_focus", worth=3), {}),
        ([ASK, *GOOD[1:]], CASE, {"profiling": 0, "strategy": 0}),
        ([GOOD[0], CLOSE], CASE, {"motive": 1, "strategy": 1}),
        ([GOOD[0], GIVE], CASE, {"motive": 1, "strategy": 0}),
        ([GIVE], CASE, {"profiling": 0, "motive": 0, "strategy": 0, "procedure": 0}),
        ([OFFER, *GOOD], CASE, {"procedure": 0}),
        ([GOOD[0], INVENTED, OFFER, GIVE], CASE, {"truthfulness": 0, "fairness": 0}),
        ([GOOD[0], OFFER, GIVE], case(worth=4), {"strategy": 1}),  # money gone
        ([GOOD[0], EXPLAIN, OFFER, GIVE], AGAINST, {}),
        ([GOOD[0], OFFER, GIVE], AGAINST, {"fairness": 0}),  # not a word on the record
        ([GOOD[0], LIMIT, PROMISE, CLOSE], INSISTS, {"profiling": 1, "truthfulness": 0, "consistency": 0}),
        ([GOOD[0], ("You are an idiot.", "no"), CLOSE], INSISTS, {"motive": 1, "profiling": 1, "fairness": 0}),
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
        ([GOOD[0], OFFER, GIVE], AGAINST, (2, 2, 1)),
        ([GOOD[0], EXPLAIN, OFFER, GIVE], AGAINST, (2, 2, 2)),
        ([GOOD[0], OFFER, GIVE, ("Goodbye to you then.", "earlier")], CASE, (2, 2, 2)),
    ],
)
def test_compensation_by_hand(turns, of, expected):
    assert tuple(scored("compensation", turns, of).values()) == expected


REPLIES = [text for template in bank.load_bank("replies") for text in template.texts]
SAYINGS = st.sampled_from([*REPLIES, SPAM, "Hm.", "", "!?", "ß"])
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
        said.append(judge.Utterance("agent", f"{first} {second}", voucher))
    request = [vars(message) for message in judge.write_request(rubric.write_prompt(scenario), said)]
    if rubric is rubrics.COMPENSATION and voucher == "no":
        with pytest.raises(UnreadablePrompt, match="a voucher was issued"):
            app.judge_conversation(request)
    else:
        answer = app.judge_conversation(request)
        assert rubric.read_answer(answer).reason and answer == app.judge_conversation(request)


def test_every_evaluator_is_embedded():
    assert list(evaluators.EVALUATORS) == [rubric.name for rubric in rubrics.EVALUATORS]
