"""The methods of the table: what turns are worth, and what moves, by hand."""

import chex
import numpy as np
import pytest

from cmpo import algorithms
from cmpo.advantage import hybrid_advantage
from cmpo.algorithms.algorithm import Rewards
from rollouts import domains
from tests.builders.runs import tiny

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
