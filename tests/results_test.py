"""Result files, read again: what is none is refused, and what one lacks is named."""

import functools
import json
import operator

import pytest

from cmpo import results
from tests.evaluations import evaluation


def test_a_result_comes_back_as_it_was_written(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(evaluation("me")))
    assert results.read(tmp_path / "a.json") == evaluation("me")


@pytest.mark.parametrize("text", ["", "[]", "[" * 9, "{}", '{"dialogues": [{}]}'])
def test_what_is_no_result_is_refused(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=r"a.json: expected a (JSON object|file that cmpo.evaluate wrote)"):
        results.read(tmp_path / "a.json")


@pytest.mark.parametrize(
    "names, told",
    [
        (("agent",), "agent"),
        (("config", "user", "url"), r"config\.user\.url"),
        (("summary", "logic", "std"), r"summary\.logic\.std"),
        (("dialogues",), "dialogues"),
        (("dialogues", 0), "dialogues"),
        (("dialogues", 0, "values", "tokens"), r"dialogues' values\.tokens"),
    ],
)
def test_what_a_result_lacks_is_named(tmp_path, names, told):
    found = evaluation("me")
    *path, last = names
    del functools.reduce(operator.getitem, path, found)[last]
    (tmp_path / "a.json").write_text(json.dumps(found))
    with pytest.raises(ValueError, match=rf"a\.json: .*, found none of its {told}$"):
        results.read(tmp_path / "a.json")
