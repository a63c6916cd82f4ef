"""The device that is measured: what of it, how, and what it can do at best.

The parts of `benchmarks.gpu` are generators of records: a figure, and beside it what the device itself can do
(`products`, `copies`), so that `ratio` is the share of that. Weights are random, in Qwen2.5's shapes and with the
paper's settings (configs/fds.py). Times are medians, after a first call; what compiling takes is said apart.
"""

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from benchmarks import contest
from benchmarks.gpu import profiles
from cmpo.training import model_source
from configs import fds
from models import qwen2

Record = dict[str, Any]
"""what, ours, peer, peer_name, ratio, unit, device, note."""

COSTS = 3  # of a profile, the largest

SINGLY = {"xla_gpu_graph_min_graph_size": 10**6}
"""XLA's options for a profile: a GPU starts each operation by itself; of a graph of them it shows the sum alone."""


class Sizes(NamedTuple):
    """How much is measured; as it stands, for a GPU of 80 GB."""

    products: tuple[tuple[int, int, int], ...] = (  # rows, summed over, columns; the last two: an MLP of 7B, of 1.5B
        (8192, 8192, 8192),
        (16384, 8192, 8192),
        (16384, 3584, 18944),
        (16384, 1536, 8960),
    )
    copied: int = 2**29  # float32 numbers read, and as many written
    calls: int = 10  # of a product or a copy, one after another
    repeats: int = 3  # of what a median is taken of
    lengths: tuple[int, ...] = (4096, 8192)  # of rows, ascending: the peak of memory never goes down
    tokens: int = 16384  # of an update
    prompt: int = 1024  # tokens that the dialogues of a row begin with alike
    slots: tuple[int, ...] = (64, 256)
    context: int = 2048  # tokens of the longest dialogue that is decoded
    streams: tuple[int, int, int] = (8, 512, 256)  # of the gap: how many, tokens of a prompt, tokens drawn after it
    changes: Mapping[str, Any] = {}  # of the config, for a smaller model
    played: Mapping[str, Any] = {  # and of that of a whole step
        "train.scenarios_per_step": 16,
        "episode.max_turns": 4,
        "engine.max_new_tokens": 128,
        "engine.grammar": True,
    }


def settings(size: str, sizes: Sizes, **changes) -> tuple[ConfigDict, qwen2.Qwen2Config]:
    """The paper's config for Qwen2.5 of `size`, and the architecture, with new weights as Qwen2.5 begins."""
    config = fds.get_config(f"model=qwen2.5-{size}")
    config.model.initializer_range, config.model.rope_theta = 0.02, 1e6
    config.update_from_flattened_dict({**sizes.changes, **changes})
    return config, model_source.find_architecture(config, None)


def record(what: str, ours: float, peer: float, peer_name: str, unit: str, note: str, *, less: bool = False) -> Record:
    """A record of a figure and its peer, of which more is better, or `less`.

    Raises ValueError if one of them is not a positive number.
    """
    if not all(math.isfinite(figure) and figure > 0 for figure in (ours, peer)):
        raise ValueError(f"{what}: expected positive numbers, got {ours} {unit} beside {peer} ({peer_name})")
    values = {"ours": ours, "peer": peer, "peer_name": peer_name, "ratio": peer / ours if less else ours / peer}
    return {"what": what, **values, "unit": unit, "device": accelerator().device_kind, "note": note}


def accelerator() -> jax.Device:
    """The one that is measured: the first."""
    return jax.devices()[0]


def ceilings(sizes: Sizes) -> Iterator[Record]:
    """The rates of bfloat16 matrix products and of copies; the best of the products is the ceiling of what follows."""
    rates = products(sizes)
    for shape, rate in rates.items():
        what = f"bfloat16 product, {' x '.join(map(str, shape))}"
        yield record(what, rate / 1e12, max(rates.values()) / 1e12, "the best of these", "TFLOP/s", "random numbers")
    rate, amount = copies(sizes) / 1e9, 8 * sizes.copied / 1e9
    yield record("copy", rate, rate, "itself", "GB/s", f"{amount:.3g} GB, read and written")


def products(sizes: Sizes) -> dict[tuple[int, int, int], float]:
    """Operations a second of bfloat16 matrix products, by shape."""
    product, rates = jax.jit(jnp.matmul), {}
    for rows, inner, columns in sizes.products:
        keys = jax.random.split(jax.random.key(0))
        a, b = (jax.random.normal(*x, jnp.bfloat16) for x in zip(keys, ((rows, inner), (inner, columns)), strict=True))
        took = timed(lambda a=a, b=b: in_a_row(lambda: product(a, b), sizes.calls), sizes.repeats)
        rates[rows, inner, columns] = 2 * rows * inner * columns * sizes.calls / took
    return rates


def copies(sizes: Sizes) -> float:
    """Bytes a second, read and written, of a large array to another."""
    x, negate = jax.random.normal(jax.random.key(0), sizes.copied), jax.jit(jnp.negative)
    took = timed(lambda: in_a_row(lambda: negate(x), sizes.calls), sizes.repeats)
    return 2 * x.nbytes * sizes.calls / took


def timed(work: Callable[[], Any], repeats: int) -> float:
    """Median seconds until the result of `work` is there, after a first call."""

    def once():
        return contest.seconds(lambda: jax.block_until_ready(work()))

    once()
    return statistics.median(once() for _ in range(repeats))


def in_a_row(work: Callable[[], jax.Array], count: int) -> jax.Array:
    """The last of several results, which are not held at the same time."""
    for _ in range(count):
        result = work()
    return result


def compiled(lowered: jax.stages.Lowered) -> tuple[jax.stages.Compiled, float]:
    """The program, and the seconds that it takes to compile it."""
    started = time.perf_counter()
    return lowered.compile(), time.perf_counter() - started


def random_weights(model: qwen2.Qwen2Config) -> qwen2.Params:
    """The model without adapters, in the precision that it computes in; all layers alike.

    So the peak of memory is not that of drawing numbers, which takes several times what is drawn.
    """
    plain, single = (dataclasses.replace(model, lora_rank=0, num_layers=layers) for layers in (model.num_layers, 1))
    drawn = jax.jit(lambda: qwen2.cast(single, qwen2.init(single, jax.random.key(0))))()
    return jax.tree.map(lambda x, like: jnp.broadcast_to(x, like.shape), drawn, qwen2.shapes(plain))


def costs(what: str, work: Callable[[jax.stages.Compiled], Any], lowered: jax.stages.Lowered) -> Iterator[Record]:
    """The largest costs of a profile of `work`, which runs the program given to it, as shares of all the device did."""
    program = lowered.compile(compiler_options=SINGLY)
    work(program)  # what JAX itself has to compile, it has
    spent = profiles.costs(lambda: work(program), program.as_text())
    total = sum(cost.seconds for cost in spent)
    for place, cost in enumerate(spent[:COSTS], 1):
        name = f"{what}: cost {place}"
        values = 1e3 * cost.seconds, 1e3 * total, "all operations", "ms"
        yield record(name, *values, f"{cost.operation}: {cost.path or 'the program does not say where'}")
