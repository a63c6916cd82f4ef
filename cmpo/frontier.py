"""Compares evaluated agents with the best possible: ``python -m cmpo.frontier EVALUATION.json … --out=frontier.svg``.

Each EVALUATION.json is a file of `cmpo.evaluate`, as PATH or NAME=PATH. The command prints how far each agent is from
the frontier of the embedded gym (`rollouts.domains.fds.embedded.oracle`), satisfaction over voucher rate: the best of
agents that read the messages, or, with --knows=all, of who knows all about the customer. With --out it draws them all;
the ending of the picture's file gives its format: svg, png, pdf.
"""

import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from absl import flags

from cmpo.cli import command
from cmpo.evaluation import conditions, results, tables
from cmpo.reports.frontier_picture import draw_frontier
from cmpo.reports.planes import find_bound
from rollouts import domains
from rollouts.domain import Bound
from rollouts.domains.fds import domain as fds

_DIFFICULTY = flags.DEFINE_enum("difficulty", "hard", ["hard", "normal"], "Of the customers.")
_KNOWS = flags.DEFINE_enum("knows", "messages", ["messages", "all"], "What the best agent knows of the customer.")
_ALLOW_DIFFERENT = flags.DEFINE_bool(
    "allow_different",
    False,
    "Also show what was measured with other rules or judges, and say so.",
    allow_override=True,  # cmpo.compare has a flag of this name, too
)

WORST = (1.0, 1.0)
"""The reference point of hypervolumes: a voucher for everybody, and the lowest satisfaction."""

Point = tuple[float, float]
"""(voucher rate 0..1, mean satisfaction 0..5)"""


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


def measure_bound_hypervolume(bound: Bound, worst: Point = WORST) -> float:
    """Returns the area between the frontier and `worst`, the most that any set of agents can have."""
    rates = np.append(bound.rates, worst[0])  # beyond its last point the frontier is flat
    heights = np.append(bound.best, bound.best[-1]) - worst[1]
    return float(np.trapezoid(heights, rates))


def format_table(bound: Bound, evaluations: Mapping[str, Mapping[str, Any]]) -> str:
    """Formats the measures of every agent as Markdown, and those of the frontier itself."""
    head = ["agent", "vouchers", "satisfaction", "frontier there", "distance", "share of the gain, %", "hypervolume"]
    rows = []
    for name, evaluation in evaluations.items():
        rate, satisfaction = _find_point(evaluation)
        best, gain = bound.best_at(rate), bound.measure_gain_share(rate, satisfaction)
        numbers = (f"{number:.3f}" for number in (satisfaction, best, best - satisfaction))
        area = f"{measure_hypervolume([(rate, satisfaction)]):.3f}"
        rows.append([name, f"{rate:.1%}", *numbers, "-" if np.isnan(gain) else f"{100 * gain:.0f}", area])
    whole = ["the whole frontier", "", "", "", "0", "100", f"{measure_bound_hypervolume(bound):.3f}"]
    return tables.format_table(head, [*rows, whole])


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
        if domains.name_of(found["config"]) != "fds" or find_bound(found) is None:
            raise ValueError(
                f"{name}: expected the embedded user, scenarios of the generator, a dialogue that did not fail, "
                f"config.episode.max_turns of {fds.MAX_TURNS} or more"
            )
        if found["config"]["data"]["difficulty"] != difficulty:
            raise ValueError(f"{name}: expected customers of --difficulty={difficulty}")
        wrong = conditions.select_incomparable(conditions.find_differences(found, evaluations[first]), paired=False)
        if wrong and not allow_different:
            raise ValueError(
                f"{name} and {first}: expected the same rules and judge, got {'; '.join(map(str, wrong))}; "
                "--allow_different shows them all the same"
            )


def run(*arguments: str) -> None:
    """Prints the table of the evaluations that `arguments` name, and draws them if asked."""
    evaluations = _read_evaluations(arguments)
    _check_evaluations(evaluations, _DIFFICULTY.value, allow_different=_ALLOW_DIFFERENT.value)
    bound = fds.make(()).bound_agents(_DIFFICULTY.value, knows=_KNOWS.value)
    print(format_table(bound, evaluations))
    for line in conditions.list_caveats(evaluations):
        print(f"\nbeware, {line}")
    if out := command.OUT.value:
        with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "cmpo"}):
            draw_frontier(bound, evaluations).savefig(out, dpi=150)
        print(out)


if __name__ == "__main__":
    command.run(run, takes_arguments=True)
