"""Runs in the lab: the trainer's credit and controller, the same numbers from the same seed, and what lambda does."""

import dataclasses
import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest

from cmpo import algorithms, pid, spreads
from cmpo.advantage import CREDIT, NORMALIZE
from cmpo.algorithms.algorithm import Rewards
from cmpo.algorithms.optimizers import make_optimizer
from cmpo.lab import actor, learning
from cmpo.lab.plan import LabConfig
from rollouts import domains
from rollouts.domains.fds.lab.environment import FEATURES
from rollouts.domains.fds.lab.grading import ACTS
from tests.builders.runs import tiny

SMALL = LabConfig(
    steps=30, rests=3, scenarios=6, dialogues=4, max_turns=6, hidden=8, learning_rate=0.05, kp=0.7, target=0.2,
    outcome_weight=1.5, process_weight=0.5, discount=0.9, initial_lambda=0.8,
)  # fmt: skip
NAMES = (
    *("outcome_weight", "process_weight", "normalize", "credit", "discount", "price_scale"),
    *("clip_low", "clip_high", "kl_weight"),
)


@pytest.fixture(scope="module")
def start():
    return learning.make_start(SMALL)


play = jax.jit(learning.play_batch)  # a program takes seconds to compile: all tests have these two
train_all = jax.jit(jax.vmap(learning.train, (0, 0, None)))


@pytest.fixture(scope="module")
def batch(start):
    return play(jax.random.key(0), SMALL, start)


def run(start, *changes, seeds=None):
    """Histories [runs] of SMALL with changes, made in one call; up to four."""
    configs = [dataclasses.replace(SMALL, **some) for some in changes]
    seeds = list(seeds or range(len(configs)))
    filled = [*configs, *[configs[0]] * (4 - len(configs))]
    many = jax.tree.map(lambda *x: jnp.array(x, jnp.float32), *filled)
    found = train_all(many, jnp.array([*seeds, *[0] * (4 - len(seeds))]), start)
    return jax.tree.map(lambda x: np.asarray(x)[: len(configs)], found)


@functools.cache
def trainer_of(config):
    """The trainer's own CMPO with the lab's settings."""
    changes = {f"algo.{name}": getattr(config, name) for name in NAMES}
    names = ("target", "kp", "ki", "kd", "smoothing", "lambda_max", "initial_lambda", "form", "every", "smoothing_of")
    made = tiny(**changes, **{f"pid.{name}": getattr(config, name) for name in names})
    return algorithms.load(made, domains.load(made))


@pytest.mark.parametrize(
    "normalize, credit", [pair for pair in itertools.product(NORMALIZE, CREDIT) if pair != ("trajectory", "dialogue")]
)
def test_turns_are_worth_what_they_are_worth_to_the_trainer(batch, normalize, credit):
    config = dataclasses.replace(SMALL, normalize=normalize, credit=credit)
    cmpo = trainer_of(config)
    memory = cmpo.memory()
    assert memory.lambdas.tolist() == pytest.approx([0.8])
    memory, scales = cmpo.observe(memory, batch.rewards), None
    if normalize == "scaled":
        scales = spreads.read_spreads(
            spreads.update(spreads.init(1), learning.measure_variances(config, batch.rewards))
        )
    found = learning.credit_batch(config, batch.rewards, memory.lambdas, scales)
    expected = cmpo.credit(memory, jax.tree.map(np.asarray, batch.rewards))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert np.std(found) > 0 and batch.rewards.cost.sum() > 0


def test_the_multiplier_moves_as_the_trainers(start):
    config = dataclasses.replace(SMALL, kd=0.2)
    history, cmpo = jax.tree.map(lambda x: x[0], run(start, {"kd": 0.2}, seeds=[3])), trainer_of(config)
    memory = cmpo.memory()
    for step, rate in enumerate(history.voucher_rate.tolist()):
        assert history.lambdas[step] == pytest.approx(float(memory.lambdas[0]), abs=1e-4)
        if step < config.steps:  # in rests it stays
            memory = cmpo.move(memory, {"voucher_rate": rate}, skipped=False)
    assert len(set(history.lambdas.tolist())) > 20


def test_the_loss_is_the_trainers(start, batch):
    """With a policy that has moved from the one that played, and another reference."""
    moved, reference = (jax.tree.map(lambda x, by=by: x + by, start) for by in (0.05, -0.02))
    config, cmpo = (
        dataclasses.replace(SMALL, kl_weight=0.3, clip_low=0.05),
        trainer_of(dataclasses.replace(SMALL, kl_weight=0.3, clip_low=0.05)),
    )
    mask = np.asarray(batch.rewards.turn_mask)
    advantages = np.asarray(learning.credit_batch(config, batch.rewards, jnp.array([0.8])))
    new, old, first = (
        np.asarray(actor.score_acts(policy, batch.seen, batch.acts, press=False))
        for policy in (moved, start, reference)
    )
    loss, metrics = learning.measure_loss(config, batch, advantages, old, first, moved)
    ratio = np.exp(new - old)
    clipped = np.clip(ratio, 1 - 0.05, 1 + cmpo.settings.clip_high)
    gap = first - new
    terms = -np.minimum(ratio * advantages, clipped * advantages) + 0.3 * (np.exp(gap) - gap - 1)
    assert float(loss) == pytest.approx(terms[mask].mean(), rel=1e-4)
    assert float(metrics["clip_fraction"]) > 0


def test_a_run_updates_as_the_trainer_does(start):
    """Step by step: its optimizer and schedule, both epochs of both minibatches, and the reference it began with."""
    changes = {"minibatches": 2, "epochs": 2, "scenarios": 4, "kl_weight": 0.5, "learning_rate": 0.1}
    config = dataclasses.replace(SMALL, steps=3, rests=0, final_fraction=0.1, **changes)
    trainer = ml_collections.FrozenConfigDict(tiny()).train
    optimizer = make_optimizer(
        learning_rate=config.learning_rate,
        steps=config.steps * 4,
        weight_decay=0.0,
        final_fraction=0.1,
        **{name: trainer[name] for name in ("warmup_fraction", "max_grad_norm")},
    )
    found = jax.jit(learning.train)(config, 5, start)
    policy, state = start, optimizer.init(start)
    differentiate = jax.jit(jax.value_and_grad(learning.measure_loss, argnums=5, has_aux=True))
    for step in range(config.steps):
        batch = play(jax.random.fold_in(jax.random.key(5), step), config, policy)
        advantages = learning.credit_batch(config, batch.rewards, found.lambdas[step : step + 1])
        sampled, reference = (
            actor.score_acts(one, batch.seen, batch.acts, press=config.press) for one in (policy, start)
        )
        for place in (0, 1, 0, 1):
            part = jax.tree.map(
                lambda x, place=place: x[2 * place : 2 * place + 2], (batch, advantages, sampled, reference)
            )
            (_, metrics), gradient = differentiate(config, *part, policy)
            updates, state = optimizer.update(gradient, state, policy)
            policy = optax.apply_updates(policy, updates)
        assert float(found.kl[step]) == pytest.approx(float(metrics["kl"]), rel=1e-2, abs=1e-6)
    chex.assert_trees_all_close(found.policy, policy, rtol=1e-3, atol=1e-4)
    assert found.kl[-1] > 1e-3 and not np.any(found.updates_skipped)


def test_an_update_that_is_not_finite_is_left_out_and_the_multiplier_stays(start):
    history = run(start, {"outcome_weight": 3e38})
    assert np.all(history.updates_skipped[0, : SMALL.steps] == 1)
    chex.assert_trees_all_equal(jax.tree.map(lambda x: x[0], history.policy), jax.tree.map(np.asarray, start))
    assert np.all(history.lambdas == np.float32(0.8))


def test_a_seed_tells_all_of_a_run(start):
    history = run(start, {}, {}, {}, seeds=[0, 0, 1])
    chex.assert_trees_all_equal(*(jax.tree.map(lambda x, k=k: x[k], history) for k in range(2)))
    assert not np.array_equal(history.satisfaction[0], history.satisfaction[2])
    assert all(x.shape == (3, SMALL.steps + SMALL.rests) for x in history[:-1])


def test_runs_differ_by_their_numbers_under_one_map(start):
    history = run(start, {"target": 0.0}, {"target": 0.9}, seeds=[0, 0])
    assert np.all(history.lambdas[0, 1:] > history.lambdas[1, 1:]) and history.lambdas[0, 0] == np.float32(0.8)


def test_with_a_rate_of_zero_nothing_changes(start):
    history = run(start, {"learning_rate": 0.0})
    chex.assert_trees_all_equal(jax.tree.map(lambda x: x[0], history.policy), jax.tree.map(np.asarray, start))
    assert np.all(np.abs(history.kl) < 1e-9) and len(set(history.satisfaction[0].tolist())) > 1


def test_the_policy_in_the_end_is_the_one_that_played_in_rests(start):
    history = jax.tree.map(lambda x: x[0], run(start, {}, seeds=[7]))
    for step in range(SMALL.steps, SMALL.steps + SMALL.rests):
        rested = play(jax.random.fold_in(jax.random.key(7), step), SMALL, history.policy)
        means = learning.summarize_batch(rested.rewards)
        assert history.voucher_rate[step] == pytest.approx(float(means.voucher_rate), abs=1e-6)
        assert history.satisfaction[step] == pytest.approx(float(means.satisfaction), abs=1e-6)
        assert history.process_reward[step] == pytest.approx(float(means.process_reward), abs=1e-5)
        entropy = np.asarray(actor.measure_entropy(history.policy, rested.seen, press=False))
        assert history.entropy[step] == pytest.approx(entropy[rested.rewards.turn_mask].mean(), abs=1e-4)


def test_what_is_said_of_a_step_is_so(start):
    """The first one, in which the policy is the reference."""
    history = jax.tree.map(lambda x: x[0], run(start, {}, seeds=[7]))
    batch = play(jax.random.fold_in(jax.random.key(7), 0), SMALL, start)
    valid, advantages = batch.rewards.turn_mask, learning.credit_batch(SMALL, batch.rewards, jnp.array([0.8]))
    entropy = actor.measure_entropy(start, batch.seen, press=False)
    expected = {
        "spread": np.std(np.asarray(advantages)[valid]), "kl": 0.0, "clip_fraction": 0.0,
        "entropy": np.mean(np.asarray(entropy)[valid]), "turns": float(np.mean(valid.sum(-1))),
        "finish_rate": float(np.mean(batch.rewards.outcome > 0)),
    }  # fmt: skip
    assert {name: float(getattr(history, name)[0]) for name in expected} == pytest.approx(expected, abs=1e-4)
    assert history.grad_norm[0] > 0


CHANGED = dataclasses.replace(
    SMALL, steps=4, rests=2, scenarios=2, learning_rate=0.0, normalize="scaled", price_scale="one_plus_lambda",
    change_at=2, target_change=0.5, judge_scale=3.0, difficulty_after="normal",
)  # fmt: skip


def test_a_run_changes_what_it_is_told_to_change_and_remembers_spreads(start):
    """Step by step, with a policy that stays as it is. In rests neither lambda nor the spreads move."""
    history = jax.jit(learning.train)(CHANGED, 7, start)
    state, scales = pid.init(CHANGED.gains, 0.8), spreads.init(1)
    for step in range(CHANGED.steps + CHANGED.rests):
        changed = step >= CHANGED.change_at
        batch = play(jax.random.fold_in(jax.random.key(7), step), CHANGED, start, changed)
        means, valid = learning.summarize_batch(batch.rewards), np.asarray(batch.rewards.turn_mask)
        seen = spreads.update(scales, learning.measure_variances(CHANGED, batch.rewards))
        advantages = learning.credit_batch(CHANGED, batch.rewards, state.lambdas, spreads.read_spreads(seen))
        assert history.lambdas[step] == pytest.approx(float(state.lambdas[0]), abs=1e-5)
        assert history.spread[step] == pytest.approx(np.std(np.asarray(advantages)[valid]), rel=1e-4)
        assert history.process_reward[step] == pytest.approx(float(means.process_reward), rel=1e-5)
        assert (history.process_reward[step] > 1) == changed
        if step < CHANGED.steps:
            gains = dataclasses.replace(CHANGED.gains, target=0.2 + 0.5 * changed)
            state, scales = pid.update(gains, state, means.voucher_rate[None]), seen


def test_after_the_change_others_call_and_the_judge_is_another(start):
    hard = dataclasses.replace(CHANGED, difficulty_after="", judge_scale=1.0)
    normal = dataclasses.replace(hard, difficulty="normal")
    for changed, alone in ((False, hard), (True, normal)):
        found = play(jax.random.key(3), CHANGED, start, changed)
        expected = play(jax.random.key(3), alone, start, False)
        process = np.where(changed, 3, 1) * np.asarray(expected.rewards.process)
        np.testing.assert_allclose(found.rewards.process, process, rtol=1e-6)
        chex.assert_trees_all_equal(found.seen, expected.seen)
        chex.assert_trees_all_equal(found.rewards.outcome, expected.rewards.outcome)
    assert not np.array_equal(found.seen, play(jax.random.key(3), hard, start, False).seen)


def test_a_high_price_ends_vouchers_and_none_brings_more(start):
    """Two runs each, of prices that stay as they are."""
    fixed = {"kp": 0.0, "ki": 0.0, "kl_weight": 0.0}
    prices = np.float32([0.0, 0.0, 5.0, 5.0])
    history = run(start, *({**fixed, "initial_lambda": price} for price in prices), seeds=[0, 1, 0, 1])
    assert np.all(history.lambdas == prices[:, None])
    begun, ended = history.voucher_rate[:, 0], history.voucher_rate[:, SMALL.steps :].mean(1)
    assert begun.tolist() == [begun[0], begun[1]] * 2 and np.all((begun > 0.1) & (begun < 0.6))
    assert np.all(ended[:2] > begun[:2] + 0.15) and np.all(ended[2:] < 0.03)


def test_a_group_has_one_customer_and_chances_of_its_own(start):
    batch = jax.tree.map(
        lambda *x: jnp.concatenate(x), *(play(jax.random.key(seed), SMALL, start) for seed in range(1, 6))
    )
    opening = {name: np.asarray(batch.seen[:, :, 0, place]) for place, name in enumerate(FEATURES)}
    for name in ("discloses", "wants", "record=0", "record=1", "first_heat=0"):
        assert np.all(opening[name] == opening[name][:, :1]) and len(set(opening[name][:, 0].tolist())) == 2, name
    hints = np.stack([opening[f"hint_opening={hint}"] for hint in range(5)], -1).argmax(-1)
    assert np.mean(hints != hints[:, :1]) > 0.2
    agreed = np.asarray(batch.seen[..., FEATURES.index("deal=2")]) > 0
    gives = np.asarray(batch.acts[..., ACTS.index("voucher")])
    assert gives[agreed].any() and not gives[~agreed].any()
    cost = np.asarray(batch.rewards.cost[..., 0])
    np.testing.assert_array_equal(cost, gives & batch.rewards.turn_mask)


def test_means_of_a_batch_by_hand():
    """Two dialogues of two turns and one of one; the last one walks out."""
    rewards = Rewards(
        outcome=jnp.array([[4.0, 3.0, 0.0]]),
        process=jnp.array([[[1.0, 0.5], [0.25, 0.25], [0.75, 9.0]]]),
        cost=jnp.array([[[[0.0], [1.0]], [[0.0], [0.0]], [[0.0], [0.0]]]]),
        turn_mask=jnp.array([[[True, True], [True, True], [True, False]]]),
    )
    means = learning.summarize_batch(rewards)._asdict()
    expected = {
        "voucher_rate": 1 / 3, "satisfaction": 7 / 3, "process_reward": (0.75 + 0.25 + 0.75) / 3, "finish_rate": 2 / 3,
        "turns": 5 / 3,
    }  # fmt: skip
    assert {name: float(value) for name, value in means.items()} == pytest.approx(expected)
