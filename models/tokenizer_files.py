"""The files beside a tokenizer.json: an option that the tokenizer does not follow is refused by file and name."""

import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import tokenizers
from tokenizers import decoders, normalizers, pre_tokenizers

from models import chat_template
from models.objects import read_object, read_text

# Qwen2's pre-tokenizer: contractions, words, single digits, punctuation, whitespace (Apache-2.0,
# https://huggingface.co/Qwen/Qwen2.5-0.5B/blob/main/tokenizer.json).
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

SETTINGS = {
    "tokenizer_class": "PreTrainedTokenizerFast",  # takes tokenizer.json as it is; other classes build parts of it anew
    "eos_token": "<|im_end|>",
    "pad_token": "<|endoftext|>",
    "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
    "clean_up_tokenization_spaces": False,  # transformers 4 would remove spaces from decoded text
    "model_max_length": 32768,
    "chat_template": chat_template.CHATML,
}
"""The tokenizer_config.json of a tokenizer that has none."""

_ALWAYS = ("tokenizer_class", "clean_up_tokenization_spaces")
_MISSING = ("eos_token", "pad_token", "chat_template")
# Options of which this tokenizer supports only one value, or none.
_FIXED = {
    "split_special_tokens": False,
    "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output": False,
    "auto_map": None,  # code of the checkpoint's own
    "fast_tokenizer_files": ["tokenizer.json"],
}
_TYPES = {
    "add_prefix_space": (bool, "true or false"),
    "additional_special_tokens": (list, "a list of tokens"),
    "extra_special_tokens": (list | dict, "a list of tokens, or an object"),
    "added_tokens_decoder": (dict, "an object"),
}
_FLAGS = ("special", "lstrip", "rstrip", "single_word", "normalized")


def set_qwen2_parts(backend: tokenizers.Tokenizer) -> None:
    """Gives `backend` Qwen2's normalizer, pre-tokenizer and decoder."""
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()


def read_settings(path: pathlib.Path, backend: tokenizers.Tokenizer) -> dict[str, Any]:
    """Merges what tokenizer_config.json and the files beside it say about the tokenizer.json in `path`.

    Templates of all files are in `chat_template`, special tokens of special_tokens_map.json under their names.

    Raises ValueError, naming file and option, for an option that the tokenizer does not follow, and for files that
    contradict each other.
    """
    raw = read_object(path / "tokenizer.json")
    settings = dict(SETTINGS)
    if (path / "tokenizer_config.json").is_file():
        settings = read_object(path / "tokenizer_config.json")
    for name, fixed in _FIXED.items():
        if settings.get(name) not in (None, fixed):
            raise ValueError(
                f"{path}: tokenizer_config.json: {name}: only {fixed!r} is supported, got {settings[name]!r:.60}"
            )
    _check_types(path, settings)
    _check_model(path, raw, settings)
    _check_parts(path, raw, settings)
    _check_vocabulary(path, raw["model"])
    _merge_special_tokens(path, settings)
    _check_tokens(path, backend, settings, raw["added_tokens"])
    templates = chat_template.read_templates(path, settings)
    settings |= {name: SETTINGS[name] for name in _MISSING if settings.get(name) is None}
    settings |= {name: SETTINGS[name] for name in _ALWAYS}
    if templates:
        chat_template.check_template(path, templates["default"], backend, list_tokens(settings))
        settings["chat_template"] = chat_template.to_setting(templates)
    return settings


def list_tokens(settings: Mapping[str, Any]) -> dict[str, str]:
    """Returns the special tokens that tokenizer_config.json (`settings`) names, as texts by their names."""
    return {name: _token_text(value) for name, value in settings.items() if _is_token(name, value)}


def _check_types(path: pathlib.Path, settings: Mapping[str, Any]) -> None:
    for name, value in settings.items():
        kind, expected = _TYPES.get(name, (object, ""))
        if name.endswith("_token") and not name.startswith("add_"):
            kind, expected = str | dict, "a token"
        if value is not None and not isinstance(value, kind):
            raise ValueError(f"{path}: tokenizer_config.json: {name}: expected {expected}, got {value!r:.60}")


def _check_model(path: pathlib.Path, raw: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    model = raw["model"]
    if model.get("dropout"):
        raise ValueError(f"{path}: tokenizer.json: model.dropout: expected none, the same text must give the same ids")
    if model.get("type", "BPE") != "BPE" and settings.get("clean_up_tokenization_spaces"):
        raise ValueError(f"{path}: tokenizer_config.json: clean_up_tokenization_spaces: not done, expected false")


def _check_parts(path: pathlib.Path, raw: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Checks what `transformers` builds anew instead of reading it from tokenizer.json."""
    prefixed = {
        part["add_prefix_space"] for part in _iterate_parts(raw.get("pre_tokenizer")) if "add_prefix_space" in part
    }
    if (asked := settings.get("add_prefix_space")) is not None and prefixed and prefixed != {asked}:
        raise ValueError(
            f"{path}: tokenizer_config.json: add_prefix_space: {asked!r}, while tokenizer.json says otherwise"
        )
    config = read_object(path / "config.json") if (path / "config.json").is_file() else {}
    if config.get("model_type") != "qwen2":
        return
    qwen2 = tokenizers.Tokenizer(tokenizers.models.BPE())
    set_qwen2_parts(qwen2)
    ours = json.loads(qwen2.to_str())
    for name in ("normalizer", "pre_tokenizer", "decoder"):
        if _drop_idle(raw.get(name), name) != _drop_idle(ours[name], name):
            raise ValueError(
                f"{path}: tokenizer.json: {name}: expected Qwen2's, which transformers gives every model of model_type "
                f"qwen2, got {raw.get(name)!r:.80}"
            )
    for name in ("continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "ignore_merges", "fuse_unk"):
        if raw["model"].get(name):
            raise ValueError(
                f"{path}: tokenizer.json: model.{name}: expected none, as transformers has it for model_type qwen2, "
                f"got {raw['model'][name]!r}"
            )


def _iterate_parts(tree: Any) -> Iterator[Mapping[str, Any]]:
    """Yields the parts of a normalizer, pre-tokenizer or decoder of tokenizer.json, those of sequences too."""
    if isinstance(tree, dict):
        inner = [item for value in tree.values() if isinstance(value, list) for item in value]
        yield from (part for item in inner for part in _iterate_parts(item)) if inner else (tree,)


def _drop_idle(part: Any, name: str) -> list[dict[str, Any]]:
    """Returns the parts without the options that change no id and no text."""
    idle = {"trim_offsets"} if name == "pre_tokenizer" else {"trim_offsets", "add_prefix_space", "use_regex"}
    return [{key: value for key, value in inner.items() if key not in idle} for inner in _iterate_parts(part)]


def _check_vocabulary(path: pathlib.Path, model: Mapping[str, Any]) -> None:
    """Checks that vocab.json and merges.txt, which other programs read, say what tokenizer.json says."""
    if (path / "vocab.json").is_file() and read_object(path / "vocab.json") != model.get("vocab"):
        raise ValueError(
            f"{path}: vocab.json and tokenizer.json have different vocabularies; keep the one that is meant"
        )
    if (path / "merges.txt").is_file():
        lines = read_text(path / "merges.txt").split("\n")
        merges = [line.rstrip("\r") for line in lines if line.strip() and not line.startswith("#version")]
        known = [merge if isinstance(merge, str) else " ".join(merge) for merge in model.get("merges", [])]
        if merges != known:
            raise ValueError(f"{path}: merges.txt and tokenizer.json have different merges; keep the one that is meant")


def _merge_special_tokens(path: pathlib.Path, settings: dict[str, Any]) -> None:
    """Adds to `settings` what special_tokens_map.json names and tokenizer_config.json does not."""
    file = path / "special_tokens_map.json"
    for name, value in (read_object(file) if file.is_file() else {}).items():
        if settings.get(name) is None:
            settings[name] = value
        elif _is_token(name, value) and _token_text(settings[name]) != _token_text(value):
            raise ValueError(
                f"{path}: {name} is {_token_text(settings[name])!r} in tokenizer_config.json, "
                f"{_token_text(value)!r} in special_tokens_map.json; keep the one that is meant"
            )


def _check_tokens(
    path: pathlib.Path, backend: tokenizers.Tokenizer, settings: Mapping[str, Any], added_tokens: list[dict[str, Any]]
) -> None:
    """Checks that every token that is named anywhere is in the tokenizer, with the same id and flags."""
    decoder = backend.get_added_tokens_decoder()
    own = [
        ("tokenizer.json", "added_tokens", token["id"], token) for token in added_tokens
    ]  # the library may move ids when it reads them
    for file, name, id, token in (*own, *_named_tokens(path, settings)):
        content = _token_text(token)
        found = backend.token_to_id(content) if isinstance(content, str) else None
        if found is None or (id is not None and str(found) != str(id)):
            expected = (
                "a token of tokenizer.json" if found is None else f"{content!r} to be {found}, as in tokenizer.json"
            )
            raise ValueError(
                f"{path}: {file}: {name}: expected {expected}, got {(content if id is None else id)!r:.60}"
            )
        added = decoder.get(found) if id is not None and isinstance(token, dict) else None
        for flag in _FLAGS if added else ():
            if token.get(flag, getattr(added, flag)) != getattr(added, flag):
                raise ValueError(
                    f"{path}: {file}: {name}: {flag} of {content!r}: expected {getattr(added, flag)}, "
                    f"as in tokenizer.json, got {token[flag]!r:.60}"
                )


def _named_tokens(path: pathlib.Path, settings: Mapping[str, Any]) -> Iterator[tuple[str, str, Any, Any]]:
    """Yields file, option, id (or None) and token, for every token that is named beside tokenizer.json."""
    main, file = "tokenizer_config.json", path / "added_tokens.json"
    for name, value in settings.items():
        if _is_token(name, value):
            yield main, name, None, value
    for name in ("additional_special_tokens", "extra_special_tokens"):
        value = settings.get(name) or []
        for token in value.values() if isinstance(value, dict) else value:
            yield main, name, None, token
    for id, token in (settings.get("added_tokens_decoder") or {}).items():
        yield main, "added_tokens_decoder", id, token
    for token, id in (read_object(file) if file.is_file() else {}).items():
        yield file.name, token, id, token


def _is_token(name: str, value: Any) -> bool:
    return name.endswith("_token") and isinstance(value, str | dict)


def _token_text(token: Any) -> Any:
    """Returns the text of a token, which may be an object with flags."""
    return token.get("content") if isinstance(token, dict) else token
