"""Evaluates an agent on held-out scenarios: ``python -m cmpo.evaluate --config=configs/fds.py --workdir=DIR``.

``--agent`` says who serves the customers, see `cmpo.agents`; by default the checkpoint in DIR.
"""

import json
import pathlib
from collections.abc import Sequence

import numpy as np
from absl import flags
from ml_collections import ConfigDict

from cmpo import agents, command, data, metrics, processes, rollout
from rollouts.seeds import fold

_SEEDS = flags.DEFINE_integer("seeds", 3, "Sets of held-out scenarios, each with randomness of its own.", lower_bound=1)
_OUT = flags.DEFINE_string("out", None, "JSON file to write; default: DIR/evaluation_AGENT.json.")

MEASURES = ("satisfaction", "voucher_rate", "finish_rate", "process_reward", "turns_mean", "dialogues_ok")


def evaluate(config: ConfigDict, served_by: rollout.Agents, seeds: int) -> list[dict]:
    """One record (see `metrics.rollout_record`) for each of `seeds` sets of held-out scenarios."""
    source = data.source(config.data.path, config.data.difficulty, config.train.seed)
    records = []
    for number in range(seeds):
        seed = config.eval.seed + number
        scenarios = source.held_out(config.eval.scenarios, seed)
        dialogues = rollout.collect(config, served_by, scenarios, repeats=1, seed=fold(seed, "evaluate"))
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
    config, agent, workdir = command.CONFIG.value, agents.AGENT.value, command.WORKDIR.value
    served_by, step = agents.load(config, agent, workdir)
    records = evaluate(config, served_by, _SEEDS.value)
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
