"""Qwen2.5 and kin in Hugging Face's format: safetensors and config.json, strictly read and written."""

from models.hf.files import INDEX, SINGLE, holds_weights
from models.hf.generation import token_ids
from models.hf.hub import find, origin, recorded
from models.hf.weights import load, read_config, save, table, verify, write_config

__all__ = [
    "INDEX",
    "SINGLE",
    "find",
    "holds_weights",
    "load",
    "origin",
    "read_config",
    "recorded",
    "save",
    "table",
    "token_ids",
    "verify",
    "write_config",
]
