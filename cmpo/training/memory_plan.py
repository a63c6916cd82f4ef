"""Does a run fit? ``python -m cmpo.main … --dry_run`` counts bytes per device from shapes, and allocates nothing.

Arrays that live from step to step are counted exactly, with the shardings that the run would use. Arrays that live
within a step are estimated. Attention's scores and XLA's own needs are not counted: leave a tenth of a device for them.

Legend: U rows of a micro-batch on one device, T tokens of a row, L layers, D hidden size, F MLP size, V vocabulary,
S slots of a process.
"""

import contextlib
import functools
import itertools
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from cmpo.distributed import sharding
from cmpo.distributed.sharding import AXES, DATA, FSDP, TENSOR
from cmpo.evaluation.tables import format_table
from cmpo.training import build
from models import lora, qwen2, scoring
from models.config import Qwen2Config
from rollouts import domains

HOST = 8
"""Devices of one process, if there are more than that in total."""
USABLE = 0.9
"""Share of a device's memory that a plan may fill."""


class Devices(NamedTuple):
    """The devices that a run would have."""

    count: int
    gigabytes: float  # of each, 10^9 bytes


def read_devices(text: str) -> Devices:
    """Reads "8x80" as eight devices of 80 GB. "" means the accelerators of this machine, or 8x80 if it has none."""
    if not text:
        here = jax.local_devices()
        stats = here[0].memory_stats() if here[0].platform != "cpu" else None
        return Devices(jax.device_count(), stats["bytes_limit"] / 1e9) if stats else Devices(8, 80.0)
    if not (match := re.fullmatch(r"([1-9]\d*)x(\d+(?:\.\d+)?)", text)):
        raise ValueError(f"--devices: expected COUNTxGIGABYTES, for instance 8x80, got {text!r}")
    return Devices(int(match[1]), float(match[2]))


def plan_memory(config: ConfigDict, model: Qwen2Config, on: Devices) -> str:
    """Returns a table of the memory that a run of `config` needs on each device.

    If it is too much, prints the table and raises ValueError, which names a mesh that would do.
    """
    sizes = sharding.axis_sizes(**config.mesh, devices=on.count)
    phases, room = estimate_needs(config, model, sizes), USABLE * on.gigabytes
    total = find_peak(phases) / 1e9
    lines = [
        f"{sum(leaf.size for leaf in jax.tree.leaves(qwen2.shapes(model))):,} parameters, matrices in {model.dtype}",
        f"mesh {_format_mesh(sizes)}: {on.count} devices of {on.gigabytes:g} GB",
        "",
    ]
    rows = [
        [f"{phase}: {name}", f"{size / 1e9:.2f}"]
        for phase, items in phases.items()
        for name, size in items.items()
        if size
    ]
    lines += [format_table(["on each device", "GB"], [*rows, ["most at a time", f"{total:.2f}"]]), ""]
    if total <= room:
        return "\n".join([*lines, f"fits: {total:.1f} of {room:.1f} GB ({USABLE:.0%} of a device)"])
    print("\n".join(lines))
    size, largest = max((size, name) for items in phases.values() for name, size in items.items())
    other = next(_find_fitting_meshes(config, model, on), None)
    advice = "no mesh of up to 1,024 devices would do"
    if other:
        advice = f"the mesh {_format_mesh(other)} would do, {math.prod(other.values())} devices"
    raise ValueError(
        f"does not fit: {total:.1f} GB on each device ({largest}: {size / 1e9:.1f}), "
        f"expected at most {room:.1f} ({USABLE:.0%} of {on.gigabytes:g}); {advice}"
    )


def estimate_needs(config: ConfigDict, model: Qwen2Config, sizes: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Estimates bytes on each device, by phase and purpose. Raises ValueError if the mesh does not divide the model."""
    mesh = AbstractMesh(tuple(sizes[axis] for axis in AXES), AXES, axis_types=(AxisType.Auto,) * len(AXES))
    sharding.check_mesh(mesh, model)
    algorithm = build.load_algorithm(config, domains.load(config))
    state = build.lay_out_state(config, model, mesh, algorithm, config.train.sft_steps + 1)
    frozen, trained = lora.split(model, jax.eval_shape(functools.partial(qwen2.cast, model), qwen2.shapes(model)))
    plain = frozen or trained
    train, item, tensor = config.train, jnp.dtype(model.dtype).itemsize, sizes[TENSOR]
    sampling = sharding.rows_axis_size(mesh) if math.prod(sizes.values()) <= HOST else HOST // tensor
    slots = -(-config.engine.slots // sampling)
    rows = min(config.engine.rows or slots, slots)
    tokens = train.micro_rows * train.row_length  # U T
    scored = train.micro_rows * min(scoring.Layout.block, train.row_length)  # tokens scored at a time
    # A token's values in one layer: q, k, v, the output of attention, three of the MLP, four of the residual stream.
    layer = (2 * model.num_heads + 2 * model.num_kv_heads) * model.head_dim + 3 * model.intermediate_size
    layer = (layer // tensor + 4 * model.hidden_size) * item
    kept = model.num_layers * (model.hidden_size * item if model.remat else layer)
    layers = 1 if model.remat else model.num_layers
    gathered = _count_bytes(mesh, {"layers": {**frozen, **trained}["layers"]}, FSDP) * layers // model.num_layers
    gathered *= sizes[FSDP] > 1  # without fsdp they are whole already
    cache = 2 * model.num_layers * config.model.context_length * model.num_kv_heads * model.head_dim * item
    return {
        "always": {
            "parameters that are trained, float32": _count_bytes(mesh, state.policy.params),
            "parameters that are frozen": _count_bytes(mesh, frozen),
            "moments of the optimizer": _count_bytes(mesh, state.policy.opt_state),
            "what the algorithm trains and keeps beside them": _count_bytes(mesh, (state.head, state.memory)),
            "the reference": _count_bytes(mesh, state.reference),
            "the policy of the step before": _count_bytes(mesh, state.behaviour),
            "weights to sample with": _count_bytes(mesh, plain, FSDP),
            "keys and values of the sampler": slots * cache // tensor,
        },
        "sampling": {
            "activations of a prefill": 2 * rows * config.engine.chunk * layer,
            "logits": 4 * slots * model.vocab_size * 4,
        },
        "updating": {
            "gradients, float32": _count_bytes(mesh, state.policy.params),
            f"matrices in {model.dtype} and their gradients": 2 * _count_bytes(mesh, trained),
            "layers' matrices, gathered, and their gradients": 2 * gathered,
            "activations": tokens * (kept + 2 * layer),
            "logits of a part of the words": 2 * scored * (min(qwen2.CHUNK, model.vocab_size) // tensor) * 4,
        },
    }


def find_peak(phases: Mapping[str, Mapping[str, int]]) -> int:
    """Returns the most bytes at a time: those that always live, and those of the larger phase."""
    always, *others = (sum(items.values()) for items in phases.values())
    return always + max(others)


def _find_fitting_meshes(config: ConfigDict, model: Qwen2Config, on: Devices) -> Iterator[dict[str, int]]:
    """Yields meshes in which the run fits, the smallest first."""
    for count, tensor in itertools.product((on.count * 2**power for power in range(11)), (1, 2, 4, 8)):
        if count > 1024 or count % tensor or tensor > min(count, HOST):
            continue
        sizes = {DATA: 1, FSDP: count // tensor, TENSOR: tensor}
        with contextlib.suppress(ValueError):
            if find_peak(estimate_needs(config, model, sizes)) <= USABLE * on.gigabytes * 1e9:
                yield sizes


def _count_bytes(mesh: AbstractMesh, arrays: Any, gathered: str | None = None) -> int:
    """Counts the bytes of `arrays` on one device, which holds them whole along the mesh axis `gathered`."""

    def count_part(leaf, sharding):
        spec = P(*(None if axis == gathered else axis for axis in sharding.spec))
        return math.prod(NamedSharding(mesh, spec).shard_shape(leaf.shape)) * leaf.dtype.itemsize

    return sum(jax.tree.leaves(jax.tree.map(count_part, arrays, sharding.find_shardings(mesh, arrays))))


def _format_mesh(sizes: Mapping[str, int]) -> str:
    return " x ".join(f"{axis} {sizes[axis]}" for axis in AXES)
