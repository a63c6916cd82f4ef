"""A model in Hugging Face's format into a run, and out of it again."""

import dataclasses
import json
import pathlib
import shutil
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from models import lora
from models import tokenizer as tokenizers
from models.hf.files import holds_weights
from models.hf.weights import load, read_config, save, verify

_FILES = ("*.safetensors", "*.json", "*.txt", "*.jinja")


def import_model(source: str | pathlib.Path, workdir: str | pathlib.Path) -> pathlib.Path:
    """Copies a checkpoint and its tokenizer into `workdir`/model, where a run takes it from; complete, or not at all.

    Raises FileExistsError if there is a model already, and what `load` and `tokenizer.load` raise for `source`.
    """
    source, target = pathlib.Path(source), pathlib.Path(workdir) / "model"
    if target.exists():
        raise FileExistsError(f"{target}: there is a model already; choose another --workdir")
    verify(source)
    tokenizers.load(source)
    partial = target.with_name("model.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for file in [path for pattern in _FILES for path in source.glob(pattern)]:
        shutil.copyfile(file, partial / file.name)
    partial.rename(target)
    return target


def export_model(workdir: str | pathlib.Path, out: str | pathlib.Path, *, dtype: str | None = None) -> pathlib.Path:
    """Writes the policy of the run in `workdir`, adapters merged, as `transformers` and vLLM read it.

    That is the newest checkpoint's, or, where no step has been saved yet, the model that was imported.

    Args:
      workdir: the run's directory.
      out: a directory that does not exist or is empty.
      dtype: of the weights; None: float32, as they are trained.

    Raises:
      FileNotFoundError: there is no model.
      FileExistsError: `out` holds something.
      ValueError: a file of the run is damaged; the message names it.
    """
    workdir, out = pathlib.Path(workdir), pathlib.Path(out)
    home = workdir / "model"
    config, trained = read_config(home), _newest(workdir / "checkpoints")
    if trained is None and not holds_weights(home):
        raise FileNotFoundError(f"{workdir}: expected a checkpoint or an imported model, found neither")
    if trained is None:
        params = load(home, config=config)[1]
    elif (settings := _model_settings(workdir / "config.json")).lora_rank:
        adapted = dataclasses.replace(config, lora_rank=settings.lora_rank, lora_alpha=settings.lora_alpha)
        frozen = load(home if holds_weights(home) else settings.path, config=config)[1]
        params = lora.merge(adapted, lora.combine(frozen, trained))
    else:
        params = trained
    tokenizer = tokenizers.load(home if (home / "tokenizer.json").exists() else workdir / "tokenizer")
    tokens = {"eos_token_id": tokenizer.im_end, "pad_token_id": tokenizer.endoftext}
    save(out, config, params, dtype=dtype, tokens=tokens)
    tokenizer.save(out)
    return out


class _Settings(NamedTuple):
    """What a run's config.json says of its model, as far as an export needs it."""

    path: str
    lora_rank: int
    lora_alpha: float


def _model_settings(file: pathlib.Path) -> _Settings:
    try:
        model = json.loads(file.read_text(encoding="utf-8"))["model"]
        return _Settings(*(model[name] for name in _Settings._fields))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        names = ", ".join(_Settings._fields)
        raise ValueError(f"{file}: expected a run's settings, with {names} of its model, got {error!r}") from None


def _newest(checkpoints: pathlib.Path) -> dict[str, Any] | None:
    """What is trained, as host arrays, from the newest checkpoint; None if there is none."""
    if not checkpoints.is_dir():
        return None
    with ocp.CheckpointManager(checkpoints.absolute(), item_handlers=ocp.PyTreeCheckpointHandler()) as manager:
        if (step := manager.latest_step()) is None:
            return None
        item = {"params": manager.item_metadata(step)["params"]}
        arguments = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), item)
        restore = ocp.args.PyTreeRestore(item=item, restore_args=arguments, partial_restore=True)
        return manager.restore(step, args=restore)["params"]
