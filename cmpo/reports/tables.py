"""Gathers the tables of a run's page as plain texts: facts, the first and the latest step, failures, evaluations."""

import collections
import re
from typing import Any

from cmpo.evaluation import conditions, diagnostics, measures, results
from cmpo.reports.planes import describe_evaluations
from cmpo.reports.run_data import Run, list_results, make_key, select_phase
from cmpo.run.alarms import WINDOW
from rollouts.domain import Domain
from rollouts.sections import flatten_config

Table = dict[str, Any]
"""`head`, a text for each column, and `rows` of as many texts."""


def list_facts(run: Run) -> list[str]:
    """Lists what a run or an evaluation is, in a few words each."""
    rl = select_phase(run.records, "rl")
    facts = [
        *(f"{len(select_phase(run.records, phase))} {phase.upper()} steps" for phase in ("sft", "rl")),
        f"{sum(record.get('dialogues_ok', 0) for record in rl):,} dialogues",
    ]
    for section, field in (("algo", "name"), ("data", "difficulty"), ("user", "model"), ("judge", "model")):
        if value := (run.config.get(section) or {}).get(field):
            facts.append(f"{section} {value}" if section != "algo" else str(value))
    return facts


def gather_latest(run: Run) -> Table | None:
    """Gathers the first and the latest step of phase 2; None before there is one.

    `columns` names the curve of each column but the first, and says whether it is in percent.
    """
    rl = [flatten_config(record) for record in select_phase(run.records, "rl")]
    if not rl:
        return None
    known = {name for record in rl for name, value in record.items() if value is not None}
    columns = [column for column in _list_columns(run.domain) if column[0] in known]
    return {
        "head": ["step", *(title for _, title, _ in columns)],
        "rows": [
            [str(record["step"]), *(format_number(record.get(key), form) for key, _, form in columns)]
            for record in ([rl[0], rl[-1]] if len(rl) > 1 else rl)
        ],
        "columns": [(f"rl.{key}", "%" in form) for key, _, form in columns],
    }


def list_alarms(run: Run) -> list[tuple[int, str, str]]:
    """Lists the steps with an alarm: step, cost and reason."""
    alarms = ((record["step"], record.get("alarms") or {}) for record in run.records)
    return [(step, name, _space_percent(reason)) for step, found in alarms for name, reason in found.items()]


def list_budgets(run: Run) -> list[str]:
    """Lists the budgets with the costs that they hold."""
    pairs = zip(run.domain.costs, run.budgets, strict=False)
    return [f"{cost.heading} {format_number(budget, cost.form)}" for cost, budget in pairs]


def gather_principles(run: Run) -> Table | None:
    """Gathers how well the judge's principles told the outcome in the latest steps; None where there are none.

    A judge that gives the same score to all tells nothing, and that is said.
    """
    records = select_phase(run.records, "rl")[-WINDOW:]
    found = diagnostics.average_correlations(records)
    head = ["principle", "rank correlation with the outcome", "95 % interval", "steps"]
    rows = []
    for name in dict.fromkeys(name for record in records for name in record.get("judge_correlation") or {}):
        if one := found.get(name):
            rows.append([name, f"{one.mean:.2f}", f"{one.low:.2f} to {one.high:.2f}", str(one.steps)])
        else:
            rows.append([name, "not known: all scores of a step were equal, or all outcomes", "–", "1 or none"])
    return {"head": head, "rows": rows} if rows else None


def gather_failures(run: Run) -> Table | None:
    """Gathers failed dialogues by cause; None where none failed."""
    counts, latest = collections.Counter(), {}
    for record in run.records:
        for cause, count in record.get("dialogues_failed", {}).items():
            counts[cause] += count
            latest[cause] = record["step"]
    if not counts:
        return None
    played = counts.total() + sum(record.get("dialogues_ok", 0) for record in run.records)
    return {
        "head": ["cause", "dialogues", "of all played", "last in step"],
        "rows": [
            [cause, f"{n:,}", format_number(n / played, "{:.1%}"), f"{latest[cause]}"]
            for cause, n in counts.most_common()
        ],
    }


def gather_evaluations(run: Run) -> dict[str, Any] | None:
    """Gathers the results of `cmpo.evaluate` in the run's folder: a table of all, planes, and what cannot be compared.

    None where there are none.
    """
    domain, rows, unread, read = run.domain, [], [], {}
    columns = _list_measures(domain)
    for name, path in list_results(run).items():
        try:
            found = results.read_result(path)
        except (OSError, ValueError) as error:
            unread.append(str(error))
            continue
        difficulty = (found["config"].get("data") or {}).get("difficulty", "")
        step, means = found["step"], (found["summary"].get(measure, {}).get("mean") for measure in columns)
        pairs = zip(columns, means, strict=True)
        cells = (measures.format_value(domain.measures[column], mean) for column, mean in pairs)
        who = [name, "" if step is None else str(step), (found.get("user") or {}).get("model", ""), difficulty]
        rows.append([*who, *cells, str(len(found["dialogues"]))])
        read[name] = found
    if not rows and not unread:
        return None
    headings = (domain.measures[name].heading for name in columns)
    return {
        "table": {"head": ["evaluation", "step", "user", "difficulty", *headings, "dialogues"], "rows": rows},
        "keys": [make_key(name) for name in read],
        "unread": unread,
        "caveats": conditions.list_caveats(read),
        "planes": describe_evaluations(read),
    }


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


def format_number(value: Any, form: str) -> str:
    """Formats a number as the page writes it, with a space before a percent sign; "" for None."""
    return "" if value is None else _space_percent(form.format(value)) if isinstance(value, float) else str(value)


def _space_percent(text: str) -> str:
    return re.sub(r"(?<=\d)%", " %", text)


def _list_measures(domain: Domain) -> list[str]:
    """Lists the measures that the table of evaluations has."""
    names = [domain.objective, "finish_rate", *(cost.measure for cost in domain.costs), "process_reward"]
    return [name for name in (*names, "failure_rate") if name in domain.measures]
