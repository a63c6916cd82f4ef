"""Supervised fine-tuning: what phase 1 learns from demonstrations."""

from typing import Any

import chex
import jax
import jax.numpy as jnp

from cmpo.algorithms.algorithm import Algorithm, Metrics, Rows, Scores


def make(config, domain) -> Algorithm:
    """Makes the algorithm of phase 1. As config.algo.name, it gives a run without phase 2."""
    return SFT(domain)


class SFT(Algorithm):
    """Imitates the agent's tokens."""

    plays = False

    def loss(self, scores, rows, signals, total, axis_name):
        """See `imitation_loss`."""
        return imitation_loss(scores, rows, signals, total, axis_name)


def imitation_loss(
    scores: Scores, rows: Rows, signals: Any, total: jax.Array, axis_name: Any
) -> tuple[jax.Array, Metrics]:
    """Computes the share of some rows in `sft_loss`; arguments as for `Algorithm.loss`, `signals` is not used."""
    return jax.lax.psum(sft_loss(scores.logprobs, rows.mask, denominator=total), axis_name), {}


def sft_loss(logprobs: chex.Array, mask: chex.Array, *, denominator: chex.Numeric | None = None) -> chex.Array:
    """Computes the mean negative log-probability of the agent's tokens.

    Args:
      logprobs: [B, T] float, log-probability of each token.
      mask: [B, T] bool, tokens the agent wrote. Values outside the mask may be anything, NaN included.
      denominator: scalar to divide by instead of the number of masked tokens, so that parts of a batch add up.

    Returns:
      The loss, a scalar; 0 if the mask selects nothing.
    """
    chex.assert_rank([logprobs, mask], 2)
    chex.assert_equal_shape([logprobs, mask])
    divisor = jnp.sum(mask) if denominator is None else denominator
    return -jnp.sum(jnp.where(mask, logprobs, 0.0)) / jnp.maximum(divisor, 1)
