"""Draws agents beside the best possible, by the two measures that a domain's bound is about."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import ticker
from matplotlib.figure import Figure

from cmpo.reports.plots import GREY, INK, add_legend, style_axes
from rollouts.domain import Bound


def draw_frontier(bound: Bound, evaluations: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Draws a bound, and agents by name with standard deviations over seeds."""
    figure = Figure(figsize=(7.5, 5), layout="constrained")
    axes = figure.subplots()
    rates = np.append(bound.rates, 1.0)
    heights = [bound.best_at(rate) for rate in rates]
    summaries = {name: found["summary"] for name, found in evaluations.items()}
    lowest = min([bound.best[0], *(summary[bound.objective]["mean"] for summary in summaries.values())]) - 0.2
    highest = bound.best[-1] + 0.2
    axes.plot(rates, heights, color=INK, linewidth=1.6, label=bound.label)
    axes.fill_between(rates, heights, highest, color=GREY, alpha=0.12, linewidth=0)
    for number, (name, summary) in enumerate(summaries.items()):
        rate, objective = summary[bound.cost.measure], summary[bound.objective]
        label = name.replace("$", r"\$")  # matplotlib would read it as a formula
        style = {"fmt": "o", "color": f"C{number % 10}", "capsize": 2}
        axes.errorbar(rate["mean"], objective["mean"], objective["std"], rate["std"], label=label, **style)
    axes.set_title(bound.title, loc="left", fontsize=10, fontweight="bold", color=INK)
    axes.set_xlabel(_lower_first(bound.cost.panel), fontsize=9, color=INK)
    axes.set_ylabel(_lower_first(bound.panel), fontsize=9, color=INK)
    axes.xaxis.set_major_formatter(ticker.PercentFormatter(1, decimals=0))
    axes.set_xlim(-0.03, 1.03)
    axes.set_ylim(lowest, highest)
    style_axes(axes)
    add_legend(axes, loc="lower right")
    return figure


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]
