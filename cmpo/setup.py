"""What a run needs before its first step: a workdir of its own, demonstrations, a tokenizer, a model, a sampler."""

import contextlib
import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from cmpo import demonstrations, files, lock, pid, processes, ranges, rollout, sharding
from cmpo import model as policy
from cmpo import state as train_state
from cmpo.data import Source
from cmpo.demonstrations import Conversation
from cmpo.state import TrainState
from models import hf, lora, qwen2
from models import tokenizer as tokenizers
from models.tokenizer import Tokenizer
from rollouts import grammar
from rollouts.client import Endpoint
from rollouts.endpoint import ASKED
from rollouts.engine import Engine
from rollouts.sampling import Sampling
from rollouts.seeds import fold

MAY_CHANGE = {"endpoints.record"} | {
    f"{name}.{field.name}"
    for name in ("user", "judge", "agent")
    for field in dataclasses.fields(Endpoint)
    if name == "agent" or field.name not in ASKED
}
"""Fields that may differ from start to start of a run: how an endpoint is reached, and what that may cost."""


class ConfigConflict(ValueError):
    """The workdir belongs to a run with another config."""


def claim(workdir: pathlib.Path, config: ConfigDict) -> None:
    """Makes `workdir`, which exists, this run's, or checks that it already is.

    Fields in MAY_CHANGE may differ; the newest values are kept. A workdir with nothing but a config in it, left by a
    run that failed at once, may be taken by another.

    Raises ConfigConflict naming the fields that differ, or OSError if nothing can be written there.
    """
    path = workdir / "config.json"
    if path.exists() and [other for other in workdir.iterdir() if other.name not in (path.name, lock.NAME)]:
        check(workdir, config)
    files.replace(path, json.dumps(config.to_dict(), indent=2) + "\n")


def check(workdir: pathlib.Path, config: ConfigDict, prefix: str = "") -> None:
    """Compares `config` with the one that `workdir` was made with, as far as field names begin with `prefix`.

    Raises FileNotFoundError if there is no run, ConfigConflict naming the fields that differ, ValueError naming the
    file if it is damaged.
    """
    path = workdir / "config.json"
    if not path.exists():
        raise FileNotFoundError(f"--workdir: expected a run with a config.json, found none in {str(workdir)!r}")
    here, there = ranges.flatten(config.to_dict()), ranges.flatten(files.read_object(path))
    fixed = (here.keys() | there.keys()) - MAY_CHANGE
    names = (name for name in sorted(fixed) if name.startswith(prefix))
    differ = [
        f"{name} is {there.get(name)!r} there, {here.get(name)!r} here"
        for name in names
        if here.get(name) != there.get(name)
    ]
    if differ:
        raise ConfigConflict(
            f"{workdir} holds a run with another config ({', '.join(differ[:3])}); choose another --workdir"
        )


def as_trained(workdir: pathlib.Path, config: ConfigDict) -> ConfigDict:
    """`config` with the section train of the run in `workdir`: the layout of its checkpoints depends on that."""
    there = files.read_object(workdir / "config.json")["train"]
    config = config.copy_and_resolve_references()
    config.train.update({name: there[name] for name in config.train if name in there})
    return config


class Prepared(NamedTuple):
    """What a run makes on its first start and keeps in its workdir."""

    conversations: list[Conversation]  # demonstrations
    tokenizer: Tokenizer
    model: qwen2.Qwen2Config
    weights: pathlib.Path | None  # of a model in Hugging Face's format to start from; None: from new ones


def prepare(
    config: ConfigDict,
    workdir: pathlib.Path,
    scenarios: Source,
    clients: rollout.Clients | None = None,
    done: Callable[[], None] = lambda: None,
) -> Prepared:
    """Demonstrations, tokenizer and architecture, made on the first start.

    Without config.sft.path, the scripted generous agent plays config.sft.dialogues training scenarios.
    """
    path = pathlib.Path(config.sft.path or workdir / "demonstrations.jsonl")
    weights = policy.source(config, workdir)
    if not processes.once(lambda: bool(config.sft.path) or path.exists()):
        dialogues = rollout.collect(
            config,
            rollout.scripted_agents("generous"),
            scenarios.train(0, config.sft.dialogues),
            repeats=1,
            seed=fold(config.train.seed, "demonstrations"),
            judged=False,
            clients=clients,
            done=done,
        )
        played = (demonstrations.from_dialogue(dialogue) for dialogue in dialogues if dialogue.ok)
        processes.once(lambda: demonstrations.write(path, played))
    conversations = demonstrations.read(path)
    processes.once(lambda: _settle(config, workdir, conversations, weights))
    return Prepared(conversations, tokenizers.load(workdir / "tokenizer"), policy.settled(config, workdir), weights)


def _settle(
    config: ConfigDict, workdir: pathlib.Path, conversations: list[Conversation], weights: pathlib.Path | None
) -> None:
    """Writes the tokenizer and the model's config.json into the workdir, unless they are there."""
    directory = workdir / "tokenizer"
    if not (directory / "tokenizer_config.json").exists():
        if weights:
            tokenizers.load(weights).save(directory)
        else:
            texts = (message.content for conversation in conversations for message in conversation)
            tokenizers.train(texts, config.model.vocab_size).save(directory)
    tokenizer = tokenizers.load(directory)
    model = policy.architecture(config, weights, tokenizer.vocab_size)
    if tokenizer.vocab_size > model.vocab_size:
        raise ValueError(f"{weights}: the tokenizer has {tokenizer.vocab_size} ids, the model {model.vocab_size}")
    if not (workdir / "model" / "config.json").exists():
        hf.write_config(workdir / "model", model, **hf.origin(weights), **hf.token_ids(weights, tokenizer))


def engine(
    config: ConfigDict,
    model: qwen2.Qwen2Config,
    mesh: Mesh,
    tokenizer: Tokenizer,
    *,
    turn_taking: contextlib.AbstractContextManager | None = None,
    **changes,
) -> Engine:
    """The sampler, without weights yet; `changes` replace options of config.engine. `turn_taking`: see `Engine`."""
    options = {"capacity": config.model.context_length, **config.engine, **changes}
    rules = grammar.turn_format(tokenizer, model.vocab_size) if options.pop("grammar") else None
    if sharding.rows_axis_size(mesh.local_mesh) > 1:
        options["rows"] = 0  # rows of one device each, where its slots are
    return Engine(
        dataclasses.replace(model, lora_rank=0),
        tokenizer.im_end,
        Sampling(**options),
        kv_sharding=sharding.cache(mesh, config.engine.slots),
        grammar=rules,
        turn_taking=turn_taking,
    )


def controller(config: ConfigDict) -> tuple[pid.PIDGains, pid.PIDState]:
    """The multiplier's controller and its first state."""
    names = ("kp", "ki", "kd", "target", "smoothing", "lambda_max", "form")
    gains = pid.PIDGains(**{name: config.pid[name] for name in names})
    return gains, pid.init(gains, config.pid.initial_lambda)


def optimizers(config: ConfigDict) -> dict[str, optax.GradientTransformation]:
    """The optimizers of the phases "sft" and "rl"; their states have the same structure.

    Raises ValueError, naming the field, for rollouts that cannot go on beside the updates.
    """
    train = config.train
    if train.one_step_off and jax.process_count() > 1:
        raise ValueError(
            f"config.train.one_step_off: expected one process, got {jax.process_count()}; what several processes do on "
            "two threads has no common order"
        )
    return {
        phase: train_state.optimizer(
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
            ("rl", train.learning_rate, train.rl_steps * train.epochs * train.minibatches),
        )
    }


def mesh(config: ConfigDict, model: qwen2.Qwen2Config) -> Mesh:
    """The mesh that config.mesh names. Raises ValueError, naming the axis, if it fits not the devices or the model."""
    made = sharding.make_mesh(**config.mesh)
    sharding.check(made, model)
    return made


def initial_state(config: ConfigDict, model: qwen2.Qwen2Config, params: qwen2.Params) -> TrainState:
    """The state before the first step."""
    optimizer, (_, controls), train = optimizers(config)["sft"], controller(config), config.train
    return train_state.init(model, params, optimizer, controls, train.seed, one_step_off=train.one_step_off)


def abstract_state(config: ConfigDict, model: qwen2.Qwen2Config, mesh: Mesh) -> TrainState:
    """Shapes and shardings of the run's state, of every checkpoint too, as `jax.ShapeDtypeStruct`s."""
    trained = lora.split(model, qwen2.shapes(model))[1]
    shapes = jax.eval_shape(functools.partial(initial_state, config, model), trained)

    def placed(leaf, sharding):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return jax.tree.map(placed, shapes, sharding.tree(mesh, shapes))
