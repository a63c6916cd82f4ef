"""Checkpoints of the whole train state, by orbax: written beside the training, appearing whole or not at all.

Each carries a checksum of every array as it was on the devices. One that cannot be read, or whose arrays are not what
was saved, makes room for the one before.
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
from cmpo.run.train_state import TrainState, checksums


class Checkpoints:
    """The checkpoints in DIR/checkpoints; a context manager, which on leaving waits for what is being written.

    The last `keep` stay, and of all that there were the one whose step has the highest `score`, if any is above -inf.
    With `keep` None, nothing there is ever changed.
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
        with self._told():
            self._manager = ocp.CheckpointManager(self._directory, options=options)

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Which of `checkpoints`, oldest first, orbax is to keep."""
        steps = [checkpoint.step for checkpoint in checkpoints]
        kept = {*steps[-self._keep :], processes.once(lambda: self._best(steps))}
        return [step in kept for step in steps]

    def _best(self, steps: Sequence[int]) -> int | None:
        score, step = max(((self._score(step), step) for step in steps), default=(-math.inf, None))
        return step if score > -math.inf else None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_):
        with self._told():
            self._manager.close()

    def save(self, state: TrainState) -> int:
        """Begins to save `state` under its step, unless that step is saved already; the state may then be donated.

        Returns the newest step that is on disk by now. Raises OSError if this or the checkpoint before could not be
        written; older ones are as they were.
        """
        newest, step = self.wait(), int(state.step)
        if step not in self._manager.all_steps():
            arrays = state._asdict() | {"checksums": checksums(state)}
            with self._told():
                self._manager.save(step, args=ocp.args.StandardSave(arrays))
        return newest

    def wait(self) -> int:
        """Waits until all is on disk, and returns the newest step there; -1: none. Raises OSError like `save`."""
        with self._told():
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
        return max(self._manager.all_steps(), default=-1)

    def restore(self, layout: Callable[[int], TrainState], *, best: bool = False) -> TrainState | None:
        """The newest sound state, or the one with the best score, with the shapes and shardings that its step has.

        None if nothing was ever saved. A checkpoint that cannot be read, or is not what was saved, is reported, removed
        and passed over. Raises ValueError if none is sound.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        if best and (step := self._best(steps)) is not None:
            steps = [step]
        for step in steps:
            try:
                state = self._read(step, layout(step))
            except Exception as error:  # orbax and tensorstore raise many kinds for damaged files
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                logging.warning(
                    "checkpoint %d in %s is damaged (%s); trying the one before", step, self._directory, reason
                )
                continue
            for newer in (other for other in steps if other > step and self._writes):
                self._manager.delete(newer)  # or saving that step again would be refused
            return state
        if steps:
            raise ValueError(
                f"none of the checkpoints {steps[::-1]} in {self._directory} can be read; remove them to start anew"
            )
        return None

    def _read(self, step: int, like: TrainState) -> TrainState:
        placed = jax.ShapeDtypeStruct((len(jax.tree.leaves(like)),), np.uint32, sharding=like.step.sharding)
        arrays = self._manager.restore(step, args=ocp.args.StandardRestore(like._asdict() | {"checksums": placed}))
        saved, state = np.asarray(arrays.pop("checksums")), TrainState(**arrays)
        names = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(state)]
        same = saved == np.asarray(checksums(state))
        if wrong := [name for name, fine in zip(names, same, strict=True) if not fine]:
            raise ValueError(f"{', '.join(wrong[:3])} in {self._directory / str(step)} fail their checksums")
        return state

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # as above; tensorstore puts a page of its own settings behind the reason
            reason = " ".join(str(error).partition("[tensorstore_spec")[0].split())
            raise OSError(
                f"cannot write a checkpoint in {self._directory}: {reason}; what was there before is as it was"
            ) from error
