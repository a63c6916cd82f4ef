"""Compares runs: paired differences over the dialogues that both played, settings that differ, evaluations by name."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cmpo.evaluation import bootstrap, conditions, measures, results
from cmpo.reports.run_data import Run, list_results
from cmpo.run.alarms import WINDOW
from rollouts.sections import flatten_config

Place = tuple[int, str, int, int]
"""Step, digest of the task, how many groups of that task come before in the step, number in the group."""
Worth = dict[Place, dict[str, float | None]]
_DIGITS = 3


def measure_worth(step: int, groups: Sequence[Mapping[str, Any]]) -> Worth:
    """Measures the dialogues of a step that did not fail, by `Place`; `groups` are as `dialogues` describes them.

    Dialogues of two runs at one place are a pair. Tasks are the same where all of their description is. Of a task that
    comes again in a step, the first group is paired with the first, the second with the second.
    """
    found: Worth = {}
    for group in groups:
        for dialogue in group["dialogues"]:
            if dialogue["outcome"] is not None:
                found[step, group["digest"], group["repeat"], dialogue["index"]] = {
                    "outcome": dialogue["outcome"],
                    "finished": float(dialogue["success"]),
                    "process reward": dialogue["reward"],
                    **dialogue["cost"],
                    "turns": float(len(dialogue["turns"])),
                    "tokens": float(dialogue["tokens"]),
                }
    return found


def compare_runs(ours: tuple[Run, Worth], theirs: tuple[Run, Worth]) -> dict[str, Any]:
    """Compares a run with another: tables of paired differences, of settings, and of evaluations of the same name.

    Of two evaluations, these are compared, whatever their names.
    """
    (run, worth), (other, their_worth) = ours, theirs
    shared = sorted(worth.keys() & their_worth.keys())
    last = sorted({step for step, *_ in shared})[-WINDOW:]
    late = [key for key in shared if key[0] in last]
    titles = {"All steps": shared, f"The last {len(last)} steps": late if len(late) < len(shared) else []}
    return {
        "names": [run.name, other.name],
        "pairs": [
            {"title": f"{title}: {len(keys):,} dialogues", **_tabulate_pairs(worth, their_worth, keys)}
            for title, keys in titles.items()
            if keys
        ],
        "settings": _compare_settings(run, other),
        "evaluations": _compare_evaluations(run, other),
    }


def _tabulate_pairs(ours: Worth, theirs: Worth, keys: Sequence[Place]) -> dict[str, Any]:
    """Tabulates means and their differences; the interval is that of a bootstrap over tasks."""
    names = [name for name in ours[keys[0]] if name in theirs[keys[0]]]
    here, there = (np.array([[worth[key][name] for name in names] for key in keys], float) for worth in (ours, theirs))
    steps, tasks = [step for step, *_ in keys], [task for _, task, *_ in keys]
    means = [bootstrap.average_columns(side) for side in (here, there)]
    differences = bootstrap.estimate_means(here - there, steps, tasks)
    rows = [
        [name, *map(_format, (a, b, found.mean)), _format_interval(found) if len(set(tasks)) > 1 else "–"]
        for name, a, b, found in zip(names, *means, differences, strict=True)
        if found.count
    ]
    return {"rows": rows}


def _compare_settings(run: Run, other: Run) -> list[list[str]]:
    ours, theirs = flatten_config(run.config), flatten_config(other.config)
    names = [name for name in sorted(ours.keys() | theirs.keys()) if ours.get(name) != theirs.get(name)]
    return [[name, *(json.dumps(side[name]) if name in side else "–" for side in (ours, theirs))] for name in names]


def _compare_evaluations(run: Run, other: Run) -> list[dict[str, Any]]:
    """Compares evaluations of one name, or the two that were given.

    What makes them incomparable is said, and then there is no table.
    """
    found, here, there = [], list_results(run), list_results(other)
    pairs = [(name, path, there[name]) for name, path in here.items() if name in there]
    if run.result:
        pairs = [(f"{run.name} and {other.name}", run.result, other.result)]
    for name, path, its in pairs:
        try:
            ours, theirs = results.read_result(path), results.read_result(its)
            differ = conditions.select_incomparable(conditions.find_differences(ours, theirs), paired=True)
            rows = [] if differ else _tabulate_evaluation(run, ours, theirs)
            found.append({"title": f"Evaluation of {name}", "rows": rows, "caveats": [str(each) for each in differ]})
        except (OSError, ValueError) as error:
            found.append({"title": f"Evaluation of {name}", "rows": [], "caveats": [str(error)]})
    return found


def _tabulate_evaluation(run: Run, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[list[str]]:
    compared = measures.compare_rows(run.domain, ours["dialogues"], theirs["dialogues"], common=True)
    rows = []
    for name, estimate in compared.items():
        measure = run.domain.measures[name]
        sides = (side["summary"].get(name, {}).get("mean") for side in (ours, theirs))
        shown = [measures.format_value(measure, value) for value in (*sides, estimate["mean"])]
        ends = " to ".join(measures.format_value(measure, estimate[end]) for end in ("low", "high"))
        if estimate["count"]:
            rows.append([measure.heading, *shown, ends])
    return rows


def _format_interval(found: bootstrap.Estimate) -> str:
    return f"{_format(found.low)} to {_format(found.high)}"


def _format(value: float) -> str:
    return f"{value:.{_DIGITS}f}" if np.isfinite(value) else "–"
