"""Logits and gradients of random Qwen2 models, here and in transformers; needs torch (the extra `parity`)."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")

import transformers  # noqa: E402

from models import cache as kv_cache  # noqa: E402
from models import qwen2  # noqa: E402


def to_params(tensors, config):
    """Our parameters, or gradients, from torch's by name: torch keeps matrices as [out, in], and layers apart."""
    weights = {name: jnp.asarray(tensor.detach().numpy()) for name, tensor in tensors.items()}

    def layers(name):
        return jnp.stack([weights[f"model.layers.{index}.{name}"] for index in range(config.num_layers)])

    def linear(name):
        bias = {"bias": layers(f"{name}.bias")} if f"model.layers.0.{name}.bias" in weights else {}
        return {"kernel": layers(f"{name}.weight").mT, **bias}

    params = {
        "embed": {"embedding": weights["model.embed_tokens.weight"]},
        "layers": {
            "attention_norm": {"scale": layers("input_layernorm.weight")},
            "attention": {name: linear(f"self_attn.{name}_proj") for name in "qkvo"},
            "mlp_norm": {"scale": layers("post_attention_layernorm.weight")},
            "mlp": {name: linear(f"mlp.{name}_proj") for name in ("gate", "up", "down")},
        },
        "norm": {"scale": weights["model.norm.weight"]},
    }
    return params if config.tie_embeddings else params | {"head": {"kernel": weights["lm_head.weight"].T}}


def random_pair(*, kv_heads, tied, seed=0):
    """The sizes and transformers' model, away from the initial values, at which biases are 0 and norms 1."""
    config = qwen2.Qwen2Config(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=48,
        num_layers=3,
        num_heads=4,
        num_kv_heads=kv_heads,
        rope_theta=1e6,
        tie_embeddings=tied,
        max_positions=64,
    )
    torch.manual_seed(seed)
    model = transformers.Qwen2ForCausalLM(
        transformers.Qwen2Config(
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            num_key_value_heads=config.num_kv_heads,
            max_position_embeddings=config.max_positions,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
            rms_norm_eps=config.rms_norm_eps,
            tie_word_embeddings=tied,
        )
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return config, model


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_logits_equal_those_of_transformers(kv_heads, tied, seed):
    config, model = random_pair(kv_heads=kv_heads, tied=tied, seed=seed)
    with torch.no_grad():
        tokens = torch.randint(config.vocab_size, (2, 40))
        expected = model(tokens).logits.numpy()
    params = to_params(model.state_dict(), config)
    tokens = jnp.asarray(tokens.numpy())

    actual = jax.jit(qwen2.forward, static_argnums=0)(config, params, tokens)
    np.testing.assert_allclose(actual, expected, atol=1e-4)

    cache = kv_cache.init(config, 2, 64)
    last, _ = jax.jit(qwen2.extend, static_argnums=0)(config, params, cache, tokens, jnp.array([40, 25]))
    np.testing.assert_allclose(last, [expected[0, 39], expected[1, 24]], atol=1e-4)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("remat", [False, True])
def test_gradients_of_a_packed_row_equal_those_of_transformers_for_its_sequences_alone(tied, remat):
    config, model = random_pair(kv_heads=2, tied=tied)
    lengths, temperature = (37, 21), 0.8
    sequences = [torch.randint(config.vocab_size, (1, length)) for length in lengths]
    worth = [torch.randn(length) * (torch.rand(length) < 0.6) for length in lengths]  # of a token: an advantage, or 0
    for weight in worth:
        weight[0] = 0  # nothing comes before it
    loss = 0
    for tokens, weight in zip(sequences, worth, strict=True):
        logprobs = torch.log_softmax(model(tokens).logits[0] / temperature, -1)
        loss = loss + (weight[1:] * logprobs[:-1].gather(1, tokens[0, 1:, None])[:, 0]).sum()
    loss.backward()
    expected = to_params({name: weights.grad for name, weights in model.named_parameters()}, config)

    rest = 64 - sum(lengths)
    tokens, weights = (
        jnp.asarray(np.concatenate([*(part.numpy().ravel() for part in parts), np.zeros(rest)])[None])
        for parts in (sequences, worth)
    )
    positions = jnp.asarray(np.concatenate([*map(np.arange, lengths), np.zeros(rest)])[None], jnp.int32)
    segments = jnp.asarray(np.repeat([1, 2, 0], (*lengths, rest))[None])

    def objective(params):
        logprobs, _ = qwen2.token_logprobs(
            dataclasses.replace(config, remat=remat),
            params,
            tokens.astype(jnp.int32),
            mask=weights != 0,
            positions=positions,
            segment_ids=segments,
            temperature=temperature,
        )
        return jnp.sum(jnp.where(weights != 0, weights * logprobs, 0))

    value, actual = jax.jit(jax.value_and_grad(objective))(to_params(model.state_dict(), config))
    np.testing.assert_allclose(value, loss.item(), rtol=1e-5)
    chex.assert_trees_all_equal_shapes(actual, expected)
    chex.assert_trees_all_close(actual, expected, atol=1e-4, rtol=1e-4)
