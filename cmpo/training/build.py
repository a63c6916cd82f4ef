"""Makes the parts of a run from its config: sampler, mesh, optimizers, algorithm, states."""

import contextlib
import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from cmpo import algorithms
from cmpo.algorithms import budgets
from cmpo.algorithms.algorithm import Algorithm
from cmpo.algorithms.optimizers import count_updates, make_optimizer
from cmpo.distributed import sharding
from cmpo.run import train_state
from cmpo.run.train_state import TrainState
from models import lora, qwen2
from models.tokenizer import Tokenizer
from rollouts import domains
from rollouts.domain import Domain
from rollouts.engine.engine import Engine
from rollouts.engine.sampling import Sampling


def make_sampling(config: ConfigDict, mesh: Mesh, **changes) -> Sampling:
    """Makes the options of the sampler from config.engine; `changes` replace some of them.

    Raises ValueError, naming the field.
    """
    options = {"capacity": config.model.context_length, **config.engine, **changes}
    del options["grammar"]
    with budgets.name_section_in_errors("engine"):
        chosen = Sampling(**options)
    # On several devices, prompts are computed in a row for every slot, so that each device computes its own slots.
    return dataclasses.replace(chosen, rows=0, fit=False) if sharding.rows_axis_size(mesh.local_mesh) > 1 else chosen


def make_engine(
    config: ConfigDict,
    model: qwen2.Qwen2Config,
    mesh: Mesh,
    tokenizer: Tokenizer,
    *,
    turn_taking: contextlib.AbstractContextManager | None = None,
    **changes,
) -> Engine:
    """Makes the sampler, without weights; `changes` replace options of config.engine. `turn_taking`: see `Engine`."""
    rules = domains.load(config).turn_format.grammar(tokenizer, model.vocab_size) if config.engine.grammar else None
    if config.engine.grammar and rules is None:
        raise ValueError(f"config.engine.grammar: the turn format of {config.domain!r} has none")
    return Engine(
        dataclasses.replace(model, lora_rank=0),
        tokenizer.im_end,
        make_sampling(config, mesh, **changes),
        kv_sharding=sharding.shard_cache(mesh, config.engine.slots),
        grammar=rules,
        turn_taking=turn_taking,
    )


def make_optimizers(config: ConfigDict) -> dict[str, optax.GradientTransformation]:
    """Makes the optimizers of the phases "sft" and "rl"; their states have the same structure.

    Raises ValueError, naming the field, if rollouts cannot run beside the updates.
    """
    train = config.train
    if train.one_step_off and jax.process_count() > 1:
        raise ValueError(
            f"config.train.one_step_off: expected one process, got {jax.process_count()}; with two "
            "threads each, several processes would not run their programs in the same order"
        )
    return {
        phase: make_optimizer(
            learning_rate=rate,
            steps=steps,
            warmup_fraction=train.warmup_fraction,
            final_fraction=train.final_fraction,
            weight_decay=train.weight_decay,
            max_grad_norm=train.max_grad_norm,
            momentum_dtype=train.momentum_dtype,
        )
        for phase, rate, steps in (
            ("sft", config.sft.learning_rate, train.sft_steps),
            ("rl", train.learning_rate, count_updates(train)),
        )
    }


def make_mesh(config: ConfigDict, model: qwen2.Qwen2Config, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Makes the mesh of config.mesh, of all devices or these ones.

    Raises ValueError, naming the axis, if the devices or the model do not fit it.
    """
    made = sharding.make_mesh(**config.mesh, devices=devices)
    sharding.check_mesh(made, model)
    return made


def load_algorithm(config: ConfigDict, domain: Domain) -> Algorithm:
    """Loads the algorithm of config.algo.name. Raises ValueError, naming the field."""
    made = algorithms.load(config, domain)
    for path, leaf in jax.tree_util.tree_leaves_with_path(jax.eval_shape(made.memory)):
        if not leaf.size or leaf.dtype.kind not in "iuf" and leaf.dtype != jnp.bfloat16:
            place = f"{type(made).__name__}.memory(){jax.tree_util.keystr(path)}"
            raise ValueError(f"{place}: expected an array of numbers, as checkpoints hold them, got {leaf}")
    for field, found in (("multipliers", made.multipliers(made.memory())), ("prices", made.prices())):
        if np.shape(found) != (len(domain.costs),):
            place = f"{type(made).__name__}.{field}"
            raise ValueError(f"{place}: expected a number for each of {len(domain.costs)} costs, got {found}")
    if config.train.rl_steps and not made.plays:
        raise ValueError(
            f"config.train.rl_steps: expected 0 where config.algo.name is {config.algo.name!r}, which learns from "
            f"demonstrations only, got {config.train.rl_steps}"
        )
    return made


def make_first_state(config: ConfigDict, params: qwen2.Params) -> TrainState:
    """Makes the state before the first step."""
    return train_state.begin_run(params, make_optimizers(config)["sft"], config.train.seed)


def begin_rl(config: ConfigDict, model: qwen2.Qwen2Config, algorithm: Algorithm, state: TrainState) -> TrainState:
    """Makes the state before the first step of phase 2 from the state after phase 1."""
    return train_state.begin_rl(
        model,
        state,
        make_optimizers(config)["rl"],
        memory=algorithm.memory(),
        head=algorithm.head(model),
        one_step_off=config.train.one_step_off,
    )


def lay_out_state(
    config: ConfigDict, model: qwen2.Qwen2Config, mesh: Mesh, algorithm: Algorithm, step: int
) -> TrainState:
    """Returns shapes and shardings (`jax.ShapeDtypeStruct`) of the state after `step` steps, and of its checkpoint."""

    def make_state(params: qwen2.Params) -> TrainState:
        first = make_first_state(config, params)
        return begin_rl(config, model, algorithm, first) if step > config.train.sft_steps else first

    def describe_leaf(leaf, sharding):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    shapes = jax.eval_shape(make_state, lora.split(model, qwen2.shapes(model))[1])
    whole = NamedSharding(mesh, PartitionSpec())  # whatever the paths in the memory are called
    layout = sharding.find_shardings(mesh, shapes._replace(memory=()))
    layout = layout._replace(memory=jax.tree.map(lambda leaf: whole, shapes.memory))
    return jax.tree.map(describe_leaf, shapes, layout)
