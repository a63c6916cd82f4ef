"""Sends the numbers of a run to Weights & Biases, where `config.log.wandb` names a project. The package is an extra."""

import pathlib
import uuid
from collections.abc import Mapping
from typing import Any

from cmpo.run import files


def import_wandb() -> Any:
    """Imports the package and returns it. Raises ValueError if it is not installed."""
    try:
        import wandb
    except ImportError as error:
        raise ValueError(
            f"config.log.wandb: expected the package wandb (pip install -e '.[wandb]'), or '' for none: {error}"
        ) from None
    return wandb


class Tracking:
    """A run in W&B, or none until it is opened. A context manager: on leaving, it waits until all is written there.

    W&B's own environment variables say where it is kept: with WANDB_MODE=offline on this machine alone, without a key.
    """

    def __init__(self) -> None:
        self._run = None

    def __enter__(self) -> "Tracking":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_) -> None:
        if self._run is not None:
            self._run.finish(exit_code=0 if kind is None else 1)

    def open(self, project: str, workdir: pathlib.Path, config: Mapping[str, Any]) -> None:
        """Opens the run of `workdir`: always the same one in W&B, whose id is in DIR/wandb/id. "": none is opened.

        Raises ValueError if the package is absent, or W&B refuses, as without a key or a network.
        """
        if not project:
            return
        wandb = import_wandb()
        path = workdir / "wandb" / "id"
        if not path.exists():
            files.make_parent_directory(path)
            files.replace_file(path, uuid.uuid4().hex)
        try:
            self._run = wandb.init(
                project=project,
                id=path.read_text(encoding="utf-8"),
                name=workdir.resolve().name,
                dir=str(workdir),
                resume="allow",
                config=dict(config),
                allow_val_change=True,  # a run that goes on may have other settings
                settings=wandb.Settings(console="off"),  # what the run prints stays here
            )
        except wandb.errors.Error as error:
            raise ValueError(
                f"config.log.wandb: W&B refused to open a run in {project!r}: {error}; with WANDB_MODE=offline it "
                "needs neither key nor network"
            ) from None

    def write(self, numbers: Mapping[str, float], step: int) -> None:
        """Writes the numbers of a step, by name; a run that goes on after a crash writes some steps again."""
        if self._run is not None:
            self._run.log(dict(numbers), step=step)
