"""Whole runs, as small as they get, what they left, and a full disk, for the tests that need one."""

import contextlib
import pathlib
import random
import resource

import chex
import jax

from cmpo.run.log import read_metrics
from cmpo.training import build, collecting, demonstrations, tasks
from configs import fds
from rollouts.domains.fds import turn_format
from rollouts.types import Sample

ROOT = pathlib.Path(__file__).parents[2]


def tiny(variant="", **changes):
    """Two steps of each phase with a model that knows nothing yet; `variant` as in the config's name.

    What configs/fds.py tunes is said here, so that what tests work out by hand does not move with it.
    """
    config = fds.get_config("smoke")
    config.update_from_flattened_dict(
        {
            "model.vocab_size": 600,
            "model.hidden_size": 16,
            "model.intermediate_size": 16,
            "model.num_layers": 1,
            "model.num_heads": 1,
            "engine.slots": 8,
            "engine.max_new_tokens": 8,
            "engine.temperature": 0.8,
            "pid.kp": 0.5,
            "pid.ki": 0.15,
            "sft.dialogues": 8,
            "sft.batch_rows": 2,
            "sft.vary_facts": 0.0,
            "sft.vary_words": 0.0,
            "train.sft_steps": 2,
            "train.rl_steps": 2,
            "train.scenarios_per_step": 2,
            "train.checkpoint_every": 1,
            "train.minibatches": 1,
            "train.final_fraction": 0.2,
            "train.micro_rows": 1,
            "train.keep_checkpoints": 4,
            "eval.scenarios": 8,
        }
    )
    if variant:
        named = fds.get_config(variant)
        names = ("path", "vocab_size", "hidden_size", "intermediate_size", "num_layers", "num_heads", "num_kv_heads")
        config.model.update({name: named.model[name] for name in names})
        config.mesh = named.mesh
    config.update_from_flattened_dict(changes)
    return config


_make_mesh = build.make_mesh


def mesh_maker(count):
    """`build.make_mesh` of the first `count` devices."""
    return lambda config, model: _make_mesh(config, model, jax.devices()[:count])


class Terse:
    """An agent of few words, the same to everybody, that gives a voucher in one turn of four, a second one too."""

    def __init__(self, seed=0):
        self._random = random.Random(seed)

    async def open(self, task, seed):
        return Terse(seed)

    async def reply(self, messages, seed):
        response = self._random.choice(["I am sorry.", "Was it cold?", "A photo, please.", "No refund."])
        return Sample(
            turn_format.render_reply(turn_format.Reply("", response, self._random.choice(["voucher", *["chat"] * 3])))
        )

    def close(self):
        pass


def taught(path, **changes):
    """A run with dialogues that differ: SFT on what `Terse` says, written to `path`, until the policy can say it too.

    No setting of what the policy learns from has the value that it would have if nobody passed it on.
    """
    config = tiny(
        **{
            "model.hidden_size": 32,
            "model.intermediate_size": 64,
            "model.num_heads": 2,
            "model.num_kv_heads": 1,
            "engine.slots": 12,
            "engine.max_new_tokens": 24,
            "episode.max_turns": 3,
            "episode.farewell": True,
            "episode.format_outcome": -2.5,
            "judge.weights.stage": 3.0,
            "judge.weights.rules": 0.5,
            "algo.outcome_weight": 0.7,
            "algo.process_weight": 2.0,
            "algo.normalize": "center",
            "algo.credit": "return_to_go",
            "algo.discount": 0.9,
            "algo.clip_low": 0.1,
            "algo.clip_high": 0.3,
            "algo.kl_weight": 0.1,
            "pid.initial_lambda": 0.8,
            "pid.kd": 0.25,
            "sft.path": str(path),
            "sft.exercise_steps": 0,
            "sft.learning_rate": 2e-2,
            "train.sft_steps": 30,
            "train.rl_steps": 3,
            "train.scenarios_per_step": 3,
            "train.minibatches": 2,
            "train.epochs": 2,
            "train.row_length": 1024,
            "train.learning_rate": 3e-3,
            "train.checkpoint_every": 16,  # of phase 2, after its second step
            "train.tokens_every": 16,  # likewise
            "eval.scenarios": 4,
            "eval.temperature": 0.5,
            "eval.evaluators": False,
        }
        | changes
    )
    scenarios = tasks.open_source(config).train(0, 20)
    dialogues = collecting.collect_dialogues(
        config, collecting.serve_agent(Terse()), scenarios, repeats=1, seed=5, judged=False
    )
    demonstrations.write_conversations(path, map(demonstrations.from_dialogue, dialogues))
    return config


@contextlib.contextmanager
def full_disk(size=4096):
    """Within, no file of this process can grow beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def transcripts(workdir):
    return {path.name: path.read_text() for path in sorted((workdir / "transcripts").iterdir())}


def assert_same_run(workdir, state, expected_workdir, expected_state, lines=4):
    """Bitwise: the state, and all that was written but for what was timed."""
    chex.assert_trees_all_equal(state, expected_state)
    assert transcripts(workdir) == transcripts(expected_workdir)
    timed = {"seconds": None, "tokens_per_second": None}
    records, expected = ([record | timed for record in read_metrics(path)] for path in (workdir, expected_workdir))
    assert records == expected and len(records) == lines
