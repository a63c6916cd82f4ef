"""A new model's induction head: repeats are told at once, and other weights are as they were."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import induction, qwen2
from models.config import Qwen2Config

CONFIG = Qwen2Config(  # of two layers: nothing is behind the head
    vocab_size=1024,
    hidden_size=128,
    intermediate_size=384,
    num_layers=2,
    num_heads=2,
    num_kv_heads=1,
    rope_theta=1e4,
    initializer_range=0.08,
    max_positions=512,
)


DEEP = dataclasses.replace(CONFIG, num_layers=4)


def make_params(config=CONFIG):
    plain = qwen2.init(config, jax.random.key(0))
    return plain, induction.plant_head(config, plain)


def count_repeats_told(params, period):
    """Which share of the tokens of a second, equal half has the highest probability."""
    tokens = np.tile(np.random.default_rng(0).integers(0, CONFIG.vocab_size, (8, period)), (1, 2))
    told = jnp.argmax(qwen2.forward(CONFIG, params, jnp.asarray(tokens)), -1)
    return float(np.mean(told[:, period:-1] == tokens[:, period + 1 :]))


@pytest.mark.parametrize("period", [20, 50])
def test_the_second_half_of_a_repetition_is_told_without_training(period):
    plain, planted = make_params()
    assert count_repeats_told(plain, period) < 0.02
    assert count_repeats_told(planted, period) > 0.4


def test_heads_of_the_first_layer_look_one_and_two_tokens_back():
    _, planted = make_params()
    attention = planted["layers"]["attention"]
    queries, keys = attention["q"]["bias"][0].reshape(2, 64), attention["k"]["bias"][0]
    angles = qwen2.rotary.compute_angles(CONFIG, jnp.arange(10)[None])
    queries, keys = (
        qwen2.rotary.rotate(jnp.broadcast_to(each, (1, 10, *each.shape)), angles)[0] for each in (queries, keys[None])
    )
    scores = np.asarray(jnp.einsum("ha,ta->ht", queries[9], keys[:, 0])) / 8
    np.testing.assert_array_equal(scores.argmax(-1), [8, 7])
    assert np.sort(scores)[:, -1].min() > np.sort(scores)[:, -2].max() + 3


def test_later_layers_and_embeddings_stay_as_drawn():
    plain, planted = make_params(DEEP)
    assert jax.tree.map(jnp.shape, plain) == jax.tree.map(jnp.shape, planted)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[2:], y[2:]), plain["layers"], planted["layers"])
    np.testing.assert_array_equal(plain["embed"]["embedding"], planted["embed"]["embedding"])


def test_what_starts_at_zero_can_grow_and_no_plane_is_dead():
    _, planted = make_params()
    tokens = jnp.asarray(np.random.default_rng(1).integers(0, 1024, (1, 64)))

    def loss(params):
        return -jnp.sum(qwen2.token_logprobs(CONFIG, params, tokens)[0])

    moved = jax.grad(loss)(planted)["layers"]
    assert all(
        float(jnp.abs(moved[part][name]["kernel"]).max()) > 0 for part, name in (("mlp", "down"), ("attention", "o"))
    )


@pytest.mark.parametrize("change", [{"num_layers": 1}, {"attention_bias": False}])
def test_a_model_without_room_for_the_head_is_refused(change):
    config = Qwen2Config(**{**vars(CONFIG), **change})
    with pytest.raises(ValueError, match="expected two layers or more with attention_bias"):
        induction.plant_head(config, qwen2.init(config, jax.random.key(0)))
