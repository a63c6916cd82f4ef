"""Adapters: they start as nothing, are all that is trained, and merge into the model that they make."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from cmpo.algorithms.sft import imitation_loss
from cmpo.distributed import sharding
from cmpo.run.train_state import begin_training
from cmpo.training import packing, update_step
from models import lora, qwen2

PLAIN = qwen2.Qwen2Config(
    vocab_size=32, hidden_size=16, intermediate_size=24, num_layers=2, num_heads=4, num_kv_heads=2, max_positions=64
)
CONFIG = dataclasses.replace(PLAIN, lora_rank=4, lora_alpha=8.0)
TOKENS = np.random.default_rng(0).integers(0, 32, (2, 12))


def some(seed, scale=0.3):
    """Frozen parameters and adapters, both away from where they start."""
    params = qwen2.init(CONFIG, jax.random.key(seed))
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
    leaves = [x + scale * jax.random.normal(key, x.shape) for x, key in zip(leaves, keys, strict=True)]
    return lora.split(CONFIG, jax.tree.unflatten(tree, leaves))


def test_adapters_start_as_nothing():
    frozen, adapters = lora.split(CONFIG, qwen2.init(CONFIG, jax.random.key(0)))
    assert jax.tree.structure(frozen) == jax.tree.structure(qwen2.shapes(PLAIN))
    adapted = qwen2.forward(CONFIG, lora.combine(frozen, adapters), TOKENS)
    chex.assert_trees_all_equal(adapted, qwen2.forward(PLAIN, frozen, TOKENS))


def test_adapters_are_on_every_matrix_of_attention_and_mlp():
    _, adapters = lora.split(CONFIG, qwen2.shapes(CONFIG))
    shapes = {
        jax.tree_util.keystr(path, simple=True, separator="/"): x.shape
        for path, x in jax.tree_util.tree_leaves_with_path(adapters)
    }
    assert shapes == {
        **{f"layers/attention/{name}/lora_a": (2, 16, 4) for name in "qkvo"},
        **{f"layers/attention/{name}/lora_b": (2, 4, size) for name, size in zip("qkvo", (16, 8, 8, 16), strict=True)},
        **{f"layers/mlp/{name}/lora_a": (2, size, 4) for name, size in (("gate", 16), ("up", 16), ("down", 24))},
        **{f"layers/mlp/{name}/lora_b": (2, 4, size) for name, size in (("gate", 24), ("up", 24), ("down", 16))},
    }


def test_a_layer_by_hand():
    layer = lora.Linear(dataclasses.replace(CONFIG, lora_rank=1, lora_alpha=3.0), 2, 2, use_bias=True, rngs=nnx.Rngs(0))
    layer.kernel[...] = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    layer.bias[...] = jnp.array([0.5, 0.0])
    layer.lora_a[...] = jnp.array([[1.0], [2.0]])
    layer.lora_b[...] = jnp.array([[1.0, -1.0]])
    # x W + b = [1.5, 1], x A = 3, (alpha / rank) 3 B = [9, -9]
    np.testing.assert_allclose(layer(jnp.array([1.0, 1.0])), [10.5, -8.0])


@pytest.mark.parametrize("seed", [0, 1])
def test_merged_parameters_are_the_adapted_model(seed):
    frozen, adapters = some(seed)
    params = lora.combine(frozen, adapters)
    merged = lora.merge(CONFIG, params)
    assert jax.tree.structure(merged) == jax.tree.structure(frozen)
    adapted = qwen2.forward(CONFIG, params, TOKENS)
    np.testing.assert_allclose(qwen2.forward(PLAIN, merged, TOKENS), adapted, rtol=1e-4, atol=1e-4)
    assert np.max(np.abs(adapted - qwen2.forward(PLAIN, frozen, TOKENS))) > 0.1


def test_without_adapters_everything_is_trained():
    params = qwen2.init(PLAIN, jax.random.key(0))
    assert lora.split(PLAIN, params) == ({}, params)
    chex.assert_trees_all_equal(lora.merge(PLAIN, lora.combine({}, params)), params)


@pytest.mark.parametrize("rows", [(5,), (2, 5), (2, 3, 5)], ids=str)
@pytest.mark.parametrize("rank", [0, 2])
def test_the_gradients_of_a_linear_layer_by_numpy(rows, rank):
    config = dataclasses.replace(CONFIG, lora_rank=rank, lora_alpha=6.0)
    layer = lora.Linear(config, 4, 3, use_bias=True, rngs=nnx.Rngs(0))
    graph, state = nnx.split(layer)
    params = {
        name: jax.random.normal(jax.random.key(len(name)), x.shape) for name, x in nnx.to_pure_dict(state).items()
    }
    x, of_y = (jax.random.normal(jax.random.key(0), (*rows, size)) for size in (4, 3))
    got = jax.vjp(lambda params, x: nnx.merge(graph, params)(x), params, x)[1](of_y)

    flat, of_flat, scale = np.reshape(x, (-1, 4)), np.reshape(of_y, (-1, 3)), 6.0 / max(rank, 1)
    kernel, want = np.array(params["kernel"]), {"kernel": flat.T @ of_flat, "bias": of_flat.sum(0)}
    if rank:
        down, up = np.array(params["lora_a"]), np.array(params["lora_b"])
        kernel = kernel + scale * down @ up
        want |= {"lora_a": scale * flat.T @ of_flat @ up.T, "lora_b": scale * (flat @ down).T @ of_flat}
    chex.assert_trees_all_close(got, (want, np.reshape(of_flat @ kernel.T, (*rows, 4))), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mesh", [(1, 1, 1), (2, 2, 2)], ids=str)
def test_an_update_of_adapters_is_their_gradient(mesh):
    frozen, adapters = some(2)
    mesh = sharding.make_mesh(*mesh, devices=jax.devices()[: np.prod(mesh)])
    unseen = np.zeros(12, np.float32), np.zeros(12, np.int32)
    streams = [packing.Stream(tokens.astype(np.int32), np.ones(12, bool), *unseen) for tokens in TOKENS]
    rows = packing.pack_rows(streams, row_length=12, rows=4)
    update = update_step.make_update(CONFIG, mesh, optax.sgd(1.0), imitation_loss)

    def loss(adapters):
        return -jnp.mean(qwen2.token_logprobs(CONFIG, lora.combine(frozen, adapters), TOKENS)[0])

    gradient = jax.jit(jax.grad(loss), compiler_options=sharding.compiler_options(mesh))(adapters)
    want = jax.tree.map(lambda x, g: x - g, adapters, gradient)
    placed = jax.device_put((adapters, frozen), sharding.find_shardings(mesh, (adapters, frozen)))
    policy, rows = begin_training(optax.sgd(1.0), placed[0]), sharding.place_rows(mesh, rows, 1)
    policy, _, _ = update(policy, update_step.WITHOUT_HEAD, placed[1], rows, ())
    chex.assert_trees_all_close(jax.device_get(policy.params), jax.device_get(want), atol=1e-5)


def test_weights_for_sampling_are_merged_and_cast():
    mesh = sharding.make_mesh(2, 2, 2)
    config = dataclasses.replace(CONFIG, dtype="bfloat16")
    frozen, adapters = some(3)
    weights = sharding.make_publish(config, mesh)(frozen, adapters)
    want = qwen2.cast(config, lora.merge(config, lora.combine(frozen, adapters)))
    chex.assert_trees_all_close(jax.device_get(weights), jax.device_get(want), rtol=1e-2)
    kernel = weights["layers"]["attention"]["q"]["kernel"]
    assert kernel.dtype == jnp.bfloat16 and kernel.sharding.shard_shape(kernel.shape) == (2, 16, 8)  # by tensor only
