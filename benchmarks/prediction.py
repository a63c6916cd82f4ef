"""Holds runs of the lab against runs of a language model with the same settings: does the lab predict them?

    .venv/bin/python -m cmpo.sweep --config=configs/ablations.py:budgets --workdir=runs/budgets --seeds=3
    .venv/bin/python -m benchmarks.prediction --sweep=runs/budgets [--seeds=24] [--learning_rate=0.01]

Every line of the sweep becomes a setting of `cmpo.lab` with the same credit, normalisation, controller, budget and
batch. The learning rate is the lab's own, as the policies are different ones. It prints both beside each other, and the
rank correlation of what is served, of the distance from the budget and of the share of the gain (Spearman's, with the
two-sided p of no relation). docs/lab.md says what it showed.
"""

import argparse
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import scipy.stats

from benchmarks.estimators import LEAST
from cmpo.cli import command
from cmpo.evaluation import tables
from cmpo.lab import grids
from cmpo.lab.grids import Finding, Grid
from cmpo.lab.plan import LabConfig
from cmpo.run import files

RESTS = 40
SAME = {
    "algo": (
        *("normalize", "credit", "price_scale", "discount", "outcome_weight", "process_weight"),
        *("kl_weight", "clip_low", "clip_high"),
    ),
    "pid": (
        *("target", "kp", "ki", "kd", "form", "every"),
        *("smoothing", "smoothing_of", "lambda_max", "initial_lambda"),
    ),
    "train": ("minibatches", "epochs", "final_fraction"),
    "episode": ("max_turns",),
    "data": ("difficulty",),
}
"""Section of a run's config -> fields that the lab has under the same name."""


class Served(NamedTuple):
    """What a setting comes to: vouchers a dialogue, and the share of the gain at that rate."""

    rate: float
    share: float


def read_lines(workdir: pathlib.Path) -> dict[str, tuple[dict[str, Any], Served]]:
    """Reads a sweep: label -> the config of its first run, and means over its runs. What failed is left out."""
    found = {}
    for line in json.loads((workdir / "sweep.json").read_text()):
        if line["runs"]:
            config = files.read_object(workdir / "runs" / f"{line['label']}_0" / "config.json")
            share = line["mean"]["gain_share"]
            found[line["label"]] = config, Served(line["mean"]["voucher_rate"], math.nan if share is None else share)
    return found


def translate_config(config: Mapping[str, Any], learning_rate: float) -> LabConfig:
    """Translates a run's config into the lab's. Without a controller lambda stays where it begins."""
    same = {name: config[section][name] for section, names in SAME.items() for name in names}
    held = {} if config["pid"]["enabled"] else dict.fromkeys(("kp", "ki", "kd"), 0.0)
    return LabConfig(
        **same | held,
        learning_rate=learning_rate,
        steps=config["train"]["rl_steps"],
        scenarios=config["train"]["scenarios_per_step"],
        dialogues=config["algo"]["group_size"],
        rests=RESTS,
    )


def compare_lines(
    found: Mapping[str, tuple[Mapping[str, Any], Served]], predicted: Mapping[str, Finding]
) -> list[dict[str, Any]]:
    """Puts both beside each other, a record for each line; `off` is the distance from the budget, if there is one."""
    records = []
    for label, (config, served) in found.items():
        lab = predicted[label]
        record = {"label": label, "rate": (served.rate, lab.ended), "share": (math.nan, math.nan)}
        if min(record["rate"]) >= LEAST:
            record["share"] = served.share, lab.gain
        if config["pid"]["enabled"]:
            target = config["pid"]["target"]
            record["off"] = abs(served.rate - target), abs(lab.ended - target)
        else:
            record["off"] = math.nan, math.nan
        records.append(record)
    return records


def format_records(records: Sequence[Mapping[str, Any]]) -> str:
    """Formats both beside each other in percent, and the rank correlations below."""
    keys = {"rate": "vouchers, %", "off": "off the budget, points", "share": "share of the gain, %"}
    head = ["line", *(f"{name}: {who}" for name in keys.values() for who in ("model", "lab"))]
    rows = [[one["label"], *(_write_percent(x) for key in keys for x in one[key])] for one in records]
    said = []
    for key, name in keys.items():
        pairs = [one[key] for one in records if not any(map(math.isnan, one[key]))]
        if len(pairs) > 2:
            order = scipy.stats.spearmanr(*zip(*pairs, strict=True))
            said.append(f"{name}: rank correlation {order.statistic:.2f} (p {order.pvalue:.3f}, {len(pairs)} settings)")
        else:
            said.append(f"{name}: expected 3 settings or more to correlate, got {len(pairs)}")
    return "\n".join([tables.format_table(head, rows), "", *said])


def _write_percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.1f}"


def main() -> None:
    """Reads the sweep, makes the lab's runs, and prints both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sweep", type=pathlib.Path, required=True, help="workdir of a sweep that was made")
    parser.add_argument("--seeds", type=int, default=24, help="of the lab's runs")
    parser.add_argument("--learning_rate", type=float, default=0.01, help="of the lab's runs")
    arguments = parser.parse_args()
    found = read_lines(arguments.sweep)
    configs = {label: translate_config(config, arguments.learning_rate) for label, (config, _) in found.items()}
    command.keep_programs()
    grid = Grid(configs, arguments.seeds)
    findings = grids.summarize_grid(grid, grids.run_grid(grid))
    print(format_records(compare_lines(found, {one.name: one for one in findings})))


if __name__ == "__main__":
    main()
