"""The jitted, donated updates of both phases.

The model runs under the compiler's partitioner: parameters come sharded by `cmpo.distributed.sharding`'s rules, rows
split over data and fsdp. The loss is written per device and mapped over those axes by `jax.shard_map`.

Legend: M micro-batches, U rows of a micro-batch over all devices, T tokens, B groups, G dialogues of a group, N turns,
C costs.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from cmpo.advantage import hybrid_advantage
from cmpo.algorithms.sft import sft_loss
from cmpo.distributed import sharding
from cmpo.importance import importance_weights
from cmpo.loss import cmpo_loss
from cmpo.training.packing import Rewards, Rows
from models import lora, qwen2

Metrics = dict[str, jax.Array]


def make_score(config: qwen2.Qwen2Config, mesh: Mesh, *, temperature: float = 1.0) -> Callable:
    """Returns ``score(frozen, params, rows) -> logprobs [M, U, T]``: every masked token's log-probability.

    `temperature` is that of the sampler: the policy is what is drawn from.
    """
    logprobs_of = _scorer(config, mesh, temperature)

    def score(frozen, params, rows):
        def body(number, logprobs):
            return logprobs.at[number].set(logprobs_of(frozen, params, _cut(rows, number))[0])

        return jax.lax.fori_loop(0, _in_use(rows), body, jnp.zeros(rows.tokens.shape, jnp.float32))

    layout = NamedSharding(mesh, P(None, sharding.ROWS))
    return jax.jit(score, out_shardings=layout, compiler_options=sharding.compiler_options(mesh))


def make_update(
    config: qwen2.Qwen2Config,
    mesh: Mesh,
    optimizer: optax.GradientTransformation,
    loss: Callable,
    *,
    temperature: float = 1.0,
) -> Callable:
    """Returns ``update(params, opt_state, frozen, rows, extras) -> (params, opt_state, metrics)``.

    The first two are donated. `params` and `frozen` are the model's parameters as `lora.split` divides them.
    Where the loss or the norm of its gradient is not finite, they come back as they were, and the metric
    `updates_skipped` is 1, else 0.

    Gradients of micro-batches are added up in float32: the result is the gradient of the whole batch's loss, whatever
    the mesh and the size of a micro-batch. Rows in use come first, so that micro-batches of padding cost nothing; their
    number is data, not shape: nothing recompiles.

    Args:
      config: the model's sizes.
      mesh: of `sharding.make_mesh`.
      optimizer: the gradient transformation.
      loss: ``loss(logprobs, entropy, rows, extras, total) -> (loss, metrics)``, the share of a micro-batch in a batch
        with `total` masked tokens. Called with a device's rows [., T] under a map over `sharding.ROWS`, it sums over
        that axis. Shares add up; metrics whose names end in `_max` combine by maximum.
      temperature: as for `make_score`.
    """
    logprobs_of = _scorer(config, mesh, temperature)
    shapes = lora.split(config, qwen2.shapes(config))[1]
    params_sharding = sharding.find_shardings(mesh, shapes)

    by_rows = P(sharding.ROWS)
    mapped = jax.shard_map(loss, mesh=mesh, in_specs=(*(by_rows,) * 4, P()), out_specs=P(), check_vma=False)

    @functools.partial(
        jax.jit,
        donate_argnames=("params", "opt_state"),
        out_shardings=(
            params_sharding,
            sharding.find_shardings(mesh, jax.eval_shape(optimizer.init, shapes)),
            NamedSharding(mesh, P()),
        ),
        compiler_options=sharding.compiler_options(mesh),
    )
    def update(params, opt_state: optax.OptState, frozen, rows: Rows, extras: Any):
        total = jnp.sum(rows.mask)

        def share(params, rows, extras):
            return mapped(*logprobs_of(frozen, params, rows), rows, extras, total)

        def body(number, carry):
            part = _cut((rows, extras), number)
            (_, metrics), gradients = jax.value_and_grad(share, has_aux=True)(params, *part)
            gradients = jax.tree.map(jnp.add, carry[0], gradients)
            gradients = jax.lax.with_sharding_constraint(gradients, params_sharding)
            return gradients, {name: _join(name)(carry[1][name], value) for name, value in metrics.items()}

        metrics = jax.eval_shape(lambda: share(params, *_cut((rows, extras), 0))[1])
        zeros = jax.tree.map(jnp.zeros_like, params), jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), metrics)
        gradients, metrics = jax.lax.fori_loop(0, _in_use(rows), body, zeros)
        changes, moments = optimizer.update(gradients, opt_state, params)
        metrics["grad_norm"] = optax.global_norm(gradients)
        # What is not finite in rewards, costs or the model comes out here, and goes no further.
        sound = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["grad_norm"])
        metrics["updates_skipped"] = jnp.int32(~sound)
        after, before = (optax.apply_updates(params, changes), moments), (params, opt_state)
        return *jax.tree.map(lambda new, old: jnp.where(sound, new, old), after, before), metrics

    return update


def summary(updates: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The metrics of a batch's updates as one record: means, maxima of what ends in `_max`, the sum of those skipped.

    `logprob_gap_max` is the first update's: after it, the policy is no longer the one that was sampled.
    """
    joined = {name: np.array([update[name] for update in updates]) for name in updates[0]}
    found = {name: x.max() if name.endswith("_max") else x.mean() for name, x in joined.items()}
    found["updates_skipped"] = joined["updates_skipped"].sum()
    return found | {name: x[0] for name, x in joined.items() if name == "logprob_gap_max"}


def _scorer(config: qwen2.Qwen2Config, mesh: Mesh, temperature: float) -> Callable:
    """Returns the function from parameters, frozen and trained, and rows [U, T] to log-probabilities and entropies."""
    split = NamedSharding(mesh, P(sharding.ROWS))

    def logprobs_of(frozen, params, rows):
        return qwen2.token_logprobs(
            config,
            # Matrices are cast before the compiler gathers them: half the traffic.
            qwen2.cast(config, lora.combine(frozen, params)),
            rows.tokens,
            mask=rows.mask,
            positions=rows.positions,
            segment_ids=rows.segment_ids,
            prefix_ids=rows.prefix_ids,
            temperature=temperature,
            constrain=lambda x: jax.lax.with_sharding_constraint(x, split),
            vocab_shards=mesh.shape[sharding.TENSOR],
        )

    return logprobs_of


def _in_use(rows: Rows) -> jax.Array:
    """How many micro-batches hold tokens."""
    return jnp.sum(jnp.any(rows.segment_ids > 0, axis=(1, 2)))


def _cut(arrays: Any, number: jax.Array | int) -> Any:
    """One micro-batch, [M, U, ...] -> [U, ...]."""
    return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, number, keepdims=False), arrays)


def _join(name: str) -> Callable:
    """How a metric of two micro-batches becomes one."""
    return jnp.maximum if name.endswith("_max") else jnp.add


def _sum(x: jax.Array) -> jax.Array:
    """The sum over all devices that rows are split over."""
    return jax.lax.psum(x, sharding.ROWS)


def sft_share(logprobs, entropy, rows: Rows, extras, total) -> tuple[jax.Array, Metrics]:
    """Phase 1's loss, as `make_update` wants it; `extras` is ()."""
    loss = _sum(sft_loss(logprobs, rows.mask, denominator=total))
    return loss, {"loss": loss, "entropy": _sum(jnp.sum(entropy, where=rows.mask)) / total}


def cmpo_share(*, clip_low: float, clip_high: float, kl_weight: float) -> Callable:
    """Phase 2's loss, as `make_update` wants it; `extras` are advantages and reference logprobs, as `rows`."""

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
            axis_name=sharding.ROWS,
        )
        mean_entropy = _sum(jnp.sum(entropy, where=rows.mask)) / jnp.maximum(total, 1)
        return loss, {"loss": loss, "entropy": mean_entropy, **metrics}

    return share


def corrected(rows: Rows, advantages: jax.Array, present: jax.Array, *, cap: float) -> tuple[Rows, jax.Array, Metrics]:
    """Rows of an older policy for an update of the present one, see `cmpo.importance`; all [M, U, T].

    Its tokens' advantages are weighted, and the log-probabilities under it replaced by those under the `present` one.
    """
    weights, metrics = importance_weights(present, rows.sampled_logprobs, rows.mask, cap=cap)
    return rows.replace(sampled_logprobs=present), advantages * weights, metrics


def token_advantages(rewards: Rewards, turns: jax.Array, lambdas: jax.Array, **options) -> jax.Array:
    """Gives every token its turn's hybrid advantage.

    Args:
      rewards: of B groups.
      turns: [...] int32, index of each token's turn in [B * G * N].
      lambdas: [C] float32, the multipliers, the same for the whole batch.
      **options: of `hybrid_advantage`.

    Returns:
      [...] float32, the shape of `turns`.
    """
    grouped = functools.partial(hybrid_advantage, lambdas=lambdas, **options)
    advantages = jax.vmap(lambda r: grouped(r.outcome, r.process, r.cost, r.turn_mask))(rewards)
    return advantages.reshape(-1)[turns]
