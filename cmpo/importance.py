"""Truncated importance weights: what tokens of an older policy are worth to the present one."""

import chex
import jax.numpy as jnp


def importance_weights(
    logprobs: chex.Array, sampled_logprobs: chex.Array, mask: chex.Array, *, cap: float
) -> tuple[chex.Array, dict[str, chex.Array]]:
    """`min(pi / mu, cap)` for each token: pi is the policy before the update, mu the one that sampled.

    A policy gradient on mu's tokens, each times its weight, is pi's own but for what the cap cuts off; the cap keeps
    single tokens from ruling a batch. The clipped ratio of `cmpo.loss` is then to pi, not to mu: what clips is how far
    the update goes, not how old the data is.

    Source: truncation, Espeholt et al. 2018 (IMPALA); a proximal policy apart from the one that sampled, Hilton et al.
    2022 ("Batch size-invariance for policy optimization") and Fu et al. 2025 (AReaL).

    Args:
      logprobs: [...] float, of each token under pi, in nats.
      sampled_logprobs: [...] float, the same under mu.
      mask: [...] bool, tokens that count; what the others hold may be anything.
      cap: the largest weight, at least 1.

    Returns:
      [...] weights, 0 outside the mask, and scalar metrics: `importance_mean`, `importance_capped` (share of tokens),
      `importance_gap_max` (`|log pi - log mu|`).
    """
    chex.assert_equal_shape([logprobs, sampled_logprobs, mask])
    gap = jnp.where(mask, logprobs, 0) - jnp.where(mask, sampled_logprobs, 0)  # 0 outside, where anything may stand
    ratio = jnp.exp(gap)
    weights = jnp.where(mask, jnp.minimum(ratio, cap), 0)
    count = jnp.maximum(jnp.sum(mask), 1)
    return weights, {
        "importance_mean": jnp.sum(weights) / count,
        "importance_capped": jnp.sum(ratio > cap) / count,
        "importance_gap_max": jnp.max(jnp.abs(gap)),
    }
