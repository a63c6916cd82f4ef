"""CMPO's policy loss: clipped policy gradient plus a pull towards the reference model.

Shapes: B rows on this device, T tokens (padded).
"""

import chex
import jax
import jax.numpy as jnp


def cmpo_loss(
    logprobs: chex.Array,
    sampled_logprobs: chex.Array,
    reference_logprobs: chex.Array,
    advantages: chex.Array,
    mask: chex.Array,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    kl_weight: float = 0.005,
    denominator: chex.Numeric | None = None,
    axis_name: str | tuple[str, ...] | None = None,
) -> tuple[chex.Array, dict[str, chex.Array]]:
    """Mean over the masked tokens of all devices of `-min(r A, clip(r, 1 - clip_low, 1 + clip_high) A) + kl_weight KL`.

    `r = exp(logprob - sampled_logprob)`; `KL = exp(x) - x - 1` with `x = reference_logprob - logprob` (the k3
    estimator, never negative). Only `logprobs` is differentiated; everything else is data. Nothing is clamped to hide
    a policy that has run away: its ratio or KL overflows to inf, and the caller's finiteness check sees it.

    Several devices: with `axis_name` sums and counts are added over that axis, so every device returns the same loss,
    and a device with few tokens weighs little. The gradient with respect to parameters that all devices share:

    - differentiate *outside* the map (`jax.grad` of `jax.shard_map(...)`, `pmap` or `vmap` of the loss): it is the
      global gradient. Nothing to add. The way to prefer.
    - *inside* `jax.shard_map` (with its default `check_vma=True`): it is the global gradient as well; JAX inserts the
      sum over devices when it transposes the use of a replicated parameter. A `psum` on top would count it n times.
    - *inside* `pmap`, `vmap(axis_name=...)` or `shard_map(check_vma=False)`: each of the n devices holds n times its
      own part, for the transpose of `psum` is `psum`. The global gradient is `jax.lax.pmean(gradient, axis_name)`.

    So `pmean` after a gradient taken inside is right in every one of these cases (a no-op in the second).

    Several micro-batches: pass the number of masked tokens of the whole batch (all micro-batches, all devices) as
    `denominator`. Losses, gradients and mean metrics of the parts then add up to the whole's; maxima combine by max.

    Source: PPO (Schulman et al. 2017), with the two clip bounds apart; k3 from Schulman, "Approximating KL Divergence"
    (2020); the sum of both with one advantage per turn is the objective of CMPO, arXiv 2602.22697.

    Args:
      logprobs: [B, T] float, log-probability in nats of each token under the policy being trained.
      sampled_logprobs: [B, T] float, the same when the token was sampled.
      reference_logprobs: [B, T] float, the same under the frozen reference.
      advantages: [B, T] float, the advantage of the turn that each token belongs to.
      mask: [B, T] bool, True for tokens the agent sampled. What the other arrays hold elsewhere may be anything, NaN
        included: it reaches neither the values nor the gradient.
      clip_low: the ratio counts down to `1 - clip_low` ...
      clip_high: ... and up to `1 + clip_high`.
      kl_weight: weight of the KL term.
      denominator: scalar, the same on all devices; default: the masked tokens of this call on all devices.
      axis_name: mapped axis or axes to sum over; None for one device.

    Returns:
      The loss, a scalar of at least float32 (0 where no token is masked in), and scalar metrics, free of gradients:
      means `policy_loss`, `kl`, `clip_fraction` (tokens where the clip stops the gradient), `ratio_mean`; maxima
      `ratio_max`, `logprob_gap_max` (`|logprob - sampled_logprob|`).

    Raises:
      AssertionError: ranks, types or shapes do not match.
    """
    floats = [logprobs, sampled_logprobs, reference_logprobs, advantages]
    chex.assert_rank([*floats, mask], 2)
    chex.assert_type([*floats, mask], [float, float, float, float, bool])
    chex.assert_equal_shape([*floats, mask])
    if denominator is not None:
        chex.assert_rank(denominator, 0)

    # Cleaned before any arithmetic, so that what lies outside the mask cannot come back through a gradient either.
    dtype = jnp.result_type(logprobs, jnp.float32)
    logprobs, *data = (jnp.where(mask, x, 0).astype(dtype) for x in floats)
    sampled_logprobs, reference_logprobs, advantages = jax.lax.stop_gradient(data)

    log_ratio = logprobs - sampled_logprobs
    ratio = jnp.exp(log_ratio)
    unclipped = ratio * advantages
    clipped = jnp.clip(ratio, 1 - clip_low, 1 + clip_high) * advantages
    x = reference_logprobs - logprobs
    per_token = {
        "policy_loss": -jnp.minimum(unclipped, clipped),
        "kl": jnp.exp(x) - x - 1,
        "clip_fraction": clipped < unclipped,
        "ratio_mean": ratio,
    }
    sums = {name: jnp.sum(value, where=mask) for name, value in per_token.items()}
    maxima = {"ratio_max": ratio, "logprob_gap_max": jnp.abs(log_ratio)}
    # Gradients stop before the maximum: `pmax` has none.
    maxima = {k: jnp.max(jax.lax.stop_gradient(v), where=mask, initial=0) for k, v in maxima.items()}
    count = jnp.sum(mask)
    if axis_name is not None:
        sums, count = jax.lax.psum((sums, count), axis_name)
        maxima = jax.lax.pmax(maxima, axis_name)

    divisor = count if denominator is None else denominator
    means = {name: value / jnp.where(divisor > 0, divisor, 1) for name, value in sums.items()}
    loss = means["policy_loss"] + kl_weight * means["kl"]
    return loss, jax.lax.stop_gradient(means | maxima)
