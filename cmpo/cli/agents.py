"""Loads the agent that the flag ``--agent`` names, for every command that has this flag.

``policy`` is the newest checkpoint in --workdir, ``best`` the one with the best score in training, ``start`` what phase
2 began with. ``endpoint`` is the model that answers at --agent_url. The others are the domain's scripted agents and
need no --workdir. Of FDS, ``never``, ``always`` and ``generous`` act by habit, ``varied`` writes the demonstrations,
``reader`` is the best there is in the embedded gym with its first cost at --budget for who reads the messages, and
``oracle`` for who knows the customer (docs/gym.md).
"""

import dataclasses
import pathlib
from typing import NamedTuple

from absl import flags
from ml_collections import ConfigDict

from cmpo.algorithms.budgets import budgets_of
from cmpo.cli import policies, remote
from cmpo.training import collecting
from cmpo.training.collecting import Agents
from rollouts import domains

_AGENT = flags.DEFINE_string(
    "agent",
    None,
    "The agent: policy, best, start, endpoint, or a scripted agent of the domain (of FDS: never, always, generous, "
    "varied, reader, oracle), see cmpo/cli/agents.py; default: the endpoint if one is named, else policy.",
)
_BUDGET = flags.DEFINE_float(
    "budget",
    None,
    "What oracle and reader may spend of the domain's first cost; default: config.pid.target.",
    lower_bound=0.0,
)


class Named(NamedTuple):
    """An agent, and what is known of it."""

    name: str
    opened: Agents
    step: int | None = None  # of its training; None: no run here trained it
    remote: bool = False  # is it the endpoint config.agent?


def load(config: ConfigDict, workdir: str | None) -> Named:
    """Loads the agent that the flags name, and puts --agent_url and the like into config.agent.

    Raises FileNotFoundError or ValueError if it needs a run and there is none in `workdir`, or cannot be an endpoint.
    """
    given = {"url": remote.URL.value, "model": remote.MODEL.value, "api_key_env": remote.API_KEY_ENV.value}
    config.agent.update({name: value for name, value in given.items() if value is not None})
    name = _AGENT.value or ("endpoint" if config.agent.url else "policy")
    if name == "endpoint":
        if not config.agent.model:
            raise ValueError("--agent_model: expected the name of the model that the endpoint serves")
        return Named(config.agent.model, collecting.serve_endpoint(config), remote=True)
    if name in policies.TRAINED:
        if workdir is None:
            raise ValueError(f"--workdir: expected the directory of a run for --agent={name}")
        return Named(name, *load_policy(config, pathlib.Path(workdir), start=name == "start", best=name == "best"))
    return Named(name, load_scripted(config, name, _BUDGET.value))


def load_scripted(config: ConfigDict, name: str, budget: float | None = None) -> Agents:
    """Loads a scripted agent of the domain. `budget` is what it may spend if it keeps to one; None: the config's.

    Raises ValueError if there is none of that name.
    """
    domain = domains.load(config)
    if name not in domain.scripted:
        names = (*policies.TRAINED, "endpoint", *domain.scripted)
        raise ValueError(f"--agent: expected one of {', '.join(names)}, got {name!r}")
    budget = budgets_of(domain, config)[0] if budget is None else budget
    agent = domain.scripted_agent(config, name, budget)
    return dataclasses.replace(collecting.serve_agent(agent), identity=f"{name}, {budget}")


def load_policy(
    config: ConfigDict, workdir: pathlib.Path, *, start: bool = False, best: bool = False
) -> tuple[Agents, int]:
    """Loads the policy in the newest or best checkpoint of `workdir` as an agent; returns its step, too."""
    policy = policies.open_policy(config, workdir, start=start, best=best)
    served = collecting.serve_policy(policy.engine, policy.tokenizer)
    return dataclasses.replace(served, identity=policy.identity), policy.step
