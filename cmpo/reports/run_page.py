"""Writes the page of a run, one file that stands alone: what it shows as data, which the scripts in it lay out.

The numbers are at its beginning. The dialogues are chunks at its end, which the browser opens one at a time.
"""

import base64
import hashlib
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from cmpo.reports import comparing, run_data
from cmpo.reports.chunks import write_json
from cmpo.reports.describing import Described, describe_run
from cmpo.reports.run_data import Run
from cmpo.run import files

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
    "tokens",
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
      workdir: of the run; or a file of `cmpo.evaluate`, for the page of that evaluation.
      against: directories of the runs that it is compared with, or files of evaluations.
      out: where the page goes; by default report.html in the run's directory, an evaluation's file with the ending
        .html, or compare.html for several.
      scans: regular expressions to look for in what the agent said.

    Raises:
      FileNotFoundError: a directory holds no run.
      ValueError: a file is damaged, a scan is no regular expression, or a run is set against an evaluation.
    """
    runs = run_data.load_sources((workdir, *against))
    alone = runs[0].result.with_suffix(".html") if runs[0].result else runs[0].folder / "report.html"
    path = pathlib.Path(out or (runs[0].folder / "compare.html" if against else alone))
    described = [describe_run(run, scans) for run in runs]
    files.replace_file(path, render_page(described, compare_all(runs, described)))
    return path


def compare_all(runs: Sequence[Run], described: Sequence[Described]) -> list[dict[str, Any]]:
    """Compares the first of some runs with each of the others."""
    first, *others = [(run, one.worth) for run, one in zip(runs, described, strict=True)]
    return [comparing.compare_runs(first, other) for other in others]


def check_picture(path: str | os.PathLike) -> None:
    """Raises ValueError if the ending of `path` names no format of pictures."""
    from matplotlib.figure import Figure

    known, ending = Figure().canvas.get_supported_filetypes(), pathlib.Path(path).suffix.lower()[1:]
    if ending and ending not in known:
        raise ValueError(f"--png: expected a file that ends in one of {', '.join(sorted(known))}, got {str(path)!r}")


def save_curves(workdir: str | os.PathLike, path: str | os.PathLike) -> None:
    """Saves the curves of the run in `workdir` as a picture, of the format that the ending of `path` names.

    Raises:
      FileNotFoundError: `workdir` holds no run.
    """
    from cmpo.reports import plots  # Matplotlib takes half a second to import, and only pictures need it

    run = run_data.load_run(workdir)
    plots.draw_curves(run.records, run.domain, run.budgets).savefig(path, dpi=150)


def render_page(described: Sequence[Described], comparisons: Sequence[Mapping[str, Any]] = (), *, live=False) -> str:
    """Renders the page of some runs. A `live` one asks its server for dialogues and for what is new."""
    data = {"runs": [one.data for one in described], "comparisons": comparisons, "live": live}
    style, script = _read_template("page.css"), _bundle_scripts()
    return _TEMPLATES.get_template("page.html").render(
        title=" and ".join(one.data["name"] for one in described).encode(errors="replace").decode(),
        policy=_allow_only(style, script, live),
        style=style,
        script=script,
        data=write_json(data),
        chunks=[
            (f"chunk-{number}-{key}", base64.b64encode(chunk).decode())
            for number, one in enumerate(described)
            for key, chunk in one.chunks.items()
            if not live
        ],
    )


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


def _allow_only(style: str, script: str, live: bool) -> str:
    """Returns a Content-Security-Policy that allows this style and this script, and no request but to its own server.

    Trusted types: not even a mistake in our own scripts can make a text into markup.
    """
    rules: Mapping[str, str] = {
        "default-src": "'none'",
        "script-src": _hash_source(script),
        "style-src": _hash_source(style),
        "img-src": "blob:",  # figures are saved as PNG by way of an image
        **({"connect-src": "'self'"} if live else {}),
        "base-uri": "'none'",
        "form-action": "'none'",
        "require-trusted-types-for": "'script'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def _hash_source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
