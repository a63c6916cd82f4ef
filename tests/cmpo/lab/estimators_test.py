"""Estimators: the trainer's loss and advantages, and what is said of them where the answer is known."""

import dataclasses

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from cmpo.algorithms.algorithm import Rewards
from cmpo.lab import actor, estimators, learning, truth
from cmpo.lab.estimators import Estimator
from cmpo.lab.learning import LabBatch
from cmpo.lab.plan import LabConfig

CONFIG = LabConfig(scenarios=4, dialogues=3, max_turns=5, hidden=3, press=True, kl_weight=0.0, discount=0.9)
PRICE = 1.7


@pytest.fixture(scope="module")
def policy():
    begun = actor.init_policy(jax.random.key(0), 3)
    return jax.tree.map(lambda x: x + jax.random.normal(jax.random.key(1), x.shape) / 2, begun)


@pytest.fixture(scope="module")
def play(policy):
    return jax.jit(estimators.play_groups)(jax.random.key(2), CONFIG, policy)


@pytest.fixture(scope="module")
def batch(play):
    """The same dialogues as the lab's runs have them."""
    groups = jax.tree.map(lambda x: x.reshape(CONFIG.scenarios, CONFIG.dialogues, *x.shape[1:]), play)
    turns = groups.turns
    rewards = Rewards(outcome=groups.outcome, process=turns.process, cost=turns.cost[..., None], turn_mask=turns.valid)
    return LabBatch(truth.observe_states(groups.states), groups.acts, rewards)


@pytest.mark.parametrize("credit, normalize", [("cost_to_go", "center"), ("dialogue", "group"), ("instant", "turn")])
def test_a_batchs_gradient_is_that_of_the_loss_with_the_trainers_advantages(policy, play, batch, credit, normalize):
    config = dataclasses.replace(CONFIG, credit=credit, normalize=normalize)
    advantages = learning.credit_batch(config, batch.rewards, jnp.full(1, PRICE))
    sampled = actor.score_acts(policy, batch.seen, batch.acts, press=True)
    loss = lambda one: learning.measure_loss(config, batch, advantages, sampled, sampled, one)[0]  # noqa: E731
    expected = -jax.flatten_util.ravel_pytree(jax.grad(loss)(policy))[0]

    ours = estimators.credit_turns(CONFIG, Estimator(credit, normalize), play, None, PRICE)
    np.testing.assert_allclose(ours, advantages.reshape(ours.shape), rtol=1e-5, atol=1e-6)
    weights = ours[..., None] / jnp.sum(play.turns.valid)
    found, left_out = truth.score_gradients(CONFIG, policy, play, weights, rows=60)
    assert left_out == 0 and np.linalg.norm(expected) > 0.01
    np.testing.assert_allclose(found[0], expected, rtol=1e-3, atol=1e-5)


def test_dialogues_of_a_group_have_one_customer_and_chances_of_their_own(play):
    worth = np.asarray(play.states.customer.worth).reshape(CONFIG.scenarios, -1)
    assert np.all(worth == worth[:, :1]) and len(set(worth[:, 0])) > 1
    assert len(np.unique(np.asarray(play.acts).reshape(12, -1), axis=0)) > 6


def test_gae_that_trusts_rewards_alone_is_the_return_and_else_the_critics_difference(play):
    values = jax.random.normal(jax.random.key(3), (*play.turns.valid.shape, len(truth.MEASURES)))
    config = dataclasses.replace(CONFIG, discount=1.0)
    returns = estimators.credit_turns(config, Estimator("return_to_go", "none"), play, None, PRICE)
    expected = values[..., 0] + values[..., 1] - PRICE * values[..., 2]
    found = estimators.credit_turns(config, Estimator("gae", trace=1.0), play, values, PRICE)
    np.testing.assert_allclose(found, np.where(play.turns.valid, returns - expected, 0), rtol=1e-4, atol=1e-4)
    found = np.asarray(estimators.credit_turns(config, Estimator("gae", trace=0.0), play, values, PRICE))
    valid, outcome, expected = (np.asarray(x) for x in (play.turns.valid, play.outcome, expected))
    reward = np.asarray(play.turns.process - PRICE * play.turns.cost)
    lengths = valid.sum(1)
    assert len(set(lengths)) > 1
    for row, last in enumerate(lengths - 1):
        ends = np.append(expected[row, 1 : last + 1], outcome[row])
        want = reward[row, : last + 1] + ends - expected[row, : last + 1]
        np.testing.assert_allclose(found[row, : last + 1], want, rtol=1e-4, atol=1e-4)


def test_what_is_said_of_an_estimator_is_what_it_was_made_of():
    """Gains and cost at a right angle: the goal is (3, -2), an estimator has (6, -2) and something beside."""
    rng, axes = np.random.default_rng(0), np.eye(12)
    true = np.zeros((200, 4, 12))
    true[:, 0], true[:, 2] = 3 * axes[0], 2 * axes[1]
    true += rng.normal(size=true.shape) * 0.5
    mean, noise, chunks, size = 6 * axes[0] - 2 * axes[1] + 4 * axes[2], 4.0, 100, 20
    found = mean + noise * rng.normal(size=(chunks, size, 12))

    def compare(some):
        single = (some @ true.mean(0).T)[:, :, None, None]
        batches = estimators.Batches(some.mean(1)[:, None, None], np.sum(some**2, -1)[..., None, None], single)
        return estimators.compare_gradients(batches, (0, 0), true, np.array([1.0, 0.0, -1.0, 0.0]))

    said, goal = compare(found), np.array([3.0, -2.0])
    cosine = mean[:2] @ goal / np.linalg.norm(mean) / np.linalg.norm(goal)
    assert said.cosine == pytest.approx(cosine, abs=0.03) and 0.001 < said.cosine_error < 0.03
    assert said.size == pytest.approx(mean[:2] @ goal / (goal @ goal), rel=0.1)
    assert said.beside == pytest.approx(np.sqrt(1 - said.cosine**2))
    assert said.noise == pytest.approx(12 * noise**2 / (mean @ mean), rel=0.1)
    assert said.felt == pytest.approx(0.5, abs=0.1)
    assert 0.2 < said.single < 0.5 * cosine  # noise has three times the power of the mean
    # The plain cosine of 20 batches is lower for their noise; what is said of them is not, in the mean.
    few = found.reshape(100, 10, 2, 12)
    plain = [some.mean((0, 1)) for some in few]
    plain = [one[:2] @ goal / np.linalg.norm(one) / np.linalg.norm(goal) for one in plain]
    assert np.mean(plain) < cosine - 0.05
    assert np.mean([compare(some).cosine for some in few]) == pytest.approx(cosine, abs=0.02)
