"""The methods of the table: what turns are worth, and what moves, by hand."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cmpo import algorithms, pid
from cmpo.advantage import hybrid_advantage
from cmpo.algorithms.algorithm import Rewards, Rows, Signals
from cmpo.algorithms.ppo import Critic, value_error, whiten
from rollouts import domains
from tests.builders.runs import tiny
from tests.cmpo import gae_test

REWARDS = Rewards(  # one group of two dialogues of two turns; the second turn of the second did not take place
    outcome=np.array([[4.0, 1.0]], np.float32),
    process=np.array([[[1.0, 0.5], [0.25, 9.0]]], np.float32),
    cost=np.array([[[[0.0], [1.0]], [[0.0], [9.0]]]], np.float32),
    turn_mask=np.array([[[True, True], [True, False]]]),
)


WEIGHTS = {"algo.outcome_weight": 2.0, "algo.process_weight": 0.5, "algo.cost_weight": 3.0}


def loaded(**changes):
    config = tiny(**{"algo.credit": "instant"} | changes)
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


def test_the_effective_price_of_cmpo_is_that_of_each_group():
    cmpo = loaded(**{"algo.normalize": "group", "algo.process_weight": 2.0, "pid.initial_lambda": 0.5})
    spread = np.std([4 + 2 * 1.0, 4 + 2 * 0.5 - 0.5, 1 + 2 * 0.25])
    np.testing.assert_allclose(cmpo.effective_prices(cmpo.memory(), REWARDS), [[0.5 / spread]], rtol=1e-5)


def test_cmpo_scales_by_the_spreads_of_all_batches_and_remembers_them():
    """Gained: 5, 4.5, 1.25 (mean 43/12); cost: 0, 1, 0 (mean 1/3). A batch that nobody played moves nothing."""
    cmpo = loaded(**{"algo.normalize": "scaled", "pid.initial_lambda": 0.5})
    memory = cmpo.observe(cmpo.memory(), REWARDS)
    gained, cost = np.array([5.0, 4.5, 1.25]), np.array([0.0, 1.0, 0.0])
    expected = (gained - gained.mean()) / gained.std() - 0.5 * (cost - cost.mean()) / cost.std()
    np.testing.assert_allclose(cmpo.credit(memory, REWARDS)[0][REWARDS.turn_mask[0]], expected, rtol=1e-4)
    np.testing.assert_allclose(cmpo.effective_prices(memory, REWARDS), [[0.5 / cost.std()]], rtol=1e-4)
    nothing = Rewards(**{**REWARDS, "turn_mask": np.zeros_like(REWARDS.turn_mask)})
    chex.assert_trees_all_equal(cmpo.observe(memory, nothing), memory)
    again = cmpo.observe(memory, Rewards(**{**REWARDS, "outcome": 3 * REWARDS.outcome}))
    assert cmpo.credit(again, REWARDS)[0, 0, 0] < cmpo.credit(memory, REWARDS)[0, 0, 0]
    moved = cmpo.move(memory, {"voucher_rate": 1.0}, skipped=False)
    assert cmpo.multipliers(moved)[0] > 0.5 and cmpo.describe(moved)["voucher_rate_smoothed"] > 0.3
    chex.assert_trees_all_equal(moved.spreads, memory.spreads)
    assert jax.tree.structure(moved) == jax.tree.structure(cmpo.memory())


def test_one_plus_lambda_keeps_the_size_of_a_step():
    plain, divided = (
        loaded(**{"pid.initial_lambda": 3.0, "algo.price_scale": one}) for one in ("none", "one_plus_lambda")
    )
    memory = plain.memory()
    np.testing.assert_allclose(4 * divided.credit(memory, REWARDS), plain.credit(memory, REWARDS), rtol=1e-6)
    assert plain.multipliers(memory) == divided.multipliers(memory) == 3.0


def test_what_is_compared_over_the_batch_needs_no_group():
    rewards = Rewards(**jax.tree.map(lambda x: np.moveaxis(x, 1, 0), dict(REWARDS)))  # two groups of one dialogue
    cmpo = loaded(**{"algo.normalize": "batch", "algo.group_size": 1, "pid.initial_lambda": 0.5})
    worth = np.array([5.0, 4.0, 1.25])
    found = cmpo.credit(cmpo.memory(), rewards)
    np.testing.assert_allclose(found[rewards.turn_mask], (worth - worth.mean()) / worth.std(), rtol=1e-4)
    for name in ("grpo", "capo"):
        with pytest.raises(ValueError, match="config.algo.normalize: expected another than 'scaled' here: only cmpo"):
            loaded(**{"algo.name": name, "algo.normalize": "scaled"})


def test_the_controller_may_hold_its_prices_and_smooth_the_proportional_part_alone():
    """With a = .7 from .3: e = .7 * .7 after a batch in which all were served; the integral sees .7 itself."""
    changes = {"pid.kp": 0.5, "pid.ki": 0.1, "pid.smoothing": 0.7, "pid.target": 0.3}
    raw = loaded(**changes | {"pid.smoothing_of": "proportional", "pid.every": 2, "pid.initial_lambda": 1.0})
    memory = raw.memory()
    for rate, expected in ((0.9, 1.0), (1.1, 1.0 + 0.5 * 0.49 + 0.1 * 0.7)):
        memory = raw.move(memory, {"voucher_rate": rate}, skipped=False)
        assert raw.multipliers(memory)[0] == pytest.approx(expected)
    assert raw.describe(memory)["voucher_rate_smoothed"] == pytest.approx(0.3 + 0.49)
    assert loaded(**changes).gains == budgets_of_today(changes)


def budgets_of_today(changes):
    """The controller that a config of before `every` and `smoothing_of` describes."""
    numbers = {name.removeprefix("pid."): value for name, value in changes.items()}
    return pid.PIDGains(**numbers, kd=0.0, lambda_max=5.0)


@pytest.mark.parametrize("name", ["ppo", "gdpo"])
def test_methods_with_a_fixed_price_say_it(name):
    assert loaded(**{"algo.name": name, "algo.cost_weight": 3.0}).multipliers(()).tolist() == [3.0]


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


def test_reinforce_takes_the_mean_of_the_batch_from_the_outcome():
    """Two groups; the second dialogue of the second one failed."""
    made = loaded(**{"algo.name": "reinforce", "algo.outcome_weight": 2.0})
    rewards = Rewards(
        outcome=np.array([[4.0, 1.0], [4.0, 9.0]], np.float32),
        process=np.ones((2, 2, 2), np.float32),
        cost=np.ones((2, 2, 2, 1), np.float32),
        turn_mask=np.array([[[True, True], [True, False]], [[True, True], [False, False]]]),
    )
    np.testing.assert_allclose(
        made.credit((), rewards), [[[2.0, 2.0], [-4.0, 0.0]], [[2.0, 2.0], [0.0, 0.0]]], rtol=1e-6
    )


def test_gdpo_normalises_each_reward_before_it_adds_them_up():
    made = loaded(
        **{"algo.name": "gdpo", "algo.outcome_weight": 2.0, "algo.process_weight": 0.5, "algo.cost_weight": 3.0}
    )
    valid = REWARDS.turn_mask[0]

    def normalised(x):
        x = np.where(valid, x, np.nan)
        return (x - np.nanmean(x)) / np.nanstd(x)

    parts = [(2.0, REWARDS.outcome[0][:, None]), (0.5, REWARDS.process[0]), (-3.0, REWARDS.cost[0][..., 0])]
    worth = sum(weight * normalised(x) for weight, x in parts)
    np.testing.assert_allclose(made.credit((), REWARDS)[0][valid], normalised(worth)[valid], rtol=1e-4)
    assert made.credit((), REWARDS)[0][~valid] == 0
    scaled = REWARDS.replace(outcome=REWARDS.outcome * 100)
    np.testing.assert_allclose(made.credit((), scaled), made.credit((), REWARDS), rtol=1e-4)


@pytest.mark.parametrize("name", ["gdpo", "reinforce", "ppo"])
def test_where_all_dialogues_failed_nothing_is_learnt(name):
    nothing = REWARDS.replace(turn_mask=np.zeros_like(REWARDS.turn_mask))
    assert not np.any(loaded(**{"algo.name": name}).credit((), nothing))


def test_ppo_pays_a_turn_its_process_reward_less_its_cost_and_the_last_one_the_outcome():
    made = loaded(
        **{"algo.name": "ppo", "algo.outcome_weight": 2.0, "algo.process_weight": 0.5, "algo.cost_weight": 3.0}
    )
    np.testing.assert_allclose(made.credit((), REWARDS), [[[0.5, 0.25 - 3.0 + 8.0], [0.125 + 2.0, 0.0]]])


@pytest.mark.parametrize("unit", ["token", "turn"])
def test_ppos_signals_are_generalized_advantages_made_white_and_what_the_critic_learns(unit):
    made = loaded(**{"algo.name": "ppo", "algo.gae": unit, "algo.gae_trace": 0.5, "algo.discount": 0.9})
    credit, values, mask, turns, segments = (x[None] for x in gae_test.packed(3))
    rows = Rows(tokens=turns, positions=turns, segment_ids=segments, mask=mask, sampled_logprobs=values, turns=turns)
    found = made.signals(Signals(credit, reference=values), rows, values)
    arrays = [x[0] for x in (credit, values, mask, turns, segments)]
    advantages, targets, steps = gae_test.expected(*arrays, discount=0.9, trace=0.5, unit=unit)
    drawn = advantages[mask[0]]
    np.testing.assert_allclose(found.advantages[mask], (drawn - drawn.mean()) / drawn.std(), atol=1e-4)
    np.testing.assert_allclose(found.own.targets[0], targets, atol=1e-5)
    np.testing.assert_allclose(found.own.weights[0], steps * mask.sum() / steps.sum(), rtol=1e-6)


def test_a_value_that_goes_further_than_the_clip_gains_nothing():
    """The values before were 0, the clip is 0.5: by hand."""
    targets = jnp.array([[2.0, 2.0, 2.0, -2.0]])
    critic = Critic(targets, values=jnp.zeros((1, 4)), weights=jnp.array([[1.0, 1.0, 2.0, 1.0]]))
    values = jnp.array([[0.25, 1.0, 0.25, 1.0]])
    # 1.75^2 within the clip; beyond it that of 0.5, 1.5^2; twice the first; away from the target: its own, 3^2.
    np.testing.assert_allclose(value_error(values, critic, clip=0.5), [[1.53125, 1.125, 3.0625, 4.5]])
    np.testing.assert_allclose(value_error(values, critic, clip=0.0), [[1.53125, 0.5, 3.0625, 4.5]])
    slopes = jax.grad(lambda v: value_error(v, critic, clip=0.5).sum())(values)
    np.testing.assert_allclose(slopes, [[-1.75, 0.0, -3.5, 3.0]])


def test_equal_advantages_are_no_noise_when_they_are_made_white():
    x = jnp.full((3, 1000), 2.7)
    assert not np.any(whiten(x, jnp.ones(x.shape, bool)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"algo.normalize": "trajectory", "algo.credit": "dialogue"}, "config.algo.normalize: expected another than"),
        ({"algo.name": "gdpo", "algo.group_size": 1, "algo.normalize": "none"}, "config.algo.group_size: expected 2"),
        (
            {"algo.name": "grpo", "algo.normalize": "trajectory"},
            "config.algo.normalize: expected group, center or none",
        ),
    ],
)
def test_what_would_teach_nothing_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        loaded(**changes)


@pytest.mark.parametrize("name", ["ppo", "reinforce"])
def test_a_method_that_compares_no_group_takes_dialogues_alone(name):
    assert np.any(loaded(**{"algo.name": name, "algo.group_size": 1}).credit((), REWARDS))
