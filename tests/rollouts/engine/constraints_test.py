"""Constrained decoding: whatever is drawn among the allowed tokens follows the schema, and there is always one."""

import json

import jsonschema
import numpy as np
import pytest
import tokenizers as backends
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders

from models.tokenizer import Tokenizer, train_tokenizer
from models.tokenizer_files import SETTINGS
from rollouts import tool_calls
from rollouts.engine.constraints import ConstraintError, Constraints
from tests.builders.drawing import draw_answer

V = 400  # of the model; the tokenizer has fewer
TEXTS = ['<tool_call>\n{"name": "find_order", "arguments": {"number": 4711, "city": "Bern"}}\n</tool_call>'] * 5

PERSON = {  # as pydantic writes them
    "$defs": {"Kind": {"enum": ["adult", "child"], "title": "Kind", "type": "string"}},
    "properties": {
        "kind": {"$ref": "#/$defs/Kind"},
        "age": {"anyOf": [{"minimum": 0, "maximum": 130, "type": "integer"}, {"type": "null"}], "default": None},
        "tags": {"items": {"type": "string", "maxLength": 5}, "maxItems": 3, "title": "Tags", "type": "array"},
        "vip": {"description": "a <think>guest</think> of honour", "type": "boolean"},
    },
    "required": ["kind", "age"],
    "title": "Person",
    "type": "object",
    "additionalProperties": False,
}
SCHEMAS = {
    "any object": None,
    "pydantic": PERSON,
    "numbers": {"type": "array", "items": {"type": "number"}, "minItems": 2},
    "a tree": {"type": "object", "properties": {"inner": {"$ref": "#"}}, "additionalProperties": False},
    "a format": {"type": "string", "format": "uuid"},
    "a pattern": {"type": "string", "pattern": "^[A-Z]{3}-[0-9]{1,4}$"},
    "odd words": {"enum": ["cafe\u0301", "<think>so", "<|im_end|>", "你好 🙂", 'a "b" \\ c\n', ""]},
    "no text": {"const": None},
    "a control token's text": {"const": "<|im_end|>"},
}
TOOLS = [
    {"type": "function", "function": {"name": "find_order", "parameters": PERSON}},
    {"type": "function", "function": {"name": "find_orders", "description": "All of them."}},
    {
        "type": "function",
        "function": {
            "name": "note",
            "parameters": {  # no type: it must be an object all the same
                "properties": {"text": {"type": "string"}, "weight": {"type": "integer", "minimum": 1}},
                "required": ["text"],
                "additionalProperties": False,
            },
        },
    },
]


def with_tags(tokenizer, *tags):
    """A tokenizer that has more tags, as Qwen2.5's has `<tool_call>`: one id each, and no control tokens."""
    backend = backends.Tokenizer.from_str(tokenizer.to_json())
    backend.add_tokens([backends.AddedToken(tag, special=False, normalized=False) for tag in tags])
    return Tokenizer(backend, SETTINGS)


TRAINED = train_tokenizer(TEXTS, 330)
QWEN = with_tags(TRAINED, "<tool_call>", "</tool_call>")
MADE = {"trained": (TRAINED, Constraints(TRAINED, V)), "qwen": (QWEN, Constraints(QWEN, V))}


@pytest.mark.parametrize("schema", SCHEMAS)
@pytest.mark.parametrize("made", MADE)
@settings(max_examples=10)
@given(st.integers(0, 2**32))
def test_whatever_is_drawn_follows_the_schema(made, schema, seed):
    tokenizer, constraints = MADE[made]
    value = json.loads(draw_answer(constraints.constrain_json(SCHEMAS[schema]), tokenizer, V, seed))
    wanted = {"type": "object"} if SCHEMAS[schema] is None else SCHEMAS[schema]
    jsonschema.validate(value, wanted, format_checker=jsonschema.FormatChecker(["uuid"]))


@pytest.mark.parametrize("made", MADE)
@pytest.mark.parametrize("parallel", [True, False])
@settings(max_examples=10)
@given(st.integers(0, 2**32))
def test_whatever_is_drawn_is_calls_of_the_tools(made, parallel, seed):
    tokenizer, constraints = MADE[made]
    text = draw_answer(constraints.constrain_calls(TOOLS, parallel=parallel), tokenizer, V, seed)
    content, calls = tool_calls.read_output(text, TOOLS, key="k")
    assert content is None and (len(calls) >= 1 if parallel else len(calls) == 1)
    parameters = {tool["function"]["name"]: tool["function"].get("parameters") for tool in TOOLS}
    for call in calls:
        jsonschema.validate(json.loads(call.arguments), parameters[call.name] or {"maxProperties": 0})
    if "\\u" not in text:  # control characters may be spelt in two ways
        assert tool_calls.write_calls(None, [call.to_object() for call in calls]) == text


def test_several_calls_come_where_they_may():
    tokenizer, constraints = MADE["qwen"]
    texts = [draw_answer(constraints.constrain_calls(TOOLS), tokenizer, V, seed) for seed in range(20)]
    called = [[call.name for call in tool_calls.read_output(text, TOOLS, key="k").calls] for text in texts]
    assert {name for names in called for name in names} == {"find_order", "find_orders", "note"}
    assert max(map(len, called)) > 1


def test_only_the_named_tool_is_called():
    tokenizer, constraints = MADE["trained"]
    constraint = constraints.constrain_calls(TOOLS, names=["find_orders"], parallel=False)
    assert (
        draw_answer(constraint, tokenizer, V, 0)
        == '<tool_call>\n{"name": "find_orders", "arguments": {}}\n</tool_call>'
    )


@pytest.mark.parametrize("made", MADE)
def test_what_must_be_written_has_the_ids_that_the_tokenizer_gives_it(made):
    tokenizer, constraints = MADE[made]
    text = '<tool_call>\n{"name": "find_orders", "arguments": {}}\n</tool_call>'
    assert ("<tool_call>" in [tokenizer.decode([id]) for id in tokenizer.encode(text)]) == (made == "qwen")
    constraint = constraints.constrain_calls(TOOLS, names=["find_orders"], parallel=False)
    for token in [*tokenizer.encode(text), tokenizer.im_end]:
        assert np.flatnonzero(constraint.allowed()).tolist() == [token]
        constraint.accept(token)


def test_an_answer_may_end_where_it_is_complete():
    tokenizer, constraints = MADE["qwen"]
    constraint = constraints.constrain_json({"type": "integer", "minimum": 1, "maximum": 12})
    one, two = tokenizer.encode("1")[0], tokenizer.encode("2")[0]
    assert not constraint.allowed()[tokenizer.im_end]
    constraint.accept(one)
    assert set(np.flatnonzero(constraint.allowed())) >= {tokenizer.im_end, two}
    constraint.accept(two)
    assert np.flatnonzero(constraint.allowed()).tolist() == [tokenizer.im_end]


def test_a_fork_goes_its_own_way():
    tokenizer, constraints = MADE["qwen"]
    constraint = constraints.constrain_json({"enum": [12, 21]})
    fork = constraint.fork()
    one, two = tokenizer.encode("1")[0], tokenizer.encode("2")[0]
    fork.accept(one)
    assert np.flatnonzero(fork.allowed()).tolist() == [two]
    assert np.flatnonzero(constraint.allowed()).tolist() == sorted([one, two])


def test_a_token_that_is_not_allowed_is_refused():
    tokenizer, constraints = MADE["qwen"]
    constraint = constraints.constrain_json({"type": "boolean"})
    token = tokenizer.encode("x")[0]
    with pytest.raises(ValueError, match=f"the token {token} is not allowed here"):
        constraint.accept(token)
    with pytest.raises(ConstraintError, match="took too much work"):
        constraint.allowed()


def deep(depth):
    return {"type": "object", "properties": {"a": deep(depth - 1)}} if depth else {"type": "string"}


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "array", "uniqueItems": True}, 'Unimplemented keys: \\["uniqueItems"\\]'),
        ({"x-guidance": {"lenient": True}, "if": {}, "type": "object"}, 'Unimplemented keys: \\["if"\\]'),
        ({"type": "nope"}, "Invalid type: nope"),
        ({"type": "integer", "minimum": 5, "maximum": 3}, "Unsatisfiable"),
        ({"$ref": "https://example.com/a.json"}, "is not present"),
        ({"$ref": "#/$defs/gone"}, "does not exist"),
        ({"type": "string", "pattern": "("}, "unclosed group"),
        ({"enum": []}, "Unsatisfiable"),
        ({"const": "\ud83d"}, "hex escape"),
        ({"const": float("nan")}, "expected a JSON schema"),
        (deep(100), "recursion limit"),
        ([], "expected a JSON schema, got list"),
    ],
)
def test_a_schema_that_cannot_be_followed_is_refused_by_its_field(schema, message):
    _, constraints = MADE["qwen"]
    with pytest.raises(ValueError, match=f"^'response_format.json_schema.schema': .*{message}"):
        constraints.constrain_json(schema)
    tool = {"type": "function", "function": {"name": "bad", "parameters": schema or ["x"]}}
    if isinstance(schema, dict) and schema.get("type") in (None, "object"):
        with pytest.raises(ValueError, match=f"^'tools\\[3\\].function.parameters': .*{message}"):
            constraints.constrain_calls([*TOOLS, tool])


def test_there_must_be_a_tool_to_call():
    with pytest.raises(ValueError, match="^'tools': expected one that may be called"):
        MADE["qwen"][1].constrain_calls(TOOLS, names=["nobody"])


def test_a_vocabulary_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=f"at least {QWEN.vocab_size} ids, got 300"):
        Constraints(QWEN, 300)
    content = json.loads(TRAINED.to_json())
    vocabulary = content["model"]["vocab"]
    vocabulary[max(vocabulary, key=vocabulary.get)] = 350
    gapped = Tokenizer(backends.Tokenizer.from_str(json.dumps(content)), SETTINGS)
    with pytest.raises(ValueError, match="without gaps"):
        Constraints(gapped, V)
    backend = backends.Tokenizer.from_str(TRAINED.to_json())
    backend.decoder = decoders.WordPiece()
    with pytest.raises(ValueError, match="does not know this tokenizer: can't determine decoder"):
        Constraints(Tokenizer(backend, SETTINGS), V)
