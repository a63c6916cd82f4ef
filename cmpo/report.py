"""The page of a run: ``python -m cmpo.report --workdir=DIR`` writes DIR/report.html, one file that needs nothing else.

With ``--png=PATH`` the curves alone are saved as a picture, too.
"""

import argparse
import collections
import html
import io
import itertools
import json
import math
import os
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cmpo import files, metrics
from rollouts.types import FORMAT_ERRORS, LEVELS

_TRANSCRIPTS = 6
INK = "#23272f"  # text and axes; becomes the page's own text colour in the SVG
BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#3d7de0", "#e07b2e", "#2f9e68", "#d9484c", "#8a63d2", "#8b94a3"
_STACK = (BLUE, ORANGE, GREEN, PURPLE, GREY, RED)
_LATEST = (  # key -> its heading and format in the table of latest values
    ("satisfaction", "satisfaction", "{:.2f}"),
    ("process_reward", "process reward", "{:.2f}"),
    ("finish_rate", "finished", "{:.0%}"),
    ("voucher_rate", "vouchers", "{:.0%}"),
    ("voucher_rate_smoothed", "smoothed", "{:.0%}"),
    ("lambda", "lambda", "{:.3f}"),
    ("turns_mean", "turns", "{:.1f}"),
    ("loss", "loss", "{:.4f}"),
    ("kl", "KL", "{:.4f}"),
    ("entropy", "entropy", "{:.3f}"),
    ("tokens_per_second", "tokens/s", "{:,.0f}"),
)


def write_report(workdir: str | os.PathLike) -> pathlib.Path:
    """Writes report.html from the metrics.jsonl, config.json and newest transcripts of `workdir`; returns its path.

    Raises:
      FileNotFoundError: `workdir` holds no run.
    """
    records, config, target = _load(workdir)
    name = config.get("name") or pathlib.Path(workdir).resolve().name
    sections = [
        _header(name, config, records),
        _latest(_phase(records, "rl"), target),
        f"<figure>{_svg(curves(records, target))}</figure>",
        _failures(records),
        _evaluations(_phase(records, "eval")),
        _transcripts(pathlib.Path(workdir, "transcripts"), records[-1]["step"] if records else 0),
        f"<details><summary>Configuration</summary><pre>{_text(json.dumps(config, indent=2))}</pre></details>",
    ]
    page = _PAGE.format(title=_text(name), style=_STYLE, body="\n".join(sections))
    path = pathlib.Path(workdir, "report.html")
    path.write_text(page, encoding="utf-8", errors="replace")
    return path


def curves(records: Sequence[Mapping[str, Any]], target: float | None = None) -> Figure:
    """Draws a run against its steps; `target` is the voucher budget. Save with `figure.savefig(path, dpi=150)`."""
    rl, sft, evals = (_phase(records, phase) for phase in ("rl", "sft", "eval"))
    figure = Figure(figsize=(13, 8.6), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.09)
    grid = figure.add_gridspec(3, 12, height_ratios=(1.45, 1, 1))
    large = [figure.add_subplot(grid[0, 4 * i : 4 * i + 4]) for i in range(3)]
    small = [figure.add_subplot(grid[row, 3 * i : 3 * i + 3]) for row in (1, 2) for i in range(4)]

    satisfaction, voucher, multiplier = large
    _line(satisfaction, "User satisfaction (1 to 5)", rl, "satisfaction", BLUE)
    _line(voucher, "Voucher rate", rl, "voucher_rate", ORANGE, alpha=0.4, width=1, label="each step")
    _line(voucher, "Voucher rate", rl, "voucher_rate_smoothed", ORANGE, label="smoothed")
    if target is not None:
        voucher.axhline(target, color=INK, linestyle=(0, (4, 3)), linewidth=1.1, label=f"budget {target:.0%}")
    for axes, key in ((satisfaction, "satisfaction"), (voucher, "voucher_rate")):
        if any(key in record for record in evals):
            axes.plot(_series(evals, "step"), _series(evals, key), "D", color=PURPLE, markersize=5, label="evaluation")
            _legend(axes)
    _legend(voucher)
    _line(multiplier, "Multiplier lambda", rl, "lambda", RED)

    _line(small[0], "Process reward (0 to 1)", rl, "process_reward", BLUE)
    _line(small[1], "Dialogues finished", rl, "finish_rate", GREEN)
    _line(small[2], "Turns per dialogue", rl, "turns_mean", GREY)
    _stack_seconds(small[3], rl)
    _line(small[4], "Warm-up (SFT) loss", sft, "loss", PURPLE)
    _line(small[5], "Policy loss", rl, "loss", PURPLE)
    _line(small[6], "KL to the reference", rl, "kl", PURPLE)
    _line(small[7], "Entropy (nats per token)", rl, "entropy", PURPLE)
    for axes in (voucher, small[1]):
        axes.yaxis.set_major_formatter(ticker.PercentFormatter(1, decimals=0))
        axes.set_ylim(-0.03, 1.03)
    for axes in (*large, *small):
        _style(axes)
    for axes in small[4:]:
        axes.set_xlabel("step", fontsize=8, color=INK)
    return figure


def _line(
    axes: Axes, title: str, records: Sequence[Mapping], key: str, color: str, *, alpha=1.0, width=1.4, label=None
):
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold", color=INK)
    marker = "o" if len(records) == 1 else None
    values = _series(records, key)
    axes.plot(
        _series(records, "step"), values, color=color, alpha=alpha, linewidth=width, label=label, marker=marker, ms=4
    )
    if all(math.isnan(value) for value in values) and not axes.texts:
        axes.text(0.5, 0.5, "no data", transform=axes.transAxes, ha="center", va="center", color=GREY)


def _stack_seconds(axes: Axes, records: Sequence[Mapping]) -> None:
    axes.set_title("Seconds per step", loc="left", fontsize=10, fontweight="bold", color=INK)
    parts = list(dict.fromkeys(name for record in records for name in record.get("seconds", {})))
    if parts:
        values = [[record.get("seconds", {}).get(part) or 0.0 for record in records] for part in parts]
        colors = list(itertools.islice(itertools.cycle(_STACK), len(parts)))
        axes.stackplot(_series(records, "step"), values, labels=parts, colors=colors, alpha=0.85, linewidth=0)
        axes.set_ylim(0, 1.3 * max(map(sum, zip(*values, strict=True))))  # room for the legend
        _legend(axes, ncols=3, columnspacing=1)


def _legend(axes: Axes, **options) -> None:
    axes.legend(fontsize=8, frameon=False, labelcolor=INK, handlelength=1.4, loc="best", borderaxespad=0.2, **options)


def _style(axes: Axes) -> None:
    axes.patch.set_visible(False)
    axes.grid(axis="y", color=GREY, alpha=0.25, linewidth=0.7)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(GREY)
    axes.tick_params(colors=INK, labelsize=8, length=0)
    axes.xaxis.set_major_locator(ticker.MaxNLocator(6, integer=True))


def _svg(figure: Figure) -> str:
    """The figure as an SVG element that takes its text colour from the page."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "cmpo", "font.family": "sans-serif"}):
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    return text[text.index("<svg") :].replace(INK, "currentColor")


def _header(name: str, config: Mapping, records: Sequence[Mapping]) -> str:
    parts = [
        *(f"{len(_phase(records, phase))} {phase.upper()} steps" for phase in ("sft", "rl")),
        f"{sum(record.get('dialogues_ok', 0) for record in _phase(records, 'rl')):,} dialogues",
    ]
    for section, field in (("algo", "name"), ("data", "difficulty"), ("user", "model"), ("judge", "model")):
        if value := config.get(section, {}).get(field):
            parts.append(f"{section} {value}" if section != "algo" else str(value))
    return f"<h1>{_text(name)}</h1>\n<p class=muted>{' · '.join(map(_text, parts))}</p>"


def _latest(rl: Sequence[Mapping], target: float | None) -> str:
    if not rl:
        return "<p>No reinforcement learning step yet.</p>"
    columns = [column for column in _LATEST if any(record.get(column[0]) is not None for record in rl)]
    head = ["step", *(title for _, title, _ in columns)]
    shown = [rl[0], rl[-1]] if len(rl) > 1 else rl
    rows = [[str(record["step"]), *(_number(record.get(key), form) for key, _, form in columns)] for record in shown]
    budget = "" if target is None else f"<p class=muted>First and latest step. Voucher budget: {target:.0%}.</p>"
    return _table(head, rows) + budget


def _failures(records: Sequence[Mapping]) -> str:
    counts, latest = collections.Counter(), {}
    for record in records:
        for cause, count in record.get("dialogues_failed", {}).items():
            counts[cause] += count
            latest[cause] = record["step"]
    if not counts:
        return "<h2>Failed dialogues</h2>\n<p class=muted>None. No endpoint failed.</p>"
    played = counts.total() + sum(record.get("dialogues_ok", 0) for record in records)
    rows = [[cause, f"{n:,}", f"{n / played:.1%}", f"{latest[cause]}"] for cause, n in counts.most_common()]
    return "<h2>Failed dialogues</h2>\n" + _table(["cause", "dialogues", "of all played", "last in step"], rows)


def _evaluations(evals: Sequence[Mapping]) -> str:
    if not evals:
        return ""
    keys = list(dict.fromkeys(key for record in evals for key in record if not isinstance(record[key], dict | list)))
    keys.remove("phase")
    rows = [[_number(record.get(key), "{:.4g}") for key in keys] for record in evals]
    return "<h2>Evaluation</h2>\n" + _table([key.replace("_", " ") for key in keys], rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{_text(cell)}</{tag}>" for cell in cells) + "</tr>"

    return (
        "<div class=scroll><table>" + row(head, "th") + "".join(row(cells, "td") for cells in rows) + "</table></div>"
    )


def _transcripts(folder: pathlib.Path, step: int) -> str:
    """The newest transcripts, but none that a restart left behind from beyond the run's present `step`."""
    files = sorted(path for path in folder.glob("step_*.jsonl") if int(path.stem.removeprefix("step_")) <= step)
    if not files:
        return ""
    dialogues = [json.loads(line) for line in files[-1].read_text(encoding="utf-8").splitlines()]
    cards = "\n".join(_card(dialogue) for dialogue in _choose(dialogues))
    heading = f"Dialogues of step {int(files[-1].stem.removeprefix('step_'))}"
    return f"<h2>{heading}</h2>\n<div class=cards>{cards}</div>"


def _choose(dialogues: Sequence[Mapping]) -> list[Mapping]:
    """A mix: with a voucher, without, and what went wrong, in turn."""
    kinds = {"voucher": [], "none": [], "wrong": []}
    for dialogue in dialogues:
        wrong = dialogue["failure"] or dialogue["end"] in FORMAT_ERRORS
        kinds["wrong" if wrong else "voucher" if dialogue["cost"]["voucher"] else "none"].append(dialogue)
    mixed = [dialogue for row in itertools.zip_longest(*kinds.values()) for dialogue in row if dialogue]
    return mixed[:_TRANSCRIPTS]


def _card(dialogue: Mapping) -> str:
    scenario = dialogue["scenario"]
    order, level = scenario["order"], scenario["persona"]["level"]
    if dialogue["failure"]:
        outcome, tone = f"failed: {dialogue['failure']}", "bad"
    else:
        outcome = f"{dialogue['end'].replace('_', ' ')} {dialogue['outcome']:g}/5"
        tone = "good" if dialogue["outcome"] >= 4 else "bad" if dialogue["outcome"] < 2.5 else "fair"
    parts = [
        f"<header><b>{_text(scenario['id'])} #{dialogue['index']}</b> {_badge(outcome, tone)}<p class=muted>"
        f"{_text(order['complaint'])}: {_text(order['items'])}. Record: {_text(order['record'] or 'silent')}.<br>"
        f"{_text(LEVELS[level - 1])} customer, {_text(scenario['demand'].replace('_', ' '))}</p></header>"
    ]
    advantages = dialogue.get("advantages", [None] * len(dialogue["turns"]))
    parts += [_turn(turn, advantage) for turn, advantage in zip(dialogue["turns"], advantages, strict=True)]
    if dialogue["last_words"]:
        parts.append(f"<p class='bubble user'>{_text(dialogue['last_words'])}</p>")
    if dialogue["failure_message"]:
        parts.append(f"<p class=error>{_text(dialogue['failure_message'])}</p>")
    return f"<article>{''.join(parts)}</article>"


def _turn(turn: Mapping, advantage: float | None) -> str:
    said = _text(turn["response"]) if turn["action"] else f"<code>{_text(turn['text'])}</code>"
    action = {"voucher": ("voucher", "cost"), "chat": ("chat", "plain")}.get(turn["action"], ("format error", "bad"))
    notes = [_badge(*action)]
    tones = {0: "bad", 0.5: "fair", 1: "good"}
    notes += [_badge(f"{name} {score:g}", tones.get(score, "plain")) for name, score in turn["scores"].items()]
    numbers = [f"reward {turn['process_reward']:.2f}"] if turn["scores"] else []
    numbers += [f"advantage {advantage:+.2f}"] if advantage is not None else []
    if turn["mean_logprob"] is not None:
        numbers.append(f"{turn['tokens']} tokens, mean logprob {turn['mean_logprob']:.2f}")
    reason = f"<br>{_text(turn['reason'])}" if turn["reason"] else ""
    return (
        f"<p class='bubble user'>{_text(turn['user'])}</p><div class='bubble agent'>"
        + (f"<p class=think>{_text(turn['think'])}</p>" if turn["think"] else "")
        + f"<p>{said}</p></div><p class=notes>{' '.join(notes)}<br>{' · '.join(numbers)}{reason}</p>"
    )


def _badge(text: str, tone: str) -> str:
    return f"<span class='badge {tone}'>{_text(text)}</span>"


def _text(value: str) -> str:
    return html.escape(str(value))


def _number(value: Any, form: str) -> str:
    return "" if value is None else form.format(value) if isinstance(value, float) else str(value)


def _phase(records: Sequence[Mapping], phase: str) -> list[Mapping]:
    return [record for record in records if record["phase"] == phase]


def _series(records: Sequence[Mapping], key: str) -> list[float]:
    return [math.nan if record.get(key) is None else record[key] for record in records]


def _load(workdir: str | os.PathLike) -> tuple[list[dict], dict, float | None]:
    """Records, config, and the voucher budget (the first of `config.pid.target`, if it has one)."""
    for name, what in (("metrics.jsonl", "a line of numbers per step"), ("config.json", "the run's configuration")):
        path = pathlib.Path(workdir, name)
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file; expected {what}, written by python -m cmpo.main")
    config = files.read_object(path)
    controller = config.get("pid")
    target = controller.get("target") if isinstance(controller, Mapping) else None
    return metrics.read(workdir), config, target[0] if isinstance(target, list) else target


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
figure { padding: .8rem; } figure svg { display: block; width: 100%; height: auto; }
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
    """Writes the page, and the picture if asked; the exit status is 2 where there is no run."""
    parser = argparse.ArgumentParser(prog="python -m cmpo.report", description="Writes the page of a run.")
    parser.add_argument("--workdir", required=True, help="Directory of the run.")
    parser.add_argument("--png", help="Also save the curves alone, here.")
    arguments = parser.parse_args(argv)
    try:
        print(write_report(arguments.workdir))
        if arguments.png:
            records, _, target = _load(arguments.workdir)
            curves(records, target).savefig(arguments.png, dpi=150)
            print(arguments.png)
    except (FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
