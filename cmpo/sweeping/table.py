"""What came of a sweep: a table of its runs, and their curves side by side."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from cmpo.evaluation.measures import format_value
from cmpo.evaluation.tables import format_table
from cmpo.reports.planes import find_bound
from cmpo.reports.plots import add_legend, style_axes
from cmpo.run.log import read_multiplier
from cmpo.sweeping.plan import PlannedRun
from rollouts.domain import Domain, Measure

Line = Mapping[str, Any]
"""Of one line of the grid: its label, how many runs, by measure the mean over them and the deviation, what failed."""
GAIN = "gain_share"
"""A measure beside the domain's, where the best possible is known: see `Bound.measure_gain_share`."""


def summarize_lines(
    domain: Domain,
    runs: Sequence[PlannedRun],
    results: Mapping[str, Mapping[str, Any]],
    failed: Mapping[str, str],
) -> list[Line]:
    """Summarizes each line of the grid over its training seeds; `results` and `failed` are by a run's name.

    The deviation is that of the runs' means, with n - 1; None with fewer than two.
    """
    lines = []
    for label in dict.fromkeys(run.label for run in runs):
        names = [run.name for run in runs if run.label == label]
        found = [_measure_run(domain, results[name]) for name in names if name in results]
        means = {name: [x for one in found if (x := one[name]) is not None] for name in (*domain.measures, GAIN)}
        lines.append(
            {
                "label": label,
                "runs": len(found),
                "mean": {name: float(np.mean(x)) if x else None for name, x in means.items()},
                "std": {name: float(np.std(x, ddof=1)) if len(x) > 1 else None for name, x in means.items()},
                "failed": {name: failed[name] for name in names if name in failed},
            }
        )
    return lines


def _measure_run(domain: Domain, result: Mapping[str, Any]) -> dict[str, float | None]:
    """Measures one run by its evaluation: the means, and `GAIN`; None for what is not known."""
    means = {name: result["summary"][name]["mean"] for name in domain.measures}
    if bound := find_bound(result):
        gain = bound.measure_gain_share(means[bound.cost.measure], means[bound.objective])
        return means | {GAIN: None if math.isnan(gain) else gain}
    return means | {GAIN: None}


def format_lines(domain: Domain, lines: Sequence[Line]) -> str:
    """Formats the table as Markdown; runs that failed are named below it."""
    measures = {**domain.measures, GAIN: Measure("share of the gain, %", 100, 0)}
    names = [name for name in measures if any(line["mean"][name] is not None for line in lines)]
    head = ["run", "seeds", *(measures[name].heading for name in names)]
    rows = [
        [line["label"], str(line["runs"]), *(_format_cell(measures[name], name, line) for name in names)]
        for line in lines
    ]
    failed = [f"{name} failed: {why}" for line in lines for name, why in line["failed"].items()]
    return "\n\n".join([format_table(head, rows), *failed])


def draw_lines(domain: Domain, curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Draws objective, costs and multipliers of each run, whose records of phase 2 are in `curves` by its name."""
    keys = [domain.objective, *(cost.measure for cost in domain.costs), "lambda"]
    figure = Figure(figsize=(6.5 * len(keys), 5))
    for axes, key in zip(np.atleast_1d(figure.subplots(1, len(keys))), keys, strict=True):
        for name, records in curves.items():
            values = [_read_number(domain, record, key) for record in records]
            axes.plot([record["step"] for record in records], values, label=name, linewidth=1.2)
        axes.set_title(key, loc="left", fontsize=10, fontweight="bold")
        style_axes(axes)
    if curves:
        add_legend(axes)
    return figure


def _format_cell(measure: Measure, name: str, line: Line) -> str:
    mean, std = (format_value(measure, line[kind][name]) for kind in ("mean", "std"))
    return mean if line["std"][name] is None else f"{mean} ± {std}"


def _read_number(domain: Domain, record: Mapping[str, Any], key: str) -> float:
    """Reads a number from a record; of several multipliers, that of the first cost."""
    value = read_multiplier(record, domain.costs[0]) if key == "lambda" and domain.costs else record.get(key)
    return math.nan if value is None else value
