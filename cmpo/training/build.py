"""What a run needs before its first step: settings that can work, demonstrations, a tokenizer, a model, a sampler."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from cmpo import algorithms
from cmpo.algorithms import budgets
from cmpo.algorithms.algorithm import Algorithm, Rows
from cmpo.distributed import processes, sharding
from cmpo.run import schema, train_state
from cmpo.run.journal import Journal
from cmpo.run.progress import show_progress
from cmpo.run.train_state import TrainState
from cmpo.run.workdir import hash_config, made_demonstrations, read_progress
from cmpo.training import collecting, demonstrations, model_source, packing
from cmpo.training.demonstrations import Conversation
from models import hf, lora, qwen2
from models import tokenizer as tokenizers
from models.tokenizer import Tokenizer
from rollouts import domains
from rollouts.agents.policy import check_prompts
from rollouts.domain import Domain, TaskSource
from rollouts.engine.engine import Engine
from rollouts.engine.sampling import Sampling
from rollouts.seeds import fold

_CHECKED = 20_000  # tasks of a run whose prompts are looked at before it begins; it may have no end


class Prepared(NamedTuple):
    """What a run makes on its first start and keeps in its workdir."""

    conversations: list[Conversation]  # demonstrations
    tokenizer: Tokenizer
    model: qwen2.Qwen2Config
    weights: pathlib.Path | None  # of a model in Hugging Face's format to start from; None: from new ones


def check_settings(config: ConfigDict, weights: pathlib.Path | None) -> None:
    """Everything about a config that can be known before anybody is asked.

    `weights` are those to start from, of `model_source.source`; only the beginnings of their files are read.

    Raises ValueError, naming the field or the file.
    """
    schema.check_config(config)
    model = model_source.architecture(config, weights)
    if weights:
        hf.verify_checkpoint(weights)
        tokenizer = tokenizers.load(weights)
        _check_vocabulary(weights, tokenizer, model)
        hf.token_ids(weights, tokenizer)
    elif model.vocab_size < tokenizers.SMALLEST:
        raise ValueError(
            f"config.model.vocab_size: expected {tokenizers.SMALLEST} or more of a new model, got {model.vocab_size}"
        )
    devices = mesh(config, model)
    sharding.shard_cache(devices, config.engine.slots)
    sampling(config, devices)
    algorithm(config, domains.load(config))
    optimizers(config)


def prepare(
    config: ConfigDict,
    workdir: pathlib.Path,
    tasks: TaskSource,
    weights: pathlib.Path | None,
    clients: collecting.Clients | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> Prepared:
    """Demonstrations, tokenizer and architecture, made on the first start.

    Where demonstrations are needed, for phase 1 or to train a tokenizer on, and config.sft.path names none, the
    domain's scripted agent plays config.sft.dialogues training tasks. What has been played is in the journal, and
    is not played again. What config.sft.path holds before the first step is copied: a run keeps to it.

    Raises:
      ValueError: if a file of demonstrations is none, or the opening of a task does not fit in the context.
      Interrupted, RolloutsFailed, BudgetReached, ReplayMiss: of `collecting.collect`; what was played is kept.
    """
    conversations, turn_format = [], domains.load(config).turn_format
    if config.train.sft_steps or not weights:
        path = workdir / "demonstrations.jsonl"
        begun = processes.run_once(lambda: bool(read_progress(workdir)[1]))
        if config.sft.path and not begun:
            processes.run_once(lambda: demonstrations.write(path, demonstrations.read(turn_format, config.sft.path)))
        elif not processes.run_once(path.exists):
            _play_demonstrations(config, workdir, path, tasks, clients, stopping)
        conversations = demonstrations.read(turn_format, path)
    processes.run_once(lambda: _settle(config, workdir, conversations, weights))
    tokenizer = tokenizers.load(workdir / "tokenizer")
    dealt = min(_CHECKED, config.train.rl_steps * config.train.scenarios_per_step)
    check_prompts(tokenizer, tasks.train(0, dealt), config.model.context_length)
    learnt = conversations if config.train.sft_steps else []
    return Prepared(learnt, tokenizer, model_source.settled(config, workdir), weights)


def pack_demonstrations(config: ConfigDict, domain: Domain, prepared: Prepared) -> Rows:
    """The rows of phase 1, [R, T]. Raises ValueError, naming the field, if no demonstration fits in the context."""
    streams = demonstrations.encode_fitting(
        prepared.tokenizer, domain.turn_format, prepared.conversations, config.model.context_length
    )
    return packing.pack(streams, row_length=config.train.row_length)


def _play_demonstrations(
    config: ConfigDict,
    workdir: pathlib.Path,
    path: pathlib.Path,
    tasks: TaskSource,
    clients: collecting.Clients | None,
    stopping: Callable[[], bool],
) -> None:
    """Has the domain's scripted agent play config.sft.dialogues training tasks, and writes `path`."""
    count, journal = config.sft.dialogues, Journal(workdir)
    with (
        journal.open_page(0, {"settings": hash_config(config, made_demonstrations)}) as page,
        show_progress(count, len(page.numbers), "demonstrations", every=max(1, count // 10)) as bar,
        collecting.telling(lambda: f"{len(page.numbers)} of {count} demonstrations are kept"),
    ):
        dialogues = collecting.collect(
            config,
            collecting.serving(domains.load(config).scripted_agent(config, "")),
            tasks.train(0, count),
            repeats=1,
            seed=fold(config.train.seed, "demonstrations"),
            judged=False,
            clients=clients,
            done=lambda: bar.update({}),
            page=page,
            stopping=stopping,
        )
    played = (demonstrations.from_dialogue(dialogue) for dialogue in dialogues if dialogue.ok and dialogue.turns)
    processes.run_once(lambda: demonstrations.write(path, played))
    processes.run_once(lambda: journal.remove_pages(0))


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
            tokenizers.train_tokenizer(texts, config.model.vocab_size).save(directory)
    tokenizer = tokenizers.load(directory)
    model = model_source.architecture(config, weights, tokenizer.vocab_size)
    _check_vocabulary(weights or directory, tokenizer, model)
    if not (workdir / "model" / "config.json").exists():
        hf.write_config(workdir / "model", model, **hf.describe_origin(weights), **hf.token_ids(weights, tokenizer))


def _check_vocabulary(directory: pathlib.Path, tokenizer: Tokenizer, model: qwen2.Qwen2Config) -> None:
    if tokenizer.vocab_size > model.vocab_size:
        raise ValueError(f"{directory}: the tokenizer has {tokenizer.vocab_size} ids, the model {model.vocab_size}")


def sampling(config: ConfigDict, mesh: Mesh, **changes) -> Sampling:
    """How the sampler is laid out and draws, by config.engine; `changes` replace options.

    Raises ValueError, naming the field.
    """
    options = {"capacity": config.model.context_length, **config.engine, **changes}
    del options["grammar"]
    with budgets.name_section_in_errors("engine"):
        chosen = Sampling(**options)
    # On several devices: rows of one device each, where its slots are.
    return dataclasses.replace(chosen, rows=0) if sharding.rows_axis_size(mesh.local_mesh) > 1 else chosen


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
    rules = domains.load(config).turn_format.grammar(tokenizer, model.vocab_size) if config.engine.grammar else None
    if config.engine.grammar and rules is None:
        raise ValueError(f"config.engine.grammar: the turn format of {config.domain!r} has none")
    return Engine(
        dataclasses.replace(model, lora_rank=0),
        tokenizer.im_end,
        sampling(config, mesh, **changes),
        kv_sharding=sharding.shard_cache(mesh, config.engine.slots),
        grammar=rules,
        turn_taking=turn_taking,
    )


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
    sharding.check_mesh(made, model)
    return made


def algorithm(config: ConfigDict, domain: Domain) -> Algorithm:
    """What the run learns by. Raises ValueError, naming the field."""
    made = algorithms.load(config, domain)
    if config.train.rl_steps and not made.plays:
        raise ValueError(
            f"config.train.rl_steps: expected 0 where config.algo.name is {config.algo.name!r}, which learns from "
            f"demonstrations only, got {config.train.rl_steps}"
        )
    return made


def initial_state(config: ConfigDict, params: qwen2.Params) -> TrainState:
    """The state before the first step."""
    return train_state.init(params, optimizers(config)["sft"], config.train.seed)


def begin_rl(config: ConfigDict, model: qwen2.Qwen2Config, algorithm: Algorithm, state: TrainState) -> TrainState:
    """The state before the first step of phase 2, from the one after phase 1."""
    return train_state.begin_rl(
        model,
        state,
        optimizers(config)["rl"],
        memory=algorithm.memory(),
        head=algorithm.head(model),
        one_step_off=config.train.one_step_off,
    )


def abstract_state(
    config: ConfigDict, model: qwen2.Qwen2Config, mesh: Mesh, algorithm: Algorithm, step: int
) -> TrainState:
    """Shapes and shardings of the run's state after `step` steps, and of its checkpoint, as `jax.ShapeDtypeStruct`s."""

    def state(params: qwen2.Params) -> TrainState:
        first = initial_state(config, params)
        return begin_rl(config, model, algorithm, first) if step > config.train.sft_steps else first

    def placed(leaf, sharding):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    shapes = jax.eval_shape(state, lora.split(model, qwen2.shapes(model))[1])
    return jax.tree.map(placed, shapes, sharding.find_shardings(mesh, shapes))
