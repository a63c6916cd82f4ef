"""Supervised fine-tuning: the loss of phase 1."""

import chex
import jax.numpy as jnp


def sft_loss(logprobs: chex.Array, mask: chex.Array, *, denominator: chex.Numeric | None = None) -> chex.Array:
    """Mean negative log-probability of the agent's tokens.

    Args:
      logprobs: [B, T] float, log-probability of each token.
      mask: [B, T] bool, tokens the agent wrote. What lies outside may be anything, NaN included.
      denominator: scalar to divide by instead of the number of masked tokens, so that parts of a batch add up.

    Returns:
      The loss, a scalar; 0 where nothing is masked in.
    """
    chex.assert_rank([logprobs, mask], 2)
    chex.assert_equal_shape([logprobs, mask])
    divisor = jnp.sum(mask) if denominator is None else denominator
    return -jnp.sum(jnp.where(mask, logprobs, 0.0)) / jnp.maximum(divisor, 1)
