"""What a request may say about tools, and how what is wrong is named."""

import pytest
from hypothesis import given

from rollouts import tool_calls
from rollouts.serving import tool_use
from tests.builders import almost
from tests.builders.tools import BOTH, LIST


def test_what_a_request_may_say():
    def read_use(**request):
        return tool_use.read_tool_use(request)

    nothing = tool_use.ToolUse((), (), False, True)
    assert read_use() == read_use(tools=None) == read_use(tools=[], tool_choice="auto") == nothing
    assert read_use(tool_choice="none", parallel_tool_calls=None) == nothing
    both = tuple(BOTH)
    assert read_use(tools=BOTH) == read_use(tools=BOTH, tool_choice="auto") == (both, both, False, True)
    assert read_use(tools=BOTH, tool_choice="none") == (both, (), False, True)
    assert read_use(tools=BOTH, tool_choice="required", parallel_tool_calls=False) == (both, both, True, False)
    named = {"type": "function", "function": {"name": "list_orders"}}
    assert read_use(tools=BOTH, tool_choice=named, parallel_tool_calls=True) == (both, (LIST,), True, False)
    assert read_use(tools=BOTH, tool_choice=named).names == ["list_orders"]
    full = {"name": "f", "description": None, "parameters": {}, "strict": True}
    assert len(read_use(tools=[{"type": "function", "function": full}]).callable) == 1


def tool(**function):
    return {"type": "function", "function": {"name": "f"} | function}


NAMED = {"type": "function", "function": {"name": "gone"}}


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"tools": {}}, "'tools': expected a list of tools, got {}"),
        ({"tools": ["f"]}, "'tools[0]': expected an object, got 'f'"),
        ({"tools": [LIST, {"type": "function"}]}, "'tools[1].function': expected an object, got None"),
        ({"tools": [LIST | {"type": "web_search"}]}, "'tools[0].type': expected 'function'"),
        ({"tools": [{"function": {"name": "f"}}]}, "'tools[0].type': expected 'function'"),
        ({"tools": [tool(name="")]}, "'tools[0].function.name': expected 1 to 128"),
        ({"tools": [tool(name="a b")]}, "'tools[0].function.name': expected 1 to 128"),
        ({"tools": [tool(name=7)]}, "'tools[0].function.name': expected 1 to 128"),
        ({"tools": [tool(), tool()]}, "'tools[1].function.name': expected different names, got 'f' twice"),
        ({"tools": [tool(description=7)]}, "'tools[0].function.description': expected text, got 7"),
        ({"tools": [tool(parameters=[])]}, "'tools[0].function.parameters': expected a JSON schema, got []"),
        ({"tools": [tool(parameters={"type": "string"})]}, "'tools[0].function.parameters.type': expected 'object'"),
        ({"tools": [tool(strict="yes")]}, "'tools[0].function.strict': expected true or false, got 'yes'"),
        ({"tools": [tool(description="\ud83d")]}, "'tools[0]': expected a tool that can be written as JSON"),
        ({"tools": [tool(x=float("nan"))]}, "'tools[0]': expected a tool that can be written as JSON"),
        ({"tools": BOTH, "tool_choice": "any"}, "'tool_choice': expected auto, none, required or"),
        ({"tools": BOTH, "tool_choice": {"type": "allowed_tools"}}, "'tool_choice': expected auto, none, required or"),
        ({"tools": BOTH, "tool_choice": NAMED}, "'tool_choice.function.name': expected one of find_order, list_orders"),
        ({"tool_choice": NAMED}, "'tool_choice': expected a call of one of 'tools'"),
        ({"tools": [], "tool_choice": "required"}, "'tool_choice': expected a call of one of 'tools'"),
        ({"parallel_tool_calls": 1}, "'parallel_tool_calls': expected true or false, got 1"),
    ],
)
def test_a_wrong_field_is_named(request_, message):
    with pytest.raises(ValueError) as refusal:
        tool_use.read_tool_use(request_)
    assert str(refusal.value).startswith(message)


@given(almost.trees({"tools": BOTH, "tool_choice": NAMED, "parallel_tool_calls": True}))
def test_whatever_a_request_says_is_read_or_refused_by_its_field(request_):
    if not isinstance(request_, dict):
        return
    try:
        use = tool_use.read_tool_use(request_)
    except ValueError as refusal:
        assert str(refusal).startswith(("'tools", "'tool_choice", "'parallel_tool_calls'"))
    else:
        tool_calls.write_system("s", use.offered).encode()
