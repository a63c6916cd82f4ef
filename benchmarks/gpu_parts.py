"""What `benchmarks.gpu` measures, part by part, on the first device that JAX sees.

A part is a generator of records: a figure, and beside it what the device itself can do (`products`, `copies`), so that
`ratio` is the share of that. Weights are random, in Qwen2.5's shapes and with the paper's settings (configs/fds.py).
Times are medians, after a first call; what compiling takes is said apart.
"""

import asyncio
import dataclasses
import functools
import math
import pathlib
import statistics
import tempfile
import time
import unittest.mock
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from ml_collections import ConfigDict

from benchmarks import contest, profiles
from cmpo import batch, demonstrations, plan, rollout, setup, sharding, step, trainer
from cmpo import data as scenario_data
from cmpo import model as policy
from cmpo.ahead import Ahead
from cmpo.interrupt import Interrupts
from cmpo.journal import Journal
from configs import fds
from models import cache, lora, qwen2
from models import tokenizer as tokenizers
from rollouts import grammar, sampling
from rollouts.engine import Engine
from rollouts.sampling import Sampling

Record = dict[str, Any]
"""what, ours, peer, peer_name, ratio, unit, device, note."""

HELD = ("parameters that are trained, float32", "parameters that are frozen", "moments of the optimizer")
"""What an update alone holds of what `cmpo.plan` says a run always does."""
COSTS = 3  # of a profile, the largest
WORDS = 12  # free tokens that random weights may choose from: their turns end after about as many


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
    config.model.initializer_range = 0.02
    config.update_from_flattened_dict({**sizes.changes, **changes})
    return config, policy.architecture(config, None)


def record(what: str, ours: float, peer: float, peer_name: str, unit: str, note: str, *, less: bool = False) -> Record:
    """A record of a figure and its peer, of which more is better, or `less`.

    Raises ValueError if one of them is not a positive number.
    """
    if not all(math.isfinite(figure) and figure > 0 for figure in (ours, peer)):
        raise ValueError(f"{what}: expected positive numbers, got {ours} {unit} beside {peer} ({peer_name})")
    values = {"ours": ours, "peer": peer, "peer_name": peer_name, "ratio": peer / ours if less else ours / peer}
    return {"what": what, **values, "unit": unit, "device": device().device_kind, "note": note}


def device() -> jax.Device:
    """The device that is measured."""
    return jax.devices()[0]


# What the device can do.


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
    """The model without adapters, in the precision that it computes in, and never in another."""
    plain = dataclasses.replace(model, lora_rank=0)
    return jax.jit(lambda: qwen2.cast(plain, qwen2.init(plain, jax.random.key(0))))()


# Updates.


def update(size: str, sizes: Sizes, **changes) -> Iterator[Record]:
    """The update of phase 2, as the trainer makes it, on rows of each length; then the costs of one row of the last."""
    config, model = settings(size, sizes, **changes)
    mesh = sharding.make_mesh(devices=[device()])
    ceiling = max(products(sizes).values())
    optimizer = setup.optimizers(config)["rl"]
    loss = step.cmpo_share(**{name: config.algo[name] for name in ("clip_low", "clip_high", "kl_weight")})
    frozen = random_weights(model) if model.lora_rank else {}
    params = policy.trained(model, mesh, None, 0)
    state, values = (params, jax.jit(optimizer.init)(params)), {}
    del params  # the update takes it over
    name = f"update of Qwen2.5-{size.upper()}" + (f", LoRA of rank {model.lora_rank}" if model.lora_rank else "")

    for length in sizes.lengths:
        host = rows(model, length, sizes)
        packed, extras = sharding.rows(mesh, (host, signals(model, host)), config.train.micro_rows)
        jitted = step.make_update(model, mesh, optimizer, loss, temperature=config.engine.temperature)
        program, compiling = compiled(jitted.lower(*state, frozen, packed, extras))

        def work(packed, program=program, extras=extras):
            nonlocal state, values
            *state, values = program(*state, frozen, packed, extras)
            return values

        took = timed(functools.partial(work, packed), sizes.repeats)
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
        yield record(what, count / took, count * ceiling / needed, "the rate of products", "tokens/s", note)

        account = memory(program)
        stats, config.train.row_length = device().memory_stats(), length
        peak = stats["peak_bytes_in_use"] if stats else account
        planned = plan.needs(config, model, dict.fromkeys(sharding.AXES, 1))
        expected = sum(planned["always"][item] for item in HELD) + sum(planned["updating"].values())
        note = f"XLA's own account of the update: {account / 1e9:.4g} GB"
        yield record(f"{what}, peak memory", peak / 1e9, expected / 1e9, "--dry_run", "GB", note, less=True)

    alone = packed.replace(segment_ids=packed.segment_ids.at[1:].set(0))  # the other rows are padding then
    yield from costs(f"{what}, one of them", lambda: jax.block_until_ready(work(alone)), program)


def rows(model: qwen2.Qwen2Config, length: int, sizes: Sizes) -> batch.Rows:
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
            streams.append(batch.Stream(tokens, mask, sampled, np.zeros(len(tokens)), group))
    return batch.pack(streams, row_length=length, share=True)


def signals(model: qwen2.Qwen2Config, host: batch.Rows) -> tuple[np.ndarray, np.ndarray]:
    """Advantages and reference logprobs, [R, T] float32."""
    advantages = np.random.default_rng(1).choice([-1, 1], host.tokens.shape)
    return advantages.astype(np.float32), host.sampled_logprobs.copy()


def operations(model: qwen2.Qwen2Config, host: batch.Rows) -> int:
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


def memory(program: Any) -> int:
    """Bytes that a compiled program takes while it runs, by its own account."""
    found = program.memory_analysis()
    sizes = found.argument_size_in_bytes, found.output_size_in_bytes, found.temp_size_in_bytes
    return sum(sizes) - found.alias_size_in_bytes


def costs(what: str, work: Callable[[], Any], program: Any) -> Iterator[Record]:
    """The largest costs of a profile of `work`, which runs `program`, as shares of all that the device did."""
    work()  # what JAX itself has to compile, it has
    spent = profiles.costs(work, program.as_text())
    total = sum(cost.seconds for cost in spent)
    for place, cost in enumerate(spent[:COSTS], 1):
        name = f"{what}: cost {place}"
        values = 1e3 * cost.seconds, 1e3 * total, "all operations", "ms"
        yield record(name, *values, f"{cost.operation}: {cost.path or 'the program does not say where'}")


# Sampling.


def decode(size: str, sizes: Sizes) -> Iterator[Record]:
    """The sampler's step, in every slot between half and all of the context; then the costs of a call."""
    config, model = settings(size, sizes)
    ceiling = copies(sizes)
    weights = random_weights(model)
    read = sum(leaf.nbytes for leaf in jax.tree.leaves(weights))
    if not model.tie_embeddings:
        read -= weights["embed"]["embedding"].nbytes  # of which a step looks up a few rows

    for slots in sizes.slots:
        options = {name: config.engine[name] for name in ("steps", "max_new_tokens", "temperature")}
        layout = Sampling(slots=slots, capacity=sizes.context, **options)
        kv = full_cache(model, slots, sizes.context)
        lengths = np.linspace(sizes.context // 2, sizes.context - layout.steps, slots).astype(np.int32)
        seeds, places = np.arange(slots, dtype=np.uint32), np.zeros(slots, np.int32)
        rest = seeds, places, np.ones(slots, bool), places, None
        logits = jax.random.normal(jax.random.key(1), (slots, model.vocab_size))
        options = {"sampling": layout, "stop_id": 0}
        program, compiling = compiled(sampling.decode.lower(model, weights, kv, logits, *rest, **options))

        def work(program=program, lengths=lengths, rest=rest):
            nonlocal kv, logits
            drawn, logits, kv = program(weights, kv._replace(lengths=jnp.asarray(lengths)), logits, *rest)
            return drawn.counts

        took = timed(work, sizes.repeats)
        count = int(work().sum())  # a slot that happened to draw the stop token has fewer
        held = kv.k.nbytes + kv.v.nbytes
        cached = held * (lengths.mean() + layout.steps / 2) / sizes.context
        note = (
            f"{1e3 * took / layout.steps:.4g} ms a step, {read / 1e9:.4g} GB of weights and {cached / 1e9:.4g} GB of "
            f"keys and values; {lengths.min():,} to {lengths.max():,} tokens a slot; compiled in {compiling:.1f} s"
        )
        what = f"decoding with Qwen2.5-{size.upper()}, {slots} slots"
        bound = count * ceiling / (layout.steps * (read + cached))
        yield record(what, count / took, bound, "reading it at the rate of copies", "tokens/s", note)

    yield from costs(what, lambda: jax.block_until_ready(work()), program)


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
    config, model = settings(size, sizes)
    count, prompt, new = sizes.streams
    options = {"chunk": config.engine.chunk, "steps": config.engine.steps, "temperature": config.engine.temperature}
    engine = Engine(model, 0, Sampling(slots=count, capacity=prompt + new + 1, max_new_tokens=new, **options))
    engine.load(random_weights(model))
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
        streams.append(batch.Stream(np.concatenate([ids, turn.ids]), mask, logprobs, np.zeros(len(mask))))
    host = batch.pack(streams, row_length=prompt + new)
    mesh = sharding.make_mesh(devices=[device()])
    params, packed = policy.trained(model, mesh, None, 0), sharding.rows(mesh, host, 1)

    def score(dtype: str) -> np.ndarray:
        scorer = step.make_score(dataclasses.replace(model, dtype=dtype), mesh, temperature=config.engine.temperature)
        with jax.default_matmul_precision("highest"):  # of float32; else a GPU takes TF32
            return np.asarray(scorer({}, params, packed)).reshape(host.mask.shape)[host.mask]

    trained, exact, sampled = score(model.dtype), score("float32"), host.sampled_logprobs[host.mask]
    apart, rounding = np.abs(sampled - trained), np.abs(exact - trained)
    least = np.spacing(np.abs(trained).max())  # the last place of a float32: where nothing is apart, this
    note = f"{len(apart):,} tokens drawn by Qwen2.5-{size.upper()} with random weights, {model.dtype}"
    for name, of in (("largest", np.max), ("mean", np.mean)):
        what, values = f"sampler and trainer apart, {name}", (float(max(of(x), least)) for x in (apart, rounding))
        yield record(what, *values, "the trainer from float32", "nats", note, less=True)


# A whole step.


def rl_step(size: str, sizes: Sizes) -> Iterator[Record]:
    """The second of two steps of the trainer, against the embedded gym: seconds by phase."""
    config, model = settings(size, sizes, **sizes.played)
    source, clients = scenario_data.source(config.data, config.train.seed), rollout.chat_clients(config)
    scenarios = source.train(0, config.train.scenarios_per_step)
    played = rollout.collect(config, rollout.scripted_agents("generous"), scenarios, repeats=1, seed=0, clients=clients)
    conversations = [demonstrations.from_dialogue(dialogue) for dialogue in played if dialogue.ok]
    texts = (message.content for conversation in conversations for message in conversation)
    tokenizer = tokenizers.train(texts, min(fds.get_config().model.vocab_size, model.vocab_size))
    prepared = setup.Prepared(conversations, tokenizer, model, None)
    with tempfile.TemporaryDirectory() as directory, Interrupts() as interrupts, Ahead() as ahead:
        with unittest.mock.patch.object(grammar, "turn_format", functools.partial(terse, grammar.turn_format)):
            made = trainer.Trainer(
                config, source, prepared, clients, Journal(pathlib.Path(directory)), interrupts, ahead
            )
        state = made.begin_rl(made.first_state())
        state, first, _ = made.rl_step(state)
        state, found, _ = made.rl_step(state)
    whole = sum(found["seconds"].values())
    note = (
        f"{found['dialogues_ok']} dialogues of {found['turns_mean']:.2f} turns, {found['new_tokens']:,} tokens drawn, "
        f"random weights; logprob_gap_max {found['logprob_gap_max']:.2g} nats in {model.dtype}; the step before it, "
        f"which compiles: {sum(first['seconds'].values()):.1f} s"
    )
    for phase, took in found["seconds"].items():
        what = f"a step with Qwen2.5-{size.upper()} in the embedded gym: {phase}"
        yield record(what, took, whole, "the whole step", "s", note)


def terse(turn_format: Callable[..., grammar.Grammar], *arguments) -> grammar.Grammar:
    """The grammar of `turn_format`, but that free text is of a few tokens: random weights then come to its end."""
    rules = turn_format(*arguments)
    free = rules.allowed & (rules.follows == np.arange(len(rules.follows))[:, None])
    return rules._replace(allowed=rules.allowed & (~free | (np.cumsum(free, axis=1) <= WORDS)))


PARTS: dict[str, Callable[[Sizes], Iterator[Record]]] = {  # what is wanted most comes first
    "ceilings": ceilings,
    "update-1.5b": functools.partial(update, "1.5b"),
    "decode-1.5b": functools.partial(decode, "1.5b"),
    "step-1.5b": functools.partial(rl_step, "1.5b"),
    "gap-0.5b": functools.partial(gap, "0.5b"),
    "update-0.5b": functools.partial(update, "0.5b"),
    "update-7b": functools.partial(update, "7b", **{"model.lora_rank": 32}),
    "decode-7b": functools.partial(decode, "7b"),
}
"""Name -> what yields its records."""
