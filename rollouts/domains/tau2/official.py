"""The benchmark's own client: how it is started, and what its results say.

It asks an agent and a user behind the OpenAI protocol, plays, scores and writes a file of results; nothing of that is
ours. What it could not finish counts as a failure here, and is listed: it is left out of no denominator.
"""

import json
import math
import os
import pathlib
import statistics
import sys
from collections.abc import Container, Mapping, Sequence
from typing import Any, NamedTuple

from rollouts.domains.tau2 import scripted
from rollouts.domains.tau2.package import Package
from rollouts.domains.tau2.scoring import Scorer, needs_llm
from rollouts.domains.tau2.tasks import load_tasks
from rollouts.domains.tau2.world import STOPS, World


class Model(NamedTuple):
    """A model behind an endpoint."""

    url: str  # base URL, ending in /v1
    name: str
    temperature: float
    max_tokens: int
    key_env: str = ""  # name of the environment variable that holds its key; "": it wants none


class Played(NamedTuple):
    """What the client says of one dialogue."""

    task: str
    trial: int
    reward: float
    end: str
    told: bool | None  # whether all was told that the task wants told; None: it wants nothing told, or nothing is known
    kept: bool | None  # whether the databases are as they should be; None: nobody looked
    done: float | None  # share of the actions that the task wants; None: it wants none, or nobody looked
    fault: str = ""  # why there is no dialogue; "": there is one


def list_splits(package: Package, domain: str) -> list[str]:
    """Returns the names of the splits that the client can play; those of a training run's config may be more."""
    load = package.registry.get_task_splits_loader(domain)
    return sorted(load()) if load else ["base"]


def write_command(
    domain: str,
    agent: Model,
    user: Model,
    folder: pathlib.Path,
    *,
    trials: int,
    split: str = "base",
    tasks: int | None = None,
    concurrency: int = 8,
    seed: int = 300,
) -> list[str]:
    """Writes the command that lets the client play the tasks of a split; results go to ``folder/domain.json``."""
    options: dict[str, Any] = {"domain": domain, "task-split-name": split, "num-trials": trials, "seed": seed}
    for role, model in (("agent", agent), ("user", user)):
        sampling = {"temperature": model.temperature, "max_tokens": model.max_tokens}
        arguments = {"base_url": model.url, **sampling}
        options |= {f"{role}-llm": f"openai/{model.name}", f"{role}-llm-args": json.dumps(arguments)}
        options |= {f"{role}-api-key": model.key_env} if model.key_env else {}  # a command line is for all to see
    options |= {"results-dir": folder, "save-to": domain, "max-concurrency": concurrency}
    options |= {} if tasks is None else {"num-tasks": tasks}
    command = [sys.executable, "-m", "tau2.cli", "run"]
    return [*command, *(str(part) for name, value in options.items() for part in (f"--{name}", value)), *_TOLERANT]


_TOLERANT = ("--skip-failed-samples",)  # or one dialogue that fails ends all of them


def client_environment() -> dict[str, str]:
    """Returns the environment that the client runs in: it stays off the network but for the endpoints."""
    always = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "PYTHONUNBUFFERED": "1"}
    return {"OPENAI_API_KEY": "none"} | os.environ | always  # without any key, it does not even ask


def read_results(path: pathlib.Path) -> list[Played]:
    """Reads a file of results. Raises ValueError if it is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return [_read_simulation(one) for one in found["simulations"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: expected results of tau2's client: {type(error).__name__}: {error}") from None


def _read_simulation(one: Mapping[str, Any]) -> Played:
    info = one["reward_info"] or {}
    told, actions = info.get("communicate_checks"), info.get("action_checks")
    database = info.get("db_check")
    fault = ""
    if one.get("skipped") or one["termination_reason"] == "infrastructure_error":
        fault = "the client could not finish it; its log says why"
    return Played(
        one["task_id"],
        one["trial"],
        float(info.get("reward") or 0.0),
        one["termination_reason"],
        all(check["met"] for check in told) if told else None,
        database["db_match"] if database else None,
        statistics.fmean(check["action_match"] for check in actions) if actions else None,
        fault,
    )


def compute_pass_hat(rewards: Sequence[float], k: int) -> float:
    """Computes Pass^k of one task, the chance that k of its trials all succeed: C(s, k) / C(n, k) (arXiv 2406.12045).

    Raises ValueError if there are fewer than k trials.
    """
    if len(rewards) < k:
        raise ValueError(f"expected at least {k} trials, got {len(rewards)}")
    successes = sum(math.isclose(reward, 1.0, abs_tol=1e-6) for reward in rewards)
    return math.comb(successes, k) / math.comb(len(rewards), k)


def score_idle_agent(package: Package, domain: str, split: str, played: Container[str]) -> dict[str, float]:
    """Scores an agent that does nothing in the tasks that were `played`: it is sorry, and the user goes.

    NaN stands for what only an LLM can score.
    """
    scorer, scores = Scorer(package, domain), {}
    for task in load_tasks(package, domain, split=split):
        if task.id not in played:
            continue
        if needs_llm(task.source):
            scores[task.id] = math.nan
            continue
        world = World(package, domain, task.source, solo=False, max_steps=100, max_errors=10)
        world.add_message("user", "Hello.")
        world.add_message("assistant", scripted.SORRY)
        world.add_message("user", STOPS[0], stops="user_stop")
        scores[task.id] = scorer.score_dialogue(task.source, world)
    return scores
