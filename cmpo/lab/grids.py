"""Grids of runs: reads them, makes them with as few programs as there are static settings, and says what came of them.

Legend: R runs (settings times seeds), T steps with rests.
"""

import collections
import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cmpo.evaluation import tables
from cmpo.lab.actor import Actor
from cmpo.lab.learning import History, make_start, train
from cmpo.lab.plan import DIFFICULTIES, NUMBERS, LabConfig
from rollouts.domain import Bound
from rollouts.domains.fds import domain as fds

CHUNK = 64
"""Runs that are computed at a time; more of them no longer fit in a core's cache."""

NEAR = 0.015
"""How far from its budget a run may end to count as near."""

_PLAIN = {field.name: field.default for field in dataclasses.fields(LabConfig) if field.name in NUMBERS}
_TYPES = {field.name: type(field.default) for field in dataclasses.fields(LabConfig)}


class Grid(NamedTuple):
    """Settings by name, each with the seeds 0, 1, … below `seeds`."""

    configs: Mapping[str, LabConfig]
    seeds: int


class Finding(NamedTuple):
    """What came of one setting, over its seeds. Rates are shares of dialogues."""

    name: str
    target: float
    rate: float  # over the last fifth of the steps
    rate_deviation: float  # standard deviation over seeds
    ended: float  # the rate of the policies in the end, over the rests; NaN without
    miss: float  # mean over seeds of how far from the budget it ended
    near: float  # share of the seeds that ended within NEAR of the budget
    lambdas: float  # over the last fifth
    satisfaction: float  # in the end
    process_reward: float
    gain: float  # share of what the best that reads gains over the best without vouchers, at the same rate


def read_grid(text: str) -> Grid:
    """Reads "target=0.15,0.3 credit=instant,cost_to_go seeds=20": all settings that the values make with each other.

    Raises ValueError, naming the key, what was expected and what came.
    """
    seeds, choices = 1, {}
    for part in text.split():
        key, equals, values = part.partition("=")
        if key not in (*_TYPES, "seeds"):
            raise ValueError(f"--grid: unknown key {key!r}; expected KEY=VALUE,… of {', '.join((*_TYPES, 'seeds'))}")
        if not equals or not all(values.split(",")):
            raise ValueError(f"--grid: {key}: expected KEY=VALUE,VALUE, got {part!r}")
        if key in choices:
            raise ValueError(f"--grid: {key}: expected once, got it twice")
        choices[key] = [_read_value(key, value) for value in values.split(",")]
        alike = {np.float32(value) if isinstance(value, float) else value for value in choices[key]}
        if len(alike) < len(choices[key]):
            raise ValueError(f"--grid: {key}: expected values that differ, got {values!r}")
    if "seeds" in choices:
        seeds, *others = choices.pop("seeds")
        if others or seeds < 1:
            raise ValueError(f"--grid: seeds: expected one number of seeds, 1 or more, got {[seeds, *others]}")
    configs = {}
    for values in itertools.product(*choices.values()):
        settings = dict(zip(choices, values, strict=True))
        try:
            configs[" ".join(map(_write_setting, settings.items())) or "default"] = LabConfig(**settings)
        except ValueError as error:
            raise ValueError(f"--grid: {error}") from None
    return Grid(configs, seeds)


def _write_setting(setting: tuple[str, Any]) -> str:
    key, value = setting
    return f"{key}={str(value).lower() if isinstance(value, bool) else value}"


def _read_value(key: str, text: str) -> Any:
    kind = _TYPES.get(key, int)
    if kind is bool:
        if text not in ("true", "false"):
            raise ValueError(f"--grid: {key}: expected true or false, got {text!r}")
        return text == "true"
    try:
        return kind(text)
    except ValueError:
        wanted = "a whole number" if kind is int else "a number"
        raise ValueError(f"--grid: {key}: expected {wanted}, got {text!r}") from None


def run_grid(grid: Grid) -> dict[str, History]:
    """Makes all runs of a grid: setting -> history, NumPy arrays [seeds, T] and parameters [seeds, …]."""
    groups = collections.defaultdict(list)
    for name, config in grid.configs.items():
        groups[dataclasses.replace(config, **_PLAIN)].append(name)
    found, starts = {}, {}
    for names in groups.values():
        configs = [grid.configs[name] for name in names]
        key = configs[0].hidden, configs[0].press, configs[0].mix
        if key not in starts:
            starts[key] = make_start(configs[0])
        history = run_configs(configs, grid.seeds, starts[key])
        found |= {name: jax.tree.map(lambda x, k=k: x[k], history) for k, name in enumerate(names)}
    return {name: found[name] for name in grid.configs}


def run_configs(configs: Sequence[LabConfig], seeds: int, start: Actor) -> History:
    """Makes the runs of settings that differ in numbers alone, from `start`; NumPy arrays [settings, seeds, …]."""
    numbers = {name: [float(getattr(config, name)) for config in configs for _ in range(seeds)] for name in NUMBERS}
    columns = {name: np.array(values, np.float32) for name, values in numbers.items()}
    columns["seed"] = np.tile(np.arange(seeds), len(configs))

    def run_one(row):
        return train(dataclasses.replace(configs[0], **{name: row[name] for name in NUMBERS}), row["seed"], start)

    run_many = jax.jit(jax.vmap(run_one))
    total = len(columns["seed"])
    chunks = -(-total // CHUNK)
    size = -(-total // chunks)
    parts = []
    for first in range(0, total, size):
        rows = np.minimum(np.arange(first, first + size), total - 1)  # the last run fills up the last chunk
        parts.append(jax.tree.map(np.asarray, run_many({name: jnp.asarray(x[rows]) for name, x in columns.items()})))
    whole = jax.tree.map(lambda *some: np.concatenate(some)[:total], *parts)
    return jax.tree.map(lambda x: x.reshape(len(configs), seeds, *x.shape[1:]), whole)


def summarize_runs(name: str, config: LabConfig, history: History, bound: Bound) -> Finding:
    """Summarizes the runs of one setting; `history` is [seeds, T], `bound` the best that an agent can do there."""
    last = slice(config.steps - max(1, config.steps // 5), config.steps)
    end = slice(config.steps, None) if config.rests else last
    rates, ended = history.voucher_rate[:, last].mean(1), history.voucher_rate[:, end].mean(1)
    misses = np.abs(ended - config.target)
    satisfaction = history.satisfaction[:, end].mean()
    return Finding(
        name=name,
        target=float(config.target),
        rate=float(rates.mean()),
        rate_deviation=float(rates.std()),
        ended=float(ended.mean()) if config.rests else float("nan"),
        miss=float(misses.mean()),
        near=float(np.mean(misses <= NEAR)),
        lambdas=float(history.lambdas[:, last].mean()),
        satisfaction=float(satisfaction),
        process_reward=float(history.process_reward[:, end].mean()),
        gain=float(bound.measure_gain_share(float(ended.mean()), float(satisfaction))),
    )


def summarize_grid(grid: Grid, histories: Mapping[str, History]) -> list[Finding]:
    """Summarizes the runs of every setting of a grid, beside the best that an agent can do at its difficulty."""
    bounds = {difficulty: fds.make(()).bound_agents(difficulty) for difficulty in DIFFICULTIES}
    return [
        summarize_runs(name, config, histories[name], bounds[config.difficulty])
        for name, config in grid.configs.items()
    ]


def format_findings(findings: Sequence[Finding]) -> str:
    """Formats findings as Markdown, a line each."""
    head = [
        *("setting", "budget, %", "vouchers in the last fifth, %", "in the end, %", "off the budget, points"),
        *(f"within {100 * NEAR:g}, %", "lambda", "satisfaction", "process", "share of the gain, %"),
    ]
    rows = []
    for found in findings:
        rate = f"{100 * found.rate:.1f} ± {100 * found.rate_deviation:.1f}"
        cells = [found.name, f"{100 * found.target:g}", rate, f"{100 * found.ended:.1f}", f"{100 * found.miss:.1f}"]
        cells += [f"{100 * found.near:.0f}", f"{found.lambdas:.2f}", f"{found.satisfaction:.3f}"]
        cells += [f"{found.process_reward:.3f}", f"{100 * found.gain:.0f}"]
        rows.append(cells)
    return tables.format_table(head, rows)
