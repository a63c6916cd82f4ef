"""Tools: the prompt against Qwen2.5's own template, the reading of what a model writes, whole and in pieces."""

import json

import pytest
import tokenizers as backends
import transformers
from hypothesis import example, given, settings
from hypothesis import strategies as st

from models import tokenizer
from models.tokenizer_files import SETTINGS
from rollouts import chat, tool_calls
from rollouts.types import Message
from tests.builders import almost, qwen_template
from tests.builders.tools import BOTH, LIST

WRITTEN = """Be kind.

# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{"type": "function", "function": {"name": "find_order", "description": "Finds an order, s'il vous plaît: <fast> & “sure”.", "parameters": {"type": "object", "properties": {"number": {"type": "integer"}}, "required": ["number"]}}}
{"type": "function", "function": {"name": "list_orders"}}
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call>"""  # noqa: E501

CALL = '<tool_call>\n{"name": "find_order", "arguments": {"number": 4711}}\n</tool_call>'
OTHER = '<tool_call>\n{"name": "list_orders", "arguments": {}}\n</tool_call>'


def openai_call(name, arguments, **more):
    return {"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}} | more


def read(text, offered=BOTH, **options):
    content, calls = tool_calls.read_output(text, offered, key="k", **options)
    return content, [(call.name, call.arguments) for call in calls]


# The prompt.


def test_the_system_message_is_qwens():
    assert tool_calls.write_system("Be kind.", BOTH) == WRITTEN
    assert tool_calls.write_system(None, BOTH) == WRITTEN.removeprefix("Be kind.\n\n")
    assert [tool_calls.write_system(system, []) for system in ("Be kind.", None)] == ["Be kind.", ""]


def test_calls_of_a_history_are_written_as_the_model_writes_them():
    number = openai_call("find_order", '{"number":4711}')
    assert tool_calls.write_calls("", [number]) == tool_calls.write_calls(None, [number]) == CALL
    assert tool_calls.write_calls("Wait.", [number, openai_call("list_orders", " {} ")]) == f"Wait.\n{CALL}\n{OTHER}"


def test_a_message_of_tau2s_client_is_written():
    """It has no content, and each call a name of its own beside the function's."""
    call = openai_call("find_order", '{"number": 4711}') | {"name": "find_order"}
    message = {"role": "assistant", "tool_calls": [call]}
    assert tool_calls.write_calls(message.get("content"), message["tool_calls"]) == CALL


@pytest.mark.parametrize(
    ("calls", "message"),
    [
        ("x", "'messages\\[2\\].tool_calls': expected a list of tool calls, got 'x'"),
        (["x"], "'messages\\[2\\].tool_calls\\[0\\]': expected an object, got 'x'"),
        ([{"id": "1"}], "'messages\\[2\\].tool_calls\\[0\\].function': expected an object, got None"),
        ([openai_call('a"b', "{}")], "'messages\\[2\\].tool_calls\\[0\\].function.name': expected 1 to 128"),
        (
            [openai_call("a", {})],
            "'messages\\[2\\].tool_calls\\[0\\].function.arguments': expected a JSON object as text",
        ),
        (
            [openai_call("a", "{}"), openai_call("a", "[1]")],
            "tool_calls\\[1\\].function.arguments': expected a JSON obj",
        ),
        ([openai_call("a", '{"b": 1')], "tool_calls\\[0\\].function.arguments': expected a JSON obj"),
        ([openai_call("a", "{} {}")], "tool_calls\\[0\\].function.arguments': expected a JSON obj"),
        ([openai_call("a", '{"b": NaN}')], "tool_calls\\[0\\].function.arguments': expected a JSON obj"),
        ([openai_call("a", '{"b": "\\ud83d"}')], "tool_calls\\[0\\].function.arguments': expected a JSON obj"),
        ([openai_call("a", '{"b":' * 100_000)], "tool_calls\\[0\\].function.arguments': expected a JSON obj"),
    ],
)
def test_what_is_no_call_is_refused_by_its_field(calls, message):
    with pytest.raises(ValueError, match=message):
        tool_calls.write_calls(None, calls, field="messages[2].tool_calls")


@pytest.fixture(scope="module")
def trained():
    """A tokenizer that has a token for each tag, as Qwen2.5's has."""
    made = tokenizer.train_tokenizer([WRITTEN, CALL, OTHER, "system user assistant tool_response"] * 3, 400)
    backend = backends.Tokenizer.from_str(made.to_json())
    tags = ("<tool_call>", "</tool_call>")
    backend.add_tokens([backends.AddedToken(tag, special=False, normalized=False) for tag in tags])
    return tokenizer.Tokenizer(backend, SETTINGS | {"chat_template": qwen_template.TEMPLATE})


@pytest.fixture(scope="module")
def reference(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer")
    trained.save(path)
    return transformers.AutoTokenizer.from_pretrained(path)


words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<|"), max_size=12).map(str.strip)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | words,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(words, inner, max_size=2),
    max_leaves=4,
)
objects = st.dictionaries(words, values, max_size=3)
conversations = st.lists(
    st.tuples(
        words, words, st.lists(st.tuples(st.sampled_from(["find_order", "x.y-Z_1"]), objects, words), max_size=3)
    ),
    min_size=1,
    max_size=3,
)


@settings(max_examples=60)
@given(st.none() | words, conversations, objects)
def test_the_stream_is_the_conversation_rendered_by_transformers(trained, reference, system, exchanges, schema):
    """System, tools, user, assistant with calls, their results, user, and so on, as ids."""
    offered = [*BOTH, {"type": "function", "function": {"name": "x.y-Z_1", "parameters": schema}}]
    theirs = [] if system is None else [{"role": "system", "content": system}]
    ours = [
        Message("system", tool_calls.write_system(trained.find_default_system() if system is None else system, offered))
    ]
    for user, content, calls in exchanges:
        theirs.append({"role": "user", "content": user})
        ours.append(Message("user", user))
        functions = [{"function": {"name": name, "arguments": arguments}} for name, arguments, _ in calls]
        theirs.append({"role": "assistant", "content": content, "tool_calls": functions})
        sent = [openai_call(name, json.dumps(arguments, indent=1)) for name, arguments, _ in calls]
        ours.append(Message("assistant", tool_calls.write_calls(content, sent)))
        theirs += [{"role": "tool", "content": result} for _, _, result in calls]
        ours += [Message("tool", result) for _, _, result in calls]
    theirs.append({"role": "user", "content": "And?"})
    ours.append(Message("user", "And?"))
    rendered = reference.apply_chat_template(
        theirs, tools=offered, tokenize=True, return_dict=False, add_generation_prompt=True
    )
    assert chat.encode_opening(trained, ours) == rendered


# What the model writes.


@pytest.mark.parametrize(
    ("text", "content", "calls"),
    [
        (CALL, None, [("find_order", '{"number": 4711}')]),
        (f"{CALL}\n{OTHER}", None, [("find_order", '{"number": 4711}'), ("list_orders", "{}")]),
        (f" \n{CALL}{OTHER}\n ", None, [("find_order", '{"number": 4711}'), ("list_orders", "{}")]),
        (f"  Let me see.\n\n{CALL}", "  Let me see.", [("find_order", '{"number": 4711}')]),
        (f"A {CALL} B \n{OTHER}\tC\n", "A\nB\nC", [("find_order", '{"number": 4711}'), ("list_orders", "{}")]),
        (
            '<tool_call>{"arguments":{"a":"</tool_call>\\u00fc\\"<tool_call>"},"n":1,"name":"list_orders"}</tool_call>',
            None,
            [("list_orders", '{"a": "</tool_call>ü\\"<tool_call>"}')],
        ),
    ],
)
def test_calls_are_read(text, content, calls):
    assert read(text) == (content, calls)


MALFORMED = {
    "broken JSON": '<tool_call>\n{"name": "list_orders", "arguments": {}\n</tool_call>',
    "a comma too many": '<tool_call>\n{"name": "list_orders", "arguments": {},}\n</tool_call>',
    "Python": "<tool_call>\n{'name': 'list_orders', 'arguments': {}}\n</tool_call>",
    "arguments in a list": '<tool_call>\n{"name": "list_orders", "arguments": []}\n</tool_call>',
    "arguments as text": '<tool_call>\n{"name": "list_orders", "arguments": "{}"}\n</tool_call>',
    "no arguments": '<tool_call>\n{"name": "list_orders"}\n</tool_call>',
    "an unknown tool": '<tool_call>\n{"name": "drop_tables", "arguments": {}}\n</tool_call>',
    "no name": '<tool_call>\n{"arguments": {}}\n</tool_call>',
    "a name that is none": '<tool_call>\n{"name": ["list_orders"], "arguments": {}}\n</tool_call>',
    "no object": '<tool_call>\n["list_orders", {}]\n</tool_call>',
    "two objects": '<tool_call>\n{"name": "list_orders", "arguments": {}}\n{}\n</tool_call>',
    "nothing": "<tool_call>\n</tool_call>",
    "an unclosed tag": '<tool_call>\n{"name": "list_orders", "arguments": {}}\n',
    "an unclosed tag before a call": f"<tool_call>\n{CALL}",
    "an unopened tag": f"</tool_call>\n{CALL}",
    "an unopened tag in the end": f"{CALL}\n</tool_call>",
    "half a surrogate pair": '<tool_call>\n{"name": "list_orders", "arguments": {"a": "\\ud83d"}}\n</tool_call>',
    "not a number": '<tool_call>\n{"name": "list_orders", "arguments": {"a": NaN}}\n</tool_call>',
    "a number without end": '<tool_call>\n{"name": "list_orders", "arguments": {"a": 1e999}}\n</tool_call>',
    "too many digits": f'<tool_call>\n{{"name": "list_orders", "arguments": {{"a": {"9" * 5000}}}}}\n</tool_call>',
    "too many brackets": '<tool_call>\n{"name": "list_orders", "arguments": ' + '{"a": ' * 100_000,
    "a good one and a bad one": f"{CALL}\n<tool_call>\n{{}}\n</tool_call>",
}


@pytest.mark.parametrize("kind", MALFORMED)
@pytest.mark.parametrize("text", ["@", " Well:\n@ \n", "@\nAnd @"])
def test_a_malformed_call_makes_all_of_it_text_as_written(kind, text):
    text = text.replace("@", MALFORMED[kind])
    assert read(text) == (text, [])


@pytest.mark.parametrize("text", ["", " ", "\n\t\u00a0\n"])
@pytest.mark.parametrize("offered", [[], BOTH])
def test_an_answer_is_never_empty(text, offered):
    assert read(text, offered) == (tool_calls.SILENCE, []) and tool_calls.SILENCE.strip()


def test_words_stay_as_written():
    for text in (" Hello \n", "a < b <tool", "<tool_calls>", "<TOOL_CALL>"):
        assert read(text) == read(text, []) == (text, [])


def test_without_tools_a_call_is_text():
    assert read(CALL, []) == (CALL, [])
    assert read(CALL, [LIST]) == (CALL, [])  # of those that may be called


def test_where_calls_may_not_be_parallel_the_answer_ends_with_the_first():
    first = ("A", [("find_order", '{"number": 4711}')])
    assert read(f"A\n{CALL}\nB\n{OTHER}\nC", parallel=False) == first
    assert read(f"A\n{CALL}\n<tool_call>\nnonsense", parallel=False) == first
    assert read(f"<tool_call>nonsense{CALL}", parallel=False) == (f"<tool_call>nonsense{CALL}", [])


def test_ids_come_from_the_key_alone():
    def ids(key):
        return [call.id for call in tool_calls.read_output(CALL + CALL, BOTH, key=key).calls]

    assert ids("a") == ids("a") and len({*ids("a"), *ids("b")}) == 4
    assert all(id.startswith("call_") and len(id) == 29 for id in ids("a"))


def test_a_call_is_written_as_the_protocol_has_it():
    (call,) = tool_calls.read_output(CALL, BOTH, key="k").calls
    assert call.to_object() == openai_call("find_order", '{"number": 4711}', id=call.id)


@given(words, st.lists(st.tuples(st.sampled_from(["find_order", "list_orders"]), objects), min_size=1, max_size=3))
def test_what_is_read_is_written_again(content, calls):
    text = tool_calls.write_calls(content, [openai_call(name, json.dumps(arguments)) for name, arguments in calls])
    found = tool_calls.read_output(text, BOTH, key="k")
    assert found.content == (content or None)
    assert [(call.name, json.loads(call.arguments)) for call in found.calls] == calls
    assert tool_calls.write_calls(found.content, [call.to_object() for call in found.calls]) == text


FRAGMENTS = (
    *(CALL, OTHER, "<tool_call>", "</tool_call>", "<tool", "_call>", "<", "</tool", *list(MALFORMED.values())[:12]),
    *(" ", "\n", "\n\n", "\t", "Hello", "Süß 🙂", '{"name": "list_orders", "arguments": {}}', "{}", ""),
)
GOOD = [f"{before}{CALL}{between}{OTHER}{after}" for before in ("", "Hi\n") for between in "\nx" for after in ("", "y")]
TEXTS = st.lists(st.sampled_from(FRAGMENTS), max_size=6).map("".join) | almost.texts(GOOD, FRAGMENTS)


@settings(max_examples=500)
@given(TEXTS, st.lists(st.integers(0, 300), max_size=12), st.booleans(), st.sampled_from([BOTH, [LIST], []]))
@example(CALL, list(range(100)), True, BOTH)
@example(f"Hi \n{CALL}\n</tool_call>", list(range(100)), True, BOTH)
@example(" \n <tool", list(range(10)), True, BOTH)
@example("", [], True, BOTH)
def test_pieces_give_the_same_answer_as_the_whole(text, cuts, parallel, offered):
    content, calls = tool_calls.read_output(text, offered, key="k", parallel=parallel)
    reader = tool_calls.OutputReader(offered, key="k", parallel=parallel)
    ends = [*sorted(min(cut, len(text)) for cut in cuts), len(text)]
    sent = "".join(reader.feed(text[start:end]) for start, end in zip([0, *ends], ends, strict=False))
    rest, found = reader.finish()
    assert sent + rest == (content or "") and found == calls
    assert text.startswith(sent)


def test_words_are_sent_at_once_and_what_may_be_a_call_is_held():
    reader = tool_calls.OutputReader(BOTH, key="k")
    pieces = ["Let", " me", " see", ".", "\n", "a <", "b", " <tool", "_", "call>", *OTHER.removeprefix("<tool_call>")]
    sent = [reader.feed(piece) for piece in pieces]
    assert sent == ["Let", " me", " see", ".", "", "\na", " <b", *[""] * (len(pieces) - 7)]
    rest, calls = reader.finish()
    assert rest == "" and [call.name for call in calls] == ["list_orders"]


def test_without_tools_only_the_space_at_the_end_is_held():
    reader = tool_calls.OutputReader([], key="k")
    assert [reader.feed(piece) for piece in ("\n", "<tool_call>", "x ", "y")] == ["", "\n<tool_call>", "x", " y"]
    assert reader.finish() == ("", [])


def test_of_a_forced_answer_that_was_cut_off_the_whole_calls_are_left():
    """Nothing but calls could be written, so its end is the beginning of one more."""
    for cut in ("", "\n<tool", "\n<tool_call>\n", '\n<tool_call>\n{"name": "list_o'):
        found = tool_calls.read_output(CALL + cut, BOTH, key="k", forced=True)
        assert found == tool_calls.read_output(CALL, BOTH, key="k")
        reader = tool_calls.OutputReader(BOTH, key="k", forced=True)
        assert [reader.feed(piece) for piece in (CALL[:20], CALL[20:] + cut)] == ["", ""]
        assert reader.finish() == ("", found.calls)
    assert tool_calls.read_output(CALL[:-3], BOTH, key="k", forced=True).calls == []
