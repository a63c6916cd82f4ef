"""Opens a run's policy: the newest checkpoint, the best, or what phase 2 began with."""

import functools
import hashlib
import pathlib
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from cmpo.distributed import sharding
from cmpo.run.checkpoint import Checkpoints
from cmpo.run.recorder import make_checkpoint_score
from cmpo.run.train_state import compute_checksums
from cmpo.run.workdir import check_same_config, with_trained_layout
from cmpo.training import build, model_source
from models import tokenizer as tokenizers
from models.tokenizer import Tokenizer
from rollouts import domains
from rollouts.engine.engine import Engine

TRAINED = ("policy", "best", "start")
"""The states of a run that can serve: the newest checkpoint, the best, what phase 2 began with."""


class Policy(NamedTuple):
    """A policy that was loaded."""

    engine: Engine
    tokenizer: Tokenizer
    identity: str  # a hash of its weights
    step: int


def open_policy(
    config: ConfigDict, workdir: pathlib.Path, *, start: bool = False, best: bool = False, **layout: int
) -> Policy:
    """Loads the policy in the newest or best checkpoint of `workdir`, or the reference it started from.

    `layout` replaces options of config.engine. Raises FileNotFoundError or ValueError if there is no such checkpoint.
    """
    check_same_config(workdir, config, settled=lambda name: name.startswith("model."))
    tokenizer = tokenizers.load(workdir / "tokenizer")
    model = model_source.read_architecture(config, workdir)
    mesh = build.make_mesh(config, model)
    trained = with_trained_layout(workdir, config)
    algorithm = build.load_algorithm(trained, domains.load(trained))
    shapes = functools.partial(build.lay_out_state, trained, model, mesh, algorithm)
    with Checkpoints(workdir, score=make_checkpoint_score(trained, workdir)) as checkpoints:
        state = checkpoints.restore(shapes, best=best)
    if state is None:
        raise FileNotFoundError(f"--workdir: no checkpoint in {str(workdir)!r} yet")
    if start and int(state.step) <= trained.train.sft_steps:
        raise ValueError(f"--agent=start: phase 2 has not begun in {str(workdir)!r}; --agent=policy is that model")
    engine = build.make_engine(config, model, mesh, tokenizer, temperature=config.eval.temperature, **layout)
    frozen = model_source.make_frozen_params(model, mesh, model_source.find_source(config, workdir), config.train.seed)
    weights = state.reference if start else state.policy.params
    engine.load(sharding.make_publish(model, mesh)(frozen, weights))
    identity = hashlib.sha256(np.asarray(compute_checksums((frozen, weights))).tobytes()).hexdigest()
    return Policy(engine, tokenizer, identity, int(state.step))
