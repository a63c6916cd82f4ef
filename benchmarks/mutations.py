"""Mutants: code that is changed in one place, made systematically from a file's syntax tree."""

import ast
import difflib
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[1]

LOOP = ("tests/cmpo/loop_test.py",)
METHODS = "tests/cmpo/algorithms/methods_test.py"
TRAINING = (*LOOP, "tests/cmpo/training/prefetch_test.py", "tests/cmpo/main_test.py", "tests/cmpo/resuming_test.py")
TESTS = {  # file -> the tests that should kill its mutants, the quick ones first
    "cmpo/advantage.py": ("tests/cmpo/advantage_test.py",),
    "cmpo/loss.py": ("tests/cmpo/loss_test.py",),
    "cmpo/pid.py": ("tests/cmpo/pid_test.py",),
    "cmpo/spreads.py": ("tests/cmpo/spreads_test.py",),
    "cmpo/importance.py": ("tests/cmpo/importance_test.py",),
    **{f"cmpo/algorithms/{name}.py": (METHODS, *LOOP) for name in ("clipped", "cmpo", "grpo", "capo")},
    "cmpo/training/packing.py": ("tests/cmpo/training/packing_test.py",),
    "cmpo/training/update_step.py": ("tests/cmpo/training/update_step_test.py", *LOOP),
    "cmpo/run/recorder.py": ("tests/cmpo/run/recorder_test.py", *LOOP),
    "cmpo/evaluation/measures.py": ("tests/cmpo/evaluation/measures_test.py", "tests/cmpo/evaluate_test.py"),
    **{f"cmpo/training/{name}.py": TRAINING for name in ("trainer", "learner", "player")},
    "cmpo/training/collecting.py": ("tests/cmpo/training/collecting_test.py", "tests/cmpo/evaluate_test.py", *LOOP),
    "cmpo/training/clients.py": ("tests/cmpo/training/clients_test.py", "tests/cmpo/training/collecting_test.py"),
    "rollouts/domains/fds/rules.py": ("tests/rollouts/domains/fds/rules_test.py",),
    "rollouts/domains/fds/rubrics.py": ("tests/rollouts/domains/fds/rubrics_test.py",),
}


class Mutant(NamedTuple):
    """One change to one file."""

    name: str
    file: str
    before: str  # what stands there
    after: str
    tests: tuple[str, ...]  # that should notice
    start: int | None = None  # where `before` stands; None: where it occurs, which must be one place
    why: str = ""

    def applied(self, source: str) -> str:
        """The mutated source. Raises ValueError if `before` is not there, or in several places."""
        start = self.start
        if start is None:
            if (count := source.count(self.before)) != 1:
                raise ValueError(f"{self.name}: expected {self.before!r} once in {self.file}, found it {count} times")
            start = source.index(self.before)
        return source[:start] + self.after + source[start + len(self.before) :]

    def change(self, source: str) -> str:
        """The lines that differ, as ``- before`` and ``+ after``."""
        lines = difflib.ndiff(source.splitlines(), self.applied(source).splitlines())
        return "\n".join(f"{line[0]} {line[2:].strip()}" for line in lines if line[0] in "+-")


_COMPARISONS = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
}
_ARITHMETIC = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "/"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "*"),
    ast.Pow: ("**", "*"),
    ast.BitAnd: ("&", "|"),
    ast.BitOr: ("|", "&"),
}


def generate(file: str, source: str) -> list[Mutant]:
    """All mutants of a file: operators, `and`, `or` and `not`, numbers, arguments given by name, what is returned.

    What only says something is left alone: annotations, docstrings, f-strings and whatever is raised.
    """
    starts = [0]  # of lines
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))

    def place(line: int, column: int) -> int:
        text = source[starts[line - 1] : starts[line]]
        return starts[line - 1] + len(text.encode()[:column].decode())

    def span(node: ast.AST) -> tuple[int, int]:
        return place(node.lineno, node.col_offset), place(node.end_lineno, node.end_col_offset)

    found = []
    for begin, end, after in _edits(ast.parse(source), source, span):
        before = source[begin:end]
        line = source.count("\n", 0, begin) + 1
        found.append(Mutant(f"{file}:{line}:{len(found)}", file, before, after, TESTS[file], begin))
    return found


def _edits(tree: ast.AST, source: str, span) -> Iterator[tuple[int, int, str]]:
    """Where to put what, in the order of the tree."""

    def operator(left: ast.AST, right: ast.AST, before: str, after: str) -> Iterator[tuple[int, int, str]]:
        begin = source.index(before, span(left)[1], span(right)[0])
        yield begin, begin + len(before), after

    for node in _meant(tree):
        match node:
            case ast.Compare(left=left, ops=ops, comparators=others):
                for op, one, other in zip(ops, [left, *others], others, strict=False):
                    yield from operator(one, other, *_COMPARISONS[type(op)])
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
                yield from operator(left, right, *_ARITHMETIC[type(op)])
            case ast.AugAssign(target=left, op=op, value=right) if type(op) in _ARITHMETIC:
                before, after = _ARITHMETIC[type(op)]
                yield from operator(left, right, f"{before}=", f"{after}=")
            case ast.BoolOp(op=op, values=[left, right, *_]):
                yield from operator(left, right, *(("and", "or") if isinstance(op, ast.And) else ("or", "and")))
            case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.Invert() as op):
                begin, _ = span(node)
                yield begin, begin + (len("not ") if isinstance(op, ast.Not) else 1), ""
            case ast.If(test=test) | ast.IfExp(test=test) | ast.While(test=test):
                if not isinstance(test, ast.UnaryOp | ast.Compare):
                    begin, end = span(test)
                    yield begin, end, f"(not ({source[begin:end]}))"
            case ast.Constant(value=bool(value)):
                yield *span(node), str(not value)
            case ast.Constant(value=int() | float() as value):
                yield *span(node), repr(value + 1)
                if value:  # what is not 0 could as well be less
                    yield *span(node), repr(value - 1)
            case ast.Call(keywords=keywords):
                for keyword in keywords:
                    begin, end = span(keyword)
                    while source[end] in " ,\n":
                        end += 1
                    yield begin, end, ""
            case ast.Return(value=ast.AST() as value):
                yield *span(value), "None"


def _meant(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that do something, from the top down."""
    yield node
    for name, field in ast.iter_fields(node):
        if name in ("annotation", "returns"):
            continue
        for child in field if isinstance(field, list) else [field]:
            if isinstance(child, ast.AST) and not isinstance(child, ast.Raise | ast.JoinedStr):
                yield from _meant(child)
