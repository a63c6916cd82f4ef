"""Evaluates an agent on held-out scenarios: ``python -m cmpo.evaluate --config=configs/fds.py --workdir=DIR``.

``--agent=policy`` (default) is the checkpoint in DIR, ``start`` what phase 2 began with; ``never``, ``always``
and ``generous`` are scripted and need no DIR.
"""

import json
import pathlib
from collections.abc import Sequence

import numpy as np
from absl import flags
from ml_collections import ConfigDict

from cmpo import command, data, metrics, processes, rollout, setup, sharding
from cmpo import model as policy
from cmpo.checkpoint import Checkpoints
from models import tokenizer as tokenizers
from rollouts.scripted import HABITS
from rollouts.seeds import fold

_AGENT = flags.DEFINE_enum("agent", "policy", ["policy", "start", *HABITS], "Who serves the customers.")
_SEEDS = flags.DEFINE_integer("seeds", 3, "Sets of held-out scenarios, each with randomness of its own.", lower_bound=1)
_OUT = flags.DEFINE_string("out", None, "JSON file to write; default: DIR/evaluation_AGENT.json.")

MEASURES = ("satisfaction", "voucher_rate", "finish_rate", "process_reward", "turns_mean", "dialogues_ok")


def load_policy(config: ConfigDict, workdir: pathlib.Path, *, start: bool = False) -> tuple[rollout.Agents, int]:
    """The policy in `workdir`'s newest checkpoint, or the reference model it started from, and the step it is at.

    Raises FileNotFoundError or ValueError if there is no such checkpoint.
    """
    setup.check(workdir, config, prefix="model.")
    tokenizer = tokenizers.load(workdir / "tokenizer")
    model = policy.settled(config, workdir)
    mesh = setup.mesh(config, model)
    layout = setup.abstract_state(config, model, mesh)
    with Checkpoints(workdir, keep=config.train.keep_checkpoints) as checkpoints:
        state = checkpoints.restore(layout)
    if state is None:
        raise FileNotFoundError(f"--workdir: no checkpoint in {str(workdir)!r} yet")
    if start and int(state.step) <= config.train.sft_steps:
        raise ValueError(f"--agent=start: phase 2 has not begun in {str(workdir)!r}; --agent=policy is that model")
    engine = setup.engine(config, model, mesh, tokenizer, temperature=config.eval.temperature)
    frozen = policy.frozen(model, mesh, policy.source(config, workdir), config.train.seed)
    engine.load(sharding.make_publish(model, mesh)(frozen, state.reference if start else state.params))
    return rollout.policy_agents(engine, tokenizer), int(state.step)


def evaluate(config: ConfigDict, agents: rollout.Agents, seeds: int) -> list[dict]:
    """One record (see `metrics.rollout_record`) for each of `seeds` sets of held-out scenarios."""
    source = data.source(config.data.path, config.data.difficulty, config.train.seed)
    records, clients = [], rollout.chat_clients(config)
    for number in range(seeds):
        seed = config.eval.seed + number
        scenarios = source.held_out(config.eval.scenarios, seed)
        dialogues = rollout.collect(config, agents, scenarios, repeats=1, seed=fold(seed, "evaluate"), clients=clients)
        records.append({"seed": seed, **metrics.rollout_record(dialogues)})
    return records


def summarize(records: Sequence[dict]) -> dict[str, dict[str, float]]:
    """Mean and sample standard deviation over the seeds, by measure (0 with a single seed)."""
    values = {name: np.array([record[name] for record in records], float) for name in MEASURES}
    return {
        name: {"mean": float(x.mean()), "std": float(x.std(ddof=1)) if len(x) > 1 else 0.0}
        for name, x in values.items()
    }


def table(agent: str, summary: dict[str, dict[str, float]], seeds: int) -> str:
    """The summary as Markdown."""
    lines = [f"| {agent}, {seeds} seeds | mean | std |", "|---|---|---|"]
    lines += [f"| {name} | {x['mean']:.3f} | {x['std']:.3f} |" for name, x in summary.items()]
    return "\n".join(lines)


def run() -> None:
    """Evaluates what the flags name, prints the table and writes the JSON file."""
    config, agent, workdir, step = command.CONFIG.value, _AGENT.value, command.WORKDIR.value, None
    if agent in HABITS:
        agents = rollout.scripted_agents(agent)
    elif workdir is None:
        raise ValueError(f"--workdir: expected the directory of a run for --agent={agent}")
    else:
        agents, step = load_policy(config, pathlib.Path(workdir), start=agent == "start")
    records = evaluate(config, agents, _SEEDS.value)
    if not processes.is_first():
        return
    summary = summarize(records)
    print(table(agent, summary, _SEEDS.value))
    out = pathlib.Path(_OUT.value or pathlib.Path(workdir or ".") / f"evaluation_{agent}.json")
    result = {"agent": agent, "step": step, "summary": summary, "seeds": records, "config": config.to_dict()}
    out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"written to {out}")


if __name__ == "__main__":
    command.run(run, required=["config"])
