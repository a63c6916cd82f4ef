"""What a run needs before its first step: settings that can work, demonstrations, a tokenizer and a model."""

import pathlib
from collections.abc import Callable
from typing import NamedTuple

from ml_collections import ConfigDict

from cmpo.algorithms.algorithm import Rows
from cmpo.distributed import processes, sharding
from cmpo.run import schema
from cmpo.run.journal import Journal
from cmpo.run.progress import show_progress
from cmpo.run.workdir import hash_config, made_demonstrations, read_progress
from cmpo.training import build, collecting, demonstrations, model_source, packing
from cmpo.training.clients import Clients
from cmpo.training.demonstrations import Conversation
from models import hf, qwen2
from models import tokenizer as tokenizers
from models.tokenizer import Tokenizer
from rollouts import domains
from rollouts.agents.policy import check_prompts
from rollouts.domain import Domain, TaskSource
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
    devices = build.mesh(config, model)
    sharding.shard_cache(devices, config.engine.slots)
    build.sampling(config, devices)
    build.algorithm(config, domains.load(config))
    build.optimizers(config)


def prepare_run(
    config: ConfigDict,
    workdir: pathlib.Path,
    tasks: TaskSource,
    weights: pathlib.Path | None,
    clients: Clients | None = None,
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
    clients: Clients | None,
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
