"""How tokens are drawn."""

import asyncio

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import qwen2
from rollouts.engine import sampling as device
from rollouts.engine.sampling import Sampling
from tests.builders.engines import CONFIG, engine_of, params


def turns_of(*options):
    """Turns that are drawn with these options, each at its beginning."""
    count = len(options)
    nothing = np.zeros(count, np.int32)
    chosen = {
        name: np.array([getattr(one, name) for one in options], dtype)
        for name, dtype in (("temperature", np.float32), ("top_k", np.int32), ("top_p", np.float32))
    }
    limits = np.array([one.max_new_tokens for one in options], np.int32)
    return device.Turns(nothing.astype(np.uint32), nothing, np.ones(count, bool), nothing, limits, **chosen)


def misfit(tokens, chances, *, by_rarity=True):
    """Chi-square of tokens against chances in units of its deviation, tokens next to each other put together."""
    order, draws = np.argsort(chances) if by_rarity else np.arange(len(chances)), len(tokens)
    bins = (np.cumsum(chances[order]) * 30).astype(int)
    expected = np.bincount(bins, chances[order]) * draws
    counts = np.bincount(bins, np.bincount(tokens, minlength=len(chances))[order])
    full = expected > 5
    assert full.sum() > 5
    statistic, freedom = np.sum((counts - expected)[full] ** 2 / expected[full]), full.sum() - 1
    return (statistic - freedom) / np.sqrt(2 * freedom)


def cut(logits, temperature, top_k, top_p):
    """What is drawn from, in NumPy and float64, token by token."""
    chances = np.exp(logits / temperature - np.max(logits / temperature))
    order = np.argsort(-chances)[: top_k or None]
    kept, mass, total = [], 0.0, chances[order].sum()
    for token in order:
        if mass < top_p * total:
            kept.append(token)
        mass += chances[token]
    return np.where(np.isin(np.arange(len(logits)), kept), chances, 0) / chances[kept].sum()


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"), [(1.0, 0, 1.0), (0.7, 0, 1.0), (1.0, 40, 1.0), (1.0, 0, 0.8), (1.3, 60, 0.9)]
)
def test_draws_follow_the_cut_softmax(temperature, top_k, top_p):
    """10^5 draws from known logits."""
    logits = np.random.default_rng(0).normal(size=300) * 1.5
    options = Sampling(temperature=temperature, top_k=top_k, top_p=top_p)
    uniform = jax.random.uniform(jax.random.key(1), (100_000,))
    known, turns = jnp.asarray(logits[None], jnp.float32), turns_of(options)
    draw = jax.jit(jax.vmap(lambda u: device.draw_tokens(known, u[None], turns, plain=options.plain)))
    tokens, logprobs, model_logprobs = (np.asarray(x)[:, 0] for x in draw(uniform))
    chances = cut(logits, temperature, top_k, top_p)
    assert (chances == 0).any() == options.cuts and (chances[tokens] > 0).all()
    assert misfit(tokens, chances) < 4 and misfit(tokens, chances, by_rarity=False) < 4
    assert misfit(tokens, cut(logits, temperature * 1.1, top_k, top_p)) > 10
    np.testing.assert_allclose(logprobs, np.log(chances[tokens]), atol=1e-5)
    np.testing.assert_allclose(model_logprobs, np.log(cut(logits, 1.0, 0, 1.0)[tokens]), atol=1e-5)


def test_at_temperature_0_the_likeliest_of_what_is_allowed_is_drawn_for_certain():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(3, 300)), jnp.float32)
    allowed = jnp.ones((3, 300), bool).at[0, jnp.argmax(logits[0])].set(False)
    draw, uniform = jax.jit(device.draw_tokens, static_argnames="plain"), jnp.array([0.0, 0.5, 0.999])
    turns = turns_of(*[Sampling(temperature=0.0)] * 3)
    for mask in (None, allowed):
        token, logprobs, model_logprobs = draw(logits, uniform, turns, mask, plain=False)
        likely = np.asarray(logits if mask is None else jnp.where(mask, logits, -jnp.inf))
        assert token.tolist() == np.argmax(likely, axis=-1).tolist() and logprobs.tolist() == [0.0] * 3
        expected = np.log(cut(np.asarray(logits[0]), 1.0, 0, 1.0)[token[0]])
        np.testing.assert_allclose(model_logprobs[0], expected, atol=1e-5)


def test_the_engine_draws_from_the_models_logits():
    prompt, draws = np.array([100, 200, 300, 40]) % 300, 1024
    weights = params(scale=6)
    logits = np.asarray(jax.jit(qwen2.forward, static_argnums=0)(CONFIG, weights, jnp.asarray(prompt[None])))[0, -1]

    async def everyone():
        async def one(seed):
            session = made.open()
            sampled = await session.generate(prompt, seed)
            session.close()
            return sampled.ids[0]

        async with (made := engine_of(weights, slots=16, temperature=0.7, max_new_tokens=1)):
            return await asyncio.gather(*(one(seed) for seed in range(draws)))

    tokens = np.array(asyncio.run(everyone()))
    assert misfit(tokens, cut(logits, 0.7, 0, 1.0)) < 4 and misfit(tokens, cut(logits, 1.0, 0, 1.0)) > 10
