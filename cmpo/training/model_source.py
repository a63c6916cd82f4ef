"""Where the policy comes from: new weights, a model imported into the workdir, or config.model.path."""

import dataclasses
import pathlib

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from cmpo.algorithms import budgets
from cmpo.distributed import sharding
from models import hf, induction, lora, qwen2
from models.config import HALF

SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_layers", "num_heads", "num_kv_heads")


def find_source(config: ConfigDict, workdir: pathlib.Path | None, *, download: bool = True) -> pathlib.Path | None:
    """Finds the directory in Hugging Face's format that the policy comes from; None: the policy is new.

    A model imported into the workdir comes first, then config.model.path. The path is a directory, or the name of a
    model on the hub. With `download`, such a model is fetched into Hugging Face's cache; without, the result is None if
    it is not there. A run stays with the commit that it began with.

    Raises FileNotFoundError if there is neither such a directory nor such a model.
    """
    if workdir and hf.holds_weights(workdir / "model"):
        return workdir / "model"
    if not config.model.path:
        return None
    commit = hf.read_commit(workdir / "model") if workdir else None
    return hf.find_model(config.model.path, download=download, commit=commit)


def find_architecture(config: ConfigDict, source: pathlib.Path | None, vocab_size: int = 0) -> qwen2.Qwen2Config:
    """Finds the policy's architecture: that of `source`, or a new one with the sizes of config.model.

    Args:
      config: config.model has the sizes and choices.
      source: of `find_source`. Each size in config.model must equal the one in its config.json, or be 0.
      vocab_size: of a new model, if its tokenizer came out smaller than config.model.vocab_size; 0: it did not.

    Raises:
      ValueError: naming the field, if sizes differ or the context is longer than the model's.
    """
    model = config.model
    if source is None:
        sizes = {name: model[name] for name in (*SIZES, "tie_embeddings", "initializer_range", "rope_theta")}
        sizes["vocab_size"] = vocab_size or model.vocab_size
        with budgets.name_section_in_errors("model"):
            return qwen2.Qwen2Config(max_positions=model.context_length, **sizes, **_read_choices(config))
    found = dataclasses.replace(hf.read_config(source), **_read_choices(config))
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


def read_architecture(config: ConfigDict, workdir: pathlib.Path) -> qwen2.Qwen2Config:
    """Reads the architecture of the run in `workdir`, which `preparing.prepare_run` wrote there."""
    return dataclasses.replace(hf.read_config(workdir / "model"), **_read_choices(config))


def make_frozen_params(model: qwen2.Qwen2Config, mesh: Mesh, source: pathlib.Path | None, seed: int) -> qwen2.Params:
    """Makes the parameters that are not trained (see `lora.split`), in the precision that the model computes in."""
    return qwen2.cast(model, _make_plain_params(model, mesh, source, seed)) if model.lora_rank else {}


def make_trained_params(model: qwen2.Qwen2Config, mesh: Mesh, source: pathlib.Path | None, seed: int) -> qwen2.Params:
    """Makes the parameters that are trained, with their values at the start, float32."""
    if not model.lora_rank:
        return _make_plain_params(model, mesh, source, seed)

    def make_adapters():
        return lora.split(model, qwen2.init(model, jax.random.key(seed)))[1]

    return jax.jit(make_adapters, out_shardings=sharding.find_shardings(mesh, jax.eval_shape(make_adapters)))()


def _make_plain_params(model: qwen2.Qwen2Config, mesh: Mesh, source: pathlib.Path | None, seed: int) -> qwen2.Params:
    """Loads or makes the parameters without adapters, on the devices that hold them."""
    plain = dataclasses.replace(model, lora_rank=0)
    layout = sharding.find_shardings(mesh, qwen2.shapes(plain))
    if source:
        return hf.load(source, config=plain, shardings=layout)[1]
    return jax.jit(lambda: induction.draw_params(plain, jax.random.key(seed)), out_shardings=layout)()


def _read_choices(config: ConfigDict) -> dict:
    choices = {name: config.model[name] for name in ("dtype", "remat", "attention", "lora_rank", "lora_alpha")}
    if choices["attention"] == "auto":
        fits = choices["dtype"] in HALF and [device.platform for device in jax.devices()] == ["gpu"]
        choices["attention"] = "cudnn" if fits else "blocks"
    return choices
