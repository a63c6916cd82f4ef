"""Sums that the tool `calculate` would take minutes for: it evaluates powers, and all dialogues wait for it."""

import ast
import operator
from typing import Any

_LARGEST = 1 << 16  # bits of a power; the tool fails with more than 1,024, unless they are divided
_OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Pow: operator.pow,
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}


class _TooLargeError(Exception):
    """A sum has a power that is too large."""


def refuse_sum(tool: str, arguments: dict[str, Any]) -> str:
    """Returns why a call is not made; "" for every call but one of `calculate` with a power that is too large."""
    asked = arguments.get("expression")
    if tool != "calculate" or not isinstance(asked, str) or "**" not in asked:
        return ""
    try:
        _evaluate(ast.parse(asked.strip(), mode="eval").body)
    except (_TooLargeError, RecursionError):
        return "Result too large"
    except (SyntaxError, ValueError, TypeError, ArithmeticError, MemoryError):
        return ""  # the tool says what is wrong
    return ""


def _evaluate(node: ast.expr) -> Any:
    """Evaluates a sum as the tool does. Raises _TooLargeError before a power that is too large."""
    parts = [_evaluate(part) for part in ast.iter_child_nodes(node) if isinstance(part, ast.expr)]
    if isinstance(node, ast.Constant):
        return node.value
    if not isinstance(node, ast.BinOp | ast.UnaryOp):
        raise TypeError("expected a sum")
    if isinstance(node.op, ast.Pow) and all(isinstance(part, int) for part in parts):
        base, exponent = parts
        if abs(base) > 1 and base.bit_length() * exponent > _LARGEST:
            raise _TooLargeError
    return _OPERATORS[type(node.op)](*parts)
