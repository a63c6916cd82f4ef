"""The jitted, donated updates of both phases.

The model runs under the compiler's partitioner: parameters come sharded by `cmpo.distributed.sharding`'s rules, rows
split over data and fsdp. The loss is written per device and mapped over those axes by `jax.shard_map`.

Legend: M micro-batches, U rows of a micro-batch over all devices, T tokens.
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

from cmpo.algorithms.algorithm import NO_HEAD, Head, Metrics, Rows, Scores, Signals
from cmpo.distributed import sharding
from cmpo.importance import importance_weights
from cmpo.run.train_state import Trained, begin_training
from models import lora, qwen2

WITHOUT_HEAD = begin_training(NO_HEAD.optimizer, ())
"""The head that is passed to an update of the policy alone."""


@functools.cache
def make_score(config: qwen2.Qwen2Config, mesh: Mesh, *, temperature: float = 1.0) -> Callable:
    """Returns ``score(frozen, params, rows) -> logprobs [M, U, T]``: every masked token's log-probability.

    `temperature` is the sampler's: the policy is the distribution that tokens are drawn from.
    """
    score_rows = _make_scorer(config, mesh, temperature)
    return _map_over_micro_batches(mesh, lambda frozen, params, rows: score_rows(frozen, params, rows).logprobs)


def make_values(config: qwen2.Qwen2Config, mesh: Mesh, head: Head) -> Callable:
    """Returns ``values(frozen, (params, own), rows) -> values [M, U, T]``: what `head` gives with parameters `own`."""
    score_rows = _make_scorer(config, mesh, 1.0, head)
    return _map_over_micro_batches(mesh, lambda frozen, both, rows: score_rows(frozen, both[0], rows, both[1]).values)


@functools.lru_cache(maxsize=8)  # runs of one process that differ in nothing of this share what JAX has compiled
def make_update(
    config: qwen2.Qwen2Config,
    mesh: Mesh,
    optimizer: optax.GradientTransformation,
    loss: Callable,
    *,
    temperature: float = 1.0,
    head: Head = NO_HEAD,
) -> Callable:
    """Returns ``update(policy, own, frozen, rows, signals) -> (policy, own, metrics)``.

    `policy` and `own` are donated. `policy.params` and `frozen` are the model's parameters as `lora.split` divides
    them; `own.params` are those of the head. If the loss or the norm of a gradient is not finite, `policy` and `own`
    come back unchanged and the metric `updates_skipped` is 1, else 0.

    Gradients of micro-batches are added up in float32. The result is the gradient of the whole batch's loss, whatever
    the mesh and the size of a micro-batch. Rows in use come first, so that micro-batches of padding cost nothing. The
    number of rows in use is data and not a shape, so another number needs no compilation.

    Args:
      config: the model's sizes.
      mesh: of `sharding.make_mesh`.
      optimizer: the gradient transformation of the policy.
      loss: see `cmpo.algorithms.algorithm.Algorithm.loss`; mapped over `sharding.ROWS`.
      temperature: as for `make_score`.
      head: of the algorithm that the loss belongs to.
    """
    score_rows = _make_scorer(config, mesh, temperature, head)
    optimizers = optimizer, head.optimizer
    shapes = lora.split(config, qwen2.shapes(config))[1], jax.eval_shape(head.init, jax.random.key(0))
    layouts = sharding.find_shardings(mesh, shapes)

    def begin_both(shapes):
        return tuple(map(begin_training, optimizers, shapes))

    def run_on_device(scores: Scores, rows: Rows, signals: Any, total: jax.Array) -> tuple[jax.Array, Metrics]:
        value, metrics = loss(scores, rows, signals, total, sharding.ROWS)
        entropy = jax.lax.psum(jnp.sum(scores.entropy, where=rows.mask), sharding.ROWS) / jnp.maximum(total, 1)
        return value, {"loss": value, "entropy": entropy, **metrics}

    by_rows = P(sharding.ROWS)
    mapped = jax.shard_map(run_on_device, mesh=mesh, in_specs=(*(by_rows,) * 3, P()), out_specs=P(), check_vma=False)

    @functools.partial(
        jax.jit,
        donate_argnames=("policy", "own"),
        out_shardings=(
            *sharding.find_shardings(mesh, jax.eval_shape(begin_both, shapes)),
            NamedSharding(mesh, P()),
        ),
        compiler_options=sharding.compiler_options(mesh),
    )
    def update(policy: Trained, own: Trained, frozen, rows: Rows, signals: Any):
        total = jnp.sum(rows.mask)

        def compute_share(params, rows, signals):
            return mapped(score_rows(frozen, params[0], rows, params[1]), rows, signals, total)

        def add_micro_batch(number, carry):
            part = _take_micro_batch((rows, signals), number)
            (_, metrics), gradients = jax.value_and_grad(compute_share, has_aux=True)(params, *part)
            gradients = jax.tree.map(jnp.add, carry[0], gradients)
            gradients = jax.lax.with_sharding_constraint(gradients, layouts)
            return gradients, {name: _choose_join(name)(carry[1][name], value) for name, value in metrics.items()}

        params = policy.params, own.params
        metrics = jax.eval_shape(lambda: compute_share(params, *_take_micro_batch((rows, signals), 0))[1])
        zeros = jax.tree.map(jnp.zeros_like, params), jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), metrics)
        gradients, metrics = jax.lax.fori_loop(0, _count_micro_batches(rows), add_micro_batch, zeros)
        after = tuple(map(_apply_gradients, optimizers, gradients, (policy, own)))
        metrics["grad_norm"], head_norm = map(optax.global_norm, gradients)
        if head.apply:
            metrics["head_grad_norm"] = head_norm
        # Rewards, costs or a model that are not finite show here. Then the update is dropped.
        sound = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["grad_norm"]) & jnp.isfinite(head_norm)
        metrics["updates_skipped"] = jnp.int32(~sound)
        return *jax.tree.map(lambda new, old: jnp.where(sound, new, old), after, (policy, own)), metrics

    return update


def _apply_gradients(optimizer: optax.GradientTransformation, gradients: Any, trained: Trained) -> Trained:
    """Makes one step of an optimizer."""
    changes, opt_state = optimizer.update(gradients, trained.opt_state, trained.params)
    return Trained(optax.apply_updates(trained.params, changes), opt_state)


def summarize_updates(updates: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Makes one record of the metrics of a batch's updates: means, but maxima for names that end in `_max`.

    `updates_skipped` is a sum. `logprob_gap_max` is that of the first update: after it, the policy is no longer the
    one that was sampled.
    """
    joined = {name: np.array([update[name] for update in updates]) for name in updates[0]}
    found = {name: x.max() if name.endswith("_max") else x.mean() for name, x in joined.items()}
    found["updates_skipped"] = joined["updates_skipped"].sum()
    return found | {name: x[0] for name, x in joined.items() if name == "logprob_gap_max"}


def _map_over_micro_batches(mesh: Mesh, function: Callable) -> Callable:
    """Jits ``function(frozen, params, rows [U, T]) -> [U, T]`` as a function of rows [M, U, T]."""

    def map_rows(frozen, params, rows):
        def fill_micro_batch(number, found):
            return found.at[number].set(function(frozen, params, _take_micro_batch(rows, number)))

        return jax.lax.fori_loop(
            0, _count_micro_batches(rows), fill_micro_batch, jnp.zeros(rows.tokens.shape, jnp.float32)
        )

    layout = NamedSharding(mesh, P(None, sharding.ROWS))
    return jax.jit(map_rows, out_shardings=layout, compiler_options=sharding.compiler_options(mesh))


def _make_scorer(config: qwen2.Qwen2Config, mesh: Mesh, temperature: float, head: Head = NO_HEAD) -> Callable:
    """Returns ``score_rows(frozen, params, rows [U, T], own) -> Scores``; `own` are the parameters of the head."""
    split = NamedSharding(mesh, P(sharding.ROWS))

    def score_rows(frozen, params, rows, own=()):
        scores = qwen2.token_logprobs(
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
            value_of=functools.partial(head.apply, own) if head.apply else None,
        )
        return Scores(*scores)

    return score_rows


def _count_micro_batches(rows: Rows) -> jax.Array:
    """Counts the micro-batches that hold tokens."""
    return jnp.sum(jnp.any(rows.segment_ids > 0, axis=(1, 2)))


def _take_micro_batch(arrays: Any, number: jax.Array | int) -> Any:
    """Takes one micro-batch out of the arrays, [M, U, ...] -> [U, ...]."""
    return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, number, keepdims=False), arrays)


def _choose_join(name: str) -> Callable:
    """Chooses how the values of a metric of two micro-batches become one."""
    return jnp.maximum if name.endswith("_max") else jnp.add


def correct_for_age(rows: Rows, signals: Signals, present: jax.Array, *, cap: float) -> tuple[Rows, Signals, Metrics]:
    """Corrects rows of an older policy for an update of the present one, see `cmpo.importance`; all [M, U, T].

    The advantages are weighted. The log-probabilities under the older policy are replaced by `present`, those under the
    present one.
    """
    weights, metrics = importance_weights(present, rows.sampled_logprobs, rows.mask, cap=cap)
    return rows.replace(sampled_logprobs=present), signals._replace(advantages=signals.advantages * weights), metrics
