"""config.json: what it says is what the model does, and what cannot be done is refused by name."""

import dataclasses
import json

import pytest

from models.config import Qwen2Config, Yarn
from models.hf import config as hf_config

RAW = {  # Qwen2.5-0.5B-Instruct's, as on the hub
    "architectures": ["Qwen2ForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "hidden_act": "silu",
    "hidden_size": 896,
    "initializer_range": 0.02,
    "intermediate_size": 4864,
    "max_position_embeddings": 32768,
    "max_window_layers": 21,
    "model_type": "qwen2",
    "num_attention_heads": 14,
    "num_hidden_layers": 24,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.43.1",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
SMALLEST = Qwen2Config(
    vocab_size=151936, hidden_size=896, intermediate_size=4864, num_layers=24, num_heads=14, num_kv_heads=2
)
YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}


def test_the_published_config_is_read():
    assert hf_config.read(RAW) == hf_config.read(RAW | {"_name_or_path": "x"}) == SMALLEST
    assert SMALLEST.head_dim == 64 and SMALLEST.rope_theta == 1e6
    assert hf_config.read(RAW, dtype="bfloat16", remat=True) == dataclasses.replace(
        SMALLEST, dtype="bfloat16", remat=True
    )


def test_yarn_in_both_spellings():
    expected = dataclasses.replace(SMALLEST, yarn=Yarn(4.0, 32768), max_positions=131072)
    assert hf_config.read(RAW | {"rope_scaling": YARN}) == expected
    new = {name: value for name, value in RAW.items() if name != "rope_theta"}
    new["rope_parameters"] = {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0}
    assert hf_config.read(new) == expected  # the original context defaults to max_position_embeddings


def test_sliding_windows():
    on = RAW | {"use_sliding_window": True, "sliding_window": 4096}
    assert hf_config.read(on) == dataclasses.replace(SMALLEST, sliding_window=4096, window_from=21)
    assert hf_config.read(on | {"max_window_layers": 24}) == SMALLEST  # no layer has one


@pytest.mark.parametrize(
    "config",
    [
        SMALLEST,
        dataclasses.replace(SMALLEST, tie_embeddings=False, head_dim=128),
        dataclasses.replace(SMALLEST, yarn=Yarn(2.0, 1000, beta_fast=16.0, truncate=False), max_positions=4000),
        dataclasses.replace(SMALLEST, sliding_window=128, window_from=3),
        dataclasses.replace(SMALLEST, attention_bias=False, rope_theta=1e5, max_positions=2048),
    ],
)
def test_configs_survive_the_round_trip(config):
    assert hf_config.read(json.loads(json.dumps(hf_config.write(config, eos_token_id=[1, 2])))) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "mistral"}, "model_type: expected one of qwen2, llama, got 'mistral'"),
        ({"model_type": "llama", "attention_bias": True}, "attention_bias: only False"),
        ({"hidden_act": "gelu"}, "hidden_act: only 'silu'"),
        ({"attention_dropout": 0.1}, "attention_dropout: only 0.0"),
        ({"quantization_config": {"bits": 4}}, "quantization_config: only None"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "expected default or yarn, got dynamic"),
        ({"rope_scaling": YARN | {"mscale": 0.7}}, "rope option mscale"),
        ({"rope_scaling": {"type": "yarn"}}, "rope option factor: missing"),
        ({"logit_softcap": 30.0}, "logit_softcap: unknown option"),
        ({"use_sliding_window": True, "sliding_window": None}, "sliding_window: missing"),
        ({"use_sliding_window": True, "layer_types": ["sliding_attention"] * 24}, "layer_types: expected full"),
        ({"layer_types": ["sliding_attention"] * 24}, "layer_types: names sliding_attention while"),
        ({"hidden_size": None}, "hidden_size: missing"),
        ({"num_key_value_heads": 3}, "num_key_value_heads: expected a divisor of num_attention_heads 14, got 3"),
    ],
)
def test_what_cannot_be_honoured_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        hf_config.read(RAW | change)
