"""Holds estimators of the gradient against the truth, in the lab: bias, noise and direction, over a run.

    .venv/bin/python -m benchmarks.estimators [--runs=FILE,…] [--json=FILE] [--figure=FILE]

Policies are the start of runs, and those that runs of 20 and of 60 steps end with. Of each, the true gradients are
sampled with a million dialogues (`cmpo.lab.truth`), and every estimator gets the same batches of 64 dialogues. A
small case is solved exactly as well. --runs names files of `python -m cmpo.lab --out`, whose budget
and share of the gain stand beside the estimators.

Legend: K = `truth.MEASURES`, P parameters, C chunks.
"""

import argparse
import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from benchmarks.lab import name_processor
from cmpo.advantage import CREDIT, NORMALIZE
from cmpo.cli import command
from cmpo.evaluation import tables
from cmpo.lab import estimators, exact, learning, truth
from cmpo.lab.actor import Actor
from cmpo.lab.estimators import Estimator
from cmpo.lab.plan import LabConfig
from rollouts.domains.fds.lab import environment

CONFIG = LabConfig(kp=4.0, scenarios=16, dialogues=4)
"""Of the batches. The run has the trainer's 12 scenarios of 4."""

STEPS = (0, 20, 60)
PRICES = (0.5, 1.0, 2.0)
SHOWN = 1.0  # the price of the tables
GROUPS = (2, 8, 32)
LEAST = 0.05  # vouchers a dialogue; with fewer, what could be gained is too little for a share of it to say much
ALL = (
    *(
        Estimator(credit, normalize)
        for credit in CREDIT
        for normalize in NORMALIZE
        if (credit, normalize) != ("dialogue", "trajectory")
    ),
    *(Estimator("gae", trace=trace) for trace in (0.0, 0.5, 0.95, 1.0)),
)
COMPARED = (
    Estimator("cost_to_go", "center"),
    Estimator("cost_to_go", "group"),
    Estimator("return_to_go", "center"),
    Estimator("dialogue", "group"),
)
NAMED = {
    "ours": Estimator("cost_to_go", "center"),
    "the paper's": Estimator("instant", "trajectory"),
    "the authors' code's": Estimator("dialogue", "group"),
}
OBJECTIVES = ("mean", "sum")
"""Whether a dialogue's process reward is the mean over its turns, or their sum."""

CHUNK, ROWS = 2048, 6  # dialogues of a chunk, turns of one that are computed with, on average
BATCHES = 32  # of a chunk


class Truth(NamedTuple):
    """True gradients of a policy."""

    policy: Actor
    critic: truth.MeasureCritic  # that sees what an agent sees
    gradients: np.ndarray  # [C, K, P], per turn
    means: np.ndarray  # [K + 1], and the turns


def weigh_measures(objective: str, price: float) -> np.ndarray:
    """Returns the weights of `truth.MEASURES` in `w_O R_O + w_P R_P - price * cost`, [K]."""
    process = {"sum": (1.0, 0.0), "mean": (0.0, 1.0)}[objective]
    return np.array([1.0, process[0], -price, process[1]])


def train_policies(steps: Sequence[int]) -> list[Actor]:
    """Trains policies for so many steps, with seed 0, our estimator, and a budget of 30 %."""
    start = learning.make_start(CONFIG)
    configs = [dataclasses.replace(CONFIG, scenarios=12, steps=max(count, 1), rests=0) for count in steps]
    train = jax.jit(learning.train)
    return [train(config, 0, start).policy if count else start for config, count in zip(configs, steps, strict=True)]


def find_truth(number: int, policy: Actor, chunks: int) -> Truth:
    """Samples the true gradients of a policy."""
    key, fit_key = jax.random.split(jax.random.fold_in(jax.random.key(1), number))
    full, critic = jax.jit(truth.fit_critics, static_argnames="count")(fit_key, CONFIG, policy, count=8192)
    keys = jax.random.split(key, chunks)
    found = truth.sample_gradients(keys, CONFIG, policy, full, size=CHUNK, rows=ROWS * CHUNK)
    gradients, means, left_out = map(np.asarray, found)
    check_complete(left_out)
    return Truth(policy, critic, gradients / means[:, -1].mean(), means.mean(0))


def compare_estimators(
    number: int, found: Truth, some: Sequence[Estimator], batches: int, dialogues: int = CONFIG.dialogues
) -> list[dict[str, Any]]:
    """Compares estimators in groups of `dialogues` with the truth at every price; a record for each objective."""
    total = CONFIG.scenarios * CONFIG.dialogues
    config = dataclasses.replace(CONFIG, scenarios=total // dialogues, dialogues=dialogues)
    keys = jax.random.split(jax.random.fold_in(jax.random.key(2), number), batches // BATCHES)
    goal = jnp.asarray(found.gradients.mean(0), jnp.float32)
    options = {"estimators": tuple(some), "batches": BATCHES, "rows": (ROWS + 2) * total}
    prices = jnp.array(PRICES)
    said, left_out = estimators.sample_batches(keys, config, found.policy, found.critic, goal, prices, **options)
    check_complete(left_out)
    said = jax.tree.map(np.asarray, said)
    return [
        {"steps": STEPS[number], "dialogues": dialogues, "estimator": one.name, "price": price, "objective": objective}
        | estimators.compare_gradients(said, (row, column), found.gradients, weigh_measures(objective, price))._asdict()
        for row, one in enumerate(some)
        for column, price in enumerate(PRICES)
        for objective in OBJECTIVES
    ]


def check_complete(left_out: int) -> None:
    """Raises RuntimeError if turns were left out, as they would bias what is measured."""
    if left_out:
        raise RuntimeError(f"ROWS: expected room for all turns, but {left_out} were left out; raise it")


def measure_exactly(policy: Actor, chunks: int) -> dict[str, float]:
    """Samples the gradients of a case that is solved exactly as well: how far off they are, beside their error.

    In it four customers who were heard and have shown evidence have two turns left.
    """
    roots = jax.tree.map(np.asarray, jax.vmap(environment.reset)(jax.random.split(jax.random.key(3), 4)))
    same = np.ones(4, np.int32)
    roots = roots._replace(
        turns=13 * same, mood=roots.mood._replace(heard=same, evidence=2 * same, anger=0 * same, trust=same)
    )
    layers = exact.list_layers(roots, max_turns=15)
    weights = np.full(4, 0.25, np.float32)
    solved = jax.jacrev(lambda policy: jnp.stack(exact.expect_dialogue(policy, layers, weights)))(policy)
    flat = jax.vmap(lambda tree: jax.flatten_util.ravel_pytree(tree)[0])(solved)
    places = [exact.Values._fields.index(name) for name in truth.MEASURES]
    goal = weigh_measures("sum", SHOWN) @ np.asarray(flat)[places]
    full, _ = jax.jit(truth.fit_critics, static_argnames="count")(jax.random.key(4), CONFIG, policy, count=2048)
    many = jax.tree.map(lambda x: np.repeat(x, CHUNK // 4, 0), roots)
    keys = jax.random.split(jax.random.key(5), chunks)
    found = truth.sample_gradients(keys, CONFIG, policy, full, many, size=CHUNK, rows=2 * CHUNK)
    check_complete(found[2])
    parts = np.tensordot(np.asarray(found[0], np.float64), weigh_measures("sum", SHOWN), (1, 0))
    return {
        "states": sum(len(layer.seen) for layer in layers),
        "norm": float(np.linalg.norm(goal)),
        "off": float(np.linalg.norm(parts.mean(0) - goal)),
        "error": float(np.sqrt(parts.var(0, ddof=1).sum() / len(parts))),
    }


def read_runs(files: Sequence[pathlib.Path]) -> dict[str, dict[str, Any]]:
    """Reads what whole runs came to, by the name of their estimator."""
    found = [one for file in files for one in json.loads(file.read_text())]
    return {Estimator(one["config"]["credit"], one["config"]["normalize"]).name: one for one in found}


def format_estimators(records: Sequence[Mapping[str, Any]], runs: Mapping[str, Mapping[str, Any]]) -> str:
    """Formats what estimators are like at SHOWN, in the middle of the run, and how whole runs with them end."""
    head = ["estimator", "cosine", "to the sum's", "bias across, %", "noise", "of one batch", "price felt"]
    head += ["vouchers, %", "off the budget, points", "share of the gain, %"]
    rows = []
    for one in pick(records, objective="mean", steps=STEPS[1]):
        (other,) = pick(records, objective="sum", steps=STEPS[1], estimator=one["estimator"])
        run = runs.get(one["estimator"])
        ends = ["–"] * 3
        if run:
            share = f"{100 * run['gain']:.0f}" if run["ended"] >= LEAST else "–"
            ends = [f"{100 * run['ended']:.1f}", f"{100 * run['miss']:.1f}", share]
        rows.append(
            [
                one["estimator"],
                f"{one['cosine']:.2f} ± {one['cosine_error']:.2f}",
                f"{other['cosine']:.2f}",
                f"{100 * one['beside']:.0f}",
                f"{one['noise']:.1f}",
                f"{one['single']:.2f}",
                f"{one['felt']:.2f}",
                *ends,
            ]
        )
    return tables.format_table(head, rows)


def format_curves(records: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    """Formats the cosine with the true gradient over the run, at every price."""
    head = ["estimator", *(f"{steps} steps, {price:g}" for steps in STEPS for price in PRICES)]
    rows = []
    for name in names:
        some = [
            pick(records, objective="mean", estimator=name, steps=steps, price=price)[0]
            for steps in STEPS
            for price in PRICES
        ]
        rows.append([name, *(f"{one['cosine']:.2f}" for one in some)])
    return tables.format_table(head, rows)


def format_groups(records: Sequence[Mapping[str, Any]]) -> str:
    """Formats cosine and noise by the size of groups, at SHOWN."""
    rows = []
    for one in COMPARED:
        some = [pick(records, objective="mean", estimator=one.name, dialogues=dialogues)[0] for dialogues in GROUPS]
        rows.append([one.name, *(f"{found['cosine']:.2f}, {found['noise']:.1f}" for found in some)])
    return tables.format_table(["estimator", *(f"G = {dialogues}" for dialogues in GROUPS)], rows)


def pick(records: Sequence[Mapping[str, Any]], **wanted: Any) -> list[Mapping[str, Any]]:
    """Picks records; the price is SHOWN where none is asked for."""
    wanted = {"price": SHOWN} | wanted
    return [one for one in records if all(one[key] == value for key, value in wanted.items())]


def draw_estimators(
    records: Sequence[Mapping[str, Any]], groups: Sequence[Mapping[str, Any]], runs: Mapping[str, Mapping[str, Any]]
) -> Figure:
    """Draws the cosine over the run, one batch's by the size of groups, and the miss of whole runs by the cosine."""
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    curves, sizes, shares = figure.subplots(1, 3)
    shown = {**{one.name: name for name, one in NAMED.items()}, "return_to_go, center": "return_to_go, center"}
    shown |= {"instant, center": "instant, center", "gae, trace 0.95": "gae, trace 0.95"}
    for number, (name, label) in enumerate(shown.items()):
        label = f"{name} ({label})" if label != name else name
        for price, style in ((SHOWN, "-"), (PRICES[-1], "--")):
            some = [pick(records, objective="mean", estimator=name, steps=steps, price=price)[0] for steps in STEPS]
            values, errors = ([one[key] for one in some] for key in ("cosine", "cosine_error"))
            how = {"marker": "o", "capsize": 2, "linestyle": style, "color": f"C{number}", "label": label}
            curves.errorbar(STEPS, values, errors, **how)
            label = None
    curves.set(xlabel=f"steps of training; price {SHOWN:g}, and {PRICES[-1]:g} (dashed)")
    curves.set(ylabel="cosine with the true gradient", title="direction of the mean")
    curves.axhline(0, color="grey", linewidth=0.5)
    curves.legend(fontsize=6)
    for one in COMPARED:
        some = [pick(groups, objective="mean", estimator=one.name, dialogues=dialogues)[0] for dialogues in GROUPS]
        sizes.plot(GROUPS, [found["single"] for found in some], marker="o", label=one.name)
    sizes.set(xscale="log", xticks=GROUPS, xticklabels=GROUPS, xlabel="dialogues of a group, of 64 in a batch")
    sizes.set(ylabel="mean cosine of one batch", title="direction of a batch")
    sizes.minorticks_off()
    sizes.legend(fontsize=6)
    for one in pick(records, objective="mean", steps=STEPS[1]):
        if run := runs.get(one["estimator"]):
            place = one["cosine"], 100 * run["miss"]
            shares.scatter(*place, color="tab:blue", s=14)
            if run["miss"] > 0.09:  # the others are on top of each other
                shares.annotate(one["estimator"].replace(", ", "\n"), place, fontsize=5)
    shares.set(xlabel="cosine with the true gradient", ylabel="points off the budget in the end")
    shares.set(title="whole runs")
    return figure


def main() -> None:
    """Prints the tables; with --json and --figure, writes what is in them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chunks", type=int, default=512, help=f"of {CHUNK} dialogues for each true gradient")
    parser.add_argument("--batches", type=int, default=1024, help="of 64 dialogues for each estimator")
    parser.add_argument("--runs", default="", help="files of `python -m cmpo.lab --out`, with commas")
    parser.add_argument("--json", type=pathlib.Path, help="also write the figures there")
    parser.add_argument("--figure", type=pathlib.Path, help="also draw them there")
    arguments = parser.parse_args()
    command.keep_programs()
    print(f"{name_processor()}; load {os.getloadavg()[0]:.1f} at the beginning\n", flush=True)
    runs = read_runs([pathlib.Path(name) for name in arguments.runs.split(",") if name])
    policies = train_policies(STEPS)
    truths = [find_truth(number, policy, arguments.chunks) for number, policy in enumerate(policies)]
    errors = {}
    for steps, found in zip(STEPS, truths, strict=True):
        for objective in OBJECTIVES:
            parts = np.tensordot(found.gradients.astype(np.float64), weigh_measures(objective, SHOWN), (1, 0))
            error = np.sqrt(parts.var(0, ddof=1).sum() / len(parts))
            errors[f"{steps} steps, {objective}"] = float(error / np.linalg.norm(parts.mean(0)))
    means = [dict(zip((*truth.MEASURES, "turns"), found.means.tolist(), strict=True)) for found in truths]
    print("standard error of the true gradients, of their norm:", errors)
    print("the policies:", means, "\n", flush=True)
    records = [
        one for number, found in enumerate(truths) for one in compare_estimators(number, found, ALL, arguments.batches)
    ]
    whole = {"errors": errors, "policies": means, "estimators": records}
    write(arguments.json, whole)
    print(format_estimators(records, runs), "\n")
    print(format_curves(records, [one.name for one in ALL]), "\n", flush=True)
    groups = [
        one for dialogues in GROUPS for one in compare_estimators(1, truths[1], COMPARED, arguments.batches, dialogues)
    ]
    write(arguments.json, whole | {"groups": groups})
    print(format_groups(groups), "\n", flush=True)
    if arguments.figure:
        draw_estimators(records, groups, runs).savefig(arguments.figure, dpi=100)
    small = measure_exactly(policies[1], max(2, arguments.chunks // 4))
    print(f"a case that is solved exactly: {small}")
    write(arguments.json, whole | {"groups": groups, "exact": small})


def write(path: pathlib.Path | None, found: Mapping[str, Any]) -> None:
    """Writes what is found so far, if a file is named: on a busy machine it takes an hour to find it all."""
    if path:
        text = (
            json.dumps(found, indent=1).replace("Infinity", "null").replace("NaN", "null")
        )  # which JSON does not know
        path.write_text(text + "\n")


if __name__ == "__main__":
    main()
