"""Everything a run carries from step to step, and therefore everything a checkpoint holds."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from cmpo import pid
from models import qwen2


class TrainState(NamedTuple):
    """A pytree; scalars are int32 arrays."""

    step: jax.Array  # steps done, both phases together
    cursor: jax.Array  # scenarios dealt so far
    seed: jax.Array  # all randomness of a step is folded from (seed, step)
    params: qwen2.Params  # what is trained: the model, or its adapters (`models.lora`), float32
    opt_state: optax.OptState
    reference: qwen2.Params  # the frozen start of phase 2, in the precision that the model computes in
    pid: pid.PIDState


def optimizer(
    *,
    learning_rate: float,
    steps: int,
    warmup_fraction: float,
    final_fraction: float,
    weight_decay: float,
    max_grad_norm: float,
    momentum_dtype: str = "float32",
) -> optax.GradientTransformation:
    """AdamW behind a clip of the global norm: linear warm-up, then a cosine to `final_fraction` of the peak.

    `momentum_dtype` is that of the first moment; the second is float32.
    """
    warmup = max(1, round(warmup_fraction * steps))
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, learning_rate, warmup, max(steps, warmup + 1), learning_rate * final_fraction
    )
    adamw = optax.adamw(schedule, weight_decay=weight_decay, mu_dtype=momentum_dtype)
    return optax.chain(optax.clip_by_global_norm(max_grad_norm), adamw)


def init(
    config: qwen2.Qwen2Config,
    params: qwen2.Params,
    optimizer: optax.GradientTransformation,
    controller: pid.PIDState,
    seed: int,
) -> TrainState:
    """The state before the first step."""
    return TrainState(
        step=jnp.int32(0),
        cursor=jnp.int32(0),
        seed=jnp.int32(seed),
        params=params,
        opt_state=optimizer.init(params),
        reference=_copy(config, params),
        pid=controller,
    )


def begin_rl(config: qwen2.Qwen2Config, state: TrainState, optimizer: optax.GradientTransformation) -> TrainState:
    """Freezes the parameters as the reference and starts the optimizer afresh."""
    return state._replace(opt_state=optimizer.init(state.params), reference=_copy(config, state.params))


def _copy(config: qwen2.Qwen2Config, params: qwen2.Params) -> qwen2.Params:
    """Arrays of its own, as the updates donate `params`."""
    return jax.tree.map(jnp.copy, qwen2.cast(config, params))
