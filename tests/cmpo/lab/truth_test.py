"""The sampled truth: within its error of what is exact, whatever its baseline."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from cmpo.lab import actor, exact, truth
from cmpo.lab.plan import LabConfig
from rollouts.domains.fds.embedded import latent
from rollouts.domains.fds.lab import environment
from tests.builders.customers import CUSTOMER
from tests.builders.lab import make_states

CONFIG = LabConfig(hidden=3)
MOOD = latent.Mood(patience=3, anger=0, trust=1, heard=1, evidence=2)
CASES = (
    (CUSTOMER._replace(demand="compensation_flexible"), MOOD),
    (CUSTOMER._replace(wants="short"), MOOD._replace(deal=2)),
)
ROOTS = make_states(CASES, 13)
WEIGHTS = np.full(2, 0.5, np.float32)
SIZE = 512
MANY = jax.tree.map(lambda x: np.repeat(x, SIZE // 2, 0), ROOTS)
FEATURES = truth.describe_state(ROOTS).shape[-1]


@pytest.fixture(scope="module")
def policy():
    begun = actor.init_policy(jax.random.key(0), 3)
    return jax.tree.map(lambda x: x + jax.random.normal(jax.random.key(1), x.shape) / 2, begun)


@pytest.fixture(scope="module")
def layers():
    return exact.list_layers(ROOTS, max_turns=CONFIG.max_turns)


def some_critic(scale):
    shapes = (FEATURES, 5), (5,), (5, len(truth.MEASURES)), (len(truth.MEASURES),)
    return truth.MeasureCritic(*(scale * jax.random.normal(jax.random.key(7), shape) for shape in shapes))


@pytest.mark.parametrize("scale", [0.0, 0.3])
def test_sampled_gradients_and_means_are_the_exact_ones_whatever_the_baseline(policy, layers, scale):
    flat, unravel = jax.flatten_util.ravel_pytree(policy)

    def measure(x):
        values = exact.expect_dialogue(unravel(x), layers, WEIGHTS)
        return jnp.stack([getattr(values, name) for name in (*truth.MEASURES, "turns")])

    keys = jax.random.split(jax.random.key(2), 100)
    found = truth.sample_gradients(keys, CONFIG, policy, some_critic(scale), MANY, size=SIZE, rows=2 * SIZE)
    gradients, means, left_out = map(np.asarray, found)
    assert left_out == 0
    exactly, slopes = np.asarray(measure(flat)), np.asarray(jax.jacrev(measure)(flat))
    # `quality` and turns of these dialogues: the exact ones count the 13 before as well
    kept = [truth.MEASURES.index(name) for name in ("outcome", "process", "cost")]
    errors = means.std(0, ddof=1) / 10
    np.testing.assert_array_less(np.abs(means.mean(0) - exactly)[[*kept, -1]], 5 * errors[[*kept, -1]] + 1e-6)
    for place in kept:
        error = np.sqrt(gradients[:, place].var(0, ddof=1).sum() / 100)
        off = np.linalg.norm(gradients[:, place].mean(0) - slopes[place])
        assert off < 2 * error and error < 0.3 * np.linalg.norm(slopes[place])


def test_turns_that_are_left_out_are_counted(policy):
    keys = jax.random.split(jax.random.key(2), 1)
    found = truth.sample_gradients(keys, CONFIG, policy, some_critic(0.0), MANY, size=SIZE, rows=SIZE)
    assert found[2] == round(float(found[1][0, -1]) * SIZE) - SIZE > 0


def test_sampled_advantages_are_the_exact_ones(policy, layers):
    values, acts = exact.evaluate_policy(policy, layers)[0]
    listed = exact.list_acts()
    chosen = np.array([[2, 3, 160, 7], [1, 0, 100, 61]])  # of each root; in the second a voucher is agreed, and given
    states = jax.tree.map(lambda x: np.repeat(x, chosen.shape[1], 0), ROOTS)
    found, errors = truth.sample_advantages(
        jax.random.key(3), CONFIG, policy, states, listed[chosen.reshape(-1)], count=3000
    )
    for place, name in enumerate(truth.MEASURES[:3]):
        q = np.take_along_axis(np.asarray(getattr(acts, name)), chosen, 1).reshape(-1)
        v = np.repeat(np.asarray(getattr(values, name)), chosen.shape[1])
        assert np.std(q) > 0.1
        for ours, error, theirs in zip(found[..., place], errors[..., place], (q, v), strict=True):
            np.testing.assert_array_less(np.abs(ours - theirs), 5 * error + 1e-5)


def test_a_critic_learns_what_is_to_be_expected():
    features = jax.random.normal(jax.random.key(4), (4000, 6))
    means = jnp.stack([features[:, 0] + 3, 10 * features[:, 1] * features[:, 2]], 1)
    noisy = means + jax.random.normal(jax.random.key(5), means.shape)
    valid = jnp.arange(4000) % 3 > 0
    noisy = jnp.where(valid[:, None], noisy, 1e3)  # what did not take place teaches nothing
    critic = truth.fit_critic(jax.random.key(6), features, noisy, valid)
    off = np.asarray(truth.apply_critic(critic, features) - means)[np.asarray(valid)]
    assert np.all(np.square(off).mean(0) < [0.3, 5.0])  # of variances of 1 and 100


def test_what_lies_ahead_is_summed_over_turns_that_took_place():
    valid = np.array([[True, True, False]])
    turns = environment.LabTurn(valid, np.array([[0.5, 1.0, 0.0]]), np.array([[0.0, 1.0, 0.0]]))
    ahead = truth.sum_ahead(truth.Play(None, None, turns, np.array([4.0])))
    np.testing.assert_allclose(ahead, [[[4, 1.5, 1, 0.75], [4, 1, 1, 0.75], [0, 0, 0, 0]]])
