"""Who serves the customers, by name: what every command with an ``--agent`` flag has in common.

``policy`` is the newest checkpoint in --workdir, ``best`` the one with the best score in training, ``start`` what
phase 2 began with. The others are scripted and need no --workdir: ``never``, ``always`` and ``generous`` see what any
agent sees; ``oracle`` is the best there is in the embedded gym with vouchers for --voucher_rate of the customers, see
`rollouts.domains.fds.embedded.oracle`. ``endpoint`` is whoever answers at --agent_url.
"""

import dataclasses
import hashlib
import pathlib
from typing import NamedTuple

import numpy as np
from absl import flags
from ml_collections import ConfigDict

from cmpo.distributed import sharding
from cmpo.run.checkpoint import Checkpoints
from cmpo.run.recorder import budgets_of, scores
from cmpo.run.train_state import checksums
from cmpo.run.workdir import as_trained, check
from cmpo.training import build, collecting, model_source
from cmpo.training.collecting import Agents
from models import tokenizer as tokenizers
from rollouts import domains
from rollouts.domains.fds.domain import oracle_agent
from rollouts.domains.fds.scripted import HABITS

_AGENT = flags.DEFINE_enum(
    "agent",
    None,
    ["policy", "best", "start", "endpoint", "oracle", *HABITS],
    "Who serves the customers, see cmpo/cli/agents.py; default: the endpoint where one is named, else policy.",
)
_VOUCHER_RATE = flags.DEFINE_float(
    "voucher_rate", None, "The oracle's voucher rate; default: config.pid.target.", lower_bound=0.0, upper_bound=1.0
)
_URL = flags.DEFINE_string("agent_url", None, "Base URL of an agent's endpoint; short for --config.agent.url.")
_MODEL = flags.DEFINE_string("agent_model", None, "Its model; short for --config.agent.model.")
_KEY = flags.DEFINE_string(
    "agent_api_key_env", None, "Environment variable that holds its key; short for --config.agent.api_key_env."
)


class Named(NamedTuple):
    """An agent, and what is known of it."""

    name: str
    opened: Agents
    step: int | None = None  # of training
    remote: bool = False  # is it the endpoint config.agent?


def load(config: ConfigDict, workdir: str | None) -> Named:
    """The agent that the flags name; --agent_url and its like are put into config.agent.

    Raises FileNotFoundError or ValueError if it needs a run and there is none in `workdir`, or cannot be an endpoint.
    """
    given = {"url": _URL.value, "model": _MODEL.value, "api_key_env": _KEY.value}
    config.agent.update({name: value for name, value in given.items() if value is not None})
    name = _AGENT.value or ("endpoint" if config.agent.url else "policy")
    if name == "endpoint":
        if not config.agent.model:
            raise ValueError("--agent_model: expected the name of the model that the endpoint serves")
        return Named(config.agent.model, collecting.remote_agents(config), remote=True)
    if name in ("policy", "best", "start"):
        if workdir is None:
            raise ValueError(f"--workdir: expected the directory of a run for --agent={name}")
        return Named(name, *load_policy(config, pathlib.Path(workdir), start=name == "start", best=name == "best"))
    return Named(name, scripted(config, name, _VOUCHER_RATE.value))


def scripted(config: ConfigDict, name: str, voucher_rate: float | None = None) -> Agents:
    """A scripted agent; `voucher_rate` is the oracle's, None for the config's target."""
    if name != "oracle":
        return collecting.serving(domains.load(config).scripted_agent(config, name))
    rate = budgets_of(domains.load(config), config)[0] if voucher_rate is None else voucher_rate
    return dataclasses.replace(collecting.serving(oracle_agent(config, rate)), identity=f"{rate}")


def load_policy(
    config: ConfigDict, workdir: pathlib.Path, *, start: bool = False, best: bool = False
) -> tuple[Agents, int]:
    """The policy in `workdir`'s newest or best checkpoint, or the reference it started from, and the step it is at.

    Raises FileNotFoundError or ValueError if there is no such checkpoint.
    """
    check(workdir, config, settled=lambda name: name.startswith("model."))
    tokenizer = tokenizers.load(workdir / "tokenizer")
    model = model_source.settled(config, workdir)
    mesh = build.mesh(config, model)
    trained = as_trained(workdir, config)
    layout = build.abstract_state(trained, model, mesh)
    with Checkpoints(workdir, score=scores(config, workdir)) as checkpoints:
        state = checkpoints.restore(layout, best=best)
    if state is None:
        raise FileNotFoundError(f"--workdir: no checkpoint in {str(workdir)!r} yet")
    if start and int(state.step) <= trained.train.sft_steps:
        raise ValueError(f"--agent=start: phase 2 has not begun in {str(workdir)!r}; --agent=policy is that model")
    engine = build.engine(config, model, mesh, tokenizer, temperature=config.eval.temperature)
    frozen = model_source.frozen(model, mesh, model_source.source(config, workdir), config.train.seed)
    weights = state.reference if start else state.params
    engine.load(sharding.make_publish(model, mesh)(frozen, weights))
    identity = hashlib.sha256(np.asarray(checksums((frozen, weights))).tobytes()).hexdigest()
    return dataclasses.replace(collecting.policy_agents(engine, tokenizer), identity=identity), int(state.step)
