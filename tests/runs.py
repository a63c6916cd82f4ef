"""A whole run, as small as it gets, what it left, and a full disk, for the tests that need one."""

import contextlib
import pathlib
import resource

import chex

from cmpo import metrics
from configs import fds

ROOT = pathlib.Path(__file__).parents[1]


def tiny(variant="", **changes):
    """Two steps of each phase with a model that knows nothing yet; `variant` as in the config's name."""
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
            "sft.dialogues": 8,
            "sft.batch_rows": 2,
            "train.sft_steps": 2,
            "train.rl_steps": 2,
            "train.scenarios_per_step": 2,
            "train.checkpoint_every": 1,
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
    records, expected = ([record | timed for record in metrics.read(path)] for path in (workdir, expected_workdir))
    assert records == expected and len(records) == lines
