"""Checkpoints of the whole train state, by orbax. A checkpoint that cannot be read makes room for the one before."""

import pathlib

import orbax.checkpoint as ocp
from absl import logging

from cmpo.state import TrainState


class Checkpoints:
    """The checkpoints in DIR/checkpoints; use as a context manager."""

    def __init__(self, workdir: str | pathlib.Path, *, keep: int):
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=False)
        self._directory = pathlib.Path(workdir).absolute() / "checkpoints"
        self._manager = ocp.CheckpointManager(self._directory, options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_):
        self._manager.close()

    def save(self, state: TrainState) -> None:
        """Saves `state` under its step, unless that step is saved already."""
        step = int(state.step)
        if step not in self._manager.all_steps():
            self._manager.save(step, args=ocp.args.StandardSave(state._asdict()))

    def restore(self, like: TrainState) -> TrainState | None:
        """The newest readable state, with the shapes and shardings of `like`; None if nothing was ever saved.

        A checkpoint that cannot be read is reported, removed and passed over. Raises ValueError if none can be read.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        abstract = like._asdict()
        for step in steps:
            try:
                restored = self._manager.restore(step, args=ocp.args.StandardRestore(abstract))
            except Exception as error:  # orbax and tensorstore raise many kinds for damaged files
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                logging.warning(
                    "checkpoint %d in %s cannot be read (%s); trying the one before", step, self._directory, reason
                )
                continue
            for newer in (other for other in steps if other > step):
                self._manager.delete(newer)  # or saving that step again would be refused
            return TrainState(**restored)
        if steps:
            raise ValueError(
                f"none of the checkpoints {steps[::-1]} in {self._directory} can be read; remove them to start anew"
            )
        return None
