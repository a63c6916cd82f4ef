"""Where the policy comes from: a new one, one that was imported into the workdir, or config.model.path."""

import dataclasses
import pathlib

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from cmpo.algorithms import budgets
from cmpo.distributed import sharding
from models import hf, lora, qwen2

SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_layers", "num_heads", "num_kv_heads")


def source(config: ConfigDict, workdir: pathlib.Path | None, *, download: bool = True) -> pathlib.Path | None:
    """The directory in Hugging Face's format that the policy comes from; None: it is a new one.

    What was imported into the workdir comes first, then config.model.path: a directory, or the name of a model on the
    hub, which is fetched into Hugging Face's cache if `download` says so, and otherwise None if it is not there. A run
    keeps to the commit that it began with.

    Raises FileNotFoundError if there is neither such a directory nor such a model.
    """
    if workdir and hf.holds_weights(workdir / "model"):
        return workdir / "model"
    if not config.model.path:
        return None
    commit = hf.read_commit(workdir / "model") if workdir else None
    return hf.find_model(config.model.path, download=download, commit=commit)


def architecture(config: ConfigDict, source: pathlib.Path | None, vocab_size: int = 0) -> qwen2.Qwen2Config:
    """The policy's architecture: that of `source`, or a new one of config.model's sizes.

    Args:
      config: its model.* are sizes and choices.
      source: of `source`. Sizes in config.model must be those of its config.json, or 0.
      vocab_size: of a new model, if its tokenizer turned out smaller than asked for; 0: as asked for.

    Raises:
      ValueError: naming the field, if sizes differ or the context is longer than the model's.
    """
    model = config.model
    if source is None:
        sizes = {name: model[name] for name in (*SIZES, "tie_embeddings", "initializer_range")}
        sizes["vocab_size"] = vocab_size or model.vocab_size
        with budgets.name_section_in_errors("model"):
            return qwen2.Qwen2Config(max_positions=model.context_length, **sizes, **_choices(config))
    found = dataclasses.replace(hf.read_config(source), **_choices(config))
    for name in SIZES:
        if model[name] not in (0, getattr(found, name)):
            raise ValueError(
                f"config.model.{name}: expected {getattr(found, name)}, as in {source / 'config.json'}, "
                f"got {model[name]}; the variant model={source} takes all sizes from there"
            )
    if model.context_length > found.max_positions:
        raise ValueError(
            f"config.model.context_length: expected at most the model's {found.max_positions}, "
            f"got {model.context_length}"
        )
    return found


def settled(config: ConfigDict, workdir: pathlib.Path) -> qwen2.Qwen2Config:
    """The architecture of the run in `workdir`, which `preparing.prepare_run` wrote down there."""
    return dataclasses.replace(hf.read_config(workdir / "model"), **_choices(config))


def frozen(model: qwen2.Qwen2Config, mesh: Mesh, source: pathlib.Path | None, seed: int) -> qwen2.Params:
    """What of the parameters is not trained (see `lora.split`), in the precision that the model computes in."""
    return qwen2.cast(model, _whole(model, mesh, source, seed)) if model.lora_rank else {}


def trained(model: qwen2.Qwen2Config, mesh: Mesh, source: pathlib.Path | None, seed: int) -> qwen2.Params:
    """What of the parameters is trained, as it is at the start, float32."""
    if not model.lora_rank:
        return _whole(model, mesh, source, seed)

    def init():
        return lora.split(model, qwen2.init(model, jax.random.key(seed)))[1]

    return jax.jit(init, out_shardings=sharding.find_shardings(mesh, jax.eval_shape(init)))()


def _whole(model: qwen2.Qwen2Config, mesh: Mesh, source: pathlib.Path | None, seed: int) -> qwen2.Params:
    """The parameters without adapters, on the devices that hold them."""
    plain = dataclasses.replace(model, lora_rank=0)
    layout = sharding.find_shardings(mesh, qwen2.shapes(plain))
    if source:
        return hf.load(source, config=plain, shardings=layout)[1]
    return jax.jit(lambda: qwen2.init(plain, jax.random.key(seed)), out_shardings=layout)()


def _choices(config: ConfigDict) -> dict:
    return {name: config.model[name] for name in ("dtype", "remat", "lora_rank", "lora_alpha")}
