"""Demonstrations: written, read and encoded as sampling them would have encoded them."""

import contextlib
import gzip
import json
import pathlib
import tempfile

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cmpo.training import demonstrations
from models import tokenizer as tokenizers
from rollouts import chat
from rollouts.domains.fds import turn_format
from rollouts.types import Message
from tests.builders import almost

ANSWER = "<think>a</think><response>b c</response><action>chat</action>"
TALK = [
    Message("system", "You serve."),
    Message("user", "It was cold."),
    Message("assistant", ANSWER),
    Message("user", "Fine. [end:4]"),
    Message("assistant", ANSWER),
]


@pytest.fixture(scope="module")
def tokenizer():
    return tokenizers.train_tokenizer([message.content for message in TALK], 300)


def test_written_and_read_back(tmp_path):
    demonstrations.write_conversations(tmp_path / "d.jsonl", [TALK, TALK[:3]])
    assert demonstrations.read_conversations(turn_format, tmp_path / "d.jsonl") == [TALK, TALK[:3]]
    assert json.loads((tmp_path / "d.jsonl").read_text().splitlines()[1])["messages"][0] == {
        "role": "system",
        "content": "You serve.",
    }
    assert [path.name for path in tmp_path.iterdir()] == ["d.jsonl"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("nonsense", "JSONDecodeError"),
        ('{"text": []}', "messages: expected a list of messages, got none"),
        ('{"messages": [{"role": "user", "content": "x"}]}', "expected the roles"),
        (json.dumps({"messages": [vars(message) for message in TALK[:2]]}), "expected the roles"),
        (json.dumps({"messages": [*map(vars, TALK[:2]), {"role": "assistant", "content": "hi"}]}), "MalformedTurn"),
    ],
)
def test_a_bad_line_is_named(tmp_path, content, reason):
    path = tmp_path / "d.jsonl"
    path.write_text(json.dumps({"messages": [vars(message) for message in TALK]}) + "\n" + content + "\n")
    with pytest.raises(ValueError, match=rf"config.sft.path: line 2 of .* is no conversation: .*{reason}"):
        demonstrations.read_conversations(turn_format, path)


def line(**changes):
    """A line of two messages and an answer; `changes` are of the message with that role, or of the line."""
    messages = [vars(message) | changes.get(message.role, {}) for message in TALK[:3]]
    besides = {name: value for name, value in changes.items() if name not in ("system", "user", "assistant")}
    return json.dumps({"messages": messages} | besides)


def parts(*texts):
    return [{"type": "text", "text": text} for text in texts]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (line(user={"content": None}), r"messages\.1\.content: expected text, got None"),
        (line(assistant={"content": None}), r"messages\.2\.content: expected text, got None"),
        (line(user={"content": 5}), r"messages\.1\.content: expected text, got 5"),
        (line(user={"content": []}), r"messages\.1\.content: expected text, got \[\]"),
        (line(user={"content": {"text": "x"}}), r"messages\.1\.content: expected text, got {'text'"),
        (line(user={"content": ["x"]}), r"messages\.1\.content\.0: expected a part .*, got 'x'"),
        (line(user={"content": [*parts("x"), {"type": "image_url", "image_url": {"url": "x"}}]}), r"content\.1: expec"),
        (line(user={"content": [{"type": "text"}]}), r"content\.0: expected a part"),
        (line(user={"content": [{"type": "text", "text": None}]}), r"content\.0: expected a part"),
        (
            line(user={"content": [{"type": "text", "text": "x", "image": "y"}]}),
            r"content\.0\.image: it would be lost",
        ),
        (line(assistant={"content": parts("<think>a</think>")}), r"messages\.2\.content: MalformedTurn"),
        (line(user={"content": "\ud83d"}), r"messages\.1\.content: expected text, got half a surrogate pair"),
        (line(user={"role": 1}), r"messages\.1\.role: expected text, got 1"),
        (line(user={"role": "developer"}), "expected the roles"),
        (
            line(assistant={"tool_calls": [{"id": "a"}]}),
            r"messages\.2\.tool_calls: it would be lost, as a dialogue cannot hold it",
        ),
        (line(assistant={"function_call": {"name": "f"}}), r"messages\.2\.function_call"),
        (line(assistant={"reasoning_content": "Hm."}), r"messages\.2\.reasoning_content"),
        (line(assistant={"weight": 0}), "expected the roles"),
        (line(user={"weight": 0}), r"messages\.1\.weight: .*got 0"),
        (line(assistant={"train": False}), r"messages\.2\.train: .*got False"),
        (line(tools=[{"type": "function"}]), "tools: it would be lost, as a dialogue cannot hold it"),
        (json.dumps({"messages": "hello"}), "messages: expected a list of messages, got 'hello'"),
        (json.dumps({"messages": ["hello"]}), r"messages\.0: expected an object with role and content, got 'hello'"),
        (line()[:-1] + ', "messages": []}', "a key comes twice"),
        (line()[:-1] + ', "score": NaN}', "NaN is not a number"),
        (line()[:-1] + ', "score": ' + "9" * 5000 + "}", "ValueError"),
        ("[" * 100_000, "RecursionError"),
        ("[]", r"expected a JSON object, got \[\]"),
        (line().replace("cold", "co\x0cld"), "Invalid control character"),
    ],
    ids=lambda value: value[:40],
)
def test_what_is_no_text_is_refused_by_its_line_and_place(tmp_path, content, reason):
    path = tmp_path / "d.jsonl"
    path.write_text(line() + "\n\n" + content + "\n")
    with pytest.raises(
        ValueError, match=f"config.sft.path: line 3 of '{path}' is no conversation: .*{reason}"
    ) as error:
        demonstrations.read_conversations(turn_format, path)
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (line().encode("utf-16"), "UTF-16"),
        (line().encode("utf-16-le"), "JSONDecodeError"),
        (gzip.compress(line().encode()), "gzip"),
        (line().encode().replace(b"cold", b"co\xffld"), "UnicodeDecodeError"),
        (b"PAR1\0\0", "Parquet"),
    ],
    ids=["utf-16", "utf-16-le", "gzip", "latin-1", "parquet"],
)
def test_what_is_no_utf_8_is_named(tmp_path, content, reason):
    (tmp_path / "d.jsonl").write_bytes(content)
    with pytest.raises(ValueError, match=f"config.sft.path: line 1 of '{tmp_path}/d.jsonl' is no conv.*{reason}"):
        demonstrations.read_conversations(turn_format, tmp_path / "d.jsonl")


def test_what_others_write_in_the_format_says_the_same(tmp_path):
    plain = line()
    same = [
        line(user={"content": parts("It was ", "cold."), "name": "ann"}, assistant={"content": parts(ANSWER)}),
        line(assistant={"tool_calls": None, "function_call": {}, "refusal": "", "annotations": [], "weight": 1}),
        line(tools=[], source="forum", reward=3.5),
    ]
    for text in (
        "\n".join([plain, *same]),
        "\ufeff" + "\r\n".join([plain, *same, "", ""]),
        "\n\n".join([plain, *same]),
    ):
        (tmp_path / "d.jsonl").write_text(text, newline="")
        assert demonstrations.read_conversations(turn_format, tmp_path / "d.jsonl") == [TALK[:3]] * 4


@contextlib.contextmanager
def file(content=b""):
    with tempfile.NamedTemporaryFile(dir="/dev/shm" if pathlib.Path("/dev/shm").is_dir() else None) as made:
        made.write(content)
        made.flush()
        yield pathlib.Path(made.name)


@given(st.lists(st.text(), min_size=2, max_size=2))
@example(["\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e", "a\r\nb\rc"])
def test_whatever_is_said_comes_back(said):
    conversation = [Message("system", said[0]), Message("user", said[1]), TALK[2]]
    with file() as path:
        demonstrations.write_conversations(path, [conversation, TALK])
        assert demonstrations.read_conversations(turn_format, path) == [conversation, TALK]


@given(almost.trees(json.loads(line(user={"content": parts("It was cold.")}))))
def test_whatever_a_line_holds_it_is_a_conversation_or_refused_by_the_line(tree):
    with file(json.dumps(tree).encode()) as path:
        try:
            (found,) = demonstrations.read_conversations(turn_format, path)
        except ValueError as error:
            assert str(error).startswith("config.sft.path: ") and str(path) in str(error)
        else:
            assert [message.role for message in found] == ["system", "user", "assistant"]
            assert all(message.content.encode() is not None for message in found)


def test_missing_and_empty_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="config.sft.path"):
        demonstrations.read_conversations(turn_format, tmp_path / "none.jsonl")
    for nothing in (b"", b"\xef\xbb\xbf", b"\n \r\n"):
        (tmp_path / "empty.jsonl").write_bytes(nothing)
        with pytest.raises(ValueError, match=r"config.sft.path: .*empty.jsonl.* holds no conversation"):
            demonstrations.read_conversations(turn_format, tmp_path / "empty.jsonl")


def test_encoded_as_a_session_would_have_written_it(tokenizer):
    made = demonstrations.encode_conversation(tokenizer, turn_format, TALK)
    written = [*tokenizer.encode(ANSWER), tokenizer.im_end]
    opening = chat.encode_opening(tokenizer, TALK[:2])
    reply = chat.encode_reply(tokenizer, [Message("user", "Fine.")])  # the agent never sees the simulator's marks
    assert made.tokens.tolist() == [*opening, *written, *reply, *written]
    want = [0] * len(opening) + [1] * len(written) + [0] * len(reply) + [1] * len(written)
    np.testing.assert_array_equal(made.mask, np.array(want, bool))


def test_a_demonstration_ends_before_the_turn_that_does_not_fit(tokenizer):
    whole, first = (
        demonstrations.encode_conversation(tokenizer, turn_format, TALK),
        demonstrations.encode_conversation(tokenizer, turn_format, TALK[:3]),
    )
    size = len(whole.tokens)
    for room, expected in ((size, whole), (size - 1, first), (len(first.tokens), first)):
        np.testing.assert_array_equal(
            demonstrations.encode_conversation(tokenizer, turn_format, TALK, room).tokens, expected.tokens
        )
    assert len(demonstrations.encode_conversation(tokenizer, turn_format, TALK, len(first.tokens) - 1).tokens) == 0
