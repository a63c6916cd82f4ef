"""Evaluates an agent on held-out scenarios: ``python -m cmpo.evaluate --config=configs/fds.py --workdir=DIR``.

``--agent`` names the agent, see `cmpo.cli.agents`; by default it is the checkpoint in DIR. docs/evaluation.md says what
is measured and how; ``python -m cmpo.compare`` compares two results. --shift measures it on words and facts that it was
not trained on. --out is the JSON file to write (by default DIR/evaluation_AGENT.json, or evaluation_AGENT_SHIFT.json);
the dialogues are written beside it. A run's page shows every evaluation_*.json in its directory.
"""

import collections
import contextlib
import hashlib
import json
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from absl import flags
from ml_collections import ConfigDict

import rollouts
from cmpo.cli import agents, command
from cmpo.distributed import processes
from cmpo.evaluation import conditions, measures
from cmpo.reports.run_page import write_report
from cmpo.run import files, schema
from cmpo.run.interrupt import Interrupts
from cmpo.run.journal import Page
from cmpo.run.json_lines import to_json_value, write_lines
from cmpo.run.progress import show_progress
from cmpo.run.transcripts import to_transcript
from cmpo.run.workdir import hash_config, shapes_evaluation
from cmpo.training import collecting, tasks
from cmpo.training.clients import Clients, make_clients
from rollouts import domains
from rollouts.seeds import fold
from rollouts.types import Dialogue

_SEEDS = flags.DEFINE_integer(
    "seeds", 3, "Number of sets of held-out scenarios, each with its own randomness.", lower_bound=1
)

_SHIFT = flags.DEFINE_string(
    "shift",
    None,
    "How held-out scenarios are shifted away from those of training, in domains that have shifts: of FDS none, "
    "phrasing, noise, facts, all; default: the config's.",
)


class EvaluatedDialogue(NamedTuple):
    """A dialogue of an evaluation."""

    seed: int
    dialogue: Dialogue
    evaluations: Mapping[str, Any]  # by rubric; {} where the dialogue failed or no judge was asked


def play_evaluation(
    config: ConfigDict,
    served_by: collecting.Agents,
    seeds: int,
    clients: Clients | None = None,
    *,
    pages: Callable[[int], contextlib.AbstractContextManager[Page | None]] = lambda seed: contextlib.nullcontext(),
    stopping: Callable[[], bool] = lambda: False,
) -> list[EvaluatedDialogue]:
    """Plays `seeds` sets of held-out scenarios, one dialogue each; has them evaluated under config.eval.evaluators.

    Paid answers are kept in the page of their seed. For `stopping`, and errors, see `collecting.collect_dialogues`.
    """
    source = tasks.open_source(config)
    clients = clients or make_clients(config)
    numbers = range(config.eval.seed, config.eval.seed + seeds)
    sets = {seed: source.held_out(config.eval.scenarios, seed) for seed in numbers}
    for scenarios in sets.values():
        served_by.check(scenarios)
    evaluated = config.eval.evaluators and "judge" in clients  # a domain may have no judge
    played, rounds = [], 1 + evaluated
    total = seeds * config.eval.scenarios * rounds
    with show_progress(total, description="evaluation", every=max(1, total // 10)) as bar:

        def advance_bar() -> None:
            bar.update({})

        for seed, scenarios in sets.items():
            with pages(seed) as page:
                shared = {"clients": clients, "done": advance_bar, "page": page, "stopping": stopping}
                randomness = fold(seed, "evaluate")
                dialogues = collecting.collect_dialogues(
                    config, served_by, scenarios, repeats=1, seed=randomness, **shared
                )
                evaluations: Sequence[Mapping[str, Any]] = [{}] * len(dialogues)
                if evaluated:
                    evaluations = collecting.evaluate_dialogues(
                        config, dialogues, seed=fold(seed, "evaluators"), **shared
                    )
            played += [EvaluatedDialogue(seed, *pair) for pair in zip(dialogues, evaluations, strict=True)]
    return played


def compose_result(
    config: ConfigDict,
    agent: str,
    played: Sequence[EvaluatedDialogue],
    *,
    step: int | None = None,
    remote: bool = False,
    run: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Composes the result of an evaluation, ready for JSON: measures, conditions, and a row for each dialogue.

    Every number follows from its `dialogues`. `remote` says that the agent is the endpoint config.agent. `run` is the
    config that the agent was trained with, if a run here trained it.
    """
    domain = domains.load(config)
    rows = [measures.describe_dialogue(domain, *one) for one in played]
    settings = config.to_dict()
    asked = {name: name for name in domain.endpoints} | ({"agent_endpoint": "agent"} if remote else {})
    seeds = []
    for seed in dict.fromkeys(one.seed for one in played):
        tasks_of_it = [one.dialogue.task for one in played if one.seed == seed]
        means = measures.average_rows(domain, [row for row in rows if row["seed"] == seed])
        seeds.append({"seed": seed, "scenarios": domain.digest(tasks_of_it), **means})
    found = {
        "agent": agent,
        "step": step,
        **{name: {key: settings[field][key] for key in ("url", "model")} for name, field in asked.items()},
        "prompts": domain.prompts(),
        "code": _hash_sources(),
        "since_training": None if run is None else conditions.compare_with_training(run, settings),
        "summary": measures.summarize_rows(domain, rows),
        **{f"by_{key}": measures.summarize_groups(domain, rows, key) for key in domain.groups},
        "ends": dict(collections.Counter(row["end"] for row in rows if not row["failure"])),
        "failures": measures.count_failures(rows),
        "replaced": dict(collections.Counter(cause for row in rows for cause in row["replaced"])),
        "seeds": seeds,
        "config": settings,
        "dialogues": rows,
    }
    return to_json_value(found)


def format_report(found: Mapping[str, Any]) -> str:
    """Formats the tables of a result as Markdown, how dialogues ended, and what failed."""
    seeds = len(found["seeds"])
    domain = domains.load(found["config"])
    parts = [measures.format_table(domain, f"{found['agent']}, {seeds} seed{'s' * (seeds > 1)}", found["summary"])]
    parts += [measures.format_breakdown(domain, key, found[f"by_{key}"]) for key in domain.groups]
    if told := conditions.describe_training(found):
        parts.append(told)
    if found["ends"]:
        parts.append(f"ended: {_format_counts(found['ends'])}")
    if found["replaced"]:
        parts.append(f"played again after a failure: {_format_counts(found['replaced'])}")
    parts += [f"failed: {x['count']} {cause}; the last: {x['message']}" for cause, x in found["failures"].items()]
    return "\n\n".join(parts)


def shift_tasks(config: ConfigDict, shift: str) -> None:
    """Shifts the held-out tasks of a config. Raises ValueError for a domain without shifts, or an unknown one."""
    field = domains.load(config).shift
    if not field:
        raise ValueError(f"--shift: expected a domain that has shifts, such as fds, got {domains.name_of(config)!r}")
    config.update_from_flattened_dict({field: shift})
    schema.check_config(config)


def run() -> None:
    """Evaluates what the flags name, prints the tables and writes the files.

    If it is stopped, paid answers are kept beside --out, and the same command goes on from there.
    """
    config, workdir = command.CONFIG.value, command.WORKDIR.value
    if _SHIFT.value is not None:
        shift_tasks(config, _SHIFT.value)
    clients = make_clients(config)  # checks them before a model is loaded
    agent = agents.load(config, workdir)
    slug = re.sub(r"[^\w.-]+", "-", agent.name + (f"_{_SHIFT.value}" if _SHIFT.value else ""))
    out = pathlib.Path(command.OUT.value or pathlib.Path(workdir or ".") / f"evaluation_{slug}.json")
    files.make_parent_directory(out)
    head = {
        "settings": hash_config(config, shapes_evaluation),
        "agent": [agent.name, agent.step or 0, agent.opened.identity],
    }
    pages = {}

    def find_page(seed: int) -> Page:
        return pages.setdefault(seed, Page(out.with_name(f"{out.stem}.seed_{seed}"), head))

    with Interrupts() as interrupts, collecting.tell_what_is_kept(lambda: "what was answered is kept"):
        options = {"pages": find_page, "stopping": lambda: interrupts.received}
        played = play_evaluation(config, agent.opened, _SEEDS.value, clients, **options)
    if not processes.is_first():
        return
    run = None if agent.step is None else files.read_object(pathlib.Path(workdir, "config.json"))
    found = compose_result(config, agent.name, played, step=agent.step, remote=agent.remote, run=run)
    print(format_report(found))
    transcripts = write_result(out, found, played)
    for each in pages.values():
        each.remove()
    print(f"written to {out}; the dialogues in {transcripts}")
    if out.match("evaluation_*.json") and (out.parent / "metrics.jsonl").exists():
        print(f"the page of the run: {write_report(out.parent)}")


def write_result(out: pathlib.Path, found: Mapping[str, Any], played: Sequence[EvaluatedDialogue]) -> pathlib.Path:
    """Writes the dialogues and then the result, whole or not at all; returns the path of the first. Raises OSError."""
    transcripts, costs = out.with_suffix(".transcripts.jsonl"), domains.load(found["config"]).costs
    write_lines(transcripts, [{"seed": one.seed, **to_transcript(one.dialogue, costs)} for one in played])
    # Last, as a sweep takes it for the end of an evaluation.
    files.replace_file(out, json.dumps(found, indent=2, allow_nan=False) + "\n")
    return transcripts


def _format_counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _hash_sources() -> str:
    """Returns the SHA-256 of the sources that play and judge dialogues, with the rules of the embedded gym."""
    root = pathlib.Path(rollouts.__file__).parent
    paths = (path for ending in ("py", "txt") for path in root.rglob(f"*.{ending}"))
    sources = {str(path.relative_to(root)): path.read_bytes() for path in paths}
    return hashlib.sha256(repr(sorted(sources.items())).encode()).hexdigest()


if __name__ == "__main__":
    command.run(run, required=["config"])
