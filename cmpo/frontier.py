"""Compares evaluated agents with the best possible: ``python -m cmpo.frontier EVALUATION.json … --out=frontier.svg``.

Draws satisfaction over voucher rate: the exact frontier of the embedded gym (`rollouts.domains.fds.embedded.oracle`)
and every agent whose evaluation (`python -m cmpo.evaluate`) is named. Prints how far each agent is from the frontier.
The ending of the picture's file gives its format: svg, png, pdf.
"""

import argparse
import itertools
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib import ticker
from matplotlib.figure import Figure

from cmpo.evaluation import conditions, results
from cmpo.reports.plots import GREY, INK, add_legend, style_axes
from cmpo.run import files
from rollouts import domains
from rollouts.domains.fds import generator
from rollouts.domains.fds.embedded import oracle
from rollouts.domains.fds.embedded.oracle import Frontier

_TURNS = 7
"""Turns of the agent after which patience has ended every conversation (`rollouts.domains.fds.embedded.oracle`)."""

WORST = (1.0, 1.0)
"""The reference point of hypervolumes: a voucher for everybody, and the lowest satisfaction."""

Point = tuple[float, float]
"""(voucher rate 0..1, mean satisfaction 0..5)"""


def measure_distance(frontier: Frontier, point: Point) -> float:
    """Returns what `point` lacks of the best satisfaction at its own voucher rate; negative only by chance."""
    rate, satisfaction = point
    return frontier.satisfaction_at(rate) - satisfaction


def gain_share(frontier: Frontier, point: Point) -> float:
    """Returns the gain of `point` over the best agent without vouchers, divided by the most possible at its rate.

    1 on the frontier; 0 if it is no better than the best agent that never gives a voucher; NaN at a voucher rate of 0.
    """
    rate, satisfaction = point
    never, best = frontier.satisfaction_at(0.0), frontier.satisfaction_at(rate)
    return (satisfaction - never) / (best - never) if best > never else float("nan")


def measure_hypervolume(points: Sequence[Point], worst: Point = WORST) -> float:
    """Measures the area that `points` dominate: fewer vouchers than `worst`, more satisfaction.

    It is the union of the rectangles between each point and `worst`, as is usual for Pareto fronts (Zitzler & Thiele,
    1998), in units of satisfaction. Points beyond `worst` add nothing.
    """
    area, height = 0.0, worst[1]
    steps = sorted(point for point in points if point[0] < worst[0])
    for (rate, satisfaction), (following, _) in itertools.pairwise([*steps, worst]):
        height = max(height, satisfaction)
        area += (following - rate) * (height - worst[1])
    return area


def frontier_hypervolume(frontier: Frontier, worst: Point = WORST) -> float:
    """Returns the area between the frontier and `worst`, the most that any set of agents can have."""
    rates = np.append(frontier.rates, worst[0])  # beyond its last point the frontier is flat
    heights = np.append(frontier.satisfaction, frontier.satisfaction[-1]) - worst[1]
    return float(np.trapezoid(heights, rates))


def measure_agent(frontier: Frontier, point: Point) -> dict[str, float]:
    """Measures one agent in all these ways."""
    return {
        "frontier": frontier.satisfaction_at(point[0]),
        "distance": measure_distance(frontier, point),
        "gain_share": gain_share(frontier, point),
        "hypervolume": measure_hypervolume([point]),
    }


def is_known(evaluation: Mapping[str, Any]) -> bool:
    """Whether an evaluation can be compared with a frontier.

    This needs the embedded user, scenarios of the generator, enough turns, and a dialogue that did not fail.
    """
    if domains.name_of(evaluation["config"]) != "fds":
        return False
    user, data, episode = (evaluation["config"][section] for section in ("user", "data", "episode"))
    dealt = not data["path"] and (data["difficulty"], "test") in generator.LEVEL_COUNTS
    met = user["url"] == "embedded" and dealt and episode["max_turns"] >= _TURNS
    return met and evaluation["summary"]["satisfaction"]["mean"] is not None


def list_caveats(evaluations: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Lists in what each evaluation differs from the first one, and from how its agent was trained."""
    told = {name: [conditions.describe_training(found)] for name, found in evaluations.items()}
    first, *others = evaluations or [""]
    for name in others:
        found = conditions.find_differences(evaluations[name], evaluations[first])
        told[name].append(f"other than {first}: {'; '.join(map(str, found))}" if found else "")
    return [f"{name}, {line}" for name, lines in told.items() for line in filter(None, lines)]


def draw_frontier(difficulty: str, evaluations: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Draws the frontier of customers of `difficulty`, and agents by name with standard deviations over seeds."""
    frontier = oracle.compute_frontier(oracle.weigh_customers(difficulty))
    figure = Figure(figsize=(7.5, 5), layout="constrained")
    axes = figure.subplots()
    rates = np.append(frontier.rates, 1.0)
    axes.plot(
        rates, [frontier.satisfaction_at(rate) for rate in rates], color=INK, linewidth=1.6, label="frontier (oracle)"
    )
    axes.fill_between(rates, [frontier.satisfaction_at(rate) for rate in rates], 5, color=GREY, alpha=0.12, linewidth=0)
    for number, (name, evaluation) in enumerate(evaluations.items()):
        (rate, satisfaction), summary = _find_point(evaluation), evaluation["summary"]
        deviations = {f"{axis}err": summary[key]["std"] for axis, key in (("x", "voucher_rate"), ("y", "satisfaction"))}
        label = name.replace("$", r"\$")  # matplotlib would read it as a formula
        axes.errorbar(rate, satisfaction, **deviations, fmt="o", color=f"C{number % 10}", capsize=2, label=label)
    title = f"The embedded gym, difficulty {difficulty}"
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold", color=INK)
    axes.set_xlabel("voucher rate", fontsize=9, color=INK)
    axes.set_ylabel("user satisfaction (1 to 5)", fontsize=9, color=INK)
    axes.xaxis.set_major_formatter(ticker.PercentFormatter(1, decimals=0))
    axes.set_xlim(-0.03, 1.03)
    lowest = min([frontier.satisfaction[0], *(_find_point(evaluation)[1] for evaluation in evaluations.values())])
    axes.set_ylim(lowest - 0.2, frontier.satisfaction[-1] + 0.2)
    style_axes(axes)
    add_legend(axes, loc="lower right")
    return figure


def format_table(frontier: Frontier, evaluations: Mapping[str, Mapping[str, Any]]) -> str:
    """Formats the measures of every agent as Markdown, and those of the frontier itself."""
    lines = [
        "| agent | vouchers | satisfaction | frontier there | distance | share of the gain | hypervolume |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, evaluation in evaluations.items():
        rate, satisfaction = _find_point(evaluation)
        found = measure_agent(frontier, (rate, satisfaction))
        share = "-" if np.isnan(found["gain_share"]) else f"{found['gain_share']:.0%}"
        lines.append(
            f"| {name} | {rate:.1%} | {satisfaction:.3f} | {found['frontier']:.3f} | {found['distance']:.3f} | {share} "
            f"| {found['hypervolume']:.3f} |"
        )
    return "\n".join([*lines, f"| the whole frontier | | | | 0 | 100% | {frontier_hypervolume(frontier):.3f} |"])


def _find_point(evaluation: Mapping[str, Any]) -> Point:
    rate, satisfaction = (evaluation["summary"][name]["mean"] for name in ("voucher_rate", "satisfaction"))
    return rate, satisfaction


def _read_evaluations(arguments: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Reads evaluations by name, from PATH or NAME=PATH. An argument that is itself a file's path has no name in it."""
    evaluations: dict[str, dict[str, Any]] = {}
    for argument in arguments:
        pieces = argument.split("=")
        splits = (("=".join(pieces[:count]), "=".join(pieces[count:])) for count in range(len(pieces)))
        there = next(((name, path) for name, path in splits if pathlib.Path(path).is_file()), None)
        if there is None:
            raise FileNotFoundError(f"{argument}: expected PATH or NAME=PATH, found no such file")
        name, path = there
        found = results.read_result(path)
        name = name or found["agent"]
        if name in evaluations:
            raise ValueError(f"{path}: another evaluation is called {name!r}; give each a name, as NAME=PATH")
        evaluations[name] = found
    return evaluations


def _check_evaluations(evaluations: Mapping[str, Mapping[str, Any]], difficulty: str, *, allow_different: bool) -> None:
    """Raises ValueError for an evaluation that cannot be compared with this frontier or with the first evaluation."""
    first = next(iter(evaluations), "")
    for name, found in evaluations.items():
        if not is_known(found):
            raise ValueError(
                f"{name}: expected the embedded user, scenarios of the generator, a dialogue that did not fail, "
                f"config.episode.max_turns of {_TURNS} or more"
            )
        if found["config"]["data"]["difficulty"] != difficulty:
            raise ValueError(f"{name}: expected customers of --difficulty={difficulty}")
        wrong = conditions.select_incomparable(conditions.find_differences(found, evaluations[first]), paired=False)
        if wrong and not allow_different:
            raise ValueError(
                f"{name} and {first}: expected the same rules and judge, got {'; '.join(map(str, wrong))}; "
                "--allow_different shows them all the same"
            )


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table and draws. Returns the exit status: 2 where an evaluation cannot be read, else 0."""
    parser = argparse.ArgumentParser(prog="python -m cmpo.frontier", description=__doc__.splitlines()[0])
    parser.add_argument("evaluations", nargs="*", help="JSON files of cmpo.evaluate, as PATH or NAME=PATH.")
    parser.add_argument("--difficulty", default="hard", choices=("hard", "normal"), help="Of the customers.")
    parser.add_argument(
        "--allow_different", action="store_true", help="Also show what was measured with other rules or judges."
    )
    parser.add_argument("--out", help="Picture to draw: .svg, .png or .pdf.")
    arguments = parser.parse_args(map(files.expand_home, sys.argv[1:] if argv is None else argv))
    try:
        evaluations = _read_evaluations(arguments.evaluations)
        _check_evaluations(evaluations, arguments.difficulty, allow_different=arguments.allow_different)
        frontier = oracle.compute_frontier(oracle.weigh_customers(arguments.difficulty))
        print(format_table(frontier, evaluations))
        for line in list_caveats(evaluations):
            print(f"\nbeware, {line}")
        if arguments.out:
            with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "cmpo"}):
                draw_frontier(arguments.difficulty, evaluations).savefig(arguments.out, dpi=150)
            print(arguments.out)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
