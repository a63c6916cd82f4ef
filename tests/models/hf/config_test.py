"""config.json: what it says is what the model does, and what cannot be done is refused by name."""

import contextlib
import dataclasses
import json

import pytest
from hypothesis import given

from models.config import Qwen2Config, Yarn
from models.hf import config as hf_config
from tests.builders.almost import trees

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
    assert hf_config.parse_config(RAW) == hf_config.parse_config(RAW | {"_name_or_path": "x"}) == SMALLEST
    assert SMALLEST.head_dim == 64 and SMALLEST.rope_theta == 1e6
    assert hf_config.parse_config(RAW, dtype="bfloat16", remat=True) == dataclasses.replace(
        SMALLEST, dtype="bfloat16", remat=True
    )


def test_yarn_in_both_spellings():
    expected = dataclasses.replace(SMALLEST, yarn=Yarn(4.0, 32768), max_positions=131072)
    assert hf_config.parse_config(RAW | {"rope_scaling": YARN}) == expected
    new = {name: value for name, value in RAW.items() if name != "rope_theta"}
    new["rope_parameters"] = {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0}
    assert hf_config.parse_config(new) == expected  # the original context defaults to max_position_embeddings


def test_sliding_windows():
    on = RAW | {"use_sliding_window": True, "sliding_window": 4096}
    assert hf_config.parse_config(on) == dataclasses.replace(SMALLEST, sliding_window=4096, window_from=21)
    assert hf_config.parse_config(on | {"max_window_layers": 24}) == SMALLEST  # no layer has one


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
    assert (
        hf_config.parse_config(json.loads(json.dumps(hf_config.render_config(config, eos_token_id=[1, 2])))) == config
    )


def test_the_same_said_twice_is_read():
    spelt = {"rope_scaling": YARN, "rope_parameters": {"rope_type": "yarn", **YARN, "rope_theta": 1e6}}
    assert hf_config.parse_config(RAW | spelt) == hf_config.parse_config(RAW | {"rope_scaling": YARN})
    idle = {"rope_type": "default", "rope_theta": 1e6, "partial_rotary_factor": 1.0, "factor": None}
    full = {"layer_types": ["full_attention"] * 24, "rope_parameters": idle, "eos_token_id": [151645, 151643]}
    assert hf_config.parse_config(RAW | full) == SMALLEST


def test_what_is_left_out_is_what_transformers_takes():
    names = ("rope_theta", "tie_word_embeddings", "max_position_embeddings", "initializer_range", "architectures")
    config = hf_config.parse_config({name: value for name, value in RAW.items() if name not in names})
    assert (config.rope_theta, config.tie_embeddings, config.max_positions) == (1e4, False, 32768)
    config = hf_config.parse_config({"model_type": "llama", **{n: v for n, v in RAW.items() if n in hf_config._SIZES}})
    assert (config.num_kv_heads, config.max_positions, config.attention_bias) == (14, 2048, False)


POSITIVE = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
POSITIVE += ("num_key_value_heads", "head_dim", "max_position_embeddings")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        *((name, value, "a positive whole number") for name in POSITIVE for value in ("8", True, 0, -8, 8.0, [8])),
        *(
            (name, value, "a positive number")
            for name in ("rms_norm_eps", "rope_theta")
            for value in ("1", 0, -1, True)
        ),
        *(("rms_norm_eps", value, "a positive number") for value in (float("nan"), float("inf"))),
        *(("initializer_range", value, "a number, at least 0") for value in ("0.02", -0.1, False)),
        *((name, "32768", "a whole number, at least 0") for name in ("sliding_window", "max_window_layers")),
        *(
            (name, value, "true or false")
            for name in ("tie_word_embeddings", "use_sliding_window")
            for value in (1, "no")
        ),
        *((name, value, "a list of text") for name in ("layer_types", "architectures") for value in ("x", [1], {})),
        *((name, [], "an object") for name in ("rope_scaling", "rope_parameters")),
        *(
            (name, value, "a whole number, or")
            for name in ("eos_token_id", "bos_token_id")
            for value in ("1", True, [1.0])
        ),
    ],
)
def test_values_of_another_type_are_refused_by_name(name, value, expected):
    with pytest.raises(ValueError, match=f"^config.json: {name}: expected {expected}"):
        hf_config.parse_config(RAW | {name: value})


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        *(("factor", value, "a number, at least 1") for value in ("4", True, 0.5)),
        *(("original_max_position_embeddings", value, "a positive whole number") for value in ("32768", 0, 32768.0)),
        *((name, 0, "a positive number") for name in ("beta_fast", "beta_slow", "attention_factor")),
        ("truncate", 0, "true or false"),
        ("rope_type", ["yarn"], "text"),
        ("rope_theta", "1e6", "a positive number"),
    ],
)
def test_values_of_another_type_in_the_rotary_options_are_refused_by_name(name, value, expected):
    spelt = {key: item for key, item in YARN.items() if key != "type"} | {"rope_type": "yarn", name: value}
    with pytest.raises(ValueError, match=f"^config.json: rope_parameters.{name}: expected {expected}"):
        hf_config.parse_config(RAW | {"rope_parameters": spelt})


@given(trees(RAW | {"rope_parameters": YARN | {"rope_theta": 1e6}, "layer_types": ["full_attention"] * 24}))
def test_whatever_it_says_is_read_or_refused_by_name(raw):
    if isinstance(raw, dict):
        with contextlib.suppress(ValueError):
            config = hf_config.parse_config(raw)
            assert hf_config.parse_config(hf_config.render_config(config)) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rope_scaling": {"factor": 4.0}}, "rope_scaling: rope option factor: not supported with rope_type default"),
        ({"rope_parameters": {"rope_theta": 1e6, "partial_rotary_factor": 0.5}}, "rope option partial_rotary_factor"),
        (
            {"rope_parameters": {"rope_theta": 1e4}},
            "rope_theta: two sources of the same, 10000.0 in rope_parameters and",
        ),
        ({"rope_scaling": YARN, "rope_parameters": {"rope_type": "default"}}, "rope_scaling and rope_parameters: two"),
        ({"rope_scaling": YARN | {"rope_type": "default"}}, "rope_scaling: type 'yarn' and rope_type 'default' differ"),
        ({"rope_parameters": {"full_attention": {"rope_type": "default"}}}, "rope option full_attention"),
        ({"rope_scaling": YARN, "original_max_position_embeddings": 4096}, "original_max_position_embeddings: unknown"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor: only 1.0"),
        ({"mlp_bias": True}, "mlp_bias: only False"),
        ({"attention_bias": 0}, "attention_bias: only False"),
        ({"use_mrope": True}, "use_mrope: only False"),
        ({"auto_map": {"AutoModelForCausalLM": "code.Mine"}}, "auto_map: only None"),
        ({"architectures": ["Qwen2ForSequenceClassification"]}, "architectures: expected Qwen2ForCausalLM alone"),
        ({"layer_types": ["chunked_attention"] * 24}, "layer_types: expected full"),
        ({"layer_types": ["full_attention"] * 23}, "layer_types: expected full"),
        ({"head_dim": 63}, "head_dim: expected an even number"),
        ({"num_attention_heads": 15, "num_key_value_heads": 3}, "hidden_size: expected a multiple of num_attention"),
        ({"model_type": "llama", "architectures": None, "sliding_window": 4096}, "sliding_window: the architecture"),
        ({"model_type": ["qwen2"]}, "model_type: expected one of"),
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
        hf_config.parse_config(RAW | change)
