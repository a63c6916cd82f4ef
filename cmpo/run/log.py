"""Writes what a run leaves at each step: a line of numbers, TensorBoard events, transcripts; W&B's, if asked for."""

import json
import os
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

from cmpo.run import files
from cmpo.run.json_lines import read_lines, to_json_value, write_lines
from cmpo.run.tracking import Tracking
from cmpo.run.transcripts import to_transcript
from rollouts.domain import Cost
from rollouts.types import Dialogue


class RunLog:
    """Writes metrics.jsonl, tensorboard/ and transcripts/ below `workdir`. A context manager; one per run.

    `costs` are the domain's. What is written to TensorBoard is given to `tracking`, too. `step` goes on counting in the
    next phase. After a restart, call `resume` before the first `write`.
    """

    def __init__(self, workdir: str | os.PathLike, costs: Sequence[Cost], tracking: Tracking | None = None):
        self._dir, self._costs, self._tracking = pathlib.Path(workdir), costs, tracking or Tracking()
        self._dir.mkdir(parents=True, exist_ok=True)
        self._purge_step = None
        self._writer = None

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *_):
        if self._writer is not None:
            self._writer.close()

    def write(self, record: Mapping[str, Any]) -> None:
        """Appends one record, which has a `step` and a `phase`, to metrics.jsonl and mirrors it to TensorBoard.

        Arrays and numpy scalars become plain numbers, non-finite numbers null. TensorBoard gets every number under
        `phase/key`, and every number nested one level deeper under `phase/key/inner`.
        """
        record = to_json_value(record)
        step, phase = record["step"], record["phase"]
        files.append_text(self._dir / "metrics.jsonl", json.dumps(record, allow_nan=False) + "\n")
        writer, numbers = self._open_tensorboard(), {}
        for key, value in record.items():
            inner = {f"{key}/{name}": number for name, number in value.items()} if isinstance(value, dict) else {}
            for tag, number in (inner or {key: value}).items():
                if isinstance(number, int | float) and tag != "step":
                    numbers[f"{phase}/{tag}"] = number
        for tag, number in numbers.items():
            writer.add_scalar(tag, number, step)
        writer.flush()
        self._tracking.write(numbers, step)

    def resume(self, step: int) -> None:
        """Forgets all lines and transcripts after `step`, and a last line that a crash left half-written."""
        self._purge_step = step + 1
        path = self._dir / "metrics.jsonl"
        if path.exists():
            kept = [record for record in read_metrics(self._dir) if record["step"] <= step]
            write_lines(path, kept)
        for path in (self._dir / "transcripts").glob("step_*.jsonl"):
            if int(path.stem.removeprefix("step_")) > step:
                path.unlink()

    def write_transcripts(self, step: int, dialogues: Sequence[Dialogue]) -> pathlib.Path:
        """Writes transcripts/step_NNNNNN.jsonl, one object per dialogue; returns its path."""
        path = self._dir / "transcripts" / f"step_{step:06d}.jsonl"
        path.parent.mkdir(exist_ok=True)
        write_lines(path, [to_transcript(dialogue, self._costs) for dialogue in dialogues])
        return path

    def _open_tensorboard(self):
        if self._writer is None:
            from tensorboardX import SummaryWriter

            # Event files are named by the second; the suffix keeps a quick restart from overwriting its predecessor.
            suffix = f".{time.time_ns()}"
            logdir = str(self._dir / "tensorboard")
            self._writer = SummaryWriter(logdir, purge_step=self._purge_step, filename_suffix=suffix)
        return self._writer


def read_multiplier(record: Mapping[str, Any], cost: Cost) -> float | None:
    """Reads a cost's multiplier from a record, which has one number, or one for each cost by its name."""
    found = record.get("lambda")
    return found.get(cost.name) if isinstance(found, Mapping) else found


def read_metrics(workdir: str | os.PathLike) -> list[dict[str, Any]]:
    """Reads the records of a run's metrics.jsonl, without a last line that is still being written; see `read_lines`."""
    return read_lines(pathlib.Path(workdir, "metrics.jsonl"), torn=True)
