"""The benchmark's own client: how it is asked, and what its results are read as. The client itself is run in parity."""

import itertools
import json
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollouts.domains.tau2 import official
from rollouts.domains.tau2.official import Model

DIALOGUE = {
    "task_id": "7",
    "trial": 1,
    "termination_reason": "user_stop",
    "reward_info": {
        "reward": 0.0,
        "db_check": {"db_match": True, "db_reward": 1.0},
        "communicate_checks": [{"met": True}, {"met": False}],
        "action_checks": [{"action_match": True}, {"action_match": True}, {"action_match": False}],
    },
}


def read(tmp_path, *dialogues):
    path = tmp_path / "airline.json"
    path.write_text(json.dumps({"simulations": dialogues}))
    return official.read_results(path)


def test_what_the_client_says_of_a_dialogue(tmp_path):
    (played,) = read(tmp_path, DIALOGUE)
    assert played == official.Played("7", 1, 0.0, "user_stop", False, True, pytest.approx(2 / 3), "")


@pytest.mark.parametrize(
    "changes",
    [
        {"skipped": True, "termination_reason": "agent_error", "reward_info": {"reward": 0.0}},
        {"termination_reason": "infrastructure_error", "reward_info": None},
    ],
)
def test_what_it_could_not_finish_is_a_failure_and_is_told(tmp_path, changes):
    (played,) = read(tmp_path, DIALOGUE | changes)
    assert (played.reward, played.told, played.kept, played.done) == (0.0, None, None, None)
    assert "could not finish" in played.fault


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"simulations": [{}]}'])
def test_what_are_no_results_is_refused_by_its_name(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match="x.json: expected results of tau2's client"):
        official.read_results(tmp_path / "x.json")


def test_pass_hat_by_hand():
    assert [official.compute_pass_hat([1, 1, 0, 1], k) for k in (1, 2, 3, 4)] == [0.75, 0.5, 0.25, 0.0]
    assert official.compute_pass_hat([1.0 - 1e-9], 1) == 1.0 and official.compute_pass_hat([0.5], 1) == 0.0
    with pytest.raises(ValueError, match="at least 2 trials, got 1"):
        official.compute_pass_hat([1.0], 2)


@given(st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=6), st.integers(1, 6))
def test_pass_hat_is_the_share_of_draws_of_k_trials_that_all_succeed(rewards, k):
    draws = list(itertools.combinations(rewards, k))
    if draws:
        assert official.compute_pass_hat(rewards, k) == pytest.approx(sum(map(all, draws)) / len(draws))


def test_the_client_is_asked_for_all_that_a_result_depends_on():
    agent, user = Model("http://a/v1", "policy", 0.3, 99), Model("http://u/v1", "llm", 0.0, 50, "USER_KEY")
    command = official.write_command("retail", agent, user, pathlib.Path("out"), trials=4, tasks=2, seed=7)
    options = dict(zip(command[4:-1:2], command[5::2], strict=True))
    assert command[1:4] == ["-m", "tau2.cli", "run"] and command[-1] == "--skip-failed-samples"
    assert options["--domain"] == options["--save-to"] == "retail"
    assert (options["--num-trials"], options["--num-tasks"], options["--seed"]) == ("4", "2", "7")
    assert (options["--task-split-name"], options["--results-dir"]) == ("base", "out")
    assert options["--agent-llm"] == "openai/policy"
    assert json.loads(options["--agent-llm-args"]) == {
        "base_url": "http://a/v1",
        "temperature": 0.3,
        "max_tokens": 99,
    }
    assert options["--user-api-key"] == "USER_KEY" and "--agent-api-key" not in options
