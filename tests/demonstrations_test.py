"""Demonstrations: written, read and encoded as sampling them would have encoded them."""

import json

import numpy as np
import pytest

from cmpo import demonstrations
from models import tokenizer as tokenizers
from rollouts import chat
from rollouts.types import Message

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
    return tokenizers.train([message.content for message in TALK], 300)


def test_written_and_read_back(tmp_path):
    demonstrations.write(tmp_path / "d.jsonl", [TALK, TALK[:3]])
    assert demonstrations.read(tmp_path / "d.jsonl") == [TALK, TALK[:3]]
    assert json.loads((tmp_path / "d.jsonl").read_text().splitlines()[1])["messages"][0] == {
        "role": "system",
        "content": "You serve.",
    }
    assert [path.name for path in tmp_path.iterdir()] == ["d.jsonl"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("nonsense", "JSONDecodeError"),
        ('{"text": []}', "KeyError: 'messages'"),
        ('{"messages": [{"role": "user", "content": "x"}]}', "expected the roles"),
        (json.dumps({"messages": [vars(message) for message in TALK[:2]]}), "expected the roles"),
        (json.dumps({"messages": [*map(vars, TALK[:2]), {"role": "assistant", "content": "hi"}]}), "MalformedTurn"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, reason):
    path = tmp_path / "d.jsonl"
    path.write_text(json.dumps({"messages": [vars(message) for message in TALK]}) + "\n" + line + "\n")
    with pytest.raises(ValueError, match=rf"config.sft.path: line 2 of .* is no conversation: .*{reason}"):
        demonstrations.read(path)


def test_missing_and_empty_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="config.sft.path"):
        demonstrations.read(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(ValueError, match="holds no conversation"):
        demonstrations.read(tmp_path / "empty.jsonl")


def test_encoded_as_a_session_would_have_written_it(tokenizer):
    made = demonstrations.encode(tokenizer, TALK, 10_000)
    written = [*tokenizer.encode(ANSWER), tokenizer.im_end]
    opening = chat.encode_opening(tokenizer, TALK[:2])
    reply = chat.encode_reply(tokenizer, Message("user", "Fine."))  # the agent never sees the simulator's marks
    assert made.tokens.tolist() == [*opening, *written, *reply, *written]
    want = [0] * len(opening) + [1] * len(written) + [0] * len(reply) + [1] * len(written)
    np.testing.assert_array_equal(made.mask, np.array(want, bool))


def test_a_demonstration_ends_before_the_turn_that_does_not_fit(tokenizer):
    whole, first = demonstrations.encode(tokenizer, TALK, 10_000), demonstrations.encode(tokenizer, TALK[:3], 10_000)
    size = len(whole.tokens)
    for room, expected in ((size, whole), (size - 1, first), (len(first.tokens), first)):
        np.testing.assert_array_equal(demonstrations.encode(tokenizer, TALK, room).tokens, expected.tokens)
    assert len(demonstrations.encode(tokenizer, TALK, len(first.tokens) - 1).tokens) == 0
