"""Writes demonstrations: ``python -m cmpo.demonstrate --config=configs/fds.py --agent=oracle --out=demos.jsonl``.

The agent that --agent names (see `cmpo.cli.agents`) plays --scenarios training scenarios --repeats times each. The
reward of a dialogue is the method's without its price: config.algo.outcome_weight times the satisfaction plus
config.algo.process_weight times the mean of the judge's scores. `select_dialogues` says which are kept: at most one
dialogue of each scenario, with the best rewards that keep the share of costly dialogues within config.pid.target. To
train on them: ``python -m cmpo.main --config.sft.path=demos.jsonl …``.
"""

import pathlib
from collections.abc import Callable, Sequence

import numpy as np
from absl import flags
from ml_collections import ConfigDict

from cmpo.algorithms.budgets import budgets_of
from cmpo.cli import agents, command
from cmpo.distributed import processes
from cmpo.evaluation.summary import summarize_batch
from cmpo.run import files
from cmpo.run.interrupt import Interrupts
from cmpo.run.journal import Page
from cmpo.run.workdir import hash_config, shapes_evaluation
from cmpo.training import collecting, demonstrations, tasks
from cmpo.training.clients import make_clients
from rollouts import domains
from rollouts.seeds import fold
from rollouts.types import Dialogue

_SCENARIOS = flags.DEFINE_integer("scenarios", None, "How many to play; default: config.sft.dialogues.", lower_bound=1)
_REPEATS = flags.DEFINE_integer("repeats", 4, "How often each is played.", lower_bound=1)


def compute_reward(config: ConfigDict, dialogue: Dialogue) -> float:
    """Computes what `dialogue` is worth without its costs."""
    process = np.mean([turn.process_reward for turn in dialogue.turns])
    return float(config.algo.outcome_weight * dialogue.outcome + config.algo.process_weight * process)


def select_dialogues(
    dialogues: Sequence[Dialogue], worth: Callable[[Dialogue], float], budget: float
) -> list[Dialogue]:
    """Selects the best dialogues: at most one of each scenario, and at most a share `budget` that cost the first cost.

    Only successful dialogues count in which the agent had a turn, and that are worth more than 0. First, the best
    dialogue without cost is kept for each scenario that has one. Then the cost is paid where it adds most. The best
    costly dialogue of each scenario is ranked by how much more it is worth than the one kept for that scenario (if
    there is none: than the mean of all kept, or than 0). From the top of this list down, each takes the place of
    the kept one if it adds something and the share of costly dialogues stays in the budget. This is the greedy
    solution of a knapsack: one price decides where the cost is paid.

    Returns them in the order of `dialogues`.
    """
    best: dict[bool, dict[str, Dialogue]] = {False: {}, True: {}}
    for dialogue in filter(lambda one: one.success and one.turns and worth(one) > 0, dialogues):
        ones = best[bool(dialogue.cost[0])]
        one = ones.setdefault(dialogue.task.id, dialogue)
        if worth(dialogue) > worth(one):
            ones[dialogue.task.id] = dialogue
    kept, paid = dict(best[False]), 0
    usual = float(np.mean([worth(dialogue) for dialogue in kept.values()])) if kept else 0.0
    gains = {name: worth(one) - (worth(kept[name]) if name in kept else usual) for name, one in best[True].items()}
    for name in sorted(gains, key=gains.get, reverse=True):
        if gains[name] > 0 and paid + 1 <= budget * len(kept | {name: None}):
            kept[name], paid = best[True][name], paid + 1
    chosen = {id(dialogue) for dialogue in kept.values()}
    return [dialogue for dialogue in dialogues if id(dialogue) in chosen]


def run() -> None:
    """Plays, selects, writes the file and prints what is in it."""
    config, out = command.CONFIG.value, pathlib.Path(command.OUT.value)
    files.make_parent_directory(out)
    domain = domains.load(config)
    if domain.costs[0].total != "any":
        raise ValueError(
            "config.pid.target: expected the first cost to be a share of dialogues, which a choice can keep to"
        )
    (cost, *_), (budget, *_) = domain.costs, budgets_of(domain, config)
    clients = make_clients(config)
    agent = agents.load(config, command.WORKDIR.value)
    source = tasks.open_source(config)
    scenarios = source.train(0, _SCENARIOS.value or config.sft.dialogues)
    seed = fold(config.train.seed, "demonstrations")
    identity = [agent.name, agent.step or 0, agent.opened.identity, _REPEATS.value]
    head = {"settings": hash_config(config, shapes_evaluation), "agent": identity}
    with (
        Page(out.with_name(f"{out.stem}.played"), head) as page,
        Interrupts() as interrupts,
        collecting.tell_what_is_kept(lambda: "what was answered is kept"),
    ):
        options = {"clients": clients, "page": page, "stopping": lambda: interrupts.received}
        dialogues = collecting.collect_dialogues(
            config, agent.opened, scenarios, repeats=_REPEATS.value, seed=seed, **options
        )
    kept = select_dialogues(dialogues, lambda dialogue: compute_reward(config, dialogue), budget)
    if not kept:
        raise ValueError(
            f"config.pid.target: none of {len(dialogues)} dialogues is finished, worth something "
            f"and within {budget:.0%} {cost.heading}"
        )
    if not processes.is_first():
        return
    demonstrations.write_conversations(out, map(demonstrations.from_dialogue, kept))
    page.remove()
    for name, some in (("played", dialogues), ("kept", kept)):
        found = summarize_batch(domain, some)
        print(
            f"{name}: {len(some)} dialogues, {found[domain.objective]:.2f} {domain.objective}, "
            f"{found[cost.measure]:.1%} {cost.heading}, {found['process_reward']:.2f} process reward"
        )
    print(f"written to {out}")


if __name__ == "__main__":
    command.run(run, required=["config", "out"])
