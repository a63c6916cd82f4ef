"""Messages: what is written is read back, for every template and signal; how much they vary, and how long they are."""

import functools
import itertools
import random
import re
import statistics
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollouts.domains.fds import generator
from rollouts.domains.fds.embedded import case as cases
from rollouts.domains.fds.embedded import latent, signals, writing
from rollouts.domains.fds.embedded.signals import REACTIONS, STANCES, Signal
from rollouts.domains.fds.scenario import COMPLAINTS
from rollouts.domains.fds.shift import NO_SHIFT, NOISES, Shift
from rollouts.domains.fds.words import bank, decoding

PHRASED = Shift(phrasing=True)
SPLITS = [NO_SHIFT, PHRASED]
OLD_SENTENCES = 309  # different sentences of customers in training, before there were banks


@functools.cache
def list_cases(shift=NO_SHIFT):
    dealt = itertools.islice(generator.deal_scenarios(5, shift=shift), 256)
    return [cases.read_case(generator.user_prompt(scenario)) for scenario in dealt]


TOLD = {
    "stance": st.sampled_from(("", *STANCES)),
    "hint": st.integers(0, 4),
    "picture": st.booleans(),
    "detail": st.booleans(),
    "heat": st.integers(0, 2),
}


def make_signals(kind, *, reaction=("",), rating=(0,), wants=("",)):
    told = {"reaction": reaction, "rating": rating, "wants": wants}
    return st.builds(Signal, kind=st.just(kind), **{name: st.sampled_from(keys) for name, keys in told.items()}, **TOLD)


SIGNALS = st.one_of(
    make_signals("opening", wants=("", "steps", "short")),
    make_signals("answer", reaction=tuple(REACTIONS)),
    make_signals("farewell", rating=range(1, 6)),
    make_signals("walkout"),
)


@pytest.mark.parametrize("facts", [False, True], ids=["usual", "unseen"])
@given(signal=SIGNALS, place=st.integers(0, 255), seed=st.integers(0, 2**32), phrasing=st.booleans())
def test_what_is_written_is_read_back(facts, signal, place, seed, phrasing):
    case = list_cases(Shift(facts=facts))[place]
    text = writing.write_message(signal, case, random.Random(seed), Shift(phrasing=phrasing))
    assert writing.read_message(text) == signal
    assert writing.read_complaint(text) == (case.complaint if signal.kind == "opening" or signal.detail else "")


KINDS = {"openings": "opening", "farewells": "farewell", "walkouts": "walkout"}
FIELDS = {"details": "detail", "stances": "stance", "hints": "hint", "wants": "wants"}


@pytest.mark.parametrize("name", [name for name in decoding.BANKS if name != "fillers"])
def test_every_phrasing_of_a_bank_is_read_as_what_it_means(name):
    values = {"item": "Beef Burger", "merchant": "Golden Wok", "ordered": "18:05", "delivered": "18:53"}
    values |= {"minutes": "48", "price": "12.50", "count": "2"}
    for template in bank.load_bank(name):
        key, *heat = template.section
        mark = f" [end:{key}]" if name == "farewells" else " [quit]" if name == "walkouts" else ""
        host = "" if name in ("openings", "reactions", *KINDS) else "Scroll up. "
        for text in template.texts:
            signal = writing.read_message(host + text.format(**values) + mark)
            assert signal.kind == KINDS.get(name, "answer")
            wanted = {"openings": "", "reactions": key, "farewells": "", "walkouts": ""}.get(name, "asked_again")
            assert signal.reaction == wanted
            assert signal.rating == (int(key) if name == "farewells" else 0)
            assert signal.heat == (int(key) if name == "heat" else int(heat[0]) if heat else 0)
            for bank_name, field in FIELDS.items():
                told = {"detail": True, "hint": key.isdigit() and int(key)}.get(field, key)
                assert getattr(signal, field) == (told if name == bank_name else getattr(Signal(""), field))


@pytest.mark.parametrize("shift", SPLITS, ids=str)
def test_all_that_every_customer_can_tell_is_written_from_the_right_split(shift):
    """Every section of every bank, for 40 customers of all styles."""
    held = {
        held: {text.lower() for text, part in decoding.list_phrasings() if part.bank == "stances"}
        & {
            decoding.mark_slots(text.replace("{price}", "9.90")).lower()
            for template in bank.load_bank("stances")
            if template.held == held
            for text in template.texts
        }
        for held in (False, True)
    }
    assert held[True].isdisjoint(held[False]) and all(held.values())
    found = set()
    for case, (stance, heat) in zip(list_cases(), itertools.cycle(itertools.product(STANCES, range(3))), strict=False):
        text = writing.write_message(Signal("opening", stance=stance, heat=heat), case, random.Random(1), shift)
        sentences = decoding.split_sentences(decoding.mark_slots(text).lower())
        for first, last in itertools.combinations(range(len(sentences) + 1), 2):
            run = " ".join(sentences[first:last])
            if (part := decoding.find_part(run)) and part.bank == "stances":
                found.add(next((is_held for is_held, texts in held.items() if run in texts), None))
    assert found - {None} == {shift.phrasing}


@pytest.mark.parametrize("complaint", COMPLAINTS)
@pytest.mark.parametrize("shift", SPLITS, ids=str)
def test_a_case_of_which_little_is_known_has_words_too(complaint, shift):
    """As the authors' records, which have no times and no prices."""
    for style, level in itertools.product((*bank.STYLES, "says little, and that at length"), range(1, 6)):
        case = list_cases()[level]
        items = tuple(item._replace(name="Crispy Dynamite", price=0) for item in case.items)
        case = case._replace(items=items, ordered="", delivered="", merchant="Roma Way", complaint=complaint)
        case = case._replace(communication_style=style, customer=case.customer._replace(level=level))
        for heat in range(3):
            signal = Signal("opening", stance="refund_only", hint=level % 5, picture=True, detail=True, heat=heat)
            text = writing.write_message(signal, case, random.Random(level), shift)
            assert writing.read_message(text, ("Crispy Dynamite", "Roma Way")) == signal


def test_the_words_fit_the_style():
    case, signal = list_cases()[0], Signal("answer", reaction="empty")
    texts = {}
    for style, letter in bank.STYLES.items():
        of_style = [
            each._replace(communication_style=style)
            for each in list_cases()
            if writing.find_style(each._replace(communication_style=style)) == letter
        ]
        texts[style] = [writing.write_message(signal, each, random.Random(9), NO_SHIFT) for each in of_style]
    assert not any("cannot eat your sorry" in text.lower() for text in texts["polite"])
    assert not any("I take note of the apology" in text for text in texts["blunt and confrontational"])
    lengths = [statistics.mean(len(text) for text in texts[style]) for style in ("terse", "warm and detailed")]
    assert lengths[0] < lengths[1]
    lower = {style: statistics.mean(text == text.lower() for text in found) for style, found in texts.items()}
    assert lower["terse"] > 0.5 and lower["polite"] == 0
    assert lower["plain"] == pytest.approx(writing.LOWER_PERCENT["p"] / 100, abs=0.1)
    assert {writing.find_style(each) for each in list_cases()} == {*bank.STYLES.values(), "n"}
    assert writing.find_style(case) == writing.find_style(case)


def test_who_writes_small_letters_keeps_names_as_they_are():
    found = [case for case in list_cases() if writing.is_lower(case) and case.complaint == "food temperature"]
    texts = [writing.write_message(Signal("opening", heat=1), case, random.Random(2), NO_SHIFT) for case in found]
    named = [text for text, case in zip(texts, found, strict=True) if case.items[0].name in text]
    assert len(named) > 5
    for text, case in zip(texts, found, strict=True):
        rest = text.replace(case.items[0].name, "").replace(case.merchant, "")
        assert rest == rest.lower()


def test_the_same_seed_writes_the_same_and_another_does_not():
    signal = Signal("opening", stance="open", hint=3, detail=True, heat=1, wants="steps")
    for shift in (NO_SHIFT, PHRASED, Shift(noise=tuple(NOISES))):
        write = [
            [writing.write_message(signal, case, random.Random(seed), shift) for case in list_cases()[:30]]
            for seed in (1, 1, 2)
        ]
        assert write[0] == write[1] != write[2]


@pytest.mark.parametrize("kind", NOISES)
def test_noise_is_on_top_and_leaves_the_end_mark(kind):
    signal = Signal("farewell", rating=2, picture=True)
    for case in list_cases()[:40]:
        plain = writing.write_message(signal, case, random.Random(3), NO_SHIFT)
        noisy = writing.write_message(signal, case, random.Random(3), Shift(noise=(kind,)))
        assert noisy.endswith(" [end:2]") and plain.endswith(" [end:2]")
        assert noisy != plain or kind == "typos"


@pytest.mark.parametrize(
    "text, message",
    [
        ("What is this?", r"expected a sentence of the banks, got 'What is this\?'"),
        ("", "expected an opening, an answer with a reaction, a farewell or a walkout"),
        ("Keep it short.", "expected an opening, an answer with a reaction, a farewell or a walkout"),
        ("Scroll up. Listen. See for yourself.", "expected one of reactions in a message, got two"),
        ("Okay then, thanks.", r"expected last words that fit their mark \[end:0\]"),
        ("Okay then, thanks. [end:4]", r"expected last words that fit their mark \[end:4\]"),
        ("Scroll up. [end:3]", r"expected last words that fit their mark \[end:3\]"),
        ("Scroll up. [quit]", "expected an opening, an answer with a reaction, a farewell or a walkout"),
        ("Enough, goodbye.", "expected an opening, an answer with a reaction, a farewell or a walkout"),
    ],
)
def test_what_nobody_wrote_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        writing.read_message(text)


def test_a_signal_that_no_bank_has_is_refused():
    for signal in (Signal("answer"), Signal("answer", reaction="bored"), Signal("opening", heat=3)):
        with pytest.raises(ValueError, match="expected a template with slots among"):
            writing.write_message(signal, list_cases()[0], random.Random(0), NO_SHIFT)


def play(count, shift=NO_SHIFT):
    """What customers of training say to an agent that does one random thing a turn, at most eight turns."""
    deeds = [("listen",), ("listen", "ask"), ("ask",), ("explain_true",), ("probe",), ("offer",), ("close",), ("note",)]
    deeds += [("limit",), ("apology",), ("steps",), ("promise",), ("wrong_fact",), ("nothing",), ("repeat",)]
    for scenario in itertools.islice(generator.deal_scenarios(0, shift=shift), count):
        case, rng = cases.read_case(generator.user_prompt(scenario)), random.Random(scenario.id)
        mood = latent.start_mood(case.customer)
        signal = signals.draw_signal(signals.list_openings(case.customer), rng)
        for _ in range(8):
            yield signal, writing.write_message(signal, case, rng, shift)
            if latent.find_end(case.customer, mood):
                break
            events = frozenset(rng.choice(deeds))
            outcomes = latent.list_outcomes(case.customer, mood, events)
            before, mood = mood, rng.choices([after for _, after in outcomes], [odds for odds, _ in outcomes])[0]
            signal = signals.draw_signal(signals.list_signals(case.customer, before, mood, events), rng)


def test_training_has_ten_times_as_many_different_sentences_as_before():
    """In as many scenarios as reinforcement learning sees; pictures are not counted."""
    said = list(play(1920))
    texts = [re.sub(r"\[[^\]]*\]", "", text) for _, text in said]
    sentences = {sentence for text in texts for sentence in decoding.split_sentences(text)}
    assert len(sentences) >= 10 * OLD_SENTENCES
    words = [len(text.split()) for _, text in said]
    assert statistics.mean(words) < 25
    assert (
        statistics.mean(count for (signal, _), count in zip(said, words, strict=True) if signal.kind == "opening") < 30
    )
    parts = [len(decoding.split_message(text)) for text in texts]
    assert max(parts) <= 6 and statistics.mean(count <= 4 for count in parts) > 0.95


def test_reading_takes_well_under_a_millisecond():
    texts = [text for _, text in play(60)]
    writing.read_message(texts[0])
    begin = time.perf_counter()
    for text in texts:
        writing.read_message(text)
    assert (time.perf_counter() - begin) / len(texts) < 0.001


def test_one_item_is_in_dispute_throughout():
    for case in list_cases():
        values = [writing.list_values(case._replace(customer=each.customer)) for each in list_cases()[:3]]
        assert values[0] == values[1] == values[2]
        assert values[0]["item"] in {item.name for item in case.items}
        minutes = int(values[0]["minutes"])
        assert 24 <= minutes <= 140 and values[0]["price"] in {f"{item.price / 100:.2f}" for item in case.items}
    several = [case for case in list_cases() if case.complaint == "missing items" and len(case.items) > 1]
    assert any(writing.list_values(case)["item"] != case.items[0].name for case in several)
    assert writing.list_values(list_cases()[0]._replace(ordered="23:50", delivered="00:20"))["minutes"] == "30"
