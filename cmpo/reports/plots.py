"""Draws the curves of a run, and has what all pictures share: colours, styles, and how they go into a page."""

import io
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cmpo.reports.run_data import select_phase
from cmpo.run.log import read_multiplier
from rollouts.domain import Domain

INK = "#23272f"  # text and axes; becomes the page's own text colour in the SVG
BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#3d7de0", "#e07b2e", "#2f9e68", "#d9484c", "#8a63d2", "#8b94a3"
_STACK = (BLUE, ORANGE, GREEN, PURPLE, GREY, RED)


def draw_curves(records: Sequence[Mapping[str, Any]], domain: Domain, budgets: Sequence[float] = ()) -> Figure:
    """Draws the numbers of a run over its steps, with the `budgets` [C] of the domain's costs; [] if there are none.

    Save with `figure.savefig(path, dpi=150)`.
    """
    rl, sft = (select_phase(records, name) for name in ("rl", "sft"))
    figure = Figure(figsize=(13, 8.6))
    count = len(domain.costs) + 2
    # Places by hand: to have them found takes as long as all the drawing.
    rows = {"left": 0.04, "right": 0.985, "wspace": 0.24}
    top = figure.add_gridspec(1, count, top=0.96, bottom=0.66, **rows)
    below = figure.add_gridspec(2, 4, top=0.58, bottom=0.06, hspace=0.38, **rows)
    large = [figure.add_subplot(top[0, i]) for i in range(count)]
    small = [figure.add_subplot(below[row, i]) for row in (0, 1) for i in range(4)]

    _draw_line(large[0], domain.panel or domain.objective, rl, domain.objective, BLUE)
    for axes, cost, color in zip(large[1:], domain.costs, itertools.cycle((ORANGE, PURPLE, GREEN))):
        _draw_line(axes, cost.panel, rl, cost.measure, color, alpha=0.4, width=1, label="each step")
        _draw_line(axes, cost.panel, rl, f"{cost.measure}_smoothed", color, label="smoothed")
        if cost.total == "any":
            _show_as_percent(axes)
    for axes, cost, budget in zip(large[1:], domain.costs, budgets, strict=False):
        label = f"budget {cost.form.format(budget)}"
        axes.axhline(budget, color=INK, linestyle=(0, (4, 3)), linewidth=1.1, label=label)
    for axes in large[1:-1]:
        add_legend(axes)
    _draw_multipliers(large[-1], domain, rl)

    _draw_line(small[0], "Process reward (0 to 1)", rl, "process_reward", BLUE)
    _draw_line(small[1], "Dialogues finished", rl, "finish_rate", GREEN)
    _draw_line(small[2], "Turns per dialogue", rl, "turns_mean", GREY)
    _stack_seconds(small[3], rl)
    _draw_line(small[4], "Warm-up (SFT) loss", sft, "loss", PURPLE)
    _draw_line(small[5], "Policy loss", rl, "loss", PURPLE)
    _draw_line(small[6], "KL to the reference", rl, "kl", PURPLE)
    _draw_line(small[7], "Entropy (nats per token)", rl, "entropy", PURPLE)
    _show_as_percent(small[1])
    for axes in (*large, *small):
        style_axes(axes)
        axes.xaxis.set_major_locator(ticker.MaxNLocator(6, integer=True))
    for axes in small[4:]:
        axes.set_xlabel("step", fontsize=8, color=INK)
    return figure


def _draw_multipliers(axes: Axes, domain: Domain, rl: Sequence[Mapping]) -> None:
    """Draws a line for each cost's multiplier; a record has one number, or one for each cost by its name."""
    if len(domain.costs) < 2:
        _draw_line(axes, "Multiplier lambda", rl, "lambda", RED)
        return
    for cost, color in zip(domain.costs, itertools.cycle((RED, PURPLE, GREEN))):
        own = [record | {"lambda": read_multiplier(record, cost)} for record in rl]
        _draw_line(axes, "Multipliers lambda", own, "lambda", color, label=cost.heading)
    add_legend(axes)


def _show_as_percent(axes: Axes) -> None:
    axes.yaxis.set_major_formatter(ticker.PercentFormatter(1, decimals=0))
    axes.set_ylim(-0.03, 1.03)


def _draw_line(
    axes: Axes, title: str, records: Sequence[Mapping], key: str, color: str, *, alpha=1.0, width=1.4, label=None
):
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold", color=INK)
    marker = "o" if len(records) == 1 else None
    steps, values = _list_values(records, "step"), _list_values(records, key)
    axes.plot(steps, values, color=color, alpha=alpha, linewidth=width, label=label, marker=marker, ms=4)
    if all(math.isnan(value) for value in values) and not axes.texts:
        axes.text(0.5, 0.5, "no data", transform=axes.transAxes, ha="center", va="center", color=GREY)


def _stack_seconds(axes: Axes, records: Sequence[Mapping]) -> None:
    axes.set_title("Seconds per step", loc="left", fontsize=10, fontweight="bold", color=INK)
    parts = list(dict.fromkeys(name for record in records for name in record.get("seconds", {})))
    if parts:
        values = [[record.get("seconds", {}).get(part) or 0.0 for record in records] for part in parts]
        colors = list(itertools.islice(itertools.cycle(_STACK), len(parts)))
        axes.stackplot(_list_values(records, "step"), values, labels=parts, colors=colors, alpha=0.85, linewidth=0)
        axes.set_ylim(0, 1.3 * max(map(sum, zip(*values, strict=True))))  # room for the legend
        add_legend(axes, ncols=3, columnspacing=1)


def add_legend(axes: Axes, **options) -> None:
    """Adds the legend, in our own style."""
    axes.legend(fontsize=8, frameon=False, labelcolor=INK, handlelength=1.4, borderaxespad=0.2, **options)


def style_axes(axes: Axes) -> None:
    """Sets our own style for all but the legend; on a page, text and ticks take the page's colour."""
    axes.patch.set_visible(False)
    axes.grid(axis="y", color=GREY, alpha=0.25, linewidth=0.7)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(GREY)
    axes.tick_params(colors=INK, labelsize=8, length=0)


def render_svg(figure: Figure) -> str:
    """Renders the figure as an SVG element that takes its text colour from the page."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "cmpo", "font.family": "sans-serif"}):
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    return text[text.index("<svg") :].replace(INK, "currentColor")


def _list_values(records: Sequence[Mapping], key: str) -> list[float]:
    values = (record.get(key) for record in records)
    return [value if isinstance(value, int | float) else math.nan for value in values]
