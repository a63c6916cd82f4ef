"""Places arrays on a mesh `data x fsdp x tensor`, by one rule for each kind of parameter.

Rows of a batch are split over data and fsdp; parameters, their gradients and the optimizer's moments over fsdp and
tensor. The compiler (GSPMD) chooses what the rules leave open.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from models import lora, qwen2
from models.config import Qwen2Config

DATA, FSDP, TENSOR = AXES = ("data", "fsdp", "tensor")
ROWS = (DATA, FSDP)
"""The axes that rows are split over."""

RULES = (  # path of a parameter (layers are stacked along the first axis) -> how its axes are split
    (r"embed/embedding", P(TENSOR, FSDP)),
    (r"head/kernel", P(FSDP, TENSOR)),
    (r"layers/(attention/[qkv]|mlp/(gate|up))/kernel", P(None, FSDP, TENSOR)),
    (r"layers/(attention/o|mlp/down)/kernel", P(None, TENSOR, FSDP)),
    (r"layers/attention/[qkv]/bias", P(None, TENSOR)),
    (r"layers/(attention/[qkv]|mlp/(gate|up))/lora_a", P(None, FSDP, None)),
    (r"layers/(attention/[qkv]|mlp/(gate|up))/lora_b", P(None, None, TENSOR)),
    (r"layers/(attention/o|mlp/down)/lora_a", P(None, TENSOR, None)),
    (r"layers/(attention/o|mlp/down)/lora_b", P(None, None, FSDP)),
    (r"(layers/(attention|mlp)_)?norm/scale", P()),
    (r"value_head/kernel", P(FSDP, None)),
    (r"value_head/bias", P()),
)


def axis_sizes(data: int, fsdp: int, tensor: int, *, devices: int) -> dict[str, int]:
    """Returns the sizes of the axes on that many devices. One size may be -1: it becomes all devices that are left.

    Raises ValueError, naming the axis, where sizes and devices do not fit.
    """
    sizes = dict(zip(AXES, (data, fsdp, tensor), strict=True))
    for name, size in sizes.items():
        if size < 1 and size != -1:
            raise ValueError(f"config.mesh.{name}: expected a positive number, or -1 for all that are left, got {size}")
    open_axes = [name for name, size in sizes.items() if size == -1]
    if len(open_axes) > 1:
        raise ValueError(f"config.mesh.{open_axes[1]}: only one axis can be -1")
    given = math.prod(map(abs, sizes.values()))
    if devices % given or (not open_axes and given != devices):
        shape = " x ".join(f"{name} {size}" for name, size in sizes.items())
        raise ValueError(f"config.mesh: {shape} does not divide {devices} devices evenly")
    return sizes | dict.fromkeys(open_axes, devices // given)


def make_mesh(data: int = -1, fsdp: int = 1, tensor: int = 1, *, devices: list[jax.Device] | None = None) -> Mesh:
    """Makes a mesh over all of `devices` (default: every device of every process); see `axis_sizes`.

    Raises ValueError, naming the axis, if the tensor axis would leave a process.
    """
    devices = jax.devices() if devices is None else devices
    sizes = axis_sizes(data, fsdp, tensor, devices=len(devices))
    if (here := len([device for device in devices if device.process_index == jax.process_index()])) % sizes[TENSOR]:
        raise ValueError(f"config.mesh.tensor: {sizes[TENSOR]} does not divide the {here} devices of a process")
    return jax.make_mesh(tuple(sizes.values()), AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices)


def check_mesh(mesh: Mesh, config: Qwen2Config) -> None:
    """Raises ValueError, naming axis and size, unless the mesh divides the model evenly."""
    divided = {FSDP: ("hidden_size",), TENSOR: ("num_heads", "num_kv_heads", "intermediate_size", "vocab_size")}
    for axis, names in divided.items():
        for name in names:
            if getattr(config, name) % mesh.shape[axis]:
                raise ValueError(
                    f"config.mesh.{axis}: {mesh.shape[axis]} does not divide the model's {name} {getattr(config, name)}"
                )


def find_shardings(mesh: Mesh, arrays: Any) -> Any:
    """Finds the sharding of every array in a tree of parameters, moments and scalars, by the names in its path.

    Arrays outside any dict (steps, counts, an algorithm's memory) are replicated. Raises ValueError for an unknown
    parameter.
    """

    def find_sharding(path, _):
        name = "/".join(str(key.key) for key in path if isinstance(key, jax.tree_util.DictKey))
        specs = [spec for pattern, spec in RULES if re.fullmatch(pattern, name)] if name else [P()]
        if not specs:
            raise ValueError(f"no partition rule for the parameter {name}")
        return NamedSharding(mesh, specs[0])

    return jax.tree_util.tree_map_with_path(find_sharding, arrays)


def place_rows(mesh: Mesh, arrays: Any, micro_rows: int) -> Any:
    """Cuts arrays [R, ...] into micro-batches [M, U, ...] and puts them on the mesh, U split over data and fsdp.

    U is `micro_rows` for each device that rows are split over; zeros pad the last micro-batch.
    """
    unit = micro_rows * rows_axis_size(mesh)
    sharding = NamedSharding(mesh, P(None, ROWS))

    def place_array(x):
        x = np.pad(x, [(0, -len(x) % unit)] + [(0, 0)] * (x.ndim - 1)).reshape(-1, unit, *x.shape[1:])
        return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

    return jax.tree.map(place_array, arrays)


def replicate(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of arrays that every device of every process has whole."""
    return NamedSharding(mesh, P())


def compiler_options(mesh: Mesh) -> dict[str, str] | None:
    """Returns XLA's options for computing gradients on these devices.

    On a CPU, XLA's calls of YNNPACK for products and sums make a gradient of the default model 1.15 times as slow.
    """
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    return {"xla_cpu_experimental_ynn_fusion_type": ""} if on_cpu else None


def rows_axis_size(mesh: Mesh) -> int:
    """Returns how many devices rows are split over."""
    return mesh.shape[DATA] * mesh.shape[FSDP]


def shard_cache(mesh: Mesh, slots: int) -> NamedSharding:
    """Returns the sharding of the sampler's keys and values, see `KVCache`, on this process's devices.

    Raises ValueError if S = `slots` cannot be divided evenly.
    """
    if slots % (parts := rows_axis_size(mesh.local_mesh)):
        raise ValueError(f"config.engine.slots: expected a multiple of the {parts} parts of a process, got {slots}")
    return NamedSharding(mesh.local_mesh, P(None, None, ROWS, TENSOR))


@functools.cache
def make_publish(config: Qwen2Config, mesh: Mesh) -> Callable[[Any, Any], Any]:
    """Returns ``publish(frozen, params) -> weights``, for sampling on each process's own devices.

    Adapters are merged, matrices are cast to the precision that the model computes in, and only the tensor axis still
    splits them.
    """

    def merge_weights(frozen, params):
        return qwen2.cast(config, lora.merge(config, lora.combine(frozen, params)))

    def keep_tensor_axis(sharding):
        return NamedSharding(mesh, P(*(axis if axis == TENSOR else None for axis in sharding.spec)))

    def take_local_shards(x):
        shards = [shard.data for shard in x.addressable_shards]
        sharding = NamedSharding(mesh.local_mesh, x.sharding.spec)
        return jax.make_array_from_single_device_arrays(x.shape, sharding, shards)

    merged = qwen2.shapes(dataclasses.replace(config, lora_rank=0))
    layout = jax.tree.map(keep_tensor_axis, find_shardings(mesh, merged))
    gather = jax.jit(merge_weights, out_shardings=layout)
    return lambda frozen, params: jax.tree.map(take_local_shards, gather(frozen, params))
