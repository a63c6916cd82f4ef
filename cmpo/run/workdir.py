"""Ties a workdir to the config that its run began with, and says which fields may still change.

The further a run has come, the fewer may: what was played, taught or learnt must agree with config.json.
"""

import hashlib
import json
import pathlib
import shutil
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from cmpo.run import files, schema
from cmpo.run.log import read_metrics
from models import hf
from rollouts import domains
from rollouts.endpoints.settings import ASKED, EMBEDDED
from rollouts.sections import check_section, flatten_config

_ENDPOINTS = ("user.", "judge.")
_JUDGED = ("judge.weights.", "judge.votes")  # these change rewards, though they stand beside the fields of an endpoint


class ConfigConflict(ValueError):
    """The workdir belongs to a run with another config."""


def may_change(name: str) -> bool:
    """Whether a field has no effect on what is learnt, so that it may change when a run is started again.

    Such fields say how endpoints are reached, what they may cost and what a failure may cost; what is evaluated; where
    numbers go; how far the run goes; and how the work is laid out on devices and in batches, which changes results by
    rounding only.
    """
    section, _, field = name.rpartition(".")
    if field == "embedded":
        return False
    if name.startswith(_ENDPOINTS):
        return not name.startswith(_JUDGED) and (field not in ASKED or field == "max_tokens")
    return section in ("eval", "agent", "mesh", "log") or name in (
        "endpoints.record",
        *(f"engine.{field}" for field in ("slots", "chunk", "rows", "steps")),
        *(f"train.{field}" for field in ("row_length", "micro_rows", "share_prefix")),
        *(f"train.{field}" for field in ("rl_steps", "checkpoint_every", "keep_checkpoints")),
        *(f"train.{field}" for field in ("tokens_every", "replacements", "max_failed_fraction", "max_skipped")),
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
"""How far a run has come -> is a field settled by then? Only fields that may not change anyway are asked about."""


def read_progress(workdir: pathlib.Path) -> tuple[str, int]:
    """Returns how far the run in `workdir` has come, a key of `_FIXED`, and how many steps are done."""
    records = read_metrics(workdir) if (workdir / "metrics.jsonl").exists() else []
    saved = [int(path.name) for path in (workdir / "checkpoints").glob("*") if path.name.isdigit()]
    if records or saved:
        return (records[-1]["phase"], records[-1]["step"]) if records else ("rl", max(saved))
    # Pages of the journal settle nothing: each says what it was played with. Nor does a copy of config.sft.path.
    if not all((workdir / name).exists() for name in ("demonstrations.jsonl", "config.json")):
        return "nothing", 0
    brought = flatten_config(files.read_object(workdir / "config.json")).get("sft.path")
    return "nothing" if brought else "demonstrations", 0


def claim_workdir(workdir: pathlib.Path, config: ConfigDict) -> None:
    """Makes an existing `workdir` this run's, or checks that it already is. Then config.json gets the newest values.

    Before the first step, it removes what was made from the config, the tokenizer and a new model's sizes, which are
    then made again.

    Raises ConfigConflict naming the fields that differ, ValueError for fewer steps than are done, or OSError if nothing
    can be written there.
    """
    path = workdir / "config.json"
    done, steps = read_progress(workdir)
    if path.exists() and done != "nothing":
        check_same_config(workdir, config, settled=_FIXED[done])
    wanted = {"sft": config.train.sft_steps, "rl": config.train.sft_steps + config.train.rl_steps}.get(done, 0)
    if steps > wanted:
        raise ValueError(
            f"config.train.{done}_steps: expected at least the steps done in {workdir}, {steps} in all, got {wanted}"
        )
    if done in ("nothing", "demonstrations"):
        shutil.rmtree(workdir / "tokenizer", ignore_errors=True)
        if not hf.holds_weights(workdir / "model"):
            shutil.rmtree(workdir / "model", ignore_errors=True)
    files.replace_file(path, json.dumps(config.to_dict(), indent=2) + "\n")


def check_same_config(
    workdir: pathlib.Path, config: ConfigDict, *, settled: Callable[[str], bool] = lambda name: True
) -> None:
    """Compares `config` with the one that `workdir` was made with, in the fields that are `settled` and may not change.

    Raises FileNotFoundError if there is no run, ConfigConflict naming the fields that differ, ValueError naming the
    file if it is damaged.
    """
    there = _read_config(workdir)
    defaults = schema.default_config(domains.load(config.to_dict()))
    here, there = _flatten_config(config.to_dict()), _flatten_config(fill_in(defaults, there))
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


def load_config(workdir: pathlib.Path) -> ConfigDict:
    """Loads the config of the run in `workdir`, for commands that are given no other.

    Raises FileNotFoundError if there is no run, ValueError naming the file if it is damaged, or the field if it has a
    value that no run can start with.
    """
    there = _read_config(workdir)
    check_section(schema.RunSettings, there)
    config = ConfigDict(fill_in(schema.default_config(domains.load(there)), there))
    config.domain = domains.name_of(there)
    schema.check_config(config)
    return config.lock()


def hash_config(config: ConfigDict, counts: Callable[[str], bool] = lambda name: not may_change(name)) -> str:
    """Hashes the fields that dialogues depend on. Dialogues of one hash are not used under another."""
    kept = {name: value for name, value in sorted(_flatten_config(config.to_dict()).items()) if counts(name)}
    return hashlib.sha256(json.dumps(kept).encode()).hexdigest()


def _read_config(workdir: pathlib.Path) -> dict[str, Any]:
    path = workdir / "config.json"
    if not path.exists():
        raise FileNotFoundError(f"--workdir: expected a run with a config.json, found none in {str(workdir)!r}")
    return files.read_object(path)


def _flatten_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of a config, and two derived ones: the domain, and whether rules or a model answers."""
    flat = flatten_config(config) | {"domain": domains.name_of(config)}
    return flat | {f"{name}.embedded": flat.get(f"{name}.url") == EMBEDDED for name in ("user", "judge")}


def fill_in(defaults: Any, given: Any) -> Any:
    """Returns what is `given`, with defaults for settings that are newer than it."""
    if not (isinstance(defaults, Mapping) and isinstance(given, Mapping)):
        return given
    return {**defaults, **{name: fill_in(defaults.get(name), value) for name, value in given.items()}}


def hash_start(config: ConfigDict) -> str:
    """Hashes all that phase 1 depends on. Runs of one hash may go on from the same end of it."""
    return hash_config(config, lambda name: name == "train.sft_steps" or (_made_sft(name) and not may_change(name)))


def with_trained_layout(workdir: pathlib.Path, config: ConfigDict) -> ConfigDict:
    """`config` with what the layout of the checkpoints in `workdir` depends on: domain, costs, algorithm and steps."""
    there = fill_in(schema.default_config(), files.read_object(workdir / "config.json"))
    config = config.copy_and_resolve_references()
    config.train.update({name: value for name, value in there["train"].items() if name in config.train})
    with config.ignore_type(), config.unlocked():
        config.domain = domains.name_of(there)
        config.pid, config.algo = ConfigDict(there["pid"]), ConfigDict(there["algo"])
    return config
