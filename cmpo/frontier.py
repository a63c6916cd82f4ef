"""Evaluated agents beside the best there is: ``python -m cmpo.frontier EVALUATION.json … --out=frontier.svg``.

Draws satisfaction over voucher rate, the embedded gym's exact frontier (`rollouts.domains.fds.embedded.oracle`) and
every agent whose evaluation (`python -m cmpo.evaluate`) is named, and prints how far each is from it. The format of the
picture is its file's ending: svg, png, pdf.
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
"""Of the agent: with as many, patience ends every conversation first (`rollouts.domains.fds.embedded.oracle`)."""

WORST = (1.0, 1.0)
"""The reference point of hypervolumes: a voucher for everybody, and the lowest satisfaction."""

Point = tuple[float, float]
"""(voucher rate 0..1, mean satisfaction 0..5)"""


def distance(frontier: Frontier, point: Point) -> float:
    """What `point` lacks of the best satisfaction at its own voucher rate; negative only by chance."""
    rate, satisfaction = point
    return frontier.at(rate) - satisfaction


def gain_share(frontier: Frontier, point: Point) -> float:
    """The share that `point` has of what its voucher rate can add to the best satisfaction without any voucher.

    1 on the frontier, 0 where it pleases no more than the best agent that never gives one; NaN at a voucher rate of 0.
    """
    rate, satisfaction = point
    never, best = frontier.at(0.0), frontier.at(rate)
    return (satisfaction - never) / (best - never) if best > never else float("nan")


def hypervolume(points: Sequence[Point], worst: Point = WORST) -> float:
    """The area of what `points` dominate: fewer vouchers than `worst`, more satisfaction.

    The union of rectangles between each point and `worst`, as is usual for Pareto fronts (Zitzler & Thiele, 1998), in
    units of satisfaction; points beyond `worst` add nothing.
    """
    area, height = 0.0, worst[1]
    steps = sorted(point for point in points if point[0] < worst[0])
    for (rate, satisfaction), (following, _) in itertools.pairwise([*steps, worst]):
        height = max(height, satisfaction)
        area += (following - rate) * (height - worst[1])
    return area


def frontier_hypervolume(frontier: Frontier, worst: Point = WORST) -> float:
    """The area between the frontier and `worst`: the most that any set of agents can have."""
    rates = np.append(frontier.rates, worst[0])  # the frontier is level behind its last point
    heights = np.append(frontier.satisfaction, frontier.satisfaction[-1]) - worst[1]
    return float(np.trapezoid(heights, rates))


def measures(frontier: Frontier, point: Point) -> dict[str, float]:
    """All of the above for one agent."""
    return {
        "frontier": frontier.at(point[0]),
        "distance": distance(frontier, point),
        "gain_share": gain_share(frontier, point),
        "hypervolume": hypervolume([point]),
    }


def is_known(evaluation: Mapping[str, Any]) -> bool:
    """Whether the frontier of an evaluation's customers is known, the embedded user with the generator's scenarios.

    And as many turns as the frontier takes, and anything to set beside it: not every dialogue failed.
    """
    if domains.name_of(evaluation["config"]) != "fds":
        return False
    user, data, episode = (evaluation["config"][section] for section in ("user", "data", "episode"))
    dealt = not data["path"] and (data["difficulty"], "test") in generator.LEVEL_COUNTS
    met = user["url"] == "embedded" and dealt and episode["max_turns"] >= _TURNS
    return met and evaluation["summary"]["satisfaction"]["mean"] is not None


def caveats(evaluations: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What the evaluations, by name, differ in from the first of them, and from how their agents were trained."""
    told = {name: [conditions.describe_training(found)] for name, found in evaluations.items()}
    first, *others = evaluations or [""]
    for name in others:
        found = conditions.find_differences(evaluations[name], evaluations[first])
        told[name].append(f"other than {first}: {'; '.join(map(str, found))}" if found else "")
    return [f"{name}, {line}" for name, lines in told.items() for line in filter(None, lines)]


def draw(difficulty: str, evaluations: Mapping[str, Mapping[str, Any]]) -> Figure:
    """The frontier of customers of `difficulty` and agents by name, with a standard deviation over seeds each way."""
    frontier = oracle.frontier(oracle.distribution(difficulty))
    figure = Figure(figsize=(7.5, 5), layout="constrained")
    axes = figure.subplots()
    rates = np.append(frontier.rates, 1.0)
    axes.plot(rates, [frontier.at(rate) for rate in rates], color=INK, linewidth=1.6, label="frontier (oracle)")
    axes.fill_between(rates, [frontier.at(rate) for rate in rates], 5, color=GREY, alpha=0.12, linewidth=0)
    for number, (name, evaluation) in enumerate(evaluations.items()):
        (rate, satisfaction), summary = _point(evaluation), evaluation["summary"]
        deviations = {f"{axis}err": summary[key]["std"] for axis, key in (("x", "voucher_rate"), ("y", "satisfaction"))}
        label = name.replace("$", r"\$")  # a name, no formula
        axes.errorbar(rate, satisfaction, **deviations, fmt="o", color=f"C{number % 10}", capsize=2, label=label)
    title = f"The embedded gym, difficulty {difficulty}"
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold", color=INK)
    axes.set_xlabel("voucher rate", fontsize=9, color=INK)
    axes.set_ylabel("user satisfaction (1 to 5)", fontsize=9, color=INK)
    axes.xaxis.set_major_formatter(ticker.PercentFormatter(1, decimals=0))
    axes.set_xlim(-0.03, 1.03)
    lowest = min([frontier.satisfaction[0], *(_point(evaluation)[1] for evaluation in evaluations.values())])
    axes.set_ylim(lowest - 0.2, frontier.satisfaction[-1] + 0.2)
    style_axes(axes)
    add_legend(axes, loc="lower right")
    return figure


def table(frontier: Frontier, evaluations: Mapping[str, Mapping[str, Any]]) -> str:
    """The measures of every agent as Markdown, and those of the frontier itself."""
    lines = [
        "| agent | vouchers | satisfaction | frontier there | distance | share of the gain | hypervolume |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, evaluation in evaluations.items():
        rate, satisfaction = _point(evaluation)
        found = measures(frontier, (rate, satisfaction))
        share = "-" if np.isnan(found["gain_share"]) else f"{found['gain_share']:.0%}"
        lines.append(
            f"| {name} | {rate:.1%} | {satisfaction:.3f} | {found['frontier']:.3f} | {found['distance']:.3f} | {share} "
            f"| {found['hypervolume']:.3f} |"
        )
    return "\n".join([*lines, f"| the whole frontier | | | | 0 | 100% | {frontier_hypervolume(frontier):.3f} |"])


def _point(evaluation: Mapping[str, Any]) -> Point:
    rate, satisfaction = (evaluation["summary"][name]["mean"] for name in ("voucher_rate", "satisfaction"))
    return rate, satisfaction


def _read(arguments: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The evaluations by name, from PATH or NAME=PATH; a file that is there is no name, whatever is in its path."""
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


def _check(evaluations: Mapping[str, Mapping[str, Any]], difficulty: str, *, allow_different: bool) -> None:
    """Raises ValueError for what has no place beside this frontier, or beside the first of the evaluations."""
    first = next(iter(evaluations), "")
    for name, found in evaluations.items():
        if not is_known(found):
            raise ValueError(
                f"{name}: expected the embedded user, scenarios of the generator, one served at least, "
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
    """Prints the table and draws; the exit status is 2 where an evaluation cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m cmpo.frontier", description=__doc__.splitlines()[0])
    parser.add_argument("evaluations", nargs="*", help="JSON files of cmpo.evaluate, as PATH or NAME=PATH.")
    parser.add_argument("--difficulty", default="hard", choices=("hard", "normal"), help="Of the customers.")
    parser.add_argument("--allow_different", action="store_true", help="Show what other rules or judges measured, too.")
    parser.add_argument("--out", help="Picture to draw: .svg, .png or .pdf.")
    arguments = parser.parse_args(map(files.expand_home, sys.argv[1:] if argv is None else argv))
    try:
        evaluations = _read(arguments.evaluations)
        _check(evaluations, arguments.difficulty, allow_different=arguments.allow_different)
        frontier = oracle.frontier(oracle.distribution(arguments.difficulty))
        print(table(frontier, evaluations))
        for line in caveats(evaluations):
            print(f"\nbeware, {line}")
        if arguments.out:
            with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "cmpo"}):
                draw(arguments.difficulty, evaluations).savefig(arguments.out, dpi=150)
            print(arguments.out)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
