"""What two evaluations do not share, field by field: what is refused, what is said, and what is of no weight."""

import itertools
import json
import types

import pytest
from absl import flags
from absl.testing import flagsaver

from cmpo import compare, evaluate
from cmpo.cli import agents, command
from cmpo.evaluation import conditions, results
from cmpo.run.json_lines import to_json_value
from cmpo.training import collecting
from configs import fds, tau2
from rollouts.domains.fds.scripted import ScriptedAgent
from rollouts.sections import flatten_config
from tests.builders import commands
from tests.builders.evaluations import evaluation
from tests.builders.run_pages import RunPage
from tests.builders.runs import tiny
from tests.cmpo.evaluation import measures_test

INCOMPARABLE = {
    "episode.max_turns": 2,
    "episode.farewell": True,
    "user.model": "other",
    "user.temperature": 0.0,
    "user.max_tokens": 16,
    "judge.model": "other",
    "judge.url": "http://x/v1",  # rules here, a model there
    "judge.temperature": 0.5,
    "judge.votes": 3,
    "judge.weights.persona": 0.0,
}
SAID = {
    "episode.format_outcome": 0.0,  # what training charges: satisfaction is 0 in any case
    "agent.temperature": 0.0,
    "algo.name": "grpo",
    "data.difficulty": "normal",  # without other scenarios: of a file
    "engine.grammar": True,
    "eval.temperature": 0.0,
    "model.path": "there",
    "train.max_failed_fraction": 0.1,
    "train.rl_steps": 1,
}
OF_NO_WEIGHT = {
    "user.retries": 9,
    "judge.budget_calls": 9,
    "user.api_key_env": "X",
    "agent.concurrency": 1,
    "data.dir": "there",
    "endpoints.record": "there",
}


def fields(found):
    return [difference.field for difference in found]


@pytest.mark.parametrize("name", [*INCOMPARABLE, *SAID, *OF_NO_WEIGHT])
def test_every_field_is_of_its_class(name):
    ours, theirs = evaluation("me"), evaluation("me", **{name: (INCOMPARABLE | SAID | OF_NO_WEIGHT)[name]})
    found = conditions.find_differences(theirs, ours)
    assert fields(found) == ([] if name in OF_NO_WEIGHT else [name])
    for paired in (True, False):
        assert fields(conditions.select_incomparable(found, paired=paired)) == ([name] if name in INCOMPARABLE else [])


def test_the_table_names_fields_that_there_are():
    fields = (flatten_config(file.get_config().to_dict()) for file in (fds, tau2))
    known = [*itertools.chain(*fields), "prompts.user", "seeds", "scenarios.1000"]
    every = [conditions.Difference(name, 0, 1) for name in known]
    for pattern in (*conditions.MEASURED, *conditions.DEALT):
        assert any(each.is_of([pattern]) for each in every), pattern
    assert set(known) >= conditions.REACHED
    assert {"user.retries", "judge.total_timeout", "agent.budget_cost"} <= conditions.REACHED


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"seeds": [{"seed": 1000, "scenarios": "6b"}]}, "scenarios.1000"),
        ({"seeds": [{"seed": 7, "scenarios": "5a"}]}, "seeds"),
    ],
)
def test_other_scenarios_keep_dialogues_from_being_paired_but_not_means_from_a_picture(changes, field):
    ours = evaluation("me")
    found = conditions.find_differences(evaluation("me", **{"data.difficulty": "normal"}) | changes, ours)
    assert fields(found) == fields(conditions.select_incomparable(found, paired=True)) == ["data.difficulty", field]
    assert conditions.select_incomparable(found, paired=False) == []


def test_prompts_code_steps_and_failures_count_too():
    ours = evaluation("me")
    (row,) = ours["dialogues"]
    ok = ours | {"dialogues": [row | {"values": row["values"] | {"failure_rate": 0.0}}]}
    changed = ok | {"prompts": {"user": "1f"}, "code": "c1", "step": 6}
    found = conditions.find_differences(changed, ours)
    told = ["code 'c1' and 'c0'", "failed 0 and 1", "prompts.user '1f' and '0f'", "step 6 and 5"]
    assert list(map(str, found)) == told
    assert fields(conditions.select_incomparable(found, paired=False)) == ["prompts.user"]
    assert fields(conditions.find_differences(changed | {"step": None}, ours)) == ["code", "failed", "prompts.user"]


def test_a_field_that_an_older_file_lacks_is_named():
    old = evaluation("me")
    del old["config"]["judge"]["votes"], old["code"]
    found = conditions.find_differences(old, evaluation("me"))
    assert list(map(str, found)) == ["code not recorded and 'c0'", "judge.votes not recorded and 1"]
    assert fields(conditions.select_incomparable(found, paired=True)) == ["judge.votes"]


def test_what_an_agent_was_trained_with_is_said():
    config = fds.get_config().to_dict()
    run = fds.get_config("algo=grpo").to_dict()
    run["user"]["retries"] = 9
    differ = conditions.compare_with_training(run, config)
    assert differ.keys() == {"algo.name", "algo.normalize"}
    assert differ["algo.name"] == {"run": "grpo", "here": "cmpo"}
    told = conditions.describe_training(evaluation("me") | {"since_training": {"algo.name": differ["algo.name"]}})
    assert told == "not as trained: algo.name 'grpo' in the run, 'cmpo' here"
    old = evaluation("me")
    del old["since_training"]
    assert conditions.describe_training(old) == "how it was trained is not recorded"
    assert conditions.describe_training(evaluation("me")) == conditions.describe_training(old | {"step": None}) == ""


def written(path, name, played=(2.0, 3.0, 5.0, 4.0), **changes):
    found = evaluation(name, **changes) | {"dialogues": to_json_value(measures_test.rows(*played))}
    (path / f"{name}.json").write_text(json.dumps(found))


@pytest.fixture
def compared(tmp_path, capsys):
    """Compares a.json with b.json, with the flags given; what was printed."""
    parsed = flags.FLAGS.is_parsed()
    if not parsed:
        flags.FLAGS.mark_as_parsed()

    def run(**options):
        with flagsaver.flagsaver(result=str(tmp_path / "a.json"), against=str(tmp_path / "b.json"), **options):
            compare.run()
        return capsys.readouterr().out

    yield run
    if not parsed:
        flags.FLAGS.unparse_flags()


def test_the_command_compares_two_files(tmp_path, compared):
    written(tmp_path, "a", (3.0, 3.0, 5.0, 4.0), **{"eval.temperature": 0.0})
    written(tmp_path, "b")
    printed = compared()
    assert "| a minus b |" in printed and "| satisfaction, 1 to 5 | 0.25 |" in printed
    assert printed.count("beware") == 1 and "\n\nbeware, eval.temperature 0.0 and 0.5\n" in printed


def test_the_command_refuses_differences_that_mean_nothing_unless_asked(tmp_path, compared):
    changes = {"episode.max_turns": 2, "judge.weights.persona": 0.0, "user.temperature": 0.0, "engine.grammar": True}
    written(tmp_path, "a", (3.0, 3.0, 5.0, 4.0), **changes)
    written(tmp_path, "b")
    told = r"episode.max_turns 2 and 15; judge.weights.persona 0.0 and 1.0; user.temperature 0.0 and 1.2; --allow_diff"
    with pytest.raises(ValueError, match=f"--result and --against: expected the same .* got {told}"):
        compared()
    printed = compared(allow_different=True)
    assert "| satisfaction, 1 to 5 | 0.25 |" in printed
    assert printed.count("beware, ") == 4 and "beware, episode.max_turns 2 and 15\n" in printed


def test_an_evaluation_says_what_was_changed_since_its_training(tmp_path, monkeypatch, capsys):
    """The whole command, but for the policy: on other customers, with a grammar, than config.json has."""
    (tmp_path / "config.json").write_text(json.dumps(tiny().to_dict()))
    (tmp_path / "metrics.jsonl").write_text("")
    config = tiny(**{"data.difficulty": "normal", "engine.grammar": True, "eval.scenarios": 2})
    for name, value in (("CONFIG", config), ("WORKDIR", str(tmp_path)), ("OUT", None)):
        monkeypatch.setattr(command, name, types.SimpleNamespace(value=value))
    for name, value in (("_SEEDS", 1), ("_SHIFT", None)):
        monkeypatch.setattr(evaluate, name, types.SimpleNamespace(value=value))
    trained = agents.Named("policy", collecting.serve_agent(ScriptedAgent("never")), step=4)
    monkeypatch.setattr(agents, "load", lambda *_: trained)
    evaluate.run()
    found = results.read_result(tmp_path / "evaluation_policy.json")
    assert found["since_training"] == {
        "data.difficulty": {"run": "hard", "here": "normal"},
        "engine.grammar": {"run": False, "here": True},
        "eval.scenarios": {"run": 8, "here": 2},
    }
    told = (
        "not as trained: data.difficulty 'hard' in the run, 'normal' here; engine.grammar False in the run, True here"
    )
    assert told in capsys.readouterr().out
    page = RunPage(tmp_path / "report.html")
    assert page.run["evaluations"]["caveats"][0].startswith(f"policy, {told}")
    assert len(found["code"]) == 64 and conditions.find_differences(found, found) == []
    scripted = agents.Named("never", collecting.serve_agent(ScriptedAgent("never")))  # nobody trained it
    monkeypatch.setattr(agents, "load", lambda *_: scripted)
    evaluate.run()
    assert results.read_result(tmp_path / "evaluation_never.json")["since_training"] is None
    assert "not as trained" not in capsys.readouterr().out


def test_the_frontier_refuses_what_other_rules_measured_unless_asked(tmp_path):
    for name, changes in (("a", {}), ("b", {"judge.votes": 3, "eval.temperature": 0.0})):
        (tmp_path / f"{name}.json").write_text(json.dumps(evaluation(name, **changes)))
    paths = [str(tmp_path / "a.json"), str(tmp_path / "b.json")]
    refused = commands.run("cmpo.frontier", *paths)
    told = "error: b and a: expected the same rules and judge, got judge.votes 3 and 1; --al"
    assert refused.returncode == 1 and refused.stderr.startswith(told)
    done = commands.run("cmpo.frontier", *paths, "--allow_different")
    assert done.returncode == 0
    assert "beware, b, other than a: eval.temperature 0.0 and 0.5; judge.votes 3 and 1\n" in done.stdout
