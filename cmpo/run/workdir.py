"""Whose a workdir is: the config that a run began with, and what of it may still change.

The further a run has come, the less: what was played, taught or learnt must be what config.json says.
"""

import hashlib
import json
import pathlib
import shutil
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from cmpo.run import files, ranges
from cmpo.run.log import read_metrics
from models import hf
from rollouts import domains
from rollouts.endpoints.settings import ASKED, EMBEDDED

_ENDPOINTS = ("user.", "judge.")
_JUDGED = ("judge.weights.", "judge.votes")  # no way of asking, though they stand beside an endpoint's fields


class ConfigConflict(ValueError):
    """The workdir belongs to a run with another config."""


def may_change(name: str) -> bool:
    """Whether a field says nothing of what is learnt, and may differ from start to start of a run.

    How endpoints are reached, what they may cost and what a failure may cost; what is evaluated; how far the run goes;
    and how the work is laid out on devices and in batches of computation, which changes results by rounding only.
    """
    section, _, field = name.rpartition(".")
    if field == "embedded":
        return False
    if name.startswith(_ENDPOINTS):
        return not name.startswith(_JUDGED) and (field not in ASKED or field == "max_tokens")
    return section in ("eval", "agent", "mesh") or name in (
        "endpoints.record",
        *(f"engine.{field}" for field in ("slots", "chunk", "rows", "steps")),
        *(f"train.{field}" for field in ("row_length", "micro_rows", "share_prefix")),
        *(f"train.{field}" for field in ("rl_steps", "checkpoint_every", "keep_checkpoints")),
        *(f"train.{field}" for field in ("replacements", "max_failed_fraction", "max_skipped")),
    )


def shapes_evaluation(name: str) -> bool:
    """Whether the dialogues of an agent that is evaluated depend on a field."""
    return name.startswith("eval.") or name in [f"agent.{field}" for field in ASKED] or not may_change(name)


def made_demonstrations(name: str) -> bool:
    """Whether demonstrations depend on a field."""
    made = ("domain", "data.", "user.", "episode.", "sft.path", "sft.dialogues", "train.seed", "endpoints.")
    return name.startswith(made) and not may_change(name)


def _made_sft(name: str) -> bool:
    """Whether demonstrations or steps on them depend on a field, other than by how many there are."""
    later = ("sft_steps", "learning_rate", "scenarios_per_step", "minibatches", "epochs", "importance_cap")
    return not name.startswith(("algo.", "pid.", "engine.", "judge.", *(f"train.{one}" for one in later)))


_FIXED: dict[str, Callable[[str], bool]] = {
    "nothing": lambda name: False,
    "demonstrations": made_demonstrations,
    "sft": _made_sft,
    "rl": lambda name: True,
}
"""How far a run has come -> the fields that are settled by then, of those that may not change anyway."""


def progress(workdir: pathlib.Path) -> tuple[str, int]:
    """How far the run in `workdir` has come, a key of `_FIXED`, and how many steps are booked."""
    records = read_metrics(workdir) if (workdir / "metrics.jsonl").exists() else []
    saved = [int(path.name) for path in (workdir / "checkpoints").glob("*") if path.name.isdigit()]
    if records or saved:
        return (records[-1]["phase"], records[-1]["step"]) if records else ("rl", max(saved))
    # A page of the journal binds nobody: it says itself what it was played with. Nor does a copy of config.sft.path.
    if not all((workdir / name).exists() for name in ("demonstrations.jsonl", "config.json")):
        return "nothing", 0
    brought = ranges.flatten(files.read_object(workdir / "config.json")).get("sft.path")
    return "nothing" if brought else "demonstrations", 0


def claim(workdir: pathlib.Path, config: ConfigDict) -> None:
    """Makes `workdir`, which exists, this run's, or checks that it already is; the newest values are kept.

    Before the first step, what was made of the config, a tokenizer and a new model's sizes, is made anew.

    Raises ConfigConflict naming the fields that differ, ValueError for fewer steps than are done, or OSError if nothing
    can be written there.
    """
    path = workdir / "config.json"
    done, steps = progress(workdir)
    if path.exists() and done != "nothing":
        check(workdir, config, settled=_FIXED[done])
    wanted = {"sft": config.train.sft_steps, "rl": config.train.sft_steps + config.train.rl_steps}.get(done, 0)
    if steps > wanted:
        raise ValueError(
            f"config.train.{done}_steps: expected at least the steps done in {workdir}, {steps} in all, got {wanted}"
        )
    if done in ("nothing", "demonstrations"):
        shutil.rmtree(workdir / "tokenizer", ignore_errors=True)
        if not hf.holds_weights(workdir / "model"):
            shutil.rmtree(workdir / "model", ignore_errors=True)
    files.replace(path, json.dumps(config.to_dict(), indent=2) + "\n")


def check(workdir: pathlib.Path, config: ConfigDict, *, settled: Callable[[str], bool] = lambda name: True) -> None:
    """Compares `config` with the one that `workdir` was made with, as far as fields are `settled` and may not change.

    Raises FileNotFoundError if there is no run, ConfigConflict naming the fields that differ, ValueError naming the
    file if it is damaged.
    """
    path = workdir / "config.json"
    if not path.exists():
        raise FileNotFoundError(f"--workdir: expected a run with a config.json, found none in {str(workdir)!r}")
    here, there = _fields(config.to_dict()), _fields(files.read_object(path))
    names = (name for name in sorted(here.keys() | there.keys()) if settled(name) and not may_change(name))
    differ = [
        f"{name} is {there.get(name)!r} there, {here.get(name)!r} here"
        for name in names
        if here.get(name) != there.get(name)
    ]
    if differ:
        raise ConfigConflict(
            f"{workdir} holds a run with another config ({', '.join(differ[:3])}); choose another --workdir"
        )


def fingerprint(config: ConfigDict, counts: Callable[[str], bool] = lambda name: not may_change(name)) -> str:
    """A hash of the fields that count for dialogues: those that were played under one are none of another's."""
    kept = {name: value for name, value in sorted(_fields(config.to_dict()).items()) if counts(name)}
    return hashlib.sha256(json.dumps(kept).encode()).hexdigest()


def _fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a config; whether rules or a model answer is one of their own, wherever the model is."""
    flat = ranges.flatten(config) | {"domain": domains.name_of(config)}
    return flat | {f"{name}.embedded": flat.get(f"{name}.url") == EMBEDDED for name in ("user", "judge")}


def as_trained(workdir: pathlib.Path, config: ConfigDict) -> ConfigDict:
    """`config` with what the layout of the checkpoints in `workdir` depends on: domain, costs, algorithm and steps."""
    there = files.read_object(workdir / "config.json")
    config = config.copy_and_resolve_references()
    config.train.update({name: there["train"][name] for name in config.train if name in there["train"]})
    with config.ignore_type(), config.unlocked():
        config.domain = domains.name_of(there)
        config.pid, config.algo = ConfigDict(there["pid"]), ConfigDict(there["algo"])
    return config
