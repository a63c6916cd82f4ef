"""Prints the card of a dataset: ``python -m cmpo.card --config=configs/fds.py[:difficulty=normal] [--png=PATH]``.

The card is Markdown and compares with the method's tables: levels of cooperation, demands, complaints, lengths. The
command prepares the records of config.data if they are not on disk yet.
"""

import itertools
import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from absl import flags
from matplotlib import ticker
from matplotlib.figure import Figure

from cmpo.cli import command
from cmpo.evaluation.tables import format_table
from cmpo.reports.plots import BLUE, GREEN, INK, ORANGE, PURPLE
from rollouts.domains.fds import generator, rubrics, tfds_dataset
from rollouts.domains.fds.embedded import app
from rollouts.domains.fds.scenario import DEMANDS, LEVELS, Persona, Scenario
from rollouts.seeds import fold

_PNG = flags.DEFINE_string("png", None, "File to draw the card in, too.")

_COLORS = (BLUE, ORANGE, GREEN, PURPLE)
_SUPPORT = {True: "supports the claim", False: "contradicts it", None: "is silent"}


class Card(NamedTuple):
    """What a set of scenarios is made of."""

    records: int
    scenarios: set[tuple]  # different ones, whatever their ids
    personas: set[Persona]
    orders: set[tuple]  # as the agent is shown them
    cells: Counter[tuple[int, str]]  # (level 1..5, demand) -> records
    complaints: Counter[str]
    support: Counter[bool | None]  # does the platform's record support the complaint?

    def count_level(self, level: int) -> int:
        """Counts the records at one level of cooperation."""
        return sum(self.cells[level, demand] for demand in DEMANDS)

    def find_share(self, demand: str, level: int) -> float:
        """Returns P(demand | level) as counted; NaN if the level has no records."""
        return self.cells[level, demand] / self.count_level(level) if self.count_level(level) else math.nan


def count_scenarios(scenarios: Sequence[Scenario]) -> Card:
    """Counts what a set of scenarios is made of."""
    return Card(
        records=len(scenarios),
        scenarios={(each.persona, each.demand, each.order) for each in scenarios},
        personas={each.persona for each in scenarios},
        orders={each.order.signals for each in scenarios},
        cells=Counter((each.persona.level, each.demand) for each in scenarios),
        complaints=Counter(each.order.complaint for each in scenarios),
        support=Counter(each.order.supported for each in scenarios),
    )


def measure_lengths(scenarios: Sequence[Scenario]) -> dict[str, list[int]]:
    """Measures the prompts and the embedded customer's opening in characters, for each record."""
    customers = [generator.user_prompt(each) for each in scenarios]
    openings = [
        app.play_user([{"role": "system", "content": customer}], fold(0, each.id))
        for customer, each in zip(customers, scenarios, strict=True)
    ]
    texts = {
        "agent's prompt": [each.agent_prompt for each in scenarios],
        "customer's prompt": customers,
        "judge's prompt": map(rubrics.PROCESS.write_prompt, scenarios),
        "customer's opening": openings,
    }
    return {name: list(map(len, written)) for name, written in texts.items()}


def format_card(title: str, splits: Mapping[str, Sequence[Scenario]], difficulty: str) -> str:
    """Formats the card as Markdown; `difficulty` names the mix of the method that it is compared with."""
    everything = list(itertools.chain(*splits.values()))
    both = count_scenarios(everything)
    shown = {**{split: count_scenarios(scenarios) for split, scenarios in splits.items()}, "both": both}

    def format_counts(heading: str, names: Iterable[str], count: Callable[[Card, int], int]) -> str:
        rows = [
            [name, *(f"{count(each, at):,} ({count(each, at) / each.records:.1%})" for each in shown.values())]
            for at, name in enumerate(names)
        ]
        return format_table([heading, *shown], rows)

    mixes = {split: generator.LEVEL_COUNTS[difficulty, split] for split in splits}
    levels = [f"{level} {name}" for level, name in enumerate(LEVELS, start=1)]
    wanted = [[name, *(f"{mix[at] / sum(mix):.1%}" for mix in mixes.values())] for at, name in enumerate(levels)]
    demands = [
        [demand, *(f"{both.find_share(demand, level):.1%} ({weights[level - 1]:.0%})" for level in range(1, 6))]
        for demand, weights in generator.DEMAND_WEIGHTS.items()
    ]
    complaints = sorted(both.complaints, key=both.complaints.get, reverse=True)
    texts = [
        [text, f"{statistics.mean(values):,.0f}", f"{statistics.median(values):,.0f}", f"{max(values):,}"]
        for text, values in measure_lengths(everything).items()
    ]
    overlap = len(set.intersection(*(shown[split].orders for split in splits)))
    sizes = [
        ["records", *(f"{each.records:,}" for each in shown.values())],
        *(
            [f"different {name}", *(f"{len(getattr(each, name)):,}" for each in shown.values())]
            for name in ("scenarios", "orders", "personas")
        ),
    ]
    parts = [
        f"# {title}",
        format_table(["", *shown], sizes) + f"\n\nOrders that both splits have: {overlap}.",
        format_counts("level of cooperation", levels, lambda each, at: each.count_level(at + 1)),
        format_table([f"the method's levels, {difficulty}", *mixes], wanted),
        format_table(["demand, by level (the method's)", *map(str, range(1, 6))], demands),
        format_counts("complaint", complaints, lambda each, at: each.complaints[complaints[at]]),
        format_counts("the platform's record", _SUPPORT.values(), lambda each, at: each.support[tuple(_SUPPORT)[at]]),
        format_table(["characters", "mean", "median", "longest"], texts),
    ]
    return "\n\n".join(parts)


def draw_card(title: str, splits: Mapping[str, Sequence[Scenario]], difficulty: str) -> Figure:
    """Draws the card. Save with `figure.savefig(path, dpi=150)`."""
    everything = list(itertools.chain(*splits.values()))
    both = count_scenarios(everything)
    figure = Figure(figsize=(13, 8), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK)
    levels, demands, complaints, texts = figure.subplots(2, 2).flat

    for (split, scenarios), color, shift in zip(splits.items(), _COLORS, (-0.2, 0.2), strict=False):
        each = count_scenarios(scenarios)
        places = [level + shift for level in range(1, 6)]
        shares = [each.count_level(level) / each.records for level in range(1, 6)]
        levels.bar(places, shares, 0.38, color=color, label=f"{split}, {each.records:,} records")
        mix = generator.LEVEL_COUNTS[difficulty, split]
        wanted = [count / sum(mix) for count in mix]
        label = "the method" if split == "train" else None
        levels.plot(places, wanted, "D", color=INK, markersize=5, label=label, linestyle="none")
    levels.set_xticks(range(1, 6), [name.replace(" ", "\n", 1) for name in LEVELS])
    levels.set_title("Levels of cooperation, share of records")

    width = 0.8 / len(DEMANDS)
    for number, demand in enumerate(DEMANDS):
        places = [level + (number - (len(DEMANDS) - 1) / 2) * width for level in range(1, 6)]
        shares = [both.find_share(demand, level) for level in range(1, 6)]
        demands.bar(places, shares, 0.9 * width, color=_COLORS[number], label=demand.replace("_", " "))
        label = "the method" if number == 0 else None
        demands.plot(places, generator.DEMAND_WEIGHTS[demand], "D", color=INK, markersize=4, label=label)
    demands.set_xticks(range(1, 6), [f"level {level}" for level in range(1, 6)])
    demands.set_title("Demands, given the level")

    ranked = sorted(both.complaints.items(), key=lambda pair: pair[1])
    complaints.barh([name for name, _ in ranked], [count / both.records for _, count in ranked], color=_COLORS[0])
    complaints.set_title("Complaints, share of records")

    measured = measure_lengths(everything)
    bins = np.geomspace(min(map(min, measured.values())), max(map(max, measured.values())), 80)
    for (text, values), color in zip(measured.items(), _COLORS, strict=True):
        texts.hist(values, bins, histtype="stepfilled", color=color, alpha=0.7, label=f"{text}, up to {max(values):,}")
    texts.set_xscale("log")
    texts.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))
    texts.set_title("Records by length in characters")
    for axes in (levels, demands, complaints, texts):
        axes.title.set(ha="left", x=0, fontsize=10, fontweight="bold", color=INK)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(colors=INK, labelsize=8, length=0)
        axes.grid(axis="x" if axes is complaints else "y", alpha=0.25)
        axes.set_axisbelow(True)
        if axes is not complaints:
            axes.legend(fontsize=8, frameon=False, labelcolor=INK)
        if axes is not texts:
            share = axes.xaxis if axes is complaints else axes.yaxis
            share.set_major_locator(ticker.MaxNLocator(8, steps=[1, 2, 5, 10]))
            share.set_major_formatter(ticker.PercentFormatter(1, decimals=0))
    return figure


def run() -> None:
    """Prints the card of the records that the flags name, and draws it if asked."""
    data = command.CONFIG.value.data
    directory = tfds_dataset.prepare_records(data.difficulty, data.path, data.dir)
    splits = {split: list(tfds_dataset.PreparedRecords(directory, split)) for split in ("train", "test")}
    title = f"fds/{directory.parent.name}: " + (data.path or f"generated, {data.difficulty}")
    print(format_card(title, splits, data.difficulty))
    if _PNG.value:
        draw_card(title, splits, data.difficulty).savefig(_PNG.value, dpi=150)
        print(f"\ndrawn in {_PNG.value}")


if __name__ == "__main__":
    command.run(run, required=["config"])
