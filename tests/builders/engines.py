"""A small engine and what it is asked to sample, for the tests that need one."""

import asyncio
import functools

import jax
import numpy as np

from models import qwen2
from rollouts.engine.engine import Engine
from rollouts.engine.sampling import Sampling

CONFIG = qwen2.Qwen2Config(
    vocab_size=300, hidden_size=32, intermediate_size=48, num_layers=2, num_heads=4, num_kv_heads=2
)
STOP = 293  # <|im_end|> of a tokenizer of that size
SMALL = Sampling(slots=8, capacity=160, chunk=16, max_new_tokens=6, window=0.0)


@functools.cache
def params(seed=0, scale=12):
    """Random weights with a livelier output than at the start of training, and a likely stop token."""
    weights = qwen2.init(CONFIG, jax.random.key(seed))
    weights["embed"]["embedding"] = (weights["embed"]["embedding"] * scale).at[STOP].multiply(4)
    return weights


def engine_of(weights=None, *, config=CONFIG, grammar=None, kv_sharding=None, **changes):
    made = Engine(config, STOP, Sampling(**vars(SMALL) | changes), grammar=grammar, kv_sharding=kv_sharding)
    made.load(params() if weights is None else weights)
    return made


@jax.jit
def _logprobs(weights, tokens, temperature):
    return qwen2.token_logprobs(CONFIG, weights, tokens, temperature=temperature)[0]


def scored(stream, temperature):
    """Log-probability of every token of a stream, computed in one piece."""
    row = np.zeros((1, SMALL.capacity), np.int32)
    row[0, : len(stream)] = stream
    return np.asarray(_logprobs(params(), row, temperature))[0, : len(stream)]


def script(number):
    """What others say in dialogue `number`: prompts of ragged lengths, the first one longer than a chunk or two."""
    rng = np.random.default_rng(number)
    return [rng.integers(8, 300, size=size) for size in (rng.integers(1, 40), *rng.integers(1, 14, size=2))]


async def talk(made, number):
    """Plays dialogue `number`; returns [(incoming ids, Sampled)]."""
    session = made.open()
    try:
        return [
            (ids, await session.generate(ids, seed=1000 * number + place)) for place, ids in enumerate(script(number))
        ]
    finally:
        session.close()


async def talk_all(made, numbers):
    async with made:
        return dict(zip(numbers, await asyncio.gather(*(talk(made, number) for number in numbers)), strict=True))


def run(numbers, made=None):
    return asyncio.run(talk_all(made or engine_of(), numbers))


@functools.cache
def alone(number, **layout):
    return run([number], engine_of(**layout))[number]


def same(turns, others):
    """Bitwise."""
    return len(turns) == len(others) and all(
        all(x.tobytes() == y.tobytes() for x, y in zip(a[:3], b[:3], strict=True)) and a.stop == b.stop
        for (_, a), (_, b) in zip(turns, others, strict=True)
    )
