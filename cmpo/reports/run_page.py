"""Writes the page of a run: gathers what it shows as plain data, which templates/run_page.html lays out."""

import collections
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from cmpo.algorithms.budgets import budgets_of
from cmpo.evaluation import conditions, diagnostics, measures, results
from cmpo.reports import frontier_picture, plots
from cmpo.reports.cards import gather_dialogues
from cmpo.run import files
from cmpo.run.alarms import WINDOW
from cmpo.run.log import read_metrics
from rollouts import domains
from rollouts.domain import Bound, Domain
from rollouts.sections import flatten_config

_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("cmpo.reports"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
)


def write_report(workdir: str | os.PathLike) -> pathlib.Path:
    """Writes report.html from what a run and its evaluations left in `workdir`; returns its path.

    Raises:
      FileNotFoundError: `workdir` holds no run.
    """
    page = _TEMPLATES.get_template("run_page.html").render(_gather_page(workdir))
    path = pathlib.Path(workdir, "report.html")
    files.replace_file(path, page.encode("utf-8", "replace").decode())  # a model may have written half a character
    return path


def save_curves(workdir: str | os.PathLike, path: str | os.PathLike) -> None:
    """Saves the curves of the run in `workdir` as a picture, of the format that the ending of `path` names.

    Raises:
      FileNotFoundError: `workdir` holds no run.
    """
    records, _, domain, budgets = _load_run(workdir)
    plots.draw_curves(records, domain, budgets).savefig(path, dpi=150)


def _load_run(workdir: str | os.PathLike) -> tuple[list[dict], dict, Domain, list[float]]:
    """Loads records, config, domain, and the budget of each cost; [] where the config has none."""
    for name, what in (("metrics.jsonl", "a line of numbers per step"), ("config.json", "the run's configuration")):
        path = pathlib.Path(workdir, name)
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file; expected {what}, written by python -m cmpo.main")
    config = files.read_object(path)
    domain = domains.load(config)
    held = isinstance(config.get("pid"), Mapping) and "target" in config["pid"]
    return read_metrics(workdir), config, domain, budgets_of(domain, config) if held else []


def _gather_page(workdir: str | os.PathLike) -> dict[str, Any]:
    """Gathers what the page shows. Pictures are SVG; all other texts are plain, as somebody wrote them."""
    records, config, domain, budgets = _load_run(workdir)
    return {
        "name": config.get("name") or pathlib.Path(workdir).resolve().name,
        "facts": _list_facts(config, records),
        "latest": _gather_latest(domain, plots.select_phase(records, "rl"), budgets),
        "curves": plots.render_svg(plots.draw_curves(records, domain, budgets)),
        "principles": _gather_principles(plots.select_phase(records, "rl")[-WINDOW:]),
        "failures": _gather_failures(records),
        "evaluations": _gather_evaluations(domain, pathlib.Path(workdir)),
        "dialogues": gather_dialogues(
            domain, pathlib.Path(workdir, "transcripts"), records[-1]["step"] if records else 0
        ),
        "config": json.dumps(config, indent=2),
    }


def _list_facts(config: Mapping, records: Sequence[Mapping]) -> list[str]:
    facts = [
        *(f"{len(plots.select_phase(records, phase))} {phase.upper()} steps" for phase in ("sft", "rl")),
        f"{sum(record.get('dialogues_ok', 0) for record in plots.select_phase(records, 'rl')):,} dialogues",
    ]
    for section, field in (("algo", "name"), ("data", "difficulty"), ("user", "model"), ("judge", "model")):
        if value := config.get(section, {}).get(field):
            facts.append(f"{section} {value}" if section != "algo" else str(value))
    return facts


def _gather_latest(domain: Domain, rl: Sequence[Mapping], budgets: Sequence[float]) -> dict[str, Any] | None:
    """Gathers the table of the first and the latest step of `rl`, and the budgets; None where there is no step yet."""
    if not rl:
        return None
    alarms = list((rl[-1].get("alarms") or {}).items())
    rl = [flatten_config(record) for record in rl]
    columns = [column for column in _list_columns(domain) if any(record.get(column[0]) is not None for record in rl)]
    shown = [rl[0], rl[-1]] if len(rl) > 1 else rl
    return {
        "head": ["step", *(title for _, title, _ in columns)],
        "rows": [
            [str(record["step"]), *(_format_number(record.get(key), form) for key, _, form in columns)]
            for record in shown
        ],
        "alarms": alarms,
        "budgets": [
            f"{cost.heading} {cost.form.format(budget)}" for cost, budget in zip(domain.costs, budgets, strict=False)
        ],
    }


def _gather_principles(rl: Sequence[Mapping]) -> dict[str, Any] | None:
    """Gathers the table of how well the judge's principles told the outcome; None where that is not known."""
    found = diagnostics.average_correlations(rl)
    head = ["principle", "rank correlation with the outcome", "95 % interval", "steps"]
    rows = [[name, f"{x.mean:.2f}", f"{x.low:.2f} to {x.high:.2f}", str(x.steps)] for name, x in found.items()]
    return {"head": head, "rows": rows} if rows else None


def _list_columns(domain: Domain) -> list[tuple[str, str, str]]:
    """Lists the columns of the table of latest values: the key in a record, the heading, and the format."""
    several = len(domain.costs) > 1
    costs = [
        column
        for cost in domain.costs
        for column in (
            (cost.measure, cost.heading, cost.form),
            (f"{cost.measure}_smoothed", f"{cost.heading}, smoothed" if several else "smoothed", cost.form),
        )
    ]
    prices = [
        (f"{name}.{cost.name}" if several else name, f"{title}, {cost.heading}" if several else title, "{:.3f}")
        for cost in domain.costs
        for name, title in (("lambda", "lambda"), ("effective_price", "effective price"))
    ]
    columns = [
        (domain.objective, domain.objective, "{:.2f}"),
        ("process_reward", "process reward", "{:.2f}"),
        ("finish_rate", "finished", "{:.0%}"),
        *costs,
        *prices,
        ("turns_mean", "turns", "{:.1f}"),
        ("loss", "loss", "{:.4f}"),
        ("kl", "KL", "{:.4f}"),
        ("entropy", "entropy", "{:.3f}"),
        ("tokens_per_second", "tokens/s", "{:,.0f}"),
    ]
    return list({key: (key, *rest) for key, *rest in columns}.values())


def _format_number(value: Any, form: str) -> str:
    return "" if value is None else form.format(value) if isinstance(value, float) else str(value)


def _gather_failures(records: Sequence[Mapping]) -> dict[str, Any] | None:
    """Gathers the table of failed dialogues by cause; None where none failed."""
    counts, latest = collections.Counter(), {}
    for record in records:
        for cause, count in record.get("dialogues_failed", {}).items():
            counts[cause] += count
            latest[cause] = record["step"]
    if not counts:
        return None
    played = counts.total() + sum(record.get("dialogues_ok", 0) for record in records)
    return {
        "head": ["cause", "dialogues", "of all played", "last in step"],
        "rows": [[cause, f"{n:,}", f"{n / played:.1%}", f"{latest[cause]}"] for cause, n in counts.most_common()],
    }


def _gather_evaluations(domain: Domain, workdir: pathlib.Path) -> dict[str, Any] | None:
    """Gathers the results of `cmpo.evaluate` in the workdir: a table of all, and pictures of those that have a bound.

    None where there are none.
    """
    columns, rows, unread, read = _list_measures(domain), [], [], {}
    for path in sorted(workdir.glob("evaluation_*.json")):
        try:
            found = results.read_result(path)
        except (OSError, ValueError) as error:
            unread.append(str(error))
            continue
        name = path.stem.removeprefix("evaluation_")
        difficulty = found["config"].get("data", {}).get("difficulty", "")
        step, means = found["step"], (found["summary"].get(measure, {}).get("mean") for measure in columns)
        pairs = zip(columns, means, strict=True)
        cells = (measures.format_value(domain.measures[column], mean) for column, mean in pairs)
        who = [name, "" if step is None else str(step), found.get("user", {}).get("model", ""), difficulty]
        rows.append([*who, *cells, str(len(found["dialogues"]))])
        read[name] = found
    if not rows and not unread:
        return None
    headings = (domain.measures[name].heading for name in columns)
    return {
        "head": ["evaluation", "step", "user", "difficulty", *headings, "dialogues"],
        "rows": rows,
        "unread": unread,
        "caveats": conditions.list_caveats(read),
        "pictures": [plots.render_svg(frontier_picture.draw_frontier(*group)) for group in _group_comparable(read)],
    }


def _list_measures(domain: Domain) -> list[str]:
    """Lists the measures that the table of evaluations has."""
    names = [domain.objective, "finish_rate", *(cost.measure for cost in domain.costs), "process_reward"]
    return [name for name in (*names, "failure_rate") if name in domain.measures]


def _group_comparable(evaluations: Mapping[str, Mapping]) -> list[tuple[Bound, dict[str, Mapping]]]:
    """Groups the evaluations that have a bound, so that those in a group share it and can be compared."""
    groups: list[tuple[Bound, dict[str, Mapping]]] = []
    for name, found in evaluations.items():
        bound = frontier_picture.find_bound(found)
        if bound is None:
            continue
        for known, agents in groups:
            differ = conditions.find_differences(found, next(iter(agents.values())))
            if known.title == bound.title and not conditions.select_incomparable(differ, paired=False):
                agents[name] = found
                break
        else:
            groups.append((bound, {name: found}))
    return groups
