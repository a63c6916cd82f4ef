"""Hugging Face's `config.json` to and from `Qwen2Config`, strictly: what cannot be honoured is refused by name.

Reads both spellings of the rotary embedding's options, `rope_theta` + `rope_scaling` (transformers 4) and
`rope_parameters` (transformers 5), and writes both. Architectures: `qwen2`, and `llama` without biases.
"""

from collections.abc import Mapping
from typing import Any

from models.config import Qwen2Config, Yarn

_SIZES = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "rms_norm_eps": "rms_norm_eps",
}
_READ = {
    *_SIZES,
    *("model_type", "num_key_value_heads", "head_dim", "max_position_embeddings", "tie_word_embeddings"),
    *("rope_theta", "rope_scaling", "rope_parameters", "initializer_range"),
    *("use_sliding_window", "sliding_window", "max_window_layers", "layer_types"),
}
# Options of which only one value means what this model computes.
_FIXED = {
    "hidden_act": "silu",
    "attention_dropout": 0.0,
    "attention_bias": False,
    "mlp_bias": False,
    "partial_rotary_factor": 1.0,
    "rope_interleaved": False,
    "quantization_config": None,
}
# Metadata, and what concerns generation or another framework only; so are ids of tokens, and what begins with _.
_IGNORED = {
    *("architectures", "auto_map", "torch_dtype", "dtype", "transformers_version", "use_cache"),
    *("pretraining_tp", "use_mrope", "is_llama_config"),
    *("transformers.js_config", "unsloth_version", "unsloth_fixed"),
}
_YARN = {
    "factor": "factor",
    "original_max_position_embeddings": "original_positions",
    "beta_fast": "beta_fast",
    "beta_slow": "beta_slow",
    "attention_factor": "attention_factor",
    "truncate": "truncate",
}
# transformers' defaults, for files that leave an option out.
_DEFAULTS = {
    "qwen2": {"rope_theta": 1e4, "max_position_embeddings": 32768, "tie_word_embeddings": False},
    "llama": {"rope_theta": 1e4, "max_position_embeddings": 2048, "tie_word_embeddings": False},
}


def read(raw: Mapping[str, Any], *, dtype: str = "float32", remat: bool | str = False) -> Qwen2Config:
    """The model that a `config.json` describes; `dtype` and `remat` are ours to choose.

    Raises:
      ValueError: an unknown architecture, a missing size, or an option that cannot be honoured, by name.
    """
    kind = raw.get("model_type")
    if kind not in _DEFAULTS:
        raise ValueError(f"config.json: model_type: expected one of {', '.join(_DEFAULTS)}, got {kind!r}")
    raw = {**_DEFAULTS[kind], **{name: value for name, value in raw.items() if value is not None}}
    if missing := [name for name in _SIZES if name not in raw]:
        raise ValueError(f"config.json: {', '.join(missing)}: missing")
    for name, value in raw.items():
        if name in _FIXED and value != _FIXED[name]:
            raise ValueError(f"config.json: {name}: only {_FIXED[name]!r} is supported, got {value!r}")
        known = name in _READ | _FIXED.keys() | _IGNORED or name.startswith("_") or name.endswith("_token_id")
        if not known and value is not False:
            raise ValueError(f"config.json: {name}: unknown option ({value!r:.60}); remove it if it is metadata only")
    theta, yarn = _rope(raw)
    window, window_from = _window(raw)
    heads = raw["num_attention_heads"]
    return Qwen2Config(
        **{ours: raw[theirs] for theirs, ours in _SIZES.items()},
        num_kv_heads=raw.get("num_key_value_heads", heads),
        head_dim=raw.get("head_dim", 0),
        rope_theta=theta,
        yarn=yarn,
        sliding_window=window,
        window_from=window_from,
        tie_embeddings=raw["tie_word_embeddings"],
        max_positions=max(raw["max_position_embeddings"], int(yarn.factor * yarn.original_positions) if yarn else 0),
        attention_bias=kind == "qwen2",
        initializer_range=raw.get("initializer_range", 0.02),
        dtype=dtype,
        remat=remat,
    )


def write(config: Qwen2Config, **extra: Any) -> dict[str, Any]:
    """The `config.json` of `config` for transformers 4 and 5 and vLLM, with `extra` (token ids, dtype) added."""
    kind = "qwen2" if config.attention_bias else "llama"
    raw: dict[str, Any] = {
        "architectures": [{"qwen2": "Qwen2ForCausalLM", "llama": "LlamaForCausalLM"}[kind]],
        "model_type": kind,
        **{theirs: getattr(config, ours) for theirs, ours in _SIZES.items()},
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "attention_dropout": 0.0,
        "initializer_range": config.initializer_range,
        "tie_word_embeddings": config.tie_embeddings,
        "max_position_embeddings": config.max_positions,
        "rope_theta": config.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
    }
    if config.yarn:
        scaling = {theirs: getattr(config.yarn, ours) for theirs, ours in _YARN.items()}
        scaling = {"rope_type": "yarn", **{name: value for name, value in scaling.items() if value is not None}}
        raw |= {"rope_scaling": scaling, "rope_parameters": {**scaling, "rope_theta": config.rope_theta}}
    if kind == "llama" and config.sliding_window:
        raise ValueError("a model without attention biases is written as llama, which has no sliding window")
    if kind == "qwen2":
        raw |= {
            "use_sliding_window": bool(config.sliding_window),
            "sliding_window": config.sliding_window or None,
            "max_window_layers": config.window_from if config.sliding_window else config.num_layers,
        }
    return raw | extra


def _rope(raw: Mapping[str, Any]) -> tuple[float, Yarn | None]:
    """The base of the wavelengths, and YaRN's settings where they are turned on."""
    options = {**raw.get("rope_scaling", {}), **raw.get("rope_parameters", {})}
    theta = options.pop("rope_theta", raw["rope_theta"])
    kinds = {options.pop(name) for name in ("rope_type", "type") if name in options}
    if kinds <= {"default"}:
        return theta, None
    if kinds != {"yarn"}:
        raise ValueError(f"config.json: rope type: expected default or yarn, got {', '.join(map(str, sorted(kinds)))}")
    options = {name: value for name, value in options.items() if value is not None}
    if unknown := options.keys() - _YARN:
        raise ValueError(f"config.json: rope option {', '.join(sorted(unknown))}: not supported with yarn")
    if "factor" not in options:
        raise ValueError("config.json: rope option factor: missing, yarn needs it")
    options.setdefault("original_max_position_embeddings", raw["max_position_embeddings"])
    return theta, Yarn(**{_YARN[name]: value for name, value in options.items()})


def _window(raw: Mapping[str, Any]) -> tuple[int, int]:
    """The sliding window in tokens (0: none) and the first layer that has it."""
    layers = raw["num_hidden_layers"]
    if not raw.get("use_sliding_window"):
        if "sliding_attention" in raw.get("layer_types", ()):
            raise ValueError("config.json: layer_types: names sliding_attention while use_sliding_window is off")
        return 0, 0
    if "sliding_window" not in raw:
        raise ValueError("config.json: sliding_window: missing while use_sliding_window is on")
    start = min(raw.get("max_window_layers", 28), layers)
    expected = ["full_attention"] * start + ["sliding_attention"] * (layers - start)
    if raw.get("layer_types", expected) != expected:
        raise ValueError(
            f"config.json: layer_types: expected full attention below max_window_layers ({start}) and sliding above"
        )
    return (raw["sliding_window"], start) if start < layers else (0, 0)
