"""The sampler on one device: the speed of its step, its costs, and how far it is from the trainer."""

import asyncio
import dataclasses
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.gpu import device
from benchmarks.gpu.device import Record, Sizes
from cmpo.distributed import sharding
from cmpo.training import model_source, packing, update_step
from models import cache, qwen2
from rollouts.engine import sampling
from rollouts.engine.engine import Engine
from rollouts.engine.sampling import Sampling


def decode(size: str, sizes: Sizes) -> Iterator[Record]:
    """The sampler's step, in every slot between half and all of the context; then the costs of a call."""
    config, model = device.settings(size, sizes)
    ceiling = device.copies(sizes)
    weights = device.random_weights(model)
    read = sum(leaf.nbytes for leaf in jax.tree.leaves(weights))
    if not model.tie_embeddings:
        read -= weights["embed"]["embedding"].nbytes  # of which a step looks up a few rows

    for slots in sizes.slots:
        options = {name: config.engine[name] for name in ("steps", "max_new_tokens", "temperature")}
        layout = Sampling(slots=slots, capacity=sizes.context, **options)
        kv = full_cache(model, slots, sizes.context)
        lengths = np.linspace(sizes.context // 2, sizes.context - layout.steps, slots).astype(np.int32)
        seeds, places = np.arange(slots, dtype=np.uint32), np.zeros(slots, np.int32)
        limits, ones = np.full(slots, layout.max_new_tokens, np.int32), np.ones(slots, np.float32)
        turns = sampling.Turns(
            seeds, places, np.ones(slots, bool), places, limits, layout.temperature * ones, places, ones
        )
        rest = turns, None, None, np.int32(layout.steps)
        logits = jax.random.normal(jax.random.key(1), (slots, model.vocab_size))
        options = {"stop_id": 0, "size": layout.steps, "capacity": layout.capacity, "plain": True}
        lowered = sampling.decode.lower(model, weights, kv, logits, *rest, **options)
        program, compiling = device.compiled(lowered)

        def work(program=program, lengths=lengths, rest=rest):
            nonlocal kv, logits
            drawn, logits, kv = program(weights, kv._replace(lengths=jnp.asarray(lengths)), logits, *rest)
            return drawn.counts

        took = device.timed(work, sizes.repeats)
        count = int(work().sum())  # a slot that happened to draw the stop token has fewer
        held = kv.k.nbytes + kv.v.nbytes
        cached = held * (lengths.mean() + layout.steps / 2) / sizes.context
        note = (
            f"{1e3 * took / layout.steps:.4g} ms a step, {read / 1e9:.4g} GB of weights and {cached / 1e9:.4g} GB of "
            f"keys and values; {lengths.min():,} to {lengths.max():,} tokens a slot; compiled in {compiling:.1f} s"
        )
        what = f"decoding with Qwen2.5-{size.upper()}, {slots} slots"
        bound = count * ceiling / (layout.steps * (read + cached))
        yield device.record(what, count / took, bound, "reading it at the rate of copies", "tokens/s", note)

    yield from device.costs(what, lambda program: jax.block_until_ready(work(program)), lowered)


def full_cache(model: qwen2.Qwen2Config, slots: int, room: int) -> cache.KVCache:
    """A cache of random keys and values, the same in every layer."""

    def fill(key, like):
        return jnp.broadcast_to(jax.random.normal(key, like.shape[1:], like.dtype), like.shape)

    def made():
        shapes = jax.eval_shape(lambda: cache.init(model, slots, room))
        k, v = map(fill, jax.random.split(jax.random.key(0)), shapes[:2])
        return cache.KVCache(k, v, jnp.zeros(slots, jnp.int32))

    return jax.jit(made)()


def gap(size: str, sizes: Sizes) -> Iterator[Record]:
    """How far the sampler's log-probabilities are from the trainer's, beside what bfloat16 costs the trainer."""
    config, model = device.settings(size, sizes)
    count, prompt, new = sizes.streams
    options = {"chunk": config.engine.chunk, "steps": config.engine.steps, "temperature": config.engine.temperature}
    engine = Engine(model, 0, Sampling(slots=count, capacity=prompt + new + 1, max_new_tokens=new, **options))
    mesh = sharding.make_mesh(devices=[device.accelerator()])
    params = model_source.make_trained_params(model, mesh, None, 0)
    engine.load(jax.jit(lambda params: qwen2.cast(model, params))(params))
    prompts = np.random.default_rng(0).integers(1, model.vocab_size, (count, prompt)).astype(np.int32)

    async def drawn() -> list:
        async with engine:
            sessions = [engine.open() for _ in prompts]
            turns = (session.generate(ids, len(ids)) for session, ids in zip(sessions, prompts, strict=True))
            return await asyncio.gather(*turns)

    streams = []
    for ids, turn in zip(prompts, asyncio.run(drawn()), strict=True):
        mask = np.arange(len(ids) + len(turn.ids)) >= len(ids)
        logprobs = np.concatenate([np.zeros(len(ids)), turn.logprobs])
        streams.append(packing.Stream(np.concatenate([ids, turn.ids]), mask, logprobs, np.zeros(len(mask))))
    host = packing.pack_rows(streams, row_length=prompt + new)
    packed = sharding.place_rows(mesh, host, 1)

    def score(model: qwen2.Qwen2Config, precision: str | None = None) -> np.ndarray:
        scorer = update_step.make_score(model, mesh, temperature=config.engine.temperature)
        with jax.default_matmul_precision(precision):
            return np.asarray(scorer({}, params, packed)).reshape(host.mask.shape)[host.mask]

    trained = score(model)
    exact = score(dataclasses.replace(model, dtype="float32", attention="blocks"), "highest")  # else TF32 on a GPU
    apart, rounding = np.abs(host.sampled_logprobs[host.mask] - trained), np.abs(exact - trained)
    least = np.spacing(np.abs(trained).max())  # the last place of a float32: where nothing is apart, this
    note = f"{len(apart):,} tokens drawn by Qwen2.5-{size.upper()} with random weights, {model.dtype}"
    for name, of in (("largest", np.max), ("mean", np.mean)):
        what, values = f"sampler and trainer apart, {name}", (float(max(of(x), least)) for x in (apart, rounding))
        yield device.record(what, *values, "the trainer from float32", "nats", note, less=True)
