"""What a run needs before its first step: settings that can work, demonstrations, a tokenizer and a model."""

import pathlib
from collections.abc import Callable
from typing import NamedTuple

from absl import logging
from ml_collections import ConfigDict

from cmpo.algorithms.algorithm import Rows
from cmpo.algorithms.budgets import budgets_of
from cmpo.distributed import processes, sharding
from cmpo.run import schema
from cmpo.run.journal import Journal
from cmpo.run.progress import show_progress
from cmpo.run.workdir import hash_config, made_demonstrations, read_progress
from cmpo.training import build, collecting, demonstrations, exercises, model_source, packing, variations
from cmpo.training.clients import Clients
from cmpo.training.demonstrations import Conversation
from cmpo.training.tasks import count_shown
from models import hf, qwen2
from models import tokenizer as tokenizers
from models.tokenizer import Tokenizer
from rollouts import domains
from rollouts.agents.policy import check_prompts, find_longest
from rollouts.domain import Domain, TaskSource
from rollouts.seeds import fold

_TASKS_CHECKED = 20_000  # so many tasks of a run have their prompts checked before it begins; a run may have any number


class Prepared(NamedTuple):
    """What a run makes on its first start and keeps in its workdir."""

    conversations: list[Conversation]  # demonstrations
    tokenizer: Tokenizer
    model: qwen2.Qwen2Config
    weights: pathlib.Path | None  # a model in Hugging Face's format to start from; None: start from new weights


def check_settings(config: ConfigDict, weights: pathlib.Path | None) -> None:
    """Checks all of a config that can be checked before any endpoint is asked.

    `weights` is the directory to start from, see `model_source.find_source`. Only the headers of its files are read.

    Raises ValueError, naming the field or the file.
    """
    schema.check_config(config)
    model = model_source.find_architecture(config, weights)
    if weights:
        hf.verify_checkpoint(weights)
        tokenizer = tokenizers.load(weights)
        _check_vocabulary(weights, tokenizer, model)
        hf.token_ids(weights, tokenizer)
    elif model.vocab_size < tokenizers.SMALLEST:
        raise ValueError(
            f"config.model.vocab_size: expected {tokenizers.SMALLEST} or more of a new model, got {model.vocab_size}"
        )
    devices = build.make_mesh(config, model)
    sharding.shard_cache(devices, config.engine.slots)
    build.make_sampling(config, devices)
    domain = domains.load(config)
    build.load_algorithm(config, domain)
    build.make_optimizers(config)
    budgets_of(domain, config)
    if _plays_demonstrations(config, weights):
        domain.scripted_agent(config, "")  # raises ValueError where nobody could play demonstrations


def check_tasks(config: ConfigDict, tasks: TaskSource, weights: pathlib.Path | None) -> None:
    """Checks that there are tasks for all that a run deals, and that their openings fit in the context.

    Without `weights` there is no tokenizer yet: it will be trained on demonstrations. One that learns from the openings
    alone writes them shorter.

    Raises ValueError, naming the field or the task, before anything is played.
    """
    dealt = tasks.train(0, _count_dealt(config, played=_plays_demonstrations(config, weights)))
    longest = find_longest(dealt)
    if not longest:
        return
    if weights:
        tokenizer = tokenizers.load(weights)
    else:
        texts = dict.fromkeys(message.content for task in longest for message in task.told_first)
        tokenizer = tokenizers.train_tokenizer(texts, config.model.vocab_size)
    check_prompts(tokenizer, longest, config.model.context_length)


def _count_dealt(config: ConfigDict, *, played: bool) -> int:
    """Counts the tasks of a run, those of demonstrations that are `played` among them, up to _TASKS_CHECKED."""
    learnt_from = config.train.rl_steps * config.train.scenarios_per_step
    last = count_shown(config) + learnt_from if learnt_from else 0
    return min(_TASKS_CHECKED, max(last, config.sft.dialogues * played))


def _plays_demonstrations(config: ConfigDict, weights: pathlib.Path | None) -> bool:
    return _needs_demonstrations(config, weights) and not config.sft.path


def prepare_run(
    config: ConfigDict,
    workdir: pathlib.Path,
    tasks: TaskSource,
    weights: pathlib.Path | None,
    clients: Clients | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> Prepared:
    """Makes demonstrations, tokenizer and architecture on the first start, and reads them on later ones.

    Demonstrations are needed for phase 1, and to train a tokenizer on. If config.sft.path names no file, the domain's
    scripted agent plays config.sft.dialogues training tasks. The journal keeps dialogues that ended, and they are not
    played again. The file at config.sft.path is copied before the first step, and the run uses its copy from then on.

    Raises:
      ValueError: if the file at config.sft.path holds no demonstrations, or the opening of a task does not fit in the
        context.
      Interrupted, RolloutsFailed, BudgetReached, ReplayMiss: as `collecting.collect_dialogues`; dialogues that ended
        are kept.
    """
    conversations, turn_format = [], domains.load(config).turn_format
    if _needs_demonstrations(config, weights):
        path = workdir / "demonstrations.jsonl"
        begun = processes.run_once(lambda: bool(read_progress(workdir)[1]))
        if config.sft.path and not begun:
            processes.run_once(
                lambda: demonstrations.write_conversations(
                    path, demonstrations.read_conversations(turn_format, config.sft.path)
                )
            )
        elif not processes.run_once(path.exists):
            _play_demonstrations(config, workdir, path, tasks, clients, stopping)
        conversations = variations.vary_conversations(
            demonstrations.read_conversations(turn_format, path),
            facts=config.sft.vary_facts,
            words=config.sft.vary_words,
            seed=fold(config.train.seed, "variations"),
        )
    processes.run_once(lambda: _write_tokenizer_and_model(config, workdir, conversations, weights))
    tokenizer = tokenizers.load(workdir / "tokenizer")
    check_prompts(tokenizer, tasks.train(0, _count_dealt(config, played=False)), config.model.context_length)
    learnt = conversations if config.train.sft_steps else []
    return Prepared(learnt, tokenizer, model_source.read_architecture(config, workdir), weights)


def _needs_demonstrations(config: ConfigDict, weights: pathlib.Path | None) -> bool:
    """Whether there is a phase 1, or a tokenizer to train."""
    return bool(config.train.sft_steps or not weights)


def pack_lessons(config: ConfigDict, domain: Domain, prepared: Prepared) -> tuple[Rows, Rows | None]:
    """Packs the rows of phase 1, [R, T]: of demonstrations, and of exercises; None if there is nothing to repeat.

    Raises ValueError, naming the field, if no demonstration fits.
    """

    def pack_conversations(conversations: list[Conversation]) -> Rows:
        room = config.model.context_length
        streams = demonstrations.encode_fitting(prepared.tokenizer, domain.turn_format, conversations, room)
        return packing.pack_rows(streams, row_length=config.train.row_length)

    practised = []
    if config.sft.exercise_steps and prepared.conversations:
        practised = exercises.make_exercises(prepared.conversations, fold(config.train.seed, "exercises"))
        if not practised:
            logging.warning("config.sft.exercise_steps: no prompt has lines 'name: value' to repeat; dialogues instead")
    return pack_conversations(prepared.conversations), pack_conversations(practised) if practised else None


def _play_demonstrations(
    config: ConfigDict,
    workdir: pathlib.Path,
    path: pathlib.Path,
    tasks: TaskSource,
    clients: Clients | None,
    stopping: Callable[[], bool],
) -> None:
    """Lets the domain's scripted agent play config.sft.dialogues training tasks, and writes them to `path`."""
    count, journal = config.sft.dialogues, Journal(workdir)
    with (
        journal.open_page(0, {"settings": hash_config(config, made_demonstrations)}) as page,
        show_progress(count, len(page.numbers), "demonstrations", every=max(1, count // 10)) as bar,
        collecting.tell_what_is_kept(lambda: f"{len(page.numbers)} of {count} demonstrations are kept"),
    ):
        dialogues = collecting.collect_dialogues(
            config,
            collecting.serve_agent(domains.load(config).scripted_agent(config, "")),
            tasks.train(0, count),
            repeats=1,
            seed=fold(config.train.seed, "demonstrations"),
            judged=False,
            clients=clients,
            done=lambda: bar.update({}),
            page=page,
            stopping=stopping,
        )
    played = [demonstrations.from_dialogue(dialogue) for dialogue in dialogues if dialogue.ok and dialogue.turns]
    if not played:
        raise ValueError(f"config.sft.dialogues: expected demonstrations, but the agent had no turn in all {count}")
    processes.run_once(lambda: demonstrations.write_conversations(path, played))
    processes.run_once(lambda: journal.remove_pages(0))


def _write_tokenizer_and_model(
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
    model = model_source.find_architecture(config, weights, tokenizer.vocab_size)
    _check_vocabulary(weights or directory, tokenizer, model)
    if not (workdir / "model" / "config.json").exists():
        hf.write_config(workdir / "model", model, **hf.describe_origin(weights), **hf.token_ids(weights, tokenizer))


def _check_vocabulary(directory: pathlib.Path, tokenizer: Tokenizer, model: qwen2.Qwen2Config) -> None:
    if tokenizer.vocab_size > model.vocab_size:
        raise ValueError(f"{directory}: the tokenizer has {tokenizer.vocab_size} ids, the model {model.vocab_size}")
