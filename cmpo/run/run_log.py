"""What a run leaves behind: a line of numbers per step, TensorBoard events, transcripts, and a progress bar."""

import collections
import dataclasses
import json
import math
import os
import pathlib
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from cmpo.run import files
from rollouts.types import COSTS, Dialogue, Turn

_VOUCHER = COSTS.index("voucher")

_SHOWN = (  # key of a record -> how the progress bar shows it
    ("satisfaction", "satisfaction {:.2f}"),
    ("voucher_rate", "voucher {:.0%}"),
    ("lambda", "lambda {:.2f}"),
    ("finish_rate", "finished {:.0%}"),
    ("loss", "loss {:.4f}"),
)


class RunLog:
    """Writes metrics.jsonl, tensorboard/ and transcripts/ below `workdir`. A context manager; one per run.

    `step` counts on from phase to phase. After a restart call `resume` before the first `write`.
    """

    def __init__(self, workdir: str | os.PathLike):
        self._dir = pathlib.Path(workdir)
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
        `phase/key`, and what is nested one level deeper under `phase/key/inner`.
        """
        record = plain(record)
        step, phase = record["step"], record["phase"]
        files.append(self._dir / "metrics.jsonl", json.dumps(record, allow_nan=False) + "\n")
        writer = self._tensorboard()
        for key, value in record.items():
            inner = {f"{key}/{name}": number for name, number in value.items()} if isinstance(value, dict) else {}
            for tag, number in (inner or {key: value}).items():
                if isinstance(number, int | float) and tag != "step":
                    writer.add_scalar(f"{phase}/{tag}", number, step)
        writer.flush()

    def resume(self, step: int) -> None:
        """Forgets all lines and transcripts after `step`, and a last line that a crash left half-written."""
        self._purge_step = step + 1
        path = self._dir / "metrics.jsonl"
        if path.exists():
            kept = [record for record in read(self._dir) if record["step"] <= step]
            write_lines(path, kept)
        for path in (self._dir / "transcripts").glob("step_*.jsonl"):
            if int(path.stem.removeprefix("step_")) > step:
                path.unlink()

    def transcripts(
        self, step: int, dialogues: Sequence[Dialogue], advantages: Sequence[Sequence[float]] | None = None
    ) -> pathlib.Path:
        """Writes transcripts/step_NNNNNN.jsonl, one object per dialogue; returns its path.

        `advantages` has a row for each dialogue with an entry for each turn; padding behind them is dropped.
        """
        rows = [transcript(dialogue) for dialogue in dialogues]
        if advantages is not None:
            for row, advantage in zip(rows, advantages, strict=True):
                row["advantages"] = plain(advantage)[: len(row["turns"])]
        path = self._dir / "transcripts" / f"step_{step:06d}.jsonl"
        path.parent.mkdir(exist_ok=True)
        write_lines(path, rows)
        return path

    def _tensorboard(self):
        if self._writer is None:
            from tensorboardX import SummaryWriter

            # Event files are named by the second; the suffix keeps a quick restart from overwriting its predecessor.
            suffix = f".{time.time_ns()}"
            logdir = str(self._dir / "tensorboard")
            self._writer = SummaryWriter(logdir, purge_step=self._purge_step, filename_suffix=suffix)
        return self._writer


def read(workdir: str | os.PathLike) -> list[dict[str, Any]]:
    """The records of a run's metrics.jsonl, without a last line that is still being written; see `read_lines`."""
    return read_lines(pathlib.Path(workdir, "metrics.jsonl"), torn=True)


def rollout_record(dialogues: Sequence[Dialogue]) -> dict[str, Any]:
    """What a batch of dialogues amounts to. Failed dialogues are counted by cause and enter nothing else.

    `dialogues_replaced` counts, by cause too, the failed attempts that were played again; they are not dialogues.
    Satisfaction is 1..5, and 0 where it was forfeited, whatever the outcome that training charges for a format error.
    Rates are fractions of the dialogues that did not fail; NaN where there are none. `new_tokens` counts whatever was
    sampled, in failed dialogues too (not in attempts that were replaced): it measures work, not behaviour.
    """
    ok = [dialogue for dialogue in dialogues if dialogue.ok]
    return {
        "satisfaction": _mean([max(dialogue.outcome, 0.0) for dialogue in ok]),
        "process_reward": _mean([turn.process_reward for dialogue in ok for turn in dialogue.turns]),
        "finish_rate": _mean([dialogue.finished for dialogue in ok]),
        "voucher_rate": _mean([dialogue.cost[_VOUCHER] for dialogue in ok]),
        "turns_mean": _mean([len(dialogue.turns) for dialogue in ok]),
        "ends": dict(collections.Counter(dialogue.end for dialogue in ok)),
        "dialogues_ok": len(ok),
        "dialogues_failed": dict(collections.Counter(dialogue.failure for dialogue in dialogues if not dialogue.ok)),
        "dialogues_replaced": dict(collections.Counter(cause for d in dialogues for cause in d.replaced)),
        "new_tokens": sum(len(turn.ids) for dialogue in dialogues for turn in dialogue.turns),
    }


def score(records: Sequence[Mapping[str, Any]], *, target: float, price: float) -> float:
    """How good a policy was: mean satisfaction less `price` times what the mean voucher rate is above `target`.

    Records without dialogues, as of phase 1, do not count; -inf where there are no others.
    """
    seen = [record for record in records if record.get("satisfaction") is not None]
    if not seen:
        return -math.inf
    satisfaction, rate = (_mean([record[key] for record in seen]) for key in ("satisfaction", "voucher_rate"))
    return satisfaction - price * max(0.0, rate - target)


class Progress:
    """A progress bar on a terminal; elsewhere one line every `every` steps. See `progress`."""

    def __init__(self, total: int, initial: int, description: str, every: int):
        self._every = every
        self._bar = tqdm(total=total, initial=initial, desc=description, disable=not sys.stderr.isatty())
        self._line = {"total": total, "initial": initial, "prefix": description}
        self._step, self._start = initial, time.monotonic()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_):
        self._bar.close()

    def update(self, record: Mapping[str, Any]) -> None:
        """One step is done; `record` is what it logged."""
        self._step += 1
        shown = ", ".join(form.format(record[key]) for key, form in _SHOWN if record.get(key) is not None)
        if not self._bar.disable:
            self._bar.set_postfix_str(shown, refresh=False)
            self._bar.update()
        elif self._step % self._every == 0 or self._step == self._line["total"]:
            line = "{desc}: {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"
            elapsed = time.monotonic() - self._start
            text = tqdm.format_meter(self._step, elapsed=elapsed, postfix=shown, bar_format=line, **self._line)
            print(text, file=sys.stderr, flush=True)


def progress(total: int, initial: int = 0, description: str = "", *, every: int = 10) -> Progress:
    """Shows how far a phase of `total` steps is, when it will end, and the numbers that matter.

    A context manager; call `update(record)` after each step. `initial` steps were done before a restart.
    """
    return Progress(total, initial, description, every)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values, dtype=float)) if values else math.nan


def plain(value: Any) -> Any:
    """`value` with arrays as lists, numpy scalars as Python's, and non-finite floats as None."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_lines(path: pathlib.Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes one JSON object a line; the file is the old one or the new one, never half of either."""
    files.replace(path, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))


def read_lines(path: pathlib.Path, *, torn: bool = False) -> list[dict[str, Any]]:
    """What `write_lines` wrote. With `torn`, a last line that is no object was cut short, and is left out.

    Raises FileNotFoundError, or ValueError naming the line that is no JSON object.
    """
    lines, rows = list(files.read_lines(path)), []
    for number, line in lines:
        try:
            rows.append(files.parse_object(line))
        except ValueError as error:
            if not torn or number < lines[-1][0]:
                raise ValueError(f"{path}:{number}: {error}") from None
    return rows


def transcript(dialogue: Dialogue) -> dict[str, Any]:
    """A dialogue as transcripts have it, ready for JSON."""
    scenario = dataclasses.asdict(dialogue.scenario)
    del scenario["agent_prompt"]
    return plain(
        {
            "scenario": scenario,
            "index": dialogue.index,
            "end": dialogue.end,
            "outcome": dialogue.outcome,
            "cost": _costs(dialogue.cost),
            "failure": dialogue.failure,
            "failure_message": dialogue.failure_message,
            "last_words": dialogue.last_words,
            "turns": [_turn(turn) for turn in dialogue.turns],
        }
    )


def _turn(turn: Turn) -> dict[str, Any]:
    fields = ("user", "think", "response", "action", "scores", "reason", "process_reward")
    row = {field: getattr(turn, field) for field in fields}
    if not turn.action:  # malformed: the parts are empty, so show what it wrote instead
        row["text"] = turn.text
    mean_logprob = np.mean(turn.logprobs) if len(turn.logprobs) else None
    return row | {"cost": _costs(turn.cost), "tokens": len(turn.ids), "mean_logprob": mean_logprob}


def _costs(cost: np.ndarray) -> dict[str, float]:
    return dict(zip(COSTS, cost, strict=True))
