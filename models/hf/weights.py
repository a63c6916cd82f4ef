"""Weights in Hugging Face's format, in and out, exactly.

One table says which tensor of a file is which array of ours; a file with a tensor too many, too few or of another shape
is refused before anything is read. Tensors go one by one from disk to the devices that hold them. Each device gets its
own part, so the host never holds a whole model.
"""

import json
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, Sharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P
from safetensors.numpy import save_file

from models import qwen2
from models.config import Qwen2Config
from models.hf import config as hf_config
from models.hf.files import INDEX, SINGLE, name_some, open_tensors, refuse_adapters
from models.objects import read_object, replace_file
from models.qwen2 import Params

_EMBEDDING, _HEAD = "model.embed_tokens.weight", "lm_head.weight"
_MODEL = {
    _EMBEDDING: ("embed", "embedding"),
    "model.norm.weight": ("norm", "scale"),
    _HEAD: ("head", "kernel"),
}
_LAYER = {
    "input_layernorm.weight": ("attention_norm", "scale"),
    "post_attention_layernorm.weight": ("mlp_norm", "scale"),
    **{f"self_attn.{name}_proj.weight": ("attention", name, "kernel") for name in "qkvo"},
    **{f"self_attn.{name}_proj.bias": ("attention", name, "bias") for name in "qkv"},
    **{f"mlp.{name}_proj.weight": ("mlp", name, "kernel") for name in ("gate", "up", "down")},
}
_ROWS = 4096  # rows of a matrix that are read at a time to compare it
_BUFFERS = ".rotary_emb.inv_freq"  # tensors of old files that follow from the config


class Place(NamedTuple):
    """Where a tensor of a file belongs."""

    path: tuple[str, ...]  # of the array in the parameters
    layer: int | None  # its index along the array's leading axis; None: it is the whole array
    shape: tuple[int, ...]  # in the file; matrices are [out, in] there and [in, out] here

    @property
    def transposed(self) -> bool:
        """Whether the file holds the transpose."""
        return self.path[-1] == "kernel"


def list_places(config: Qwen2Config) -> dict[str, Place]:
    """Lists every tensor of a checkpoint of `config` by its name in Hugging Face's files."""
    shapes = {path: leaf.shape for path, leaf in _flatten_tree(qwen2.shapes(config)).items()}
    places = {}
    for name, path in _MODEL.items():
        if path in shapes:
            places[name] = Place(path, None, _file_shape(path, shapes[path]))
    for name, inner in _LAYER.items():
        path = ("layers", *inner)
        if path in shapes:
            for layer in range(config.num_layers):
                places[f"model.layers.{layer}.{name}"] = Place(path, layer, _file_shape(path, shapes[path][1:]))
    return places


def read_config(path: str | pathlib.Path, **options: Any) -> Qwen2Config:
    """Reads the config in directory `path`; `options` as for `hf_config.parse_config`.

    Raises FileNotFoundError, or ValueError naming the directory.
    """
    file = pathlib.Path(path) / "config.json"
    refuse_adapters(file.parent)
    if not file.exists():
        raise FileNotFoundError(f"{path}: expected a model in Hugging Face's format, found no config.json")
    raw = read_object(file)
    try:
        return hf_config.parse_config(raw, **options)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def write_config(path: str | pathlib.Path, config: Qwen2Config, **tokens: Any) -> None:
    """Writes `path`/config.json; `tokens` are `eos_token_id`, `pad_token_id`, …"""
    directory = pathlib.Path(path)
    directory.mkdir(parents=True, exist_ok=True)
    _write_json(directory / "config.json", hf_config.render_config(config, **tokens))


def load(
    path: str | pathlib.Path,
    *,
    config: Qwen2Config | None = None,
    shardings: Any = None,
    param_dtype: str = "float32",
) -> tuple[Qwen2Config, Params]:
    """Loads a checkpoint of safetensors, in one file or several.

    Args:
      path: a directory with config.json and the weights.
      config: the model, if it is known already; None: read from config.json.
      shardings: of the parameters, a tree like them of `NamedSharding`s that leave the layers' axis whole; None: all
        on the first device.
      param_dtype: dtype of the parameters, whatever the file's dtype is.

    Returns:
      The config and the parameters, each made on its devices from the parts of the file that they hold.

    Raises:
      FileNotFoundError: no config or weights, or a file that the index names is not there.
      ValueError: a damaged file, an option that cannot be honoured, or tensors unknown, missing, double or misshapen.
    """
    directory = pathlib.Path(path)
    config = config or read_config(directory)
    places, shapes = list_places(config), _flatten_tree(qwen2.shapes(config))
    shardings = _flatten_tree(shardings) if shardings else dict.fromkeys(shapes, SingleDeviceSharding(jax.devices()[0]))
    params: dict[tuple[str, ...], jax.Array] = {}
    with open_tensors(directory) as tensors:
        _check_tensors(directory, tensors, places)
        for name, place in places.items():
            whole = shardings[place.path]
            sharding = whole if place.layer is None else _of_one_layer(whole)
            part = _read_tensor(tensors[name], place, sharding, param_dtype)
            if place.layer is None:
                params[place.path] = part
                continue
            if place.path not in params:
                shape = shapes[place.path].shape
                params[place.path] = jax.jit(lambda s=shape: jnp.zeros(s, param_dtype), out_shardings=whole)()
            put = jax.jit(_set_layer, donate_argnums=0, out_shardings=whole)
            params[place.path] = put(params[place.path], part, place.layer)
    return config, traverse_util.unflatten_dict(params)


def verify_checkpoint(path: str | pathlib.Path) -> None:
    """Raises what `load` would raise, from the tensors' names, shapes and types; reads only a head that is tied."""
    directory = pathlib.Path(path)
    places = list_places(read_config(directory))
    with open_tensors(directory) as tensors:
        _check_tensors(directory, tensors, places)


def save(
    path: str | pathlib.Path,
    config: Qwen2Config,
    params: Params,
    *,
    dtype: str | None = None,
    max_shard_bytes: int = 5_000_000_000,
    tokens: Mapping[str, Any] | None = None,
) -> None:
    """Writes a directory that `transformers` and vLLM load as is; complete, or not at all.

    Args:
      path: the directory, which must not exist or be empty.
      config: the model.
      params: its parameters, sharded in any way; the host holds one file of the output at a time.
      dtype: of the written tensors; None: the dtype of `params`.
      max_shard_bytes: size above which the weights are split over several files with an index.
      tokens: `eos_token_id`, `pad_token_id`, … for config.json and generation_config.json.

    Raises:
      FileExistsError: `path` holds something already.
      ValueError: `params` are not those of `config`.
    """
    directory, tokens = pathlib.Path(path), dict(tokens or {})
    if directory.exists() and any(directory.iterdir()):
        raise FileExistsError(f"{directory}: expected a new or empty directory")
    flat, places = _flatten_tree(params), list_places(config)
    if wrong := [
        path for path, leaf in _flatten_tree(qwen2.shapes(config)).items() if _shape_of(flat.get(path)) != leaf.shape
    ]:
        raise ValueError(f"the parameters are not those of the config: {', '.join('/'.join(path) for path in wrong)}")
    written = jnp.dtype(dtype or params["embed"]["embedding"].dtype)
    groups = _split_shards(places, written.itemsize, max_shard_bytes)
    first, partial = jax.process_index() == 0, directory.with_name(directory.name + ".partial")
    if first:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    weight_map, total = {}, 0
    for number, names in enumerate(groups, start=1):
        file = SINGLE if len(groups) == 1 else f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        shard = {name: _fetch_tensor(flat[places[name].path], places[name], written) for name in names}
        if first:
            save_file(shard, partial / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(names, file)
        total += sum(tensor.nbytes for tensor in shard.values())
    if not first:
        return
    if len(groups) > 1:
        _write_json(partial / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})
    _write_json(partial / "config.json", hf_config.render_config(config, torch_dtype=written.name, **tokens))
    _write_json(partial / "generation_config.json", tokens)
    if directory.exists():
        directory.rmdir()
    partial.rename(directory)


def _check_tensors(directory: pathlib.Path, tensors: Mapping[str, Any], places: Mapping[str, Place]) -> None:
    found = {name for name in tensors if not name.endswith(_BUFFERS)}
    if _HEAD in found - places.keys() and _EMBEDDING in found:
        if not _equal_matrices(tensors[_HEAD], tensors[_EMBEDDING]):
            raise ValueError(
                f"{directory}: tensor {_HEAD} differs from {_EMBEDDING}, while config.json says tie_word_embeddings: "
                "set that to false, or remove the tensor"
            )
        found.remove(_HEAD)
    if missing := places.keys() - found:
        raise ValueError(f"{directory}: missing tensors: {name_some(missing)}")
    if unknown := found - places.keys():
        raise ValueError(f"{directory}: tensors that this model has no place for: {name_some(unknown)}")
    for name, place in places.items():
        if (shape := tuple(tensors[name].get_shape())) != place.shape:
            raise ValueError(f"{directory}: tensor {name}: expected shape {place.shape}, got {shape}")
        if (dtype := tensors[name].get_dtype()) not in ("F32", "BF16", "F16"):
            raise ValueError(f"{directory}: tensor {name}: expected F32, BF16 or F16, got {dtype}")


def _equal_matrices(one: Any, other: Any) -> bool:
    """Whether two matrices of files are equal to the bit; reads a few rows at a time."""
    if one.get_shape() != other.get_shape() or one.get_dtype() != other.get_dtype():
        return False
    rows = one.get_shape()[0]
    parts = [slice(start, min(start + _ROWS, rows)) for start in range(0, rows, _ROWS)]
    return all(one[part].tobytes() == other[part].tobytes() for part in parts)


def _read_tensor(tensor: Any, place: Place, sharding: Sharding, dtype: str) -> jax.Array:
    """Reads one tensor to its devices; each reads its own part of the file."""

    def read_part(index):
        if place.transposed:
            return np.ascontiguousarray(tensor[index[::-1]].T.astype(dtype))
        return tensor[index].astype(dtype)

    return jax.make_array_from_callback(_array_shape(place), sharding, read_part)


def _fetch_tensor(array: jax.Array, place: Place, dtype: jnp.dtype) -> np.ndarray:
    """Gathers one tensor on every process, in the shape and dtype of the file."""
    if place.layer is not None:
        array = array[place.layer]
    array = array.astype(dtype)
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        array = multihost_utils.process_allgather(array, tiled=True)
    whole = np.asarray(array)
    return np.ascontiguousarray(whole.T if place.transposed else whole)


def _set_layer(stacked: jax.Array, part: jax.Array, layer: int) -> jax.Array:
    return stacked.at[layer].set(part)


def _of_one_layer(sharding: Sharding) -> Sharding:
    """Returns the sharding of one layer of an array of stacked layers."""
    if not isinstance(sharding, NamedSharding):
        return sharding
    if sharding.spec and sharding.spec[0] is not None:
        raise ValueError(f"the layers' axis must not be sharded, got {sharding.spec}")
    return NamedSharding(sharding.mesh, P(*sharding.spec[1:]))


def _split_shards(places: Mapping[str, Place], itemsize: int, limit: int) -> list[list[str]]:
    """Splits the names, in order, into groups of at most `limit` bytes (or one tensor)."""
    groups: list[list[str]] = [[]]
    room = limit
    for name, place in places.items():
        size = int(np.prod(place.shape)) * itemsize
        if groups[-1] and size > room:
            groups.append([])
            room = limit
        groups[-1].append(name)
        room -= size
    return groups


def _flatten_tree(tree: Any) -> dict[tuple[str, ...], Any]:
    return traverse_util.flatten_dict(tree)


def _shape_of(leaf: Any) -> tuple[int, ...] | None:
    return None if leaf is None else leaf.shape


def _file_shape(path: tuple[str, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[::-1] if path[-1] == "kernel" else shape


def _array_shape(place: Place) -> tuple[int, ...]:
    return _file_shape(place.path, place.shape)


def _write_json(path: pathlib.Path, content: Any) -> None:
    replace_file(path, json.dumps(content, indent=2) + "\n")
