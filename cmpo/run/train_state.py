"""Everything a run carries from step to step, and therefore everything a checkpoint holds."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cmpo.algorithms.algorithm import Head
from models import qwen2

_HEAD = 1  # folded into the run's seed for the first parameters of a head


class Trained(NamedTuple):
    """Parameters that updates change, float32, and their optimizer's state."""

    params: Any
    opt_state: optax.OptState


def begin_training(optimizer: optax.GradientTransformation, params: Any) -> Trained:
    """Gives `params` the state that `optimizer` begins with."""
    return Trained(params, optimizer.init(params))


class TrainState(NamedTuple):
    """A pytree; scalars are int32 arrays. The last four fields are () in phase 1."""

    step: jax.Array  # steps done, both phases together
    cursor: jax.Array  # training tasks that phase 2 used so far, behind those of phase 1
    seed: jax.Array  # all randomness of a step is folded from (seed, step)
    skipped: jax.Array  # steps in a row, up to this one, with a skipped update
    policy: Trained  # the model, or its adapters (`models.lora`)
    reference: qwen2.Params  # the policy at the start of phase 2, frozen, in the precision that the model computes in
    behaviour: qwen2.Params | tuple[()]  # the policy that samples the next batch, in that precision; (): it is `policy`
    memory: Any  # of the algorithm, kept from batch to batch
    head: Trained | tuple[()]  # the algorithm's own parameters, trained beside the policy


def begin_run(params: qwen2.Params, optimizer: optax.GradientTransformation, seed: int) -> TrainState:
    """Makes the state before the first step."""
    return TrainState(
        step=jnp.int32(0),
        cursor=jnp.int32(0),
        seed=jnp.int32(seed),
        skipped=jnp.int32(0),
        policy=begin_training(optimizer, params),
        reference=(),
        behaviour=(),
        memory=(),
        head=(),
    )


def begin_rl(
    config: qwen2.Qwen2Config,
    state: TrainState,
    optimizer: optax.GradientTransformation,
    *,
    memory: Any,
    head: Head,
    one_step_off: bool = False,
) -> TrainState:
    """Freezes the parameters as the reference, and starts the optimizer and the algorithm's memory and head.

    With `one_step_off`, the policy of the previous step samples a batch.
    """
    params = state.policy.params
    own = head.init(jax.random.fold_in(jax.random.key(state.seed), _HEAD))
    return state._replace(
        policy=begin_training(optimizer, params),
        reference=copy_params(config, params),
        behaviour=copy_params(config, params) if one_step_off else (),
        memory=memory,
        head=begin_training(head.optimizer, own),
    )


def copy_params(config: qwen2.Qwen2Config, params: qwen2.Params) -> qwen2.Params:
    """Copies `params` in the precision that the model computes in; the updates donate the originals."""
    return jax.tree.map(jnp.copy, qwen2.cast(config, params))


@jax.jit
def compute_checksums(tree: Any) -> jax.Array:
    """Computes a number for each array of a tree, [arrays] uint32, from its bits and places; the same on any mesh.

    A change to one element always changes the number; any other change does with a probability of 1 - 2^-32.
    """
    return jnp.stack([_compute_checksum(x) for x in jax.tree.leaves(tree)])


def _compute_checksum(x: jax.Array) -> jax.Array:
    bits = jax.lax.bitcast_convert_type(x, f"uint{8 * x.dtype.itemsize}").astype(jnp.uint32)
    strides = np.cumprod([1, *x.shape[:0:-1]], dtype=np.uint32)[::-1] if x.ndim else ()
    places = sum(
        (jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis) * stride for axis, stride in enumerate(strides)),
        start=jnp.zeros(x.shape, jnp.uint32),
    )
    weights = (places * np.uint32(2654435761)) | np.uint32(1)  # odd: no bit of an element is lost modulo 2^32
    return jnp.sum(bits * weights, dtype=jnp.uint32)
