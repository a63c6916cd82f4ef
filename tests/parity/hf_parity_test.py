"""Checkpoints written by transformers and by us: the same logits, layer by layer, in both directions.

Needs torch (the extra `parity`).
"""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")

import transformers  # noqa: E402

from models import cache as kv_cache  # noqa: E402
from models import hf, qwen2  # noqa: E402

BASE = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
    "tie_word_embeddings": False,
    "bos_token_id": None,
    "eos_token_id": 5,
    "pad_token_id": 0,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 1e4,
    "factor": 4.0,
    "original_max_position_embeddings": 16,
}
VARIANTS = {
    "untied": {},
    "tied": {"tie_word_embeddings": True},
    "mha": {"num_key_value_heads": 8},
    "mqa": {"num_key_value_heads": 1},
    "yarn": {"rope_parameters": YARN},
    "yarn with options": {
        "rope_parameters": YARN | {"beta_fast": 8.0, "beta_slow": 2.0, "attention_factor": 0.9, "truncate": False}
    },
    "sliding": {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1},
    "llama": {"tie_word_embeddings": True, "rope_parameters": {"rope_type": "default", "rope_theta": 1e5}},
}

forward = jax.jit(qwen2.forward, static_argnums=0)


def reference(variant, seed):
    """A random transformers model, away from the initial values at which biases are 0 and norms 1."""
    torch.manual_seed(seed)
    llama = variant == "llama"
    config_class = transformers.LlamaConfig if llama else transformers.Qwen2Config
    model_class = transformers.LlamaForCausalLM if llama else transformers.Qwen2ForCausalLM
    model = model_class(config_class(**BASE | VARIANTS[variant], attn_implementation="eager")).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def some_tokens(seed, length=64):
    return np.random.default_rng(seed).integers(0, BASE["vocab_size"], (2, length))


def logits_of(model, tokens):
    with torch.no_grad():
        return model(torch.tensor(tokens)).logits.float().numpy()


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_equal_those_of_transformers(variant, seed, tmp_path):
    model, tokens = reference(variant, seed), some_tokens(seed)
    model.save_pretrained(tmp_path)
    config, params = hf.load(tmp_path)
    np.testing.assert_allclose(forward(config, params, tokens), logits_of(model, tokens), atol=1e-4)


@pytest.mark.parametrize("variant", ["untied", "yarn", "sliding", "llama"])
def test_every_layer_equals_that_of_transformers(variant, tmp_path):
    """The hidden states after each layer, by running the first layers only."""
    model, tokens = reference(variant, 2), some_tokens(2)
    model.save_pretrained(tmp_path)
    config, params = hf.load(tmp_path)
    with torch.no_grad():
        states = model.model(torch.tensor(tokens), output_hidden_states=True).hidden_states
    np.testing.assert_allclose(params["embed"]["embedding"][tokens], states[0], atol=1e-6)
    for count in range(1, config.num_layers):
        shorter = dataclasses.replace(config, num_layers=count)
        layers = jax.tree.map(lambda x, n=count: x[:n], params["layers"])
        # The last norm is taken back: it divides by the root of the mean square and multiplies by a scale.
        ours = jax.jit(qwen2.hidden, static_argnums=0)(shorter, params | {"layers": layers}, tokens)
        theirs = model.model.norm(states[count]).detach().numpy()
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("variant", ["untied", "mqa", "yarn", "sliding"])
def test_greedy_generation_with_the_cache_equals_that_of_transformers(variant, tmp_path):
    model, prompt = reference(variant, 3), some_tokens(3, 9)[:1]
    model.save_pretrained(tmp_path)
    config, params = hf.load(tmp_path)
    extend = jax.jit(functools.partial(qwen2.extend, config))
    cache, fed, ours = kv_cache.init(config, 1, 80), prompt, []
    for _ in range(64):
        logits, cache = extend(params, cache, jnp.asarray(fed), jnp.array([fed.shape[1]]))
        fed = np.asarray(jnp.argmax(logits, -1))[:, None]
        ours.append(int(fed[0, 0]))
    model.generation_config.eos_token_id = None
    theirs = model.generate(torch.tensor(prompt), do_sample=False, max_new_tokens=64, pad_token_id=0)
    assert ours == theirs[0, prompt.shape[1] :].tolist()


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_we_write_is_what_transformers_loads(variant, tmp_path):
    model, tokens = reference(variant, 4), some_tokens(4)
    model.save_pretrained(tmp_path / "theirs")
    config, params = hf.load(tmp_path / "theirs")
    hf.save(tmp_path / "ours", config, params, max_shard_bytes=10_000, tokens={"eos_token_id": 5})
    assert len(list((tmp_path / "ours").glob("*.safetensors"))) > 3
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", attn_implementation="eager").eval()
    assert type(again) is type(model) and again.generation_config.eos_token_id == 5
    np.testing.assert_array_equal(logits_of(again, tokens), logits_of(model, tokens))
    assert hf.read_config(tmp_path / "ours") == config


def test_files_of_transformers_4_are_read(tmp_path):
    """`rope_theta` and `rope_scaling` beside each other, as in the files on the hub."""
    model, tokens = reference("yarn", 5), some_tokens(5)
    model.save_pretrained(tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text())
    scaling = raw.pop("rope_parameters")
    raw |= {"rope_theta": scaling.pop("rope_theta"), "rope_scaling": {"type": scaling.pop("rope_type"), **scaling}}
    del raw["layer_types"]
    (tmp_path / "config.json").write_text(json.dumps(raw))
    config, params = hf.load(tmp_path)
    assert config.yarn is not None and config.rope_theta == 1e4
    np.testing.assert_allclose(forward(config, params, tokens), logits_of(model, tokens), atol=1e-4)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_files(dtype, tmp_path):
    model, tokens = reference("untied", 6).to(getattr(torch, dtype)), some_tokens(6)
    model.save_pretrained(tmp_path / "theirs")
    config, params = hf.load(tmp_path / "theirs")
    np.testing.assert_allclose(forward(config, params, tokens), logits_of(model.float(), tokens), atol=1e-4)
    _, same = hf.load(tmp_path / "theirs", param_dtype=dtype)
    hf.save(tmp_path / "ours", config, same)
    _, again = hf.load(tmp_path / "ours", param_dtype=dtype)
    jax.tree.map(np.testing.assert_array_equal, again, same)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(again)} == {dtype}
