"""The table of mutants fits the code: what it changes is there, once, and what it says is harmless still comes up."""

import ast

import pytest

from benchmarks.mutants_by_hand import HAND, HARMLESS
from benchmarks.mutations import ROOT, TESTS, generate


@pytest.mark.parametrize("mutant", HAND, ids=lambda mutant: mutant.name)
def test_what_a_mutant_changes_is_in_its_file_once_and_stays_python(mutant):
    source = (ROOT / mutant.file).read_text()
    ast.parse(mutant.applied(source))
    assert mutant.applied(source) != source and mutant.why
    for file, _, test in (test.partition("::") for test in mutant.tests):
        assert f"def {test}" in (ROOT / file).read_text()


def test_names_are_told_apart_and_a_pattern_that_is_not_there_is_named():
    assert len({mutant.name for mutant in HAND}) == len(HAND)
    with pytest.raises(ValueError, match=f"{HAND[0].name}: expected .* once in {HAND[0].file}, found it 0 times"):
        HAND[0].applied("")


SOURCE = '''
def f(x: int | None, y=2) -> int | str:
    """1 + 1 is not x."""
    if x and not y < 0:
        raise ValueError(f"{x + 1}" + str(1 + 1))
    y += -x
    return g(x, flag=True, **z)
'''
CHANGES = """
def f(x: int | None, y=3) -> int | str:
def f(x: int | None, y=1) -> int | str:
if (not (x and not y < 0)):
if x or not y < 0:
if x and y < 0:
if x and not y <= 0:
if x and not y < 1:
y -= -x
y += x
return None
return g(x, **z)
return g(x, flag=True, )
return g(x, flag=False, **z)
"""


def test_mutants_by_hand(monkeypatch):
    monkeypatch.setitem(TESTS, "f.py", ())
    changes = [mutant.change(SOURCE).splitlines()[-1] for mutant in generate("f.py", SOURCE)]
    assert sorted(changes) == sorted(f"+ {line}" for line in CHANGES.strip().splitlines())


@pytest.mark.parametrize("file", TESTS)
def test_every_mutant_is_python_and_each_harmless_one_is_among_them(file):
    source = (ROOT / file).read_text()
    made = generate(file, source)
    for mutant in made:
        ast.parse(mutant.applied(source))
    known = {change for where, change in HARMLESS if where == file}
    assert known <= {mutant.change(source) for mutant in made}
