"""Logits of random Qwen2 models, here and in transformers; needs torch (the extra `parity`)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")

import transformers  # noqa: E402

from models import cache as kv_cache  # noqa: E402
from models import qwen2  # noqa: E402


def to_params(model, config):
    """Our parameters from a transformers model: torch keeps matrices as [out, in], and layers apart."""
    weights = {name: jnp.asarray(tensor.numpy()) for name, tensor in model.state_dict().items()}

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


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_logits_equal_those_of_transformers(kv_heads, tied, seed):
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
        # Away from the initial values, at which biases are 0 and norms 1.
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        tokens = torch.randint(config.vocab_size, (2, 40))
        expected = model(tokens).logits.numpy()
    params = to_params(model, config)
    tokens = jnp.asarray(tokens.numpy())

    actual = jax.jit(qwen2.forward, static_argnums=0)(config, params, tokens)
    np.testing.assert_allclose(actual, expected, atol=1e-4)

    cache = kv_cache.init(config, 2, 64)
    last, _ = jax.jit(qwen2.extend, static_argnums=0)(config, params, cache, tokens, jnp.array([40, 25]))
    np.testing.assert_allclose(last, [expected[0, 39], expected[1, 24]], atol=1e-4)
