"""What a run writes to disk at each step, and resumes from: checkpoints, journal, metrics, transcripts."""

import contextlib
import functools
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from cmpo import algorithms
from cmpo.algorithms.budgets import budgets_of
from cmpo.distributed import processes
from cmpo.run.alarms import WINDOW, find_alarms
from cmpo.run.checkpoint import Checkpoints
from cmpo.run.journal import Journal
from cmpo.run.log import RunLog, read_metrics
from cmpo.run.progress import show_progress
from cmpo.run.tracking import Tracking
from cmpo.run.train_state import TrainState
from rollouts import domains
from rollouts.domain import Domain
from rollouts.types import Dialogue


class Recorder:
    """The records in `workdir`. A context manager: on leaving, it waits until all is written."""

    def __init__(self, config: ConfigDict, workdir: pathlib.Path, tracking: Tracking | None = None):
        self._config, self._name = config, workdir.name
        self._checkpoints = Checkpoints(
            workdir, keep=config.train.keep_checkpoints, score=make_checkpoint_score(config, workdir)
        )
        domain = domains.load(config)
        self._log = RunLog(workdir, domain.costs, tracking)
        self._shown = {
            domain.objective: domain.objective + " {:.2f}",
            **{cost.measure: f"{cost.name} {cost.form}" for cost in domain.costs},
            "lambda": "lambda {:.2f}",
            "finish_rate": "finished {:.0%}",
            "loss": "loss {:.4f}",
        }
        self.journal = Journal(workdir)
        budgets, prices = _price_budgets(config, domain)
        self._find_alarms = functools.partial(find_alarms, costs=domain.costs, budgets=budgets, bounds=prices)
        self._workdir, self._recent, self._alarms = workdir, [], {}

    def __enter__(self) -> "Recorder":
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._log)
            stack.enter_context(self._checkpoints)
            self._open = stack.pop_all()
        return self

    def __exit__(self, *error):
        return self._open.__exit__(*error)

    def resume(self, layout: Callable[[int], TrainState], first_state: Callable[[], TrainState]) -> TrainState:
        """Returns the newest sound checkpoint, or the first state, and removes records of later steps.

        `layout` gives shapes and shardings of the state after a number of steps.
        """
        state = self._checkpoints.restore(layout) or first_state()
        step, train = int(state.step), self._config.train
        processes.run_once(lambda: self._log.resume(step))
        if step and processes.is_first():
            self._recent = [record for record in read_metrics(self._workdir) if record["phase"] == "rl"][-WINDOW:]
        bar = show_progress(train.sft_steps + train.rl_steps, step, self._name, shown=self._shown)
        self._bar = self._open.enter_context(bar)
        return state

    def write_step(self, step: int, record: Mapping[str, Any], dialogues: Sequence[Dialogue]) -> None:
        """Writes a step's records, on process 0. Call before `save`: a checkpoint is never ahead of the metrics."""
        if processes.is_first():
            record = {"step": step, **record}
            if record["phase"] == "rl":
                record["alarms"] = self._watch_budgets(record)
            if dialogues:  # before the line: where a page or a reader sees a step, its dialogues are there
                self._log.write_transcripts(step, dialogues)
            self._log.write(record)
            self._bar.update(record)

    def _watch_budgets(self, record: Mapping[str, Any]) -> dict[str, str]:
        """Returns the alarms after a step of phase 2, and warns of each as it begins."""
        self._recent = [*self._recent[-WINDOW:], record]
        alarms = self._find_alarms(self._recent)
        for name in alarms.keys() - self._alarms.keys():
            logging.warning("step %d: the budget of %s may be out of reach: %s", record["step"], name, alarms[name])
        self._alarms = alarms
        return alarms

    def save(self, state: TrainState) -> None:
        """Begins to save `state`; see `Checkpoints.save`."""
        self.journal.remove_pages(self._checkpoints.save(state))

    def wait(self) -> None:
        """Waits until all is on disk. Raises OSError if that fails."""
        self.journal.remove_pages(self._checkpoints.wait())


def _price_budgets(config: ConfigDict, domain: Domain) -> tuple[list[float], list[float]]:
    """Returns each cost's budget, and the most that the algorithm may charge for a unit beyond it; both [C]."""
    return budgets_of(domain, config), algorithms.load(config, domain).prices().tolist()


def make_checkpoint_score(config: ConfigDict, workdir: pathlib.Path) -> Callable[[int], float]:
    """Returns a function from a step to the score of its checkpoint: `score_records` since the previous checkpoint.

    A unit beyond a budget costs the most that the algorithm may charge, which is 0 if it charges nothing.
    """
    every, domain = config.train.checkpoint_every, domains.load(config)
    budgets, prices = _price_budgets(config, domain)

    def score_checkpoint(step: int) -> float:
        booked = read_metrics(workdir) if (workdir / "metrics.jsonl").exists() else []
        records = [record for record in booked if step - every < record["step"] <= step]
        return score_records(domain, records, budgets=budgets, prices=prices)

    return score_checkpoint


def score_records(
    domain: Domain, records: Sequence[Mapping[str, Any]], *, budgets: Sequence[float], prices: Sequence[float]
) -> float:
    """Scores a policy: the mean of the domain's objective, less the excess over each budget times its price [C].

    Records without dialogues, such as those of phase 1, do not count. Without any others, the score is -inf.
    """
    seen = [record for record in records if record.get(domain.objective) is not None]
    if not seen:
        return -math.inf

    def average_over_steps(measure: str) -> float:
        return float(np.mean([record[measure] for record in seen]))

    beyond = [
        max(0.0, average_over_steps(cost.measure) - budget) for cost, budget in zip(domain.costs, budgets, strict=True)
    ]
    return average_over_steps(domain.objective) - float(np.dot(prices, beyond))
