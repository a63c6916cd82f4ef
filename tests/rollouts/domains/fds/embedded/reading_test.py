"""What the embedded gym reads in an agent's words and writes in a customer's; that stock phrases pay nothing."""

import functools
import itertools
import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rollouts.domains.fds import generator, scripted
from rollouts.domains.fds.embedded import app, latent, reading, writing
from rollouts.domains.fds.rubrics import PRINCIPLES
from rollouts.domains.fds.scenario import DEMANDS
from tests.builders.customers import AGREED, ANYHOW, CUSTOMER, WORLD, best, happenings, moods, value

# What is read

ITEMS = (*generator._DISHES, *generator._SIDES)


def case(complaint, item="Pad Thai", record="no abnormal report", customer=CUSTOMER):
    return reading.Case(customer, (item,), "Golden Wok", complaint, record, "")


def spellings(act, complaint):
    """(case, text) for every phrase of an act, with all that may stand in it."""
    for phrase in scripted._SAYS[act]:
        for item in ITEMS if "{item}" in phrase else ITEMS[:1]:
            for record in (*generator.COMPLAINTS[complaint][1:], "no abnormal report"):
                for problem in scripted._PROBLEMS[complaint] if "{problem}" in phrase else ("",):
                    for merchant in generator._MERCHANTS if "{merchant}" in phrase else ("",):
                        text = phrase.format(item=item, record=record, problem=problem, merchant=merchant)
                        yield case(complaint, item, record), text


READ_AS = {"explain": {"explain_true"}, "invent": {"explain_false"}, "grant": {"voucher"}}


@pytest.mark.parametrize("complaint", generator.COMPLAINTS)
@pytest.mark.parametrize("act", scripted._SAYS)
def test_every_scripted_phrase_is_read_as_its_act(act, complaint):
    for order, text in spellings(act, complaint):
        issued = "this turn" if act == "grant" else "no"
        assert reading.read_reply(text, [], order, issued) == READ_AS.get(act, {act}), text
        if act == "grant":
            assert reading.read_reply(text, [], order, "no") == {"unbacked"}, text


@pytest.mark.parametrize("complaint", generator.COMPLAINTS)
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
    case = reading.read_case(generator.user_prompt(next(generator.deal_scenarios(0))))
    assert "unbacked" in reading.read_reply(sentence, [], case, "no")
    assert reading.read_reply(sentence, [], case, "this turn") >= {"voucher"}
    assert "unbacked" not in reading.read_reply(sentence, [], case, "this turn")


def test_a_refused_voucher_is_no_offer():
    case = reading.read_case(generator.user_prompt(next(generator.deal_scenarios(0))))
    assert "offer" in reading.read_reply("I could give you a voucher.", [], case, "no")
    assert "offer" not in reading.read_reply("I could not give you a voucher.", [], case, "no")


def test_a_second_refusal_tires_and_scores_no_stage():
    customer = latent.Customer(3, "refund_insistence", None)
    mood = latent.start_mood(customer)._replace(heard=1, evidence=2, anger=0)
    once = latent.apply_events(customer, mood, frozenset({"limit"}))
    twice = latent.apply_events(customer, once, frozenset({"limit"}))
    assert mood.patience - once.patience == 1 and once.patience - twice.patience == 2
    assert app.score_turn(customer, mood, frozenset({"limit"}))["stage"] == 1.0
    assert app.score_turn(customer, once, frozenset({"limit"}))["stage"] == 0.5


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
    assert events and events <= set(latent.EVENTS)
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
    scores = app.score_turn(order.customer, mood, events)
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
@example(COLD[0], "I am sorry to hear that the order arrived cold.", "this turn")  # pleases more than no voucher can
def test_no_heap_of_phrases_beats_honest_service(order, text, issued):
    """A heap with a voucher is compared with honest service that may give one, whenever it pleases most."""
    mood, leave = latent.start_mood(order.customer), ANYHOW if issued == "this turn" else AGREED
    events = reading.read_reply(text, [], order, issued)
    after = latent.apply_events(order.customer, mood, events)
    end = latent.find_end(order.customer, after)
    worth = latent.expected_rating(order.customer, after) if end else best(order.customer, after, AGREED)
    assert worth <= value(order.customer, leave)
    assert judged(order, mood, events) <= judged(order, mood, honest(order.customer))


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
    mood = latent.start_mood(order.customer)
    events = reading.read_reply(text, [], order, "no")
    assert "spam" in events
    good = honest(order.customer)
    after, better = (latent.apply_events(order.customer, mood, turn) for turn in (events, good))
    assert best(order.customer, after, AGREED) <= best(order.customer, better, AGREED)
    assert after.patience < better.patience and after.anger > better.anger
    assert latent.expected_rating(order.customer, after) <= latent.expected_rating(order.customer, better)
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
    after = latent.apply_events(order.customer, before, events)
    text = writing.write_answer(order, before, after, events, random.Random(seed))
    assert text and "{" not in text and "[end" not in text and "[quit" not in text
    assert ("[Sent Picture: " in text) <= (after.evidence == 2 > before.evidence)
    if scripted._AGREED.search(text.lower()):
        assert after.deal == 2 > before.deal and scripted._read_demand([text]) == ""
