"""Writes the page of a run: ``python -m cmpo.report --workdir=DIR`` makes DIR/report.html, a file that stands alone.

With ``--png=PATH`` it also saves the curves as a picture.
"""

import argparse
import collections
import json
import os
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from cmpo import frontier
from cmpo.algorithms.budgets import budgets_of
from cmpo.evaluation import conditions, measures, results
from cmpo.reports import plots
from cmpo.reports.cards import draw_cards, escape_text
from cmpo.run import files
from cmpo.run.log import read_metrics
from rollouts import domains
from rollouts.domain import Domain
from rollouts.sections import flatten_config


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
    multipliers = [(f"lambda.{cost.name}", f"lambda, {cost.heading}", "{:.3f}") for cost in domain.costs]
    columns = [
        (domain.objective, domain.objective, "{:.2f}"),
        ("process_reward", "process reward", "{:.2f}"),
        ("finish_rate", "finished", "{:.0%}"),
        *costs,
        *(multipliers if several else [("lambda", "lambda", "{:.3f}")]),
        ("turns_mean", "turns", "{:.1f}"),
        ("loss", "loss", "{:.4f}"),
        ("kl", "KL", "{:.4f}"),
        ("entropy", "entropy", "{:.3f}"),
        ("tokens_per_second", "tokens/s", "{:,.0f}"),
    ]
    return list({key: (key, *rest) for key, *rest in columns}.values())


def _list_measures(domain: Domain) -> list[str]:
    """Lists the measures that the table of evaluations has."""
    names = [domain.objective, "finish_rate", *(cost.measure for cost in domain.costs), "process_reward"]
    return [name for name in (*names, "failure_rate") if name in domain.measures]


def write_report(workdir: str | os.PathLike) -> pathlib.Path:
    """Writes report.html from what a run and its evaluations left in `workdir`; returns its path.

    Raises:
      FileNotFoundError: `workdir` holds no run.
    """
    records, config, domain, budgets = _load_run(workdir)
    name = config.get("name") or pathlib.Path(workdir).resolve().name
    sections = [
        _format_header(name, config, records),
        _format_latest(domain, plots.select_phase(records, "rl"), budgets),
        f"<figure>{plots.render_svg(plots.draw_curves(records, domain, budgets))}</figure>",
        _format_failures(records),
        _format_evaluations(domain, pathlib.Path(workdir)),
        draw_cards(domain, pathlib.Path(workdir, "transcripts"), records[-1]["step"] if records else 0),
        f"<details><summary>Configuration</summary><pre>{escape_text(json.dumps(config, indent=2))}</pre></details>",
    ]
    page = _PAGE.format(title=escape_text(name), style=_STYLE, body="\n".join(sections))
    path = pathlib.Path(workdir, "report.html")
    files.replace_file(path, page.encode("utf-8", "replace").decode())  # a model may have written half a character
    return path


def _format_header(name: str, config: Mapping, records: Sequence[Mapping]) -> str:
    parts = [
        *(f"{len(plots.select_phase(records, phase))} {phase.upper()} steps" for phase in ("sft", "rl")),
        f"{sum(record.get('dialogues_ok', 0) for record in plots.select_phase(records, 'rl')):,} dialogues",
    ]
    for section, field in (("algo", "name"), ("data", "difficulty"), ("user", "model"), ("judge", "model")):
        if value := config.get(section, {}).get(field):
            parts.append(f"{section} {value}" if section != "algo" else str(value))
    return f"<h1>{escape_text(name)}</h1>\n<p class=muted>{' · '.join(map(escape_text, parts))}</p>"


def _format_latest(domain: Domain, rl: Sequence[Mapping], budgets: Sequence[float]) -> str:
    if not rl:
        return "<p>No reinforcement learning step yet.</p>"
    rl = [flatten_config(record) for record in rl]
    columns = [column for column in _list_columns(domain) if any(record.get(column[0]) is not None for record in rl)]
    head = ["step", *(title for _, title, _ in columns)]
    shown = [rl[0], rl[-1]] if len(rl) > 1 else rl
    rows = [
        [str(record["step"]), *(_format_number(record.get(key), form) for key, _, form in columns)] for record in shown
    ]
    held = [f"{cost.heading} {cost.form.format(budget)}" for cost, budget in zip(domain.costs, budgets, strict=False)]
    note = f" Budget: {', '.join(held)}." if held else ""
    return f"{_format_table(head, rows)}<p class=muted>First and latest step.{escape_text(note)}</p>"


def _format_failures(records: Sequence[Mapping]) -> str:
    counts, latest = collections.Counter(), {}
    for record in records:
        for cause, count in record.get("dialogues_failed", {}).items():
            counts[cause] += count
            latest[cause] = record["step"]
    if not counts:
        return "<h2>Failed dialogues</h2>\n<p class=muted>None. No endpoint failed.</p>"
    played = counts.total() + sum(record.get("dialogues_ok", 0) for record in records)
    rows = [[cause, f"{n:,}", f"{n / played:.1%}", f"{latest[cause]}"] for cause, n in counts.most_common()]
    return "<h2>Failed dialogues</h2>\n" + _format_table(["cause", "dialogues", "of all played", "last in step"], rows)


def _format_evaluations(domain: Domain, workdir: pathlib.Path) -> str:
    """Formats the results of `cmpo.evaluate` in the workdir: one line each, and a picture of all with the frontier."""
    columns, rows, unread, read = _list_measures(domain), [], [], {}
    for path in sorted(workdir.glob("evaluation_*.json")):
        try:
            found = results.read_result(path)
        except (OSError, ValueError) as error:
            unread.append(f"<p class=error>{escape_text(error)}</p>")
            continue
        name, difficulty = path.stem.removeprefix("evaluation_"), found["config"]["data"]["difficulty"]
        step, means = found["step"], (found["summary"].get(measure, {}).get("mean") for measure in columns)
        cells = (measures.format_value(domain, *pair) for pair in zip(columns, means, strict=True))
        who = [name, "" if step is None else str(step), found["user"]["model"], difficulty]
        rows.append([*who, *cells, str(len(found["dialogues"]))])
        read[name] = found
    if not rows and not unread:
        return ""
    headings = (domain.measures[name].heading for name in columns)
    head = ["evaluation", "step", "user", "difficulty", *headings, "dialogues"]
    notes = [f"<p class=muted>{escape_text(line)}</p>" for line in frontier.list_caveats(read)]
    pictures = [
        f"<figure class=half>{plots.render_svg(frontier.draw_frontier(difficulty, agents))}</figure>"
        for difficulty, agents in _group_comparable(read)
    ]
    return "\n".join(
        ["<h2>Evaluations</h2>", *([_format_table(head, rows)] if rows else []), *unread, *notes, *pictures]
    )


def _group_comparable(evaluations: Mapping[str, Mapping]) -> list[tuple[str, dict[str, Mapping]]]:
    """Groups the evaluations whose frontier is known by difficulty, and so that numbers in a group can be compared."""
    groups: list[tuple[str, dict[str, Mapping]]] = []
    for name, found in evaluations.items():
        difficulty = found["config"]["data"]["difficulty"]
        if not frontier.is_known(found):
            continue
        for known, agents in groups:
            differ = conditions.find_differences(found, next(iter(agents.values())))
            if known == difficulty and not conditions.select_incomparable(differ, paired=False):
                agents[name] = found
                break
        else:
            groups.append((difficulty, {name: found}))
    return groups


def _format_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def format_row(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape_text(cell)}</{tag}>" for cell in cells) + "</tr>"

    return (
        "<div class=scroll><table>"
        + format_row(head, "th")
        + "".join(format_row(cells, "td") for cells in rows)
        + "</table></div>"
    )


def _format_number(value: Any, form: str) -> str:
    return "" if value is None else form.format(value) if isinstance(value, float) else str(value)


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


_STYLE = """
:root { color-scheme: light dark; --ink: #23272f; --muted: #667085; --page: #f5f6f8; --card: #fff; --line: #dfe3e8;
  --user: #eceff3; --agent: #e3eefd; --good: #1f8a54; --fair: #a06a00; --bad: #c93438; --cost: #c2571a; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7ec; --muted: #98a2b3; --page: #14171c; --card: #1c2027;
  --line: #343a44; --user: #2a2f38; --agent: #1f3352; --good: #56c48d; --fair: #e0b04c; --bad: #f2777a;
  --cost: #f0975a; } }
body { margin: 0 auto; padding: 1.5rem; max-width: 1240px; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { margin: 0; font-size: 1.6rem; } h2 { margin: 2rem 0 .6rem; font-size: 1.15rem; } p { margin: .3rem 0; }
.muted, .notes, .think { color: var(--muted); font-size: .87em; }
figure, article, .scroll, details { margin: 1rem 0; background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; }
figure { padding: .8rem; } .half { max-width: 620px; } figure svg { display: block; width: 100%; height: auto; }
.scroll { overflow-x: auto; width: fit-content; max-width: 100%; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .8rem; text-align: right; white-space: nowrap; }
th { color: var(--muted); font-weight: 500; font-size: .87em; } td { border-top: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
.cards { columns: 2 440px; column-gap: 1rem; } article { padding: .9rem; margin: 0 0 1rem; break-inside: avoid; }
header { margin-bottom: .7rem; padding-bottom: .4rem; border-bottom: 1px solid var(--line); }
.bubble { width: fit-content; max-width: 85%; box-sizing: border-box; margin: .5rem 0; padding: .45rem .8rem;
  border-radius: 14px; overflow-wrap: anywhere; white-space: pre-wrap; }
.user { background: var(--user); border-bottom-left-radius: 3px; }
.agent { background: var(--agent); border-bottom-right-radius: 3px; margin-left: auto; }
.think { font-style: italic; } .notes { text-align: right; } .error { color: var(--bad); }
.badge { display: inline-block; padding: 0 .5em; border: 1px solid; border-radius: 1em; color: var(--muted);
  font-size: .8rem; white-space: nowrap; }
.good { color: var(--good); } .fair { color: var(--fair); } .bad { color: var(--bad); }
.cost { background: var(--cost); border-color: var(--cost); color: var(--card); }
summary { padding: .6rem 1rem; cursor: pointer; } pre { margin: 0; padding: 0 1rem 1rem; overflow-x: auto; }
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the page, and the picture if asked. Returns the exit status: 2 where there is no run, else 0."""
    parser = argparse.ArgumentParser(prog="python -m cmpo.report", description="Writes the page of a run.")
    parser.add_argument("--workdir", required=True, help="Directory of the run.")
    parser.add_argument("--png", help="File to save the curves in, as a picture.")
    arguments = parser.parse_args(map(files.expand_home, sys.argv[1:] if argv is None else argv))
    try:
        print(write_report(arguments.workdir))
        if arguments.png:
            records, _, domain, budgets = _load_run(arguments.workdir)
            plots.draw_curves(records, domain, budgets).savefig(arguments.png, dpi=150)
            print(arguments.png)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
