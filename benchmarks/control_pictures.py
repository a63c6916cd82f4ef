"""Draws what `benchmarks.control` has measured. Rates are shares of dialogues; [S, T]: seeds, steps."""

import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from PIL import Image

from cmpo import pid
from cmpo.lab.grids import Grid
from cmpo.lab.learning import History
from cmpo.lab.plan import LabConfig
from cmpo.reports.plots import BLUE, GREY, INK, ORANGE, RED, add_legend, style_axes
from cmpo.run.alarms import WINDOW, find_alarms
from rollouts.domains.fds import rules

Found = tuple[Grid, Mapping[str, History]]

SMOOTH = 5  # steps, of the means over seeds
BAND = 0.05  # a rate has settled when it stays this near to its budget


class Response(NamedTuple):
    """Of the mean rate over seeds, smoothed over SMOOTH steps."""

    overshoot: float  # how far it fell below the budget
    settled: float  # the first step from which it stays within BAND; NaN if it does not
    miss: float  # mean distance of single seeds from the budget in the rests


def smooth(rates: np.ndarray) -> np.ndarray:
    """The mean over seeds, [S, T] -> [T], and over SMOOTH steps around each; fewer at the ends."""
    mean, kernel = rates.mean(0), np.ones(SMOOTH)
    return np.convolve(mean, kernel, "same") / np.convolve(np.ones_like(mean), kernel, "same")


def measure_response(config: LabConfig, history: History) -> Response:
    """Measures how the runs of one setting came to their budget."""
    rate = smooth(history.voucher_rate[:, : config.steps])
    outside = np.flatnonzero(np.abs(rate - config.target) > BAND)
    settled = outside[-1] + 1 if len(outside) else 0
    ended = history.voucher_rate[:, config.steps :].mean(1)
    return Response(
        max(0.0, config.target - float(rate.min())),
        float(settled) if settled < config.steps else float("nan"),
        float(np.abs(ended - config.target).mean()),
    )


def draw_gains(found: Found) -> Figure:
    """Heat maps over kp and ki for both forms, and below them the way of lambda and rate for three pairs of gains."""
    grid, histories = found
    figure = Figure(figsize=(11, 9.6), layout="constrained")
    panels = figure.subplots(3, 3)
    kps, kis = (sorted({getattr(config, name) for config in grid.configs.values()}) for name in ("kp", "ki"))
    measures = {
        "overshoot": ("Overshoot below 30 %, points", 100, "Oranges"),
        "settled": (f"Steps until within {100 * BAND:.0f} points (–: never)", 1, "Purples"),
        "miss": ("A single seed's distance in the end, points", 100, "Blues"),
    }
    for row, form in enumerate(pid.FORMS):
        responses = {
            (config.kp, config.ki): measure_response(config, histories[name])
            for name, config in grid.configs.items()
            if config.form == form
        }
        for axes, (measure, (title, scale, colors)) in zip(panels[row], measures.items(), strict=True):
            values = [[scale * getattr(responses[kp, ki], measure) for kp in kps] for ki in kis]
            _draw_heat_map(axes, np.array(values), kps, kis, colors)
            axes.set_title(f"{title}\n{form}", fontsize=9, color=INK)
    pairs = (
        (0.0, 0.15, "I alone: wide swings"),
        (0.5, 0.15, "a little P"),
        (4.0, 0.15, "much P: narrow ones, and noise"),
    )
    for axes, (kp, ki, label) in zip(panels[2], pairs, strict=True):
        name = next(name for name, c in grid.configs.items() if (c.kp, c.ki, c.form) == (kp, ki, "incremental"))
        _draw_path(axes, grid.configs[name], histories[name])
        axes.set_title(f"{label}: kp {kp:g}, ki {ki:g}", fontsize=9, color=INK)
    return figure


def _draw_heat_map(axes: Axes, values: np.ndarray, kps: list[float], kis: list[float], colors: str) -> None:
    axes.imshow(values, cmap=colors, aspect="auto", origin="lower", vmin=0)
    limit = 0.6 * np.nanmax(values)
    for (row, column), value in np.ndenumerate(values):
        text = "–" if np.isnan(value) else f"{value:.0f}"
        axes.text(column, row, text, ha="center", va="center", fontsize=9, color="white" if value > limit else INK)
    axes.set_xticks(range(len(kps)), [f"{kp:g}" for kp in kps])
    axes.set_yticks(range(len(kis)), [f"{ki:g}" for ki in kis])
    axes.set_xlabel("kp")
    axes.set_ylabel("ki")


def _draw_path(axes: Axes, config: LabConfig, history: History) -> None:
    rate, price = (smooth(x[:, : config.steps]) for x in (history.voucher_rate, history.lambdas))
    for one, other in zip(history.voucher_rate[:3], history.lambdas[:3], strict=True):
        axes.plot(
            smooth(other[None, : config.steps]), smooth(one[None, : config.steps]), color=GREY, alpha=0.35, lw=0.8
        )
    axes.plot(price, rate, color=BLUE, lw=1.6)
    for step in range(0, config.steps - 1, 10):
        axes.annotate("", (price[step + 1], rate[step + 1]), (price[step], rate[step]), arrowprops={"arrowstyle": "->"})
    axes.plot(price[0], rate[0], "o", color=ORANGE, ms=5)
    axes.axhline(config.target, color=INK, linestyle=(0, (4, 3)), linewidth=1)
    axes.set_xlim(0, 3)
    axes.set_ylim(0, 0.9)
    axes.yaxis.set_major_formatter(PercentFormatter(1, 0))
    axes.set_xlabel("lambda")
    axes.set_ylabel("vouchers")
    style_axes(axes)


def draw_steps(*found: Found) -> Figure:
    """Rate and lambda over the steps for each change in mid-run, mean and deviation over seeds."""
    titles = {
        "": "Nothing changes", "target_change": "Budget 30 % to 50 %", "judge_scale": "The judge's scores times 3",
        "difficulty_after": "Customers hard to normal",
    }  # fmt: skip
    shown = [(config, histories[name]) for grid, histories in found for name, config in grid.configs.items()]
    figure = Figure(figsize=(12, 5), layout="constrained")
    rows = figure.subplots(2, len(shown), sharex=True, sharey="row")
    for (above, below), (config, history) in zip(rows.T, shown, strict=True):
        plain = LabConfig()
        kind = next((key for key in titles if key and getattr(config, key) != getattr(plain, key)), "")
        steps, last = np.arange(config.steps), slice(0, config.steps)
        budget = np.where(steps < config.change_at, config.target, config.target + config.target_change)
        for axes, values, color in ((above, history.voucher_rate, BLUE), (below, history.lambdas, ORANGE)):
            mean, deviation = smooth(values[:, last]), values[:, last].std(0)
            axes.fill_between(steps, mean - deviation, mean + deviation, color=color, alpha=0.2, lw=0)
            axes.plot(steps, mean, color=color, lw=1.6)
            axes.axvline(config.change_at, color=GREY, lw=0.8)
            style_axes(axes)
        above.plot(steps, budget, color=INK, linestyle=(0, (4, 3)), lw=1.1)
        above.set_title(titles[kind], fontsize=10, color=INK)
        above.yaxis.set_major_formatter(PercentFormatter(1, 0))
        below.set_xlabel("step")
    rows[0, 0].set_ylabel("vouchers")
    rows[1, 0].set_ylabel("lambda")
    return figure


def find_first_alarms(config: LabConfig, history: History) -> list[int | None]:
    """Returns for each seed after how many steps the trainer's alarm would first have told; None: never."""
    cost, found, step = rules.COSTS[0], [], jax.jit(pid.update)
    for rates, prices in zip(history.voucher_rate, history.lambdas, strict=True):
        state, smoothed = pid.init(config.gains, config.initial_lambda), []
        for rate in rates[: config.steps]:
            state = step(config.gains, state, jnp.asarray(rate)[None])
            smoothed.append(float(state.smoothed_cost[0]))
        measured = f"{cost.measure}_smoothed"
        records = [{"lambda": float(price), measured: one} for price, one in zip(prices, smoothed, strict=False)]
        options = {"costs": [cost], "budgets": [float(config.target)], "bounds": [float(config.lambda_max)]}
        told = (
            number
            for number in range(1, len(records) + 1)
            if find_alarms(records[max(0, number - WINDOW - 1) : number], **options)
        )
        found.append(next(told, None))
    return found


def draw_infeasible(*found: Found) -> Figure:
    """Rate and lambda where a budget cannot be held, and where it can, with the first alarm of each seed."""
    titles = {"instant": "Instant credit", "cost_to_go": "Cost to go", "bound": "10 %, lambda up to 1"}
    shown = [(config, histories[name]) for grid, histories in found for name, config in grid.configs.items()]
    figure = Figure(figsize=(14, 5), layout="constrained")
    rows = figure.subplots(2, len(shown), sharex=True, sharey="row")
    for (above, below), (config, history) in zip(rows.T, shown, strict=True):
        alarms, last = find_first_alarms(config, history), slice(0, config.steps)
        told = sorted(step for step in alarms if step is not None)
        for axes, values, color in ((above, history.voucher_rate, BLUE), (below, history.lambdas, ORANGE)):
            for one in values[:, last]:
                axes.plot(one, color=color, alpha=0.15, lw=0.7)
            axes.plot(smooth(values[:, last]), color=color, lw=1.8)
            style_axes(axes)
        label = f"alarm in {len(told)} of {len(alarms)} runs" + (f", first at {told[0]}" if told else "")
        above.plot(told, np.full(len(told), 0.99), "|", color=RED, ms=9, label=label)
        above.axhline(config.target, color=INK, linestyle=(0, (4, 3)), lw=1.1)
        title = titles["bound" if config.lambda_max < 2 else config.credit]
        above.set_title(f"{title}, kp {config.kp:g}", fontsize=10, color=INK)
        above.set_ylim(0, 1.15)
        above.yaxis.set_major_formatter(PercentFormatter(1, 0))
        add_legend(above)
        below.set_xlabel("step")
    rows[0, 0].set_ylabel("vouchers")
    rows[1, 0].set_ylabel("lambda")
    return figure


def draw_held(*found: Found) -> Figure:
    """How far single seeds ended from their budgets, a panel for each learning rate and kp."""
    shown: dict[tuple[float, float], list[tuple[LabConfig, History]]] = {}
    for grid, histories in found:
        for name, config in grid.configs.items():
            shown.setdefault((config.learning_rate, config.kp), []).append((config, histories[name]))
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    row = figure.subplots(1, len(shown), sharey=True)
    for axes, ((pace, kp), runs) in zip(row, shown.items(), strict=True):
        axes.axhspan(-1.5, 1.5, color=GREY, alpha=0.2, lw=0, label="within 1.5 points")
        for place, (config, history) in enumerate(runs):
            ended = 100 * (history.voucher_rate[:, config.steps :].mean(1) - config.target)
            axes.plot(place + np.linspace(-0.25, 0.25, len(ended)), ended, "o", ms=3.5, color=BLUE)
            axes.plot([place - 0.35, place + 0.35], [ended.mean()] * 2, color=ORANGE, lw=1.6)
        axes.set_xticks(range(len(runs)), [f"{100 * config.target:g} %" for config, _ in runs])
        axes.set_title(f"learning rate {pace:g}, kp {kp:g}", fontsize=10, color=INK)
        axes.set_xlabel("budget")
        style_axes(axes)
    row[0].set_ylabel("vouchers in the end,\npoints from the budget")
    add_legend(row[0])
    return figure


def save_picture(figure: Figure, path: pathlib.Path) -> None:
    """Writes a PNG of 64 colours, a third of the size of one with all."""
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(90)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    picture.quantize(64, dither=Image.Dither.NONE).save(path, optimize=True)


PICTURES = {"gains": draw_gains, "steps": draw_steps, "infeasible": draw_infeasible, "held": draw_held}
"""Experiment of `benchmarks.control` -> its picture."""
