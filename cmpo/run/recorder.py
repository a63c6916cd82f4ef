"""What a run leaves on disk step by step, and takes up again: checkpoints, journal, metrics, transcripts."""

import contextlib
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from cmpo.distributed import processes
from cmpo.run.checkpoint import Checkpoints
from cmpo.run.journal import Journal
from cmpo.run.log import RunLog, read_metrics
from cmpo.run.progress import show_progress
from cmpo.run.train_state import TrainState
from rollouts import domains
from rollouts.types import Dialogue


class Records:
    """The records in `workdir`; use as a context manager, which on leaving waits for what is being written."""

    def __init__(self, config: ConfigDict, workdir: pathlib.Path):
        self._config, self._name = config, workdir.name
        self._checkpoints = Checkpoints(workdir, keep=config.train.keep_checkpoints, score=scores(config, workdir))
        self._log = RunLog(workdir, domains.load(config.domain).costs)
        self.journal = Journal(workdir)

    def __enter__(self) -> "Records":
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._log)
            stack.enter_context(self._checkpoints)
            self._open = stack.pop_all()
        return self

    def __exit__(self, *error):
        return self._open.__exit__(*error)

    def resume(self, like: TrainState, first_state: Callable[[], TrainState]) -> TrainState:
        """The newest sound checkpoint, laid out like `like`, or the first state; forgets all that came after it."""
        state = self._checkpoints.restore(like) or first_state()
        step, train = int(state.step), self._config.train
        processes.once(lambda: self._log.resume(step))
        self._bar = self._open.enter_context(show_progress(train.sft_steps + train.rl_steps, step, self._name))
        return state

    def write(self, step: int, record: Mapping[str, Any], dialogues: Sequence[Dialogue]) -> None:
        """Books a step, on process 0. Its checkpoint comes after this, so none is ever ahead of the metrics."""
        if processes.is_first():
            self._log.write({"step": step, **record})
            self._bar.update(record)
            if dialogues:
                self._log.transcripts(step, dialogues)

    def save(self, state: TrainState) -> None:
        """Begins to save `state`; see `Checkpoints.save`."""
        self.journal.forget(self._checkpoints.save(state))

    def wait(self) -> None:
        """Waits until all is on disk. Raises OSError if it cannot be."""
        self.journal.forget(self._checkpoints.wait())


def scores(config: ConfigDict, workdir: pathlib.Path) -> Callable[[int], float]:
    """The score of a checkpoint by its step: see `score_records`, over the steps since the checkpoint before.

    A voucher beyond the budget costs config.pid.lambda_max, the most that the controller may charge; nothing where
    there is no controller.
    """
    every, pid = config.train.checkpoint_every, config.pid

    def score(step: int) -> float:
        booked = read_metrics(workdir) if (workdir / "metrics.jsonl").exists() else []
        records = [record for record in booked if step - every < record["step"] <= step]
        return score_records(records, target=pid.target, price=pid.lambda_max if pid.enabled else 0.0)

    return score


def score_records(records: Sequence[Mapping[str, Any]], *, target: float, price: float) -> float:
    """How good a policy was: mean satisfaction less `price` times what the mean voucher rate is above `target`.

    Records without dialogues, as of phase 1, do not count; -inf where there are no others.
    """
    seen = [record for record in records if record.get("satisfaction") is not None]
    if not seen:
        return -math.inf
    satisfaction, rate = (float(np.mean([record[key] for record in seen])) for key in ("satisfaction", "voucher_rate"))
    return satisfaction - price * max(0.0, rate - target)
