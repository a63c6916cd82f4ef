"""The jitted, donated updates of both phases: per-device gradients, mapped over the data axis of a mesh.

Legend: R rows over all devices, T tokens, B groups, G dialogues of a group, N turns, C costs.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from cmpo.advantage import hybrid_advantage
from cmpo.baselines.sft import sft_loss
from cmpo.batch import Rewards, Rows
from cmpo.loss import cmpo_loss
from models import qwen2

DATA = "data"
Metrics = dict[str, jax.Array]


def make_mesh() -> Mesh:
    """All devices along one data axis; parameters are replicated."""
    return jax.make_mesh((jax.device_count(),), (DATA,), axis_types=(jax.sharding.AxisType.Auto,))


def shard(mesh: Mesh, rows: Any) -> Any:
    """Puts arrays [R, ...] on the mesh, R split over the data axis."""
    return jax.device_put(rows, NamedSharding(mesh, P(DATA)))


def replicate(mesh: Mesh, tree: Any) -> Any:
    """Puts arrays on every device of the mesh."""
    return jax.device_put(tree, NamedSharding(mesh, P()))


def _micro_batches(rows: Any, segment_ids: jax.Array, micro_rows: int) -> tuple[jax.Array, Callable]:
    """How many micro-batches of this device hold tokens, and the function that cuts one out.

    Rows in use come first, so that padding rows cost nothing; the count is data, not shape: nothing recompiles.
    """
    used = jnp.sum(jnp.any(segment_ids > 0, axis=1))

    def cut(number):
        return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, number * micro_rows, micro_rows), rows)

    return (used + micro_rows - 1) // micro_rows, cut


def _mapped(mesh: Mesh, function: Callable, in_specs: Any, out_specs: Any) -> Callable:
    return jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)


def make_score(config: qwen2.Qwen2Config, mesh: Mesh, micro_rows: int) -> Callable:
    """Returns ``score(params, rows) -> logprobs [R, T]``: every token's log-probability under fixed parameters."""

    def per_device(params, rows):
        count, cut = _micro_batches(rows, rows.segment_ids, micro_rows)

        def body(number, logprobs):
            part = cut(number)
            new, _ = qwen2.token_logprobs(
                config, params, part.tokens, positions=part.positions, segment_ids=part.segment_ids
            )
            return jax.lax.dynamic_update_slice_in_dim(logprobs, new, number * micro_rows, axis=0)

        return jax.lax.fori_loop(0, count, body, jnp.zeros(rows.tokens.shape, jnp.float32))

    return jax.jit(_mapped(mesh, per_device, (P(), P(DATA)), P(DATA)))


def make_update(
    config: qwen2.Qwen2Config, mesh: Mesh, optimizer: optax.GradientTransformation, loss: Callable, micro_rows: int
) -> Callable:
    """Returns ``update(params, opt_state, rows, extras) -> (params, opt_state, metrics)``; the first two are donated.

    Each device adds up the gradients of its micro-batches in float32, then all devices add up theirs: the result is the
    gradient of the whole batch's loss, whatever the number of devices and the size of a micro-batch.

    Args:
      config: the model's sizes.
      mesh: devices with a data axis.
      optimizer: the gradient transformation.
      loss: ``loss(logprobs, entropy, rows, extras, total) -> (loss, metrics)``, the share of some rows in a batch with
        `total` masked tokens. Shares add up; metrics whose names end in `_max` combine by maximum.
      micro_rows: rows of a micro-batch; divides R per device.
    """

    def per_device(params, rows, extras):
        count, cut = _micro_batches((rows, extras), rows.segment_ids, micro_rows)
        total = jax.lax.psum(jnp.sum(rows.mask), DATA)

        def share(params, part):
            rows, extras = part
            logprobs, entropy = qwen2.token_logprobs(
                config, params, rows.tokens, positions=rows.positions, segment_ids=rows.segment_ids
            )
            return loss(logprobs, entropy, rows, extras, total)

        def body(number, carry):
            (_, metrics), gradients = jax.value_and_grad(share, has_aux=True)(params, cut(number))
            return jax.tree.map(jnp.add, carry[0], gradients), _combine(carry[1], metrics, jnp.add, jnp.maximum)

        shapes = jax.eval_shape(lambda: share(params, cut(0))[1])
        zeros = jax.tree.map(jnp.zeros_like, params), jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        gradients, metrics = jax.lax.fori_loop(0, count, body, zeros)
        add, top = functools.partial(jax.lax.psum, axis_name=DATA), functools.partial(jax.lax.pmax, axis_name=DATA)
        return add(gradients), _combine(metrics, metrics, lambda x, _: add(x), lambda x, _: top(x))

    gradient = _mapped(mesh, per_device, (P(), P(DATA), P(DATA)), P())

    @functools.partial(jax.jit, donate_argnames=("params", "opt_state"))
    def update(params: qwen2.Params, opt_state: optax.OptState, rows: Rows, extras: Any):
        gradients, metrics = gradient(params, rows, extras)
        changes, opt_state = optimizer.update(gradients, opt_state, params)
        metrics["grad_norm"] = optax.global_norm(gradients)
        return optax.apply_updates(params, changes), opt_state, metrics

    return update


def _combine(a: Metrics, b: Metrics, add: Callable, top: Callable) -> Metrics:
    return {name: (top if name.endswith("_max") else add)(a[name], b[name]) for name in b}


def sft_share(logprobs, entropy, rows: Rows, extras, total) -> tuple[jax.Array, Metrics]:
    """Phase 1's loss, as `make_update` wants it; `extras` is ()."""
    loss = sft_loss(logprobs, rows.mask, denominator=total)
    return loss, {"loss": loss, "entropy": jnp.sum(entropy, where=rows.mask) / total}


def cmpo_share(*, clip_low: float, clip_high: float, kl_weight: float) -> Callable:
    """Phase 2's loss, as `make_update` wants it; `extras` are advantages and reference logprobs, each [R, T]."""

    def share(logprobs, entropy, rows: Rows, extras, total):
        advantages, reference = extras
        loss, metrics = cmpo_loss(
            logprobs,
            rows.sampled_logprobs,
            reference,
            advantages,
            rows.mask,
            clip_low=clip_low,
            clip_high=clip_high,
            kl_weight=kl_weight,
            denominator=total,
        )
        return loss, {"loss": loss, "entropy": jnp.sum(entropy, where=rows.mask) / jnp.maximum(total, 1), **metrics}

    return share


def token_advantages(rewards: Rewards, turns: jax.Array, lambdas: jax.Array, **options) -> jax.Array:
    """Gives every token its turn's hybrid advantage.

    Args:
      rewards: of B groups.
      turns: [R, T] int32, index of each token's turn in [B * G * N].
      lambdas: [C] float32, the multipliers, the same for the whole batch.
      **options: of `hybrid_advantage`.

    Returns:
      [R, T] float32.
    """
    grouped = functools.partial(hybrid_advantage, lambdas=lambdas, **options)
    advantages = jax.vmap(lambda r: grouped(r.outcome, r.process, r.cost, r.turn_mask))(rewards)
    return advantages.reshape(-1)[turns]
