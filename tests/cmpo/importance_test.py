"""Truncated importance weights, by hand."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np

from cmpo import importance
from cmpo.algorithms.algorithm import Rows, Signals
from cmpo.loss import cmpo_loss
from cmpo.training import update_step

NAN = float("nan")
SAMPLED = jnp.log(jnp.array([[0.5, 0.5, 0.1, NAN]]))
PRESENT = jnp.log(jnp.array([[0.25, 0.75, 0.8, 0.3]]))
MASK = jnp.array([[True, True, True, False]])


class ImportanceTest(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_weights_by_hand(self):
        weigh = self.variant(functools.partial(importance.importance_weights, cap=2.0))
        weights, found = weigh(PRESENT, SAMPLED, MASK)
        np.testing.assert_allclose(weights, [[0.5, 1.5, 2.0, 0.0]], rtol=1e-6)
        expected = {"importance_mean": 4 / 3, "importance_capped": 1 / 3, "importance_gap_max": np.log(8)}
        chex.assert_trees_all_close(found, expected, rtol=1e-6)

    def test_one_token_is_its_own_mean_and_a_ratio_at_the_cap_is_not_beyond_it(self):
        weights, found = importance.importance_weights(SAMPLED, SAMPLED, MASK & (jnp.arange(4) == 1), cap=1.0)
        assert weights.tolist() == [[0.0, 1.0, 0.0, 0.0]]
        assert {name: float(x) for name, x in found.items()} == {
            "importance_mean": 1.0,
            "importance_capped": 0.0,
            "importance_gap_max": 0.0,
        }

    def test_no_token_counts(self):
        weights, found = importance.importance_weights(PRESENT, SAMPLED, MASK & False, cap=2.0)
        assert not weights.any() and set(map(float, found.values())) == {0.0}


def test_the_corrected_gradient_is_the_present_policys():
    """By hand: below the cap, each token's gradient is its advantage times pi / mu, as if the clip were not there."""
    rows = Rows(
        tokens=MASK, positions=MASK, segment_ids=MASK, mask=MASK[None], sampled_logprobs=SAMPLED[None], turns=MASK
    )
    signals = Signals(jnp.array([[[1.0, -1.0, 3.0, 9.0]]]), reference=PRESENT[None])
    rows, signals, _ = update_step.correct_for_age(rows, signals, PRESENT[None], cap=10.0)

    def loss(logprobs):
        return cmpo_loss(logprobs, rows.sampled_logprobs[0], PRESENT, signals.advantages[0], MASK, kl_weight=0.0)[0]

    np.testing.assert_allclose(jax.grad(loss)(PRESENT), [[-0.5 / 3, 1.5 / 3, -8.0, 0.0]], rtol=1e-6)
