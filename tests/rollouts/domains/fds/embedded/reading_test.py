"""What holds of reading whatever is said: it ends, knows its events, and does not hang on capitals, spaces or order."""

import itertools
import os
import re
import subprocess
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rollouts.domains.fds.embedded import language, latent, phrases, reading
from rollouts.domains.fds.scenario import Record
from rollouts.domains.fds.words import records
from tests.rollouts.domains.fds.embedded.sentences_test import BANK, CASES, read

ISSUED = ("no", "this turn", "earlier")
PLAIN = [row for row in BANK if "not_understood" not in row[2] and not row[6]]
rows, plain_rows = st.sampled_from(BANK), st.sampled_from(PLAIN)


@given(
    st.text(max_size=300),
    st.lists(st.text(max_size=60), max_size=2),
    st.sampled_from(sorted(CASES)),
    st.sampled_from(ISSUED),
)
@example("", [], "cold", "no")
@example("\u200b\u200c\u2060", [], "cold", "no")
@example("xitem9 x 99 xitem0", [], "cold", "no")
def test_any_text_is_read_as_known_events(text, earlier, name, issued):
    events = read(name, issued, text, earlier)
    assert events and events <= latent.EVENTS.keys()
    assert ("voucher" in events) == (issued == "this turn")


@given(st.lists(rows, min_size=1, max_size=6), st.sampled_from(ISSUED))
def test_any_heap_of_sentences_is_read_as_known_events(heap, issued):
    events = read(heap[0][3], issued, " ".join(row[5] for row in heap), [])
    assert events and events <= latent.EVENTS.keys()


@given(rows)
def test_capitals_spaces_and_quotes_change_nothing(row):
    _, _, _, name, issued, text, earlier = row
    events = read(name, issued, text, earlier)
    assert read(name, issued, text.upper(), earlier) == events
    assert read(name, issued, f" \n {text}  ", earlier) == events
    assert read(name, issued, text.replace("'", "’"), earlier) == events


@given(st.lists(plain_rows, min_size=2, max_size=3, unique_by=lambda row: row[5]), st.randoms(use_true_random=False))
def test_the_order_of_sentences_hides_no_lie_and_no_insult(chosen, rng):
    """What is good may hang on what stands beside it; what is bad is bad wherever it stands."""
    name, issued = chosen[0][3], chosen[0][4]
    texts = [row[5] for row in chosen]
    events = read(name, issued, " ".join(texts), [])
    rng.shuffle(texts)
    assert read(name, issued, " ".join(texts), []) & reading.BAD == events & reading.BAD


@given(plain_rows)
def test_a_greeting_before_it_changes_nothing_that_is_said(row):
    _, _, _, name, issued, text, _ = row
    assert read(name, issued, f"Hello. {text}", []) - {"long"} == read(name, issued, text, []) - {"long"}


@given(plain_rows)
def test_hidden_characters_hide_nothing(row):
    _, _, _, name, issued, text, _ = row
    hidden = "\u200b".join(text)
    bad = read(name, issued, text, []) & {"promise", "unbacked", "rude"}
    assert read(name, issued, hidden, []) >= bad | {"not_understood"}


@given(st.sampled_from(records.list_kinds()), st.data())
def test_a_record_in_any_of_its_wordings_is_true_and_with_another_number_false(kind, data):
    numbers = (data.draw(st.integers(2, 90)),) if kind.numbers else ()
    said, shown = (data.draw(st.sampled_from(records.list_wordings(kind.name, numbers))) for _ in range(2))
    complaint = kind.complaint if kind.complaint != "any" else "late delivery"
    case = next(case for case in CASES.values() if case.complaint == complaint)
    case = case._replace(record=Record("other", records.SAYS[kind.says], numbers, shown))
    for frame in ("Our record shows: {}.", "The log says {}.", "According to our system, {}."):
        assert reading.read_reply(frame.format(said), [], case, "no") == {"explain_true"}
        if numbers and str(numbers[0]) in said:
            other = said.replace(str(numbers[0]), "97")
            assert "explain_false" in reading.read_reply(frame.format(other), [], case, "no")


READ_EVERYTHING = """
from rollouts.domains.fds.embedded import reading
from rollouts.domains.fds.scenario import Record
from rollouts.domains.fds.words import records
from tests.rollouts.domains.fds.embedded.sentences_test import BANK, CASES, read

for _, _, _, name, issued, text, earlier in BANK:
    print(sorted(read(name, issued, text, earlier)), text)
for kind in records.list_kinds():
    wordings = records.list_wordings(kind.name, (4,) if kind.numbers else ())
    case = CASES["late"]._replace(record=Record("other", records.SAYS[kind.says], (4,), wordings[0]))
    for text in wordings:
        print(sorted(reading.read_reply(f"Our log shows: {text}.", [], case, "no")), text)
"""


def test_the_order_of_words_in_a_set_changes_nothing():
    """It is another in each process; with these two seeds, sums of weights once differed in their last bit."""
    said = [
        subprocess.run(
            [sys.executable, "-c", READ_EVERYTHING],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": "."},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        for seed in ("108", "116")
    ]
    assert len(said[0]) > len(BANK)
    assert said[0] == said[1]


def test_a_record_in_the_words_of_another_kind_is_hardly_ever_true():
    wrong = count = 0
    kinds = records.list_kinds()
    for kind, other in itertools.permutations(kinds, 2):
        numbers, others = ((13,) if each.numbers else () for each in (kind, other))
        complaint = kind.complaint if kind.complaint != "any" else "late delivery"
        case = next(case for case in CASES.values() if case.complaint == complaint)
        case = case._replace(record=Record("other", None, numbers, records.list_wordings(kind.name, numbers)[0]))
        said = records.list_wordings(other.name, others)[0]
        wrong += "explain_true" in reading.read_reply(f"Our record shows: {said}.", [], case, "no")
        count += 1
    assert wrong <= 0.005 * count  # 0.3 %: such as "on time" where the record says "early"


def count_steps(text, earlier=()):
    """Lines of Python that reading takes; the patterns run on sentences of bounded length."""
    steps = 0

    def trace(frame, event, argument):
        nonlocal steps
        steps += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        reading.read_reply(text, earlier, CASES["cold"], "no")
    finally:
        sys.settrace(before)
    return steps


@pytest.mark.parametrize(
    "text", ["I will refund ", "would voucher sorry could ", "xqzv ", "a", ". ", '"a": ', "é̀", "\n- ", "the 18:05 "]
)
def test_ten_times_the_text_takes_at_most_ten_times_the_steps(text):
    count_steps(text)  # tables are compiled
    short, long = (count_steps((text * (size // len(text)))[:size], ["."]) for size in (10_000, 100_000))
    assert long <= 12 * short


def test_no_sentence_that_patterns_run_on_is_long():
    text = "sorry would you will refund voucher , " * 5000
    sentences = language.split_sentences(text, ())
    assert all(len(sentence) <= 60 for sentence in sentences)
    assert sum(len(sentence.text) for sentence in sentences) <= 8000
    assert len(max(language.split_sentences("a" * 100_000, ()))[0]) <= 4000


TABLES = [name for name in phrases.load_tables() if name != "idioms" and not name.startswith("group ")]


@pytest.mark.parametrize("table", TABLES)
def test_no_phrase_has_a_gap_without_bound(table):
    """Letters of one word may be any number; words, or a group, may not: their loops could nest."""
    pattern = phrases.compile_table(table, "vouchers?").pattern
    assert not re.search(r"(?<!\\)(?:\.|\))(?:[*+]|\{\d+,\})|\\s[*+]| [*+]", pattern)


def test_a_voucher_that_was_issued_may_be_spoken_of():
    assert read("cold", "no", "I have sent you a voucher.", []) == {"unbacked"}
    assert read("cold", "this turn", "I have sent you a voucher.", []) == {"voucher"}
    assert read("cold", "this turn", "I have sent you a gift card.", []) == {"voucher", "unbacked"}


@given(plain_rows)
def test_spaces_hide_nothing(row):
    _, _, _, name, issued, text, _ = row
    padded = f"Hello.{' ' * 3000}{chr(10) * 3000}{text}"
    assert read(name, issued, padded, []) == read(name, issued, f"Hello.\n{text}", [])


def test_what_is_not_read_counts_as_long():
    seen = "x" * language.READ_CHARACTERS
    assert "long" not in read("cold", "no", seen + "   ", [])
    assert "long" in read("cold", "no", seen + " I have sent you a refund.", [])


def test_words_without_spaces_are_counted():
    assert "long" in read("cold", "no", ",".join(["tea"] * 80), [])
    assert "long" not in read("cold", "no", ", ".join(["tea"] * 40), [])


def test_only_what_is_read_is_normalised_and_kept(monkeypatch):
    """To normalise a run of marks takes the square of its length."""
    lengths = []
    normalise = language.unicodedata.normalize

    def measure(form, text):
        lengths.append(len(text))
        return normalise(form, text)

    monkeypatch.setattr(language.unicodedata, "normalize", measure)
    reply = "A new one: a" + "\u0300\u0316" * 40_000
    assert read("cold", "no", reply, [reply + "!"]) >= {"long", "not_understood"}
    assert lengths and max(lengths) <= language.READ_CHARACTERS
    kept = []
    monkeypatch.setattr(reading, "_read_reply", lambda *seen: kept.append(seen) or frozenset())
    read("cold", "no", reply, [reply])
    (response, earlier, _, _), *_ = kept
    assert len(response) <= language.READ_CHARACTERS and len(earlier[0]) <= language.READ_CHARACTERS


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("r3fund", "refund"),
        ("re/fund", "refund"),
        ("re fund", "refund"),
        ("r.e.f.u.n.d", "refund"),
        ("a r e f u n d", "a refund"),
        ("réfund", "refund"),
        ("idi*t", "idiot"),
        ("the kitchen and/or the courier", "the kitchen and or the courier"),
        ("a burger and fries", "a burger and fries"),
        ("in to", "in to"),
        ("EUR 50 or $ 20", "50 euros or $20"),
    ],
)
def test_disguised_words_are_read_as_what_they_mean(written, meant):
    (sentence,) = language.split_sentences(written, ())
    assert sentence.text == f" {meant} "
