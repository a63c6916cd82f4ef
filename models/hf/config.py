"""Hugging Face's `config.json` to and from `Qwen2Config`, strictly: options without support are refused by name.

Reads both spellings of the rotary embedding's options, `rope_theta` + `rope_scaling` (transformers 4) and
`rope_parameters` (transformers 5), and writes both. Architectures: `qwen2`, and `llama` without biases.
"""

import math
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
_TYPES = {
    "model_type": "text",
    **dict.fromkeys(_SIZES, "a positive whole number"),
    **dict.fromkeys(("num_key_value_heads", "head_dim", "max_position_embeddings"), "a positive whole number"),
    **dict.fromkeys(("sliding_window", "max_window_layers"), "a whole number, at least 0"),
    **dict.fromkeys(("rms_norm_eps", "rope_theta"), "a positive number"),
    "initializer_range": "a number, at least 0",
    **dict.fromkeys(("tie_word_embeddings", "use_sliding_window"), "true or false"),
    **dict.fromkeys(("rope_scaling", "rope_parameters"), "an object"),
    **dict.fromkeys(("layer_types", "architectures"), "a list of text"),
}
# Options of which this model supports only one value.
_FIXED = {
    "hidden_act": "silu",
    "attention_dropout": 0.0,
    "attention_bias": False,
    "mlp_bias": False,
    "partial_rotary_factor": 1.0,
    "rope_interleaved": False,
    "use_mrope": False,
    "quantization_config": None,
    "auto_map": None,  # code of the checkpoint's own
}
# Metadata, and options of other frameworks; names that begin with _ are ignored too.
_IGNORED = {
    *("torch_dtype", "dtype", "transformers_version", "use_cache", "pretraining_tp", "is_llama_config"),
    *("transformers.js_config", "unsloth_version", "unsloth_fixed"),
}
_ROPE_TYPES = {
    "rope_type": "text",
    "rope_theta": "a positive number",
    "factor": "a number, at least 1",
    "original_max_position_embeddings": "a positive whole number",
    **dict.fromkeys(("beta_fast", "beta_slow", "attention_factor"), "a positive number"),
    "truncate": "true or false",
}
_YARN = {
    "factor": "factor",
    "original_max_position_embeddings": "original_positions",
    "beta_fast": "beta_fast",
    "beta_slow": "beta_slow",
    "attention_factor": "attention_factor",
    "truncate": "truncate",
}
_ARCHITECTURES = {"qwen2": "Qwen2ForCausalLM", "llama": "LlamaForCausalLM"}
# transformers' defaults, for files that leave an option out.
_THETA = 1e4
_DEFAULTS = {
    "qwen2": {"max_position_embeddings": 32768, "tie_word_embeddings": False},
    "llama": {"max_position_embeddings": 2048, "tie_word_embeddings": False},
}


def parse_config(raw: Mapping[str, Any], *, dtype: str = "float32", remat: bool | str = False) -> Qwen2Config:
    """Parses a `config.json`. `dtype` and `remat` do not come from it.

    Raises:
      ValueError: an unknown architecture, a missing size, a value of another type, or an option that cannot be
        honoured, by name.
    """
    kind = raw.get("model_type")
    if kind not in tuple(_DEFAULTS):
        raise ValueError(f"config.json: model_type: expected one of {', '.join(_DEFAULTS)}, got {kind!r}")
    raw = {**_DEFAULTS[kind], **{name: value for name, value in raw.items() if value is not None}}
    if missing := [name for name in _SIZES if name not in raw]:
        raise ValueError(f"config.json: {', '.join(missing)}: missing")
    for name, value in raw.items():
        if name in _TYPES or name.endswith("_token_id"):
            _check_type(name, value, _TYPES.get(name, "a whole number, or a list of them"))
        elif name in _FIXED:
            fixed = _FIXED[name]
            if value != fixed or isinstance(value, bool) != isinstance(fixed, bool):
                raise ValueError(f"config.json: {name}: only {fixed!r} is supported, got {value!r:.60}")
        elif name not in _IGNORED and not name.startswith("_") and value is not False:
            raise ValueError(f"config.json: {name}: unknown option ({value!r:.60}); remove it if it is metadata only")
    if raw.get("architectures", [_ARCHITECTURES[kind]]) != [_ARCHITECTURES[kind]]:
        raise ValueError(
            f"config.json: architectures: expected {_ARCHITECTURES[kind]} alone, as model_type is {kind}, "
            f"got {raw['architectures']!r:.60}"
        )
    heads, kv_heads, head_dim = _read_heads(raw)
    theta, yarn = _read_rope(raw)
    window, window_from = _read_window(raw, kind)
    return Qwen2Config(
        **{ours: raw[theirs] for theirs, ours in _SIZES.items()},
        num_kv_heads=kv_heads,
        head_dim=head_dim,
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


def render_config(config: Qwen2Config, **extra: Any) -> dict[str, Any]:
    """Returns the `config.json` of `config` for transformers 4 and 5 and vLLM, with `extra` (token ids, dtype)."""
    kind = "qwen2" if config.attention_bias else "llama"
    raw: dict[str, Any] = {
        "architectures": [_ARCHITECTURES[kind]],
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


def _check_type(name: str, value: Any, expected: str) -> None:
    """Raises ValueError unless `value`, of the option `name`, is what `expected` says."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    number = whole or (isinstance(value, float) and math.isfinite(value))
    right = {
        "text": isinstance(value, str),
        "true or false": isinstance(value, bool),
        "an object": isinstance(value, dict),
        "a list of text": isinstance(value, list) and all(isinstance(item, str) for item in value),
        "a positive whole number": whole and value > 0,
        "a whole number, at least 0": whole and value >= 0,
        "a positive number": number and value > 0,
        "a number, at least 0": number and value >= 0,
        "a number, at least 1": number and value >= 1,
        "a whole number, or a list of them": all(
            isinstance(item, int) and not isinstance(item, bool)
            for item in (value if isinstance(value, list) else [value])
        ),
    }
    if not right[expected]:
        raise ValueError(f"config.json: {name}: expected {expected}, got {value!r:.60}")


def _read_heads(raw: Mapping[str, Any]) -> tuple[int, int, int]:
    """Reads the numbers of heads and of heads of keys and values, and the size of a head."""
    heads = raw["num_attention_heads"]
    kv_heads = raw.get("num_key_value_heads", heads)
    if heads % kv_heads:
        raise ValueError(
            f"config.json: num_key_value_heads: expected a divisor of num_attention_heads {heads}, got {kv_heads}"
        )
    if "head_dim" not in raw and raw["hidden_size"] % heads:
        raise ValueError(
            f"config.json: hidden_size: expected a multiple of num_attention_heads {heads}, got {raw['hidden_size']}"
        )
    head_dim = raw.get("head_dim", raw["hidden_size"] // heads)
    if head_dim % 2:
        raise ValueError(f"config.json: head_dim: expected an even number, for the rotary embedding, got {head_dim}")
    return heads, kv_heads, head_dim


def _read_rope(raw: Mapping[str, Any]) -> tuple[float, Yarn | None]:
    """Reads the base of the wavelengths, and YaRN's settings if they are turned on."""
    found = {name: _rope_options(name, raw[name]) for name in ("rope_scaling", "rope_parameters") if raw.get(name)}
    bases = {name: options.pop("rope_theta") for name, options in found.items() if "rope_theta" in options}
    if "rope_theta" in raw:
        bases["the file itself"] = raw["rope_theta"]
    if len(set(bases.values())) > 1:
        raise ValueError(f"config.json: rope_theta: two sources of the same, {_list_sources(bases)}")
    theta = next(iter(bases.values()), _THETA)
    first, *others = [*found.values()] or [{}]
    if any(other != first for other in others):
        raise ValueError(
            f"config.json: rope_scaling and rope_parameters: two sources of the same, {_list_sources(found)}"
        )
    options, kind = dict(first), first.get("rope_type", "default")
    options.pop("rope_type", None)
    where = next(iter(found), "rope_parameters")
    if kind not in ("default", "yarn"):
        raise ValueError(f"config.json: {where}.rope_type: rope type: expected default or yarn, got {kind}")
    if unknown := options.keys() - (_YARN if kind == "yarn" else ()):
        raise ValueError(
            f"config.json: {where}: rope option {', '.join(sorted(unknown))}: not supported with rope_type {kind}"
        )
    if kind == "default":
        return theta, None
    if "factor" not in options:
        raise ValueError(f"config.json: {where}: rope option factor: missing, yarn needs it")
    options.setdefault("original_max_position_embeddings", raw["max_position_embeddings"])
    return theta, Yarn(**{_YARN[name]: value for name, value in options.items()})


def _rope_options(where: str, raw: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options in one spelling: `type` becomes `rope_type`, and options that mean nothing are left out."""
    options = {name: value for name, value in raw.items() if value is not None}
    kind = options.pop("type", None)
    if kind is not None and options.setdefault("rope_type", kind) != kind:
        raise ValueError(f"config.json: {where}: type {kind!r} and rope_type {options['rope_type']!r} differ")
    options.setdefault("rope_type", "default")
    if options.get("partial_rotary_factor") == _FIXED["partial_rotary_factor"]:
        del options["partial_rotary_factor"]
    for name, value in options.items():
        if name in _ROPE_TYPES:
            _check_type(f"{where}.{name}", value, _ROPE_TYPES[name])
    return options


def _read_window(raw: Mapping[str, Any], kind: str) -> tuple[int, int]:
    """Reads the sliding window in tokens (0: none) and the first layer that has it."""
    layers, window, start = raw["num_hidden_layers"], 0, raw["num_hidden_layers"]
    if kind == "llama" and (given := [name for name in ("use_sliding_window", "sliding_window") if raw.get(name)]):
        raise ValueError(f"config.json: {given[0]}: the architecture llama has no sliding window")
    if raw.get("use_sliding_window"):
        if not raw.get("sliding_window"):
            raise ValueError("config.json: sliding_window: missing while use_sliding_window is on")
        window, start = raw["sliding_window"], min(raw.get("max_window_layers", 28), layers)
    expected = ["full_attention"] * start + ["sliding_attention"] * (layers - start)
    given = raw.get("layer_types", expected)
    if not window and "sliding_attention" in given:
        raise ValueError("config.json: layer_types: names sliding_attention while use_sliding_window is off")
    if given != expected:
        raise ValueError(
            f"config.json: layer_types: expected full_attention in the first {start} of {layers} layers and "
            f"sliding_attention in the others, got {given!r:.60}"
        )
    return (window, start) if start < layers else (0, 0)


def _list_sources(values: Mapping[str, Any]) -> str:
    return " and ".join(f"{value!r:.60} in {name}" for name, value in values.items())
