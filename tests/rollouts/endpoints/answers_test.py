"""What a server sends is read strictly, and whatever it sends, only documented errors come of it.

``--hypothesis-profile=100k`` fuzzes for 10^5 cases.
"""

import datetime
import email.utils
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rollouts.endpoints import answers
from rollouts.endpoints.answers import Answer, ErrorBody, NoAnswer
from tests.builders import almost

NOW = datetime.datetime(2026, 3, 1, 12, 0, 0, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 1.5 ", 1.5),
        ("Sun, 01 Mar 2026 12:00:30 GMT", 30.0),
        ("Sunday, 01-Mar-26 12:01:00 GMT", 60.0),
        ("Sun, 01 Mar 2026 14:00:30 +0200", 30.0),
        ("Sun, 01 Mar 2026 12:00:30 -0000", 30.0),
        ("Sun, 01 Mar 2026 11:00:00 GMT", 0.0),  # over already
        (None, 0.0),
        ("", 0.0),
        ("-5", 0.0),
        ("inf", 0.0),
        ("nan", 0.0),
        ("1e9", 0.0),
        ("9" * 5000, 0.0),
        ("٣", 0.0),
        ("soon", 0.0),
        ("Sun, 99 Mar 2026 12:00:30 GMT", 0.0),
    ],
)
def test_retry_after(header, seconds):
    assert answers.read_retry_after(header, NOW) == seconds


def body(content, **fields):
    return json.dumps({"choices": [{"message": {"content": content}}], **fields}, ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        ({"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}, (7, 5)),
        ({"prompt_tokens": 0, "completion_tokens": 0}, (0, 0)),  # which the client does not believe
        ({"prompt_tokens": 7}, (7, None)),
        ({"prompt_tokens": 7, "total_tokens": 12}, (7, 5)),
        ({"completion_tokens": 5, "total_tokens": 12}, (7, 5)),
        ({"total_tokens": 12}, (12, None)),
        ({"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 40}, (7, 33)),  # thoughts, counted nowhere else
        ({"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 0}, (7, 5)),
        ({"prompt_tokens": 7, "total_tokens": 5}, (7, None)),
        ({"completion_tokens": 7, "total_tokens": 5}, (None, 7)),
        ({"prompt_tokens": -1, "completion_tokens": True}, (None, None)),
        ({"prompt_tokens": 1.0, "completion_tokens": "1"}, (None, None)),
        ([], (None, None)),
        (None, (None, None)),
    ],
)
def test_usage(usage, counts):
    assert answers.read_answer(body("Grüß dich.", usage=usage)) == Answer("Grüß dich.", *counts)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig", "latin-1"])
def test_another_encoding_than_utf_8_is_refused(encoding):
    with pytest.raises(ValueError, match="chat completion"):
        answers.read_answer(body("Grüß dich.").decode().encode(encoding))


leaves = st.sampled_from([None, True, 0, -1, 7, 1.5, 10**30, float("nan"), "", " ", "Hi", "\ud800", [], {}, ["Hi"]])


def field(name, inner):
    """A dict with such a field, a list with such a dict, or neither."""
    return st.builds(lambda value, wrap: [value, {name: value}, [{name: value}]][wrap], inner, st.integers(0, 2))


nearly = st.builds(
    lambda choices, usage: {"choices": choices, "usage": usage},
    field("message", field("content", leaves | st.text(max_size=9))),
    leaves | st.builds(lambda a, b: {"prompt_tokens": a, "completion_tokens": b}, leaves, leaves),
)
encodings = st.sampled_from(["utf-8", "utf-16", "utf-8-sig", "latin-1"])


def encoded(value, encoding, length):
    errors = "surrogatepass" if "utf" in encoding else "replace"
    return json.dumps(value, ensure_ascii=False).encode(encoding, errors)[:length]


COMPLETION = {
    "choices": [
        {
            "message": {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]},
                    {"type": "text", "text": "Hi"},
                ],
                "reasoning_content": "Hm.",
                "refusal": None,
                "tool_calls": [],
            },
            "finish_reason": "stop",
            "error": None,
        }
    ],
    "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12},
    "error": None,
}
WORDS = (
    *almost.ODD,
    "<think>",
    "a</think>b",
    "<think>a</think>",
    "length",
    "error",
    "tool_calls",
    "thinking",
    "refusal",
    "<|channel|>final<|message|><think>a</think>b",
    "a</think><thinking>b</thinking>c",
)


@given(
    st.binary(max_size=60)
    | st.builds(encoded, leaves | nearly, encodings, st.none() | st.integers(0, 120))
    | st.builds(encoded, almost.trees(COMPLETION, WORDS), encodings, st.just(10**6))
)
@example(b"[" * 100_000)
@example(b'{"error": ' + b"[" * 100_000)
@example(b'{"choices": [{"message": {"content": [{"type": "text"}]}}]}')
@example(b'{"choices": [{"message": {"content": "\\ud83d"}}]}')
@example(b'{"choices": [{"message": {"content": "x", "reasoning": "\\ud83d"}}]}')
@example(b'{"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": ' + b"9" * 5000 + b"}}")
def test_any_body_is_an_answer_or_a_value_error(sent):
    try:
        answer = answers.read_answer(sent)
    except ErrorBody as error:
        assert str(error) and error.status in (None, *range(400, 600))
        return
    except ValueError:
        return
    assert all(count is None or 0 <= count < 2 * 10**9 for count in (answer.prompt_tokens, answer.answer_tokens))
    for read in (answers.extract_text, answers.extract_turn):
        try:
            text = read(answer)
        except NoAnswer as error:
            assert str(error) and error.cause in ("malformed", "truncated", "refused", "filtered")
        else:
            assert text.encode().decode() == text and (text.strip() or answer.finish == "length")
            assert read(Answer(text, finish=answer.finish)) == text  # what is kept of an answer can be read again
            assert read is answers.extract_turn or (not answer.finish and "think>" not in text)


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"error": {"message": "overloaded", "code": 502}}, 502, "overloaded"),
        ({"error": {"message": "slow down", "code": "429"}}, 429, "slow down"),
        ({"error": {"message": "The engine is overloaded", "type": "server_error", "code": None}}, None, "overloaded"),
        ({"error": {"code": 200, "type": "x"}}, None, "'type': 'x'"),
        ({"error": "out of memory"}, None, "out of memory"),
        ({"object": "error", "message": "no such model", "code": 404}, 404, "no such model"),
        ({"choices": [{"error": {"message": "gone", "code": 503}, "finish_reason": "error"}]}, 503, "gone"),
    ],
)
def test_an_error_sent_as_an_answer_is_an_error(body, status, said):
    with pytest.raises(ErrorBody, match=said) as caught:
        answers.read_answer(json.dumps(body).encode())
    assert caught.value.status == status


def test_a_stream_is_named():
    with pytest.raises(ValueError, match="stream"):
        answers.read_answer(b'data: {"choices": [{"delta": {"content": "Hi"}}]}\n\ndata: [DONE]\n')


@pytest.mark.parametrize(
    ("count", "estimate", "counted"),
    [(None, 7, 7), (7, 100, 100), (0, 1, 1), (9, 100, 100), (10, 100, 10), (5000, 100, 5000)],
)
def test_a_count_is_believed_unless_its_tokens_were_too_long_to_be_true(count, estimate, counted):
    assert answers.plausible_count(count, estimate) == counted


dates = st.builds(
    lambda seconds, cut: email.utils.formatdate(seconds, usegmt=True)[cut:], st.floats(-6e10, 2e11), st.integers(0, 9)
)


@given(st.text(max_size=40) | st.integers().map(str) | st.floats().map(str) | dates)
def test_any_retry_after_is_a_number_of_seconds(header):
    seconds = answers.read_retry_after(header, NOW)
    assert 0 <= seconds < float("inf")


@given(st.integers(0, 10**12))
def test_every_whole_number_of_seconds_is_read(seconds):
    assert answers.read_retry_after(str(seconds), NOW) == (seconds if seconds < 10**12 else 0)


@given(st.datetimes(datetime.datetime(1970, 1, 2), datetime.datetime(2900, 1, 1)))
def test_every_date_is_read(date):
    date = date.replace(microsecond=0, tzinfo=datetime.UTC)
    header = email.utils.format_datetime(date, usegmt=True)
    assert answers.read_retry_after(header, NOW) == max(0.0, (date - NOW).total_seconds())
