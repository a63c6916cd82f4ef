"""Writes the page of a run, one file that stands alone: what it shows as data, which the scripts in it lay out.

The numbers are at its beginning. The dialogues are chunks at its end, which the browser opens one at a time.
"""

import base64
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jinja2

from cmpo.reports import comparing, curves, planes, run_data, scanning, tables
from cmpo.reports.chunks import pack_json, write_json
from cmpo.reports.dialogues import describe_batch, measure_words
from cmpo.reports.run_data import Run
from cmpo.run import files
from cmpo.run.json_lines import read_lines, to_json_value

_SCRIPTS = (
    "elements",
    "numbers",
    "data",
    "saving",
    "chart",
    "plane",
    "table",
    "curves",
    "steps",
    "dialogue",
    "findings",
    "main",
)
"""Each after those whose names it uses."""

_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("cmpo.reports"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
)


def write_report(
    workdir: str | os.PathLike,
    *,
    against: Sequence[str | os.PathLike] = (),
    out: str | os.PathLike = "",
    scans: Sequence[str] = (),
) -> pathlib.Path:
    """Writes the page of what a run and its evaluations left in `workdir`; returns its path.

    Args:
      workdir: of the run.
      against: directories of the runs that it is compared with.
      out: where the page goes; by default `workdir`/report.html, or compare.html there for several runs.
      scans: regular expressions to look for in what the agent said.

    Raises:
      FileNotFoundError: a directory holds no run.
      ValueError: a file is damaged, or a scan is no regular expression.
    """
    path = pathlib.Path(out or pathlib.Path(workdir, "compare.html" if against else "report.html"))
    files.replace_file(path, render_page([run_data.load_run(folder) for folder in (workdir, *against)], scans))
    return path


def save_curves(workdir: str | os.PathLike, path: str | os.PathLike) -> None:
    """Saves the curves of the run in `workdir` as a picture, of the format that the ending of `path` names.

    Raises:
      FileNotFoundError: `workdir` holds no run.
    """
    from cmpo.reports import plots  # Matplotlib takes half a second to import, and only pictures need it

    run = run_data.load_run(workdir)
    plots.draw_curves(run.records, run.domain, run.budgets).savefig(path, dpi=150)


def render_page(runs: Sequence[Run], scans: Sequence[str] = ()) -> str:
    """Renders the page of some runs, of which the first is compared with the others; `scans` as for `write_report`."""
    described = [_describe_run(run, scans, compared=len(runs) > 1) for run in runs]
    first, *others = [(run, one.worth) for run, one in zip(runs, described, strict=True)]
    data = {
        "runs": [one.data for one in described],
        "comparisons": [comparing.compare_runs(first, other) for other in others],
    }
    style, script = _read_template("page.css"), _bundle_scripts()
    return _TEMPLATES.get_template("page.html").render(
        title=" and ".join(run.name for run in runs),
        policy=_allow_only(style, script),
        style=style,
        script=script,
        data=write_json(to_json_value(data)),
        chunks=[
            (f"chunk-{number}-{key}", text) for number, one in enumerate(described) for key, text in one.chunks.items()
        ],
    )


class _Described(NamedTuple):
    data: dict[str, Any]  # as the page's scripts read it
    chunks: dict[str, str]  # by the batch's key
    worth: comparing.Worth  # of its dialogues, if it is to be compared


def _describe_run(run: Run, scans: Sequence[str], *, compared: bool) -> _Described:
    batches, words, shares, chunks = [], {}, {}, {}
    worth: comparing.Worth = {}
    found = scanning.Found(
        [
            *scanning.make_scanners({scan: scan for scan in scans}, "--scan"),
            *scanning.make_scanners(run.domain.patterns, "the domain's patterns"),
            scanning.COPIES,
        ]
    )
    for batch in run_data.list_batches(run):
        rows = read_lines(batch.path)
        groups = describe_batch(run.domain, rows)
        count = sum(len(group["dialogues"]) for group in groups)
        batches.append({"key": batch.key, "title": batch.title, "step": batch.step, "dialogues": count})
        chunks[batch.key] = pack_json(groups)
        hits = found.add(batch.key, groups)
        if batch.step is not None:
            words[batch.step], shares[batch.step] = measure_words(groups), hits
            if compared:
                worth |= comparing.measure_worth(batch.step, groups, rows)
    columns = curves.collect_columns(run, words, shares)
    data = {
        "name": run.name,
        "step": run.step,
        "facts": tables.list_facts(run),
        "costs": [cost.name for cost in run.domain.costs],
        "latest": tables.gather_latest(run),
        "budgets": tables.list_budgets(run),
        "alarms": tables.list_alarms(run),
        "sources": columns,
        "sections": curves.list_sections(run, columns),
        "plane": planes.describe_path(run),
        "principles": tables.gather_principles(run),
        "failures": tables.gather_failures(run),
        "evaluations": tables.gather_evaluations(run),
        "scans": found.describe(),
        "batches": batches,
        "config": json.dumps(run.config, indent=2),
    }
    return _Described(data, chunks, worth)


def _bundle_scripts() -> str:
    """Joins the modules to one script, which a browser runs before it has read the rest of the page.

    Each becomes a function with names of its own, which returns what it exports.
    """
    return "".join(["const modules = {};\n", *map(_wrap_module, _SCRIPTS)])


def _wrap_module(name: str) -> str:
    text = _read_template(f"{name}.js")
    exported = ", ".join(re.findall(r"^export (?:async )?(?:function|class|const) (\w+)", text, re.MULTILINE))
    text = re.sub(r'^import (\{.*\}) from "\./(\w+)\.js";$', r"const \1 = modules.\2;", text, flags=re.MULTILINE)
    text = re.sub(r"^export ", "", text, flags=re.MULTILINE)
    return f'modules.{name} = (() => {{\n"use strict";\n{text}return {{ {exported} }};\n}})();\n'


def _read_template(name: str) -> str:
    return _TEMPLATES.loader.get_source(_TEMPLATES, name)[0]


def _allow_only(style: str, script: str) -> str:
    """Returns a Content-Security-Policy that allows this style and this script, and no request to anywhere."""
    rules: Mapping[str, str] = {
        "default-src": "'none'",
        "script-src": _hash_source(script),
        "style-src": _hash_source(style),
        "img-src": "blob:",  # figures are saved as PNG by way of an image
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def _hash_source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
