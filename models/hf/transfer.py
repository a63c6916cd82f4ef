"""Brings a model in Hugging Face's format into a run, and out of it again."""

import dataclasses
import json
import pathlib
import shutil
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from models import induction, lora
from models import tokenizer as tokenizers
from models.config import Qwen2Config
from models.hf import hub
from models.hf.files import holds_weights
from models.hf.generation import GENERATION, read_optional, token_ids
from models.hf.weights import load, read_config, save, verify_checkpoint
from models.objects import read_object
from models.qwen2 import Params

_FILES = ("*.safetensors", "*.json", "*.txt", "*.jinja", "additional_chat_templates/*.jinja")


class _Settings(NamedTuple):
    """What an export needs of a run's config.json."""

    path: str
    lora_rank: int
    lora_alpha: float
    seed: int
    sampling: dict[str, Any]  # as generation_config.json has it


def import_model(source: str | pathlib.Path, workdir: str | pathlib.Path) -> pathlib.Path:
    """Copies a checkpoint and its tokenizer to `workdir`/model, where a run looks for them; complete, or not at all.

    Raises FileExistsError if there is a model already, and the errors of `load`, `tokenizer.load` and `token_ids` for
    `source`.
    """
    source, target = pathlib.Path(source), pathlib.Path(workdir) / "model"
    if target.exists():
        raise FileExistsError(f"{target}: there is a model already; choose another --workdir")
    verify_checkpoint(source)
    tokenizer = tokenizers.load(source)
    _check_vocabulary(source, read_config(source), tokenizer)
    token_ids(source, tokenizer)
    partial = target.with_name("model.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for file in [path.relative_to(source) for pattern in _FILES for path in source.glob(pattern)]:
        (partial / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / file, partial / file)
    partial.rename(target)
    return target


def export_model(workdir: str | pathlib.Path, out: str | pathlib.Path, *, dtype: str | None = None) -> pathlib.Path:
    """Writes the policy of the run in `workdir`, adapters merged, for `transformers` and vLLM; complete, or not at all.

    The policy is the newest checkpoint's, or, if no step was saved yet, the model that was imported. The
    generation_config.json samples as `cmpo.evaluate` does, or, if nothing was trained, as the import's.

    Args:
      workdir: the run's directory.
      out: a directory that does not exist or is empty.
      dtype: of the weights; None: float32, as they are trained.

    Raises:
      FileNotFoundError: there is no model, or not the one that the adapters belong to.
      FileExistsError: `out` holds something.
      ValueError: a file of the run is damaged; the message names it.
    """
    workdir, out = pathlib.Path(workdir), pathlib.Path(out)
    if out.exists() and any(out.iterdir()):
        raise FileExistsError(f"{out}: expected a new or empty directory")
    home = workdir / "model"
    config, trained = read_config(home), _restore_newest(workdir / "checkpoints")
    if trained is None and not holds_weights(home):
        raise FileNotFoundError(f"{workdir}: expected a checkpoint or an imported model, found neither")
    tokenizer = tokenizers.load(home if (home / "tokenizer.json").exists() else workdir / "tokenizer")
    _check_vocabulary(home, config, tokenizer)
    tokens = token_ids(home, tokenizer)
    if trained is None:
        params, sampling = load(home, config=config)[1], read_optional(home / GENERATION)
    else:
        settings = _read_settings(workdir / "config.json")
        params, sampling = _merge_adapters(workdir, config, trained, settings), settings.sampling
    partial = out.with_name(out.name + ".exporting")
    shutil.rmtree(partial, ignore_errors=True)
    save(partial, config, params, dtype=dtype, tokens=tokens)
    (partial / GENERATION).write_text(json.dumps({**sampling, **tokens}, indent=2) + "\n", encoding="utf-8")
    tokenizer.save(partial)
    if out.exists():
        out.rmdir()
    partial.rename(out)
    return out


def _check_vocabulary(source: pathlib.Path, config: Qwen2Config, tokenizer: tokenizers.Tokenizer) -> None:
    """Raises ValueError if the tokenizer has an id that the model of `config` has no row for."""
    if tokenizer.vocab_size > config.vocab_size:
        raise ValueError(f"{source}: the tokenizer has {tokenizer.vocab_size} ids, the model {config.vocab_size}")


def _merge_adapters(workdir: pathlib.Path, config: Qwen2Config, trained: Params, settings: _Settings) -> Params:
    """Returns the parameters that were trained, or, if those are adapters, their base model with them merged in."""
    if not settings.lora_rank:
        return trained
    adapted = dataclasses.replace(config, lora_rank=settings.lora_rank, lora_alpha=settings.lora_alpha)
    return lora.merge(adapted, lora.combine(_load_base(workdir, config, settings), trained))


def _load_base(workdir: pathlib.Path, config: Qwen2Config, settings: _Settings) -> Params:
    """Loads the model that adapters were trained on: the imported one, the one in config.model.path, or a new one."""
    home = workdir / "model"
    if holds_weights(home):
        return load(home, config=config)[1]
    if not settings.path:
        return jax.jit(lambda: induction.draw_params(config, jax.random.key(settings.seed)))()
    commit = hub.read_commit(home)
    if (source := hub.find_model(settings.path, download=False, commit=commit)) is None:
        fetch = f"hf download {settings.path}" + (f" --revision {commit}" if commit else "")
        raise FileNotFoundError(
            f"{workdir}: the run trained adapters of {settings.path}, which is neither a directory here nor in Hugging "
            f"Face's cache; fetch it ({fetch}) and export again"
        )
    return load(source, config=config)[1]


def _read_settings(file: pathlib.Path) -> _Settings:
    try:
        config = read_object(file)
        model, engine, temperature = config["model"], config["engine"], config["eval"]["temperature"]
        sampled = {"temperature": temperature, "top_k": engine["top_k"], "top_p": engine["top_p"]}
        sampling = {"do_sample": True, **sampled} if temperature else {"do_sample": False}
        names = ("path", "lora_rank", "lora_alpha")
        return _Settings(*(model[name] for name in names), seed=config["train"]["seed"], sampling=sampling)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file}: expected a run's settings, with path, lora_rank and lora_alpha of its model, and how it is "
            f"sampled, got {error!r}"
        ) from None


def _restore_newest(checkpoints: pathlib.Path) -> dict[str, Any] | None:
    """Restores the trained parameters, as host arrays, from the newest checkpoint; None if there is none."""
    if not checkpoints.is_dir():
        return None
    with ocp.CheckpointManager(checkpoints.absolute(), item_handlers=ocp.PyTreeCheckpointHandler()) as manager:
        if (step := manager.latest_step()) is None:
            return None
        if "policy" not in manager.item_metadata(step):
            raise ValueError(f"{checkpoints / str(step)}: expected a checkpoint of this version, got an older one's")
        item = {"policy": {"params": manager.item_metadata(step)["policy"]["params"]}}
        arguments = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), item)
        restore = ocp.args.PyTreeRestore(item=item, restore_args=arguments, partial_restore=True)
        return manager.restore(step, args=restore)["policy"]["params"]
