"""What an evaluation measures: a row of plain values for each dialogue, and tables of estimates over rows."""

import collections
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cmpo.evaluation import bootstrap, tables
from cmpo.evaluation.summary import measure_dialogue
from rollouts.domain import Domain, Measure
from rollouts.types import Dialogue

Row = Mapping[str, Any]
Summary = Mapping[str, Mapping[str, float]]
"""Measure -> the fields of a `bootstrap.Estimate`."""


def describe_dialogue(domain: Domain, seed: int, dialogue: Dialogue, evaluations: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what is counted of a dialogue, ready for JSON. `values` has every measure, None where it does not apply.

    The failure of an endpoint is not the agent's behaviour: the dialogue counts as failed and not finished, and has no
    other value.
    """
    values: dict[str, float | None] = dict.fromkeys(domain.measures)
    values |= {"finish_rate": 0.0, "failure_rate": float(not dialogue.ok)}
    if dialogue.ok:
        values |= measure_dialogue(domain, dialogue) | {name: found.total for name, found in evaluations.items()}
    return {
        "seed": seed,
        "scenario": dialogue.task.id,
        "digest": dialogue.task.digest,
        **dialogue.task.labels,
        "end": dialogue.end,
        "failure": dialogue.failure,
        "failure_message": dialogue.failure_message,
        "replaced": list(dialogue.replaced),
        "values": values,
        "evaluators": {name: found.record for name, found in evaluations.items()},
    }


def average_rows(domain: Domain, rows: Sequence[Row]) -> dict[str, float]:
    """Returns the mean of every measure over the dialogues that have it; NaN where none has."""
    return dict(zip(domain.measures, bootstrap.average_columns(_collect_values(domain, rows)).tolist(), strict=True))


def summarize_rows(domain: Domain, rows: Sequence[Row]) -> Summary:
    """Estimates every measure; see `bootstrap.estimate_means`."""
    return _estimate_measures(domain, _collect_values(domain, rows), rows)


def summarize_groups(domain: Domain, rows: Sequence[Row], key: str) -> dict[str, Summary]:
    """Summarizes each group of rows that have the same label `key`, one of the domain's."""
    groups = {value: [row for row in rows if row[key] == value] for value in domain.groups[key]}
    return {str(value): summarize_rows(domain, group) for value, group in groups.items() if group}


def compare_rows(domain: Domain, rows: Sequence[Row], others: Sequence[Row], *, common: bool = False) -> Summary:
    """Estimates rows minus others, dialogue by dialogue: the same scenario played with the same seed.

    Where a side has a scenario several times with a seed, the first of them is paired with the other's first, the
    second with its second, in the order of the rows. A pair counts for a measure that both have.

    Raises ValueError if the two sides are not of the same scenarios and seeds, each as often; with `common`, only if
    they have none in common.
    """
    names = ["seed", "scenario"]
    names += ["digest"] if all("digest" in row for row in (*rows, *others)) else []  # ids of two files may be the same
    here, there = (_number_rows(side, names) for side in (rows, others))
    shared, apart = here.keys() & there.keys(), here.keys() ^ there.keys()
    if not shared or (apart and not common):
        raise ValueError(
            "expected two evaluations on the same scenarios with the same seeds, got "
            f"{len(here)} and {len(there)} with {len(shared)} in common; only one has {next(iter(apart))}"
        )
    pairs = [(row, there[key]) for key, row in here.items() if key in shared]
    ours, theirs = (_collect_values(domain, side) for side in zip(*pairs, strict=True))
    return _estimate_measures(domain, ours - theirs, [row for row, _ in pairs])


def _number_rows(rows: Sequence[Row], names: Sequence[str]) -> dict[tuple[Any, ...], Row]:
    """Returns rows by their values of `names`, and by how many rows before them have the same ones."""
    seen, found = collections.Counter(), {}
    for row in rows:
        values = tuple(row[name] for name in names)
        found[*values, seen[values]] = row
        seen[values] += 1
    return found


def count_failures(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Counts failures by cause, the commonest first, with the message of the last one; those of evaluators too."""
    failed = [row for row in rows if row["failure"]]
    failed += [found for row in rows for found in row["evaluators"].values() if "failure" in found]
    counts = collections.Counter(one["failure"] for one in failed)
    last = {one["failure"]: one["failure_message"] for one in failed}
    return {cause: {"count": count, "message": last[cause]} for cause, count in counts.most_common()}


def format_table(domain: Domain, title: str, summary: Summary) -> str:
    """Writes estimates as Markdown, one measure on each line; those without a value are left out."""
    rows = []
    for name, estimate in summary.items():
        if estimate["count"]:
            mean, std, low, high = (
                format_value(domain.measures[name], estimate[field]) for field in ("mean", "std", "low", "high")
            )
            rows.append([domain.measures[name].heading, mean, std, f"{low} to {high}", str(estimate["count"])])
    return tables.format_table([title, "mean", "std over seeds", "95 % interval", "dialogues"], rows)


def format_breakdown(domain: Domain, title: str, groups: Mapping[str, Summary]) -> str:
    """Writes means of groups as Markdown, one group on each line, one measure in each column."""
    names = [name for name in domain.measures if any(group[name]["count"] for group in groups.values())]
    rows = (
        [label, *(format_value(domain.measures[name], group[name]["mean"]) for name in names)]
        for label, group in groups.items()
    )
    return tables.format_table([title, *(domain.measures[name].heading for name in names)], rows)


def format_value(measure: Measure, value: float | None) -> str:
    """Writes a value of a measure as tables have it; NaN and None become a dash."""
    return "–" if value is None or math.isnan(value) else f"{value * measure.scale:.{measure.digits}f}"


def _collect_values(domain: Domain, rows: Sequence[Row]) -> np.ndarray:
    """Returns the values, [N, M] float, with NaN for None."""
    return np.array([[row["values"][name] for name in domain.measures] for row in rows], float)


def _estimate_measures(domain: Domain, values: np.ndarray, rows: Sequence[Row]) -> Summary:
    seeds, tasks = ([row[key] for row in rows] for key in ("seed", "scenario"))
    found = bootstrap.estimate_means(values, seeds, tasks)
    return {name: estimate._asdict() for name, estimate in zip(domain.measures, found, strict=True)}
