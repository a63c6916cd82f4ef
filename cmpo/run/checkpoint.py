"""Checkpoints of the whole train state, by orbax. They are written in the background and appear whole or not at all.

Each has a checksum of every array as it was on the devices. Where a checkpoint cannot be read, or an array does not
match its checksum, the checkpoint before it is used.
"""

import contextlib
import math
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from cmpo.distributed import processes
from cmpo.run.train_state import TrainState, compute_checksums

_OLDER = "7c36d1b"  # the last one with that layout


class Checkpoints:
    """The checkpoints in DIR/checkpoints. A context manager: on leaving, it waits until all is written.

    The last `keep` checkpoints are kept, and the one with the highest `score` so far, if any score is above -inf. With
    `keep` None, nothing in the directory is ever changed.
    """

    def __init__(
        self,
        workdir: str | pathlib.Path,
        *,
        keep: int | None = None,
        score: Callable[[int], float] = lambda step: -math.inf,
    ):
        self._writes, self._keep, self._score = keep is not None, keep, score
        options = ocp.CheckpointManagerOptions(
            preservation_policy=self,
            create=self._writes,
            cleanup_tmp_directories=self._writes,
        )
        self._directory = pathlib.Path(workdir).absolute() / "checkpoints"
        with self._raise_as_os_error():
            self._manager = ocp.CheckpointManager(self._directory, options=options)

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Says which of `checkpoints`, oldest first, orbax keeps."""
        steps = [checkpoint.step for checkpoint in checkpoints]
        kept = {*steps[-self._keep :], processes.run_once(lambda: self._find_best_step(steps))}
        return [step in kept for step in steps]

    def _find_best_step(self, steps: Sequence[int]) -> int | None:
        score, step = max(((self._score(step), step) for step in steps), default=(-math.inf, None))
        return step if score > -math.inf else None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_):
        with self._raise_as_os_error():
            self._manager.close()

    def save(self, state: TrainState) -> int:
        """Begins to save `state` under its step, unless that step is saved already. Then the state may be donated.

        Returns the newest step that is on disk by now. Raises OSError if this checkpoint or the one before could not be
        written; older ones are unchanged.
        """
        newest, step = self.wait(), int(state.step)
        if step not in self._manager.all_steps():
            arrays = state._asdict() | {"checksums": compute_checksums(state)}
            with self._raise_as_os_error():
                self._manager.save(step, args=ocp.args.StandardSave(arrays))
        return newest

    def wait(self) -> int:
        """Waits until all is on disk. Returns the newest step there, or -1. Raises OSError like `save`."""
        with self._raise_as_os_error():
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
        return max(self._manager.all_steps(), default=-1)

    def restore(self, layout: Callable[[int], TrainState], *, best: bool = False) -> TrainState | None:
        """The newest sound state, or the one with the best score, with the shapes and shardings that its step has.

        Returns None if nothing was ever saved. A checkpoint that cannot be read, or does not match its checksums, is
        reported, removed and skipped. Raises ValueError if none is sound.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        if best and (step := self._find_best_step(steps)) is not None:
            steps = [step]
        for step in steps:
            try:
                state = self._read_checked(step, layout(step))
            except Exception as error:  # orbax and tensorstore raise many kinds for damaged files
                if self._is_older(step):
                    raise ValueError(
                        f"checkpoint {step} in {self._directory} is of an older version of this program; go on with "
                        f"that one, for instance commit {_OLDER}"
                    ) from None
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                logging.warning(
                    "checkpoint %d in %s is damaged (%s); trying the one before", step, self._directory, reason
                )
                continue
            for newer in (other for other in steps if other > step and self._writes):
                self._manager.delete(newer)  # else orbax refuses to save that step again
            return state
        if steps:
            raise ValueError(
                f"none of the checkpoints {steps[::-1]} in {self._directory} can be read; remove them to start anew"
            )
        return None

    def _is_older(self, step: int) -> bool:
        """Whether a checkpoint has the fields that it had before there were algorithms."""
        with contextlib.suppress(Exception):  # a damaged one has no metadata
            return "pid" in self._manager.item_metadata(step)
        return False

    def _read_checked(self, step: int, like: TrainState) -> TrainState:
        placed = jax.ShapeDtypeStruct((len(jax.tree.leaves(like)),), np.uint32, sharding=like.step.sharding)
        arrays = self._manager.restore(step, args=ocp.args.StandardRestore(like._asdict() | {"checksums": placed}))
        saved, state = np.asarray(arrays.pop("checksums")), TrainState(**arrays)
        names = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(state)]
        same = saved == np.asarray(compute_checksums(state))
        if wrong := [name for name, fine in zip(names, same, strict=True) if not fine]:
            raise ValueError(f"{', '.join(wrong[:3])} in {self._directory / str(step)} fail their checksums")
        return state

    @contextlib.contextmanager
    def _raise_as_os_error(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # many kinds, see `restore`; tensorstore adds a page of settings to the reason
            reason = " ".join(str(error).partition("[tensorstore_spec")[0].split())
            raise OSError(
                f"cannot write a checkpoint in {self._directory}: {reason}; what was there before is as it was"
            ) from error
