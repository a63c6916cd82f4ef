"""The update of phase 2 on one device: its speed, its memory beside the plan's, its costs."""

import functools
import math
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from ml_collections import ConfigDict

from benchmarks.gpu import device
from benchmarks.gpu.device import Record, Sizes
from cmpo import algorithms
from cmpo.algorithms.algorithm import Rows, Signals
from cmpo.distributed import sharding
from cmpo.run import train_state
from cmpo.training import build, memory_plan, model_source, packing, update_step
from models import lora, qwen2
from rollouts import domains

HELD = ("parameters that are trained, float32", "parameters that are frozen", "moments of the optimizer")
"""What an update alone holds of what `cmpo.training.memory_plan` says a run always does."""


def update(size: str, sizes: Sizes, **changes) -> Iterator[Record]:
    """The update of phase 2, as the trainer makes it, on rows of each length; then the costs of one row of the last."""
    config, model = device.settings(size, sizes, **changes)
    mesh = sharding.make_mesh(devices=[device.accelerator()])
    ceiling = max(device.products(sizes).values())
    optimizer = build.make_optimizers(config)["rl"]
    algorithm = algorithms.load(config, domains.load(config))
    frozen = device.random_weights(model) if model.lora_rank else {}
    params = model_source.make_trained_params(model, mesh, None, 0)
    policy = jax.jit(functools.partial(train_state.begin_training, optimizer))(params)
    state, values = (policy, update_step.WITHOUT_HEAD), {}
    del params  # the update takes it over
    name = f"update of Qwen2.5-{size.upper()}" + (f", LoRA of rank {model.lora_rank}" if model.lora_rank else "")

    for length in sizes.lengths:
        host = rows(model, length, sizes)
        packed, extras = sharding.place_rows(mesh, (host, signals(model, host)), config.train.micro_rows)
        jitted = update_step.make_update(model, mesh, optimizer, algorithm.loss, temperature=config.engine.temperature)
        lowered = jitted.lower(*state, frozen, packed, extras)
        program, compiling = device.compiled(lowered)

        def work(program, packed, extras=extras):
            nonlocal state, values
            *state, values = program(*state, frozen, packed, extras)
            return values

        took = device.timed(functools.partial(work, program, packed), sizes.repeats)
        if values["updates_skipped"]:
            raise FloatingPointError(f"{name}: expected a finite loss and gradient, and the update was skipped")
        count, needed = np.sum(host.segment_ids > 0), operations(model, host)
        rate, everything = needed / took, sum(leaf.size for leaf in jax.tree.leaves(qwen2.shapes(model)))
        note = (
            f"{count:,} tokens in {took:.3f} s, {np.mean(host.mask):.0%} scored; {rate / 1e12:.4g} TFLOP/s of "
            f"{4 if model.lora_rank else 6} operations a weight that a token meets and 12 a pair of attention; "
            f"6 N T: {6 * everything * count / took / ceiling:.0%}; compiled in {compiling:.1f} s"
        )
        what = f"{name}, rows of {length:,}"
        yield device.record(what, count / took, count * ceiling / needed, "the rate of products", "tokens/s", note)

        what, expected = f"{what}, peak memory", planned(config, model, length)
        account = memory(program)
        peak = (device.accelerator().memory_stats() or {}).get("peak_bytes_in_use", account)
        note = f"XLA's own account of the update: {account / 1e9:.4g} GB"
        yield device.record(what, peak / 1e9, expected / 1e9, "--dry_run", "GB", note, less=True)

    alone = packed.replace(segment_ids=packed.segment_ids.at[1:].set(0))  # the other rows are padding then
    what = f"{name}, a row of {length:,}"
    yield from device.costs(what, lambda program: jax.block_until_ready(work(program, alone)), lowered)


def rows(model: qwen2.Qwen2Config, length: int, sizes: Sizes) -> Rows:
    """Full rows of random dialogues, a group in each.

    They share their prompt; of what follows, five tokens in eight count.
    """
    rng, streams = np.random.default_rng(0), []
    members = max(2, length // 2048)
    tail = (length - sizes.prompt) // members
    mask = np.concatenate([np.zeros(sizes.prompt, bool), np.arange(tail) % 8 >= 3])
    for group in range(max(1, sizes.tokens // length)):
        prompt = rng.integers(0, model.vocab_size, sizes.prompt)
        for _ in range(members):
            tokens = np.concatenate([prompt, rng.integers(0, model.vocab_size, tail)])
            sampled = np.where(mask, -math.log(model.vocab_size), 0)  # about what the model thinks of them
            streams.append(packing.Stream(tokens, mask, sampled, np.zeros(len(tokens)), group))
    return packing.pack_rows(streams, row_length=length, share=True)


def signals(model: qwen2.Qwen2Config, host: Rows) -> Signals:
    """Advantages and reference logprobs, [R, T] float32."""
    advantages = np.random.default_rng(1).choice([-1, 1], host.tokens.shape)
    return Signals(advantages.astype(np.float32), host.sampled_logprobs.copy())


def operations(model: qwen2.Qwen2Config, host: Rows) -> int:
    """Floating-point operations that one update of these rows cannot do without.

    A multiplication and an addition for each weight of a layer and token, once forward and twice backward; for the
    head, scored tokens only; for frozen weights, once backward: they have no gradient. Of attention, two products
    forward and four backward for each pair of a token and one that it sees. Norms and the like are not counted, nor
    what is computed again.
    """
    flat = traverse_util.flatten_dict(qwen2.shapes(model))
    kernels = sum(leaf.size for path, leaf in flat.items() if path[0] == "layers" and path[-1] == "kernel")
    adapters = sum(leaf.size for path, leaf in flat.items() if path[-1] in (lora.A, lora.B))
    head, used = model.vocab_size * model.hidden_size, host.segment_ids > 0
    count, scored, pairs = np.sum(used), np.sum(host.mask), np.sum((host.positions + 1)[used], dtype=np.int64)
    weights = (4 if model.lora_rank else 6) * (kernels * count + head * scored) + 6 * adapters * count
    return int(weights + 12 * model.num_layers * model.num_heads * model.head_dim * pairs)


def planned(config: ConfigDict, model: qwen2.Qwen2Config, length: int) -> int:
    """Bytes that `--dry_run` says an update takes, without what a run holds beside it."""
    config.train.row_length = length
    needs = memory_plan.estimate_needs(config, model, dict.fromkeys(sharding.AXES, 1))
    return sum(needs["always"][item] for item in HELD) + sum(needs["updating"].values())


def memory(program: Any) -> int:
    """Bytes that a compiled program takes while it runs, by its own account."""
    found = program.memory_analysis()
    sizes = found.argument_size_in_bytes, found.output_size_in_bytes, found.temp_size_in_bytes
    return sum(sizes) - found.alias_size_in_bytes
