"""A whole step of the trainer on one device, against the embedded gym."""

import functools
import pathlib
import tempfile
import unittest.mock
from collections.abc import Callable, Iterator

import numpy as np

from benchmarks.gpu import device
from benchmarks.gpu.device import Record, Sizes
from cmpo.run.interrupt import Interrupts
from cmpo.run.journal import Journal
from cmpo.training import collecting, demonstrations, learner, packing, player, tasks, trainer
from cmpo.training.clients import make_clients
from cmpo.training.prefetch import Ahead
from configs import fds
from models import tokenizer as tokenizers
from rollouts import domains
from rollouts.domains.fds import turn_format
from rollouts.domains.fds.scripted import ScriptedAgent
from rollouts.engine import grammar

WORDS = 12  # free tokens that random weights may choose from: their turns end after about as many


def rl_step(size: str, sizes: Sizes) -> Iterator[Record]:
    """The second of two steps of the trainer, against the embedded gym: seconds by phase."""
    config, model = device.settings(size, sizes, **sizes.played)
    source, clients = tasks.open_source(config), make_clients(config)
    scenarios = source.train(0, config.train.scenarios_per_step)
    played = collecting.collect_dialogues(
        config, collecting.serve_agent(ScriptedAgent("generous")), scenarios, repeats=1, seed=0, clients=clients
    )
    conversations = [demonstrations.from_dialogue(dialogue) for dialogue in played if dialogue.ok]
    texts = (message.content for conversation in conversations for message in conversation)
    tokenizer = tokenizers.train_tokenizer(texts, min(fds.get_config("new").model.vocab_size, model.vocab_size))
    with tempfile.TemporaryDirectory() as directory, Interrupts() as interrupts, Ahead() as ahead:
        with unittest.mock.patch.object(turn_format, "grammar", functools.partial(terse, turn_format.grammar)):
            learning = learner.Learner(config, model, None, domains.load(config))
            journal = Journal(pathlib.Path(directory))
            playing = player.Player(config, source, tokenizer, learning, clients, journal, interrupts, ahead)
            made = trainer.Trainer(config, learning, playing, packing.pack_rows([], row_length=config.train.row_length))
        state = learning.begin_rl(learning.make_first_state())
        state, first, _ = made.rl_step(state)
        state, found, _ = made.rl_step(state)
    whole = sum(found["seconds"].values())
    note = (
        f"{found['dialogues_ok']} dialogues of {found['turns_mean']:.2f} turns, {found['new_tokens']:,} tokens drawn, "
        f"random weights; logprob_gap_max {found['logprob_gap_max']:.2g} nats in {model.dtype}; the step before it, "
        f"which compiles: {sum(first['seconds'].values()):.1f} s"
    )
    for phase, took in found["seconds"].items():
        what = f"a step with Qwen2.5-{size.upper()} in the embedded gym: {phase}"
        yield device.record(what, took, whole, "the whole step", "s", note)


def terse(turn_format: Callable[..., grammar.Grammar], *arguments) -> grammar.Grammar:
    """The grammar of `turn_format`, but that free text is of a few tokens: random weights then come to its end."""
    rules = turn_format(*arguments)
    free = rules.allowed & (rules.follows == np.arange(len(rules.follows))[:, None])
    return rules._replace(allowed=rules.allowed & (~free | (np.cumsum(free, axis=1) <= WORDS)))
