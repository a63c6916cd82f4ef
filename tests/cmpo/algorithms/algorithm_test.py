"""The seam to what is learnt: the methods of the table by hand, and one that only its own module knows."""

import shutil

import chex
import numpy as np
import pytest

from cmpo import algorithms, evaluate, main
from cmpo.advantage import hybrid_advantage
from cmpo.algorithms.algorithm import Rewards
from cmpo.cli import agents
from cmpo.run.log import read_metrics
from rollouts import domains
from tests.builders import shop
from tests.builders.runs import tiny, transcripts

TOY = {"algo.name": "tests.builders.baseline", "train.rl_steps": 3, "train.checkpoint_every": 1, "train.epochs": 2}
REWARDS = Rewards(  # one group of two dialogues of two turns; the second turn of the second did not take place
    outcome=np.array([[4.0, 1.0]], np.float32),
    process=np.array([[[1.0, 0.5], [0.25, 9.0]]], np.float32),
    cost=np.array([[[[0.0], [1.0]], [[0.0], [9.0]]]], np.float32),
    turn_mask=np.array([[[True, True], [True, False]]]),
)


def loaded(**changes):
    config = tiny(**changes)
    return algorithms.load(config, domains.load(config))


def test_grpo_compares_outcomes_and_nothing_else():
    grpo = loaded(**{"algo.name": "grpo", "algo.normalize": "group", "algo.process_weight": 7.0})
    found = grpo.credit(grpo.memory(), REWARDS)
    spread = np.std([4.0, 4.0, 1.0])
    np.testing.assert_allclose(found, [[[1 / spread, 1 / spread], [-2 / spread, 0]]], rtol=1e-4)


def test_capo_adds_the_judge_and_charges_nothing():
    capo = loaded(**{"algo.name": "capo", "algo.normalize": "center", "algo.process_weight": 2.0})
    worth = np.array([[6.0, 5.0], [1.5, 0.0]])
    mean = (6.0 + 5.0 + 1.5) / 3
    np.testing.assert_allclose(capo.credit(capo.memory(), REWARDS)[0], np.where(REWARDS.turn_mask[0], worth - mean, 0))
    assert capo.multipliers(capo.memory()).tolist() == capo.prices().tolist() == [0.0]


def test_cmpo_charges_what_its_controller_says():
    cmpo = loaded(**{"algo.normalize": "center", "algo.process_weight": 2.0, "pid.initial_lambda": 0.5})
    memory = cmpo.memory()
    worth = np.array([[6.0, 4.5], [1.5, 0.0]])
    mean = (6.0 + 4.5 + 1.5) / 3
    np.testing.assert_allclose(cmpo.credit(memory, REWARDS)[0], np.where(REWARDS.turn_mask[0], worth - mean, 0))
    moved = cmpo.move(memory, {"voucher_rate": 1.0}, skipped=False)
    assert cmpo.multipliers(moved)[0] > 0.5 and cmpo.describe(moved)["voucher_rate_smoothed"] > 0.3
    chex.assert_trees_all_equal(cmpo.move(memory, {"voucher_rate": 1.0}, skipped=True), memory)
    still = loaded(**{"pid.initial_lambda": 0.5, "pid.enabled": False})
    chex.assert_trees_all_equal(still.move(memory, {"voucher_rate": 1.0}, skipped=False), memory)
    assert still.prices().tolist() == [0.0] and cmpo.prices() > 0


@pytest.mark.parametrize("name", ["cmpo", "grpo", "capo"])
def test_the_credit_of_a_group_is_its_own(name):
    """Two groups at a time: each as if it were alone, in its own row."""
    rng = np.random.default_rng(0)
    made, both = loaded(**{"algo.name": name, "algo.credit": "return_to_go", "algo.discount": 0.5}), []
    rewards = Rewards(
        outcome=rng.normal(size=(2, 3)).astype(np.float32),
        process=rng.random((2, 3, 4)).astype(np.float32),
        cost=rng.random((2, 3, 4, 1)).astype(np.float32),
        turn_mask=rng.random((2, 3, 4)) < 0.7,
    )
    for outcome, process, cost, turn_mask in zip(*rewards.values(), strict=True):
        both.append(
            hybrid_advantage(
                *(outcome, process, cost, turn_mask),
                np.asarray(made.multipliers(made.memory()), np.float32),
                process_weight=0.0 if name == "grpo" else made.settings.process_weight,
                normalize=made.settings.normalize,
                credit="return_to_go",
                discount=0.5,
            )
        )
    np.testing.assert_allclose(made.credit(made.memory(), rewards), np.stack(both), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"algo.name": "ppp"}, r"config.algo.name: expected one of \('cmpo', .*\), or package.module, got 'ppp'"),
        ({"algo.name": "no.such"}, "config.algo.name: no module 'no', which 'no.such' needs"),
        ({"algo.name": "models.rope"}, "config.algo.name: expected a function make in models.rope, found none"),
        ({"algo.name": "sft"}, "config.train.rl_steps: expected 0 where config.algo.name is 'sft'"),
        ({"algo.group_size": 1}, "config.algo.group_size: expected 2 or more"),
    ],
)
def test_an_algorithm_that_cannot_work_is_refused_before_anything_is_played(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        main.train(tiny(**changes), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("toy")
    return workdir, main.train(tiny(**TOY), workdir)


def test_what_an_algorithm_trains_and_remembers_is_in_the_metrics_and_moves(toy):
    workdir, state = toy
    records = [record for record in read_metrics(workdir) if record["phase"] == "rl"]
    assert [record["batches"] for record in records] == [1, 2, 3] == list(range(1, int(state.memory) + 1))
    assert all(record["head_grad_norm"] > 0 and record["lambda"] == 0 for record in records)
    errors = [record["value_error"] for record in records]
    assert errors[-1] < errors[0]  # the baseline has learnt something
    assert (workdir / "report.html").exists()


def test_a_run_of_it_resumes_to_the_bit(toy, tmp_path):
    workdir, state = toy
    run = tmp_path / "run"
    shutil.copytree(workdir, run)
    shutil.rmtree(run / "checkpoints" / "5")
    chex.assert_trees_all_equal(main.train(tiny(**TOY), run), state)
    assert transcripts(run) == transcripts(workdir)


def test_what_it_has_trained_is_served_whatever_the_config_learns_by(toy):
    workdir, _ = toy
    served_by, step = agents.load_policy(tiny(), workdir)
    played = evaluate.play_evaluation(tiny(), served_by, seeds=1)
    assert step == 5 and all(one.dialogue.ok for one in played)


def test_one_phase_1_may_be_the_start_of_several_methods(tmp_path):
    main.train(tiny(**{"train.rl_steps": 0}), tmp_path / "start")
    for name in ("grpo", "tests.builders.baseline"):
        shutil.copytree(tmp_path / "start", tmp_path / name)
        state = main.train(tiny(**{"algo.name": name, "train.rl_steps": 1}), tmp_path / name)
        assert int(state.step) == 3


def test_where_nothing_costs_anything_there_is_no_multiplier(tmp_path, monkeypatch):
    act = shop.Complaining.act
    monkeypatch.setattr(shop.Complaining, "act", lambda *given: act(*given)._replace(cost=np.zeros(0, np.float32)))
    monkeypatch.setattr(shop.Shop, "costs", ())
    monkeypatch.setattr(shop, "COSTS", ())
    config = tiny(**{"domain": "tests.builders.shop", "train.sft_steps": 0, "train.rl_steps": 1})
    state = main.train(config, tmp_path)
    (record,) = read_metrics(tmp_path)
    assert record["lambda"] == {} and state.memory == () and record["content"] is not None
