"""Writes the page of a run, one file that stands alone: what it shows as data, which the scripts in it lay out.

The numbers are at its beginning. The dialogues are chunks at its end, which the browser opens one at a time.
"""

import base64
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jinja2

from cmpo.reports import curves, planes, run_data, tables
from cmpo.reports.chunks import pack_json, write_json
from cmpo.reports.dialogues import describe_batch, measure_words
from cmpo.reports.run_data import Batch, Run
from cmpo.run import files
from cmpo.run.json_lines import read_lines, to_json_value

_SCRIPTS = ("elements", "numbers", "data", "saving", "chart", "plane", "table", "curves", "steps", "dialogue", "main")
"""Each after those whose names it uses."""

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
    path = pathlib.Path(workdir, "report.html")
    files.replace_file(path, render_page([run_data.load_run(workdir)]))
    return path


def save_curves(workdir: str | os.PathLike, path: str | os.PathLike) -> None:
    """Saves the curves of the run in `workdir` as a picture, of the format that the ending of `path` names.

    Raises:
      FileNotFoundError: `workdir` holds no run.
    """
    from cmpo.reports import plots  # Matplotlib takes half a second to import, and only pictures need it

    run = run_data.load_run(workdir)
    plots.draw_curves(run.records, run.domain, run.budgets).savefig(path, dpi=150)


def render_page(runs: Sequence[Run]) -> str:
    """Renders the page of some runs."""
    described, chunks = [], []
    for number, run in enumerate(runs):
        description, packed = _describe_run(run)
        described.append(description)
        chunks += [(f"chunk-{number}-{key}", text) for key, text in packed.items()]
    style, script = _read_template("page.css"), _bundle_scripts()
    return _TEMPLATES.get_template("page.html").render(
        title=" and ".join(run.name for run in runs),
        policy=_allow_only(style, script),
        style=style,
        script=script,
        data=write_json(to_json_value({"runs": described})),
        chunks=chunks,
    )


def _describe_run(run: Run) -> tuple[dict[str, Any], dict[str, str]]:
    """Describes a run as the page's scripts read it; also packs its dialogues, by the batch's key."""
    batches, words, packed = [], {}, {}
    for batch, groups in _describe_batches(run):
        count = sum(len(group["dialogues"]) for group in groups)
        batches.append({"key": batch.key, "title": batch.title, "step": batch.step, "dialogues": count})
        packed[batch.key] = pack_json(groups)
        if batch.step is not None:
            words[batch.step] = measure_words(groups)
    columns = curves.collect_columns(run, words)
    described = {
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
        "batches": batches,
        "config": json.dumps(run.config, indent=2),
    }
    return described, packed


def _describe_batches(run: Run) -> Iterator[tuple[Batch, list[dict[str, Any]]]]:
    for batch in run_data.list_batches(run):
        yield batch, describe_batch(run.domain, read_lines(batch.path))


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
