"""Tools of a request, in the OpenAI protocol."""

FIND = {
    "type": "function",
    "function": {
        "name": "find_order",
        "description": "Finds an order, s'il vous plaît: <fast> & “sure”.",
        "parameters": {"type": "object", "properties": {"number": {"type": "integer"}}, "required": ["number"]},
    },
}
LIST = {"type": "function", "function": {"name": "list_orders"}}
BOTH = [FIND, LIST]
