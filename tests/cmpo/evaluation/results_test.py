"""Result files, read again: what is none is refused, and what one lacks is named."""

import functools
import json
import operator

import pytest

from cmpo.evaluation import results
from rollouts import domains
from tests.builders.dialogues import FDS
from tests.builders.evaluations import evaluation

TAU2 = domains.load({"domain": "tau2"})
PLACES = (
    "agent",
    "step",
    "prompts",
    "seeds",
    "dialogues",
    "summary",
    "config.episode.max_turns",
    "config.user.url",
    "config.data.path",
    "config.data.difficulty",
    "user.url",
    "user.model",
    "judge.url",
    "seeds.0.seed",
    "seeds.0.scenarios",
    "dialogues.0",
    "dialogues.0.seed",
    "dialogues.0.scenario",
    "dialogues.0.values",
    *(f"summary.{name}" for name in FDS.measures),
    *(f"summary.{name}.{field}" for name in FDS.measures for field in ("mean", "std")),
    *(f"dialogues.0.values.{name}" for name in FDS.measures),
)


def test_a_result_comes_back_as_it_was_written(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(evaluation("me")))
    assert results.read_result(tmp_path / "a.json") == evaluation("me")


@pytest.mark.parametrize("text", ["", "[]", "[" * 9, "{}", '{"dialogues": [{}]}'])
def test_what_is_no_result_is_refused(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=r"a.json: expected a (JSON object|file that cmpo.evaluate wrote)"):
        results.read_result(tmp_path / "a.json")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("lacks", [True, False])
def test_what_a_result_lacks_or_has_in_another_type_is_named(tmp_path, place, lacks):
    found = evaluation("me")
    *path, last = [int(name) if name.isdigit() else name for name in place.split(".")]
    holder = functools.reduce(operator.getitem, path, found)
    if lacks:
        del holder[last]
    else:
        holder[last] = [1] if isinstance(holder[last], dict) else {"a": 1}
    (tmp_path / "a.json").write_text(json.dumps(found))
    with pytest.raises(ValueError, match=r"a\.json: .*, found no sound ") as error:
        results.read_result(tmp_path / "a.json")
    named = str(error.value).partition("no sound ")[2]
    assert named == ("dialogues" if lacks and place == "dialogues.0" else place)  # without the only one: the list


@pytest.mark.parametrize("damaged", ["abc", {"a": 1}, {"a": {"run": 1}}])
def test_a_damaged_account_of_training_is_named(tmp_path, damaged):
    path = tmp_path / "evaluation_me.json"
    path.write_text(json.dumps(evaluation("me") | {"since_training": damaged}))
    with pytest.raises(ValueError, match="found no sound since_training"):
        results.read_result(path)


def test_a_result_of_another_domain_needs_none_of_the_data_of_fds(tmp_path):
    found = evaluation("me")
    found["config"] |= {"domain": "tau2", "data": {"domain": "telecom"}}
    found["summary"] = {name: {"mean": 0.5, "std": None} for name in TAU2.measures}
    for row in found["dialogues"]:
        row["values"] = dict.fromkeys(TAU2.measures, 0.5)
    (tmp_path / "a.json").write_text(json.dumps(found))
    assert results.read_result(tmp_path / "a.json") == found
