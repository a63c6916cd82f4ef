"""The text of a turn while it is drawn."""

from hypothesis import given
from hypothesis import strategies as st

from rollouts.serving.text import TextStream
from tests.builders.servers import trained

SILENT = 300


def decode(ids):
    """A vocabulary of bytes, as every vocabulary of Qwen2.5's kind has it at its base."""
    return bytes(ids).decode("utf-8", "replace")


def feed(stream, ids, sizes):
    """Feeds ids in pieces of these sizes; returns what could be shown after each."""
    shown, place = [], 0
    for size in sizes:
        stream.feed(ids[place : place + size])
        shown.append((stream.text, stream.kept))
        place += size
    stream.feed(ids[place:], last=True)
    return [*shown, (stream.text, stream.kept)]


def cut(text, stops):
    found = [text.find(stop) for stop in stops if stop in text]
    return text[: min(found)] if found else text


stops = st.lists(st.sampled_from(["a", "ab", "ba\n", "é", "ß!", "aab", "\N{REPLACEMENT CHARACTER}"]), max_size=3)
words = st.text("abß!é\n€🙂", max_size=12).map(lambda text: list(text.encode()))
sizes = st.lists(st.integers(0, 4), max_size=8)


@given(words, stops, sizes, st.booleans())
def test_pieces_add_up_to_the_text_before_its_first_stop(ids, stops, sizes, ended):
    stream = TextStream(decode, stops, silent=[SILENT])
    shown = feed(stream, [*ids, SILENT] if ended else ids, sizes)
    whole = decode(ids)
    assert stream.text == cut(whole, stops) and stream.stopped == (stream.text != whole)
    for (before, kept), (after, more) in zip(shown, shown[1:], strict=False):
        assert after.startswith(before) and kept <= more
    if not stream.stopped:
        assert stream.kept == len(ids) + ended
    for text, kept in shown:  # tokens are given out with their text, and never before it
        assert decode(ids[:kept]).startswith(text) or text.startswith(decode(ids[:kept]))


@given(st.lists(st.integers(0, 255), max_size=12), sizes)
def test_bytes_that_are_no_text_come_out_as_in_one_piece(ids, sizes):
    """But for a run of more than a character's worth of them, which no tokenizer writes and a model might."""
    shown = feed(TextStream(decode), ids, sizes)
    assert shown[-1][1] == len(ids)
    assert shown[-1][0].replace("\N{REPLACEMENT CHARACTER}", "") == decode(ids).replace("\N{REPLACEMENT CHARACTER}", "")


def test_what_may_become_a_stop_waits_and_so_do_its_tokens():
    stream = TextStream(decode, ["STOP"])
    stream.feed(list(b"we ST"))
    assert (stream.text, stream.kept) == ("we ", 3)
    stream.feed(list(b"ART, ST"))
    assert (stream.text, stream.kept) == ("we START, ", 10)
    stream.feed(list(b"OPPED"))
    assert (stream.text, stream.kept, stream.stopped) == ("we START, ", 10, True)
    stream.feed(list(b"more"), last=True)
    assert stream.text == "we START, "


def test_a_token_that_writes_into_the_stop_is_kept_with_what_it_wrote_before_it():
    tokens = {0: "we", 1: " ST", 2: "OP", 3: " go"}
    stream = TextStream(lambda ids: "".join(tokens[token] for token in ids), ["STOP"])
    stream.feed([0, 1, 2, 3], last=True)
    assert (stream.text, stream.kept) == ("we ", 2)


def test_half_a_character_waits_for_the_other_half():
    stream = TextStream(decode)
    euro = list("€".encode())
    stream.feed(euro[:2])
    assert (stream.text, stream.kept) == ("", 0)
    stream.feed(euro[2:])
    assert (stream.text, stream.kept) == ("€", 3)
    stream.feed(euro[:1], last=True)
    assert (stream.text, stream.kept) == ("€\N{REPLACEMENT CHARACTER}", 4)


@given(st.text(max_size=30), st.lists(st.integers(0, 5), max_size=6))
def test_a_real_tokenizer_gives_the_text_back(text, sizes):
    ids = trained().encode(text)
    expected = trained().decode(ids)
    assert feed(TextStream(trained().decode, silent=[trained().im_end]), ids, sizes)[-1] == (expected, len(ids))
