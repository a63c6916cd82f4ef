"""Qwen2.5 and its relatives in Hugging Face's format: safetensors and config.json, strictly read and written."""

from models.hf.files import INDEX, SINGLE, holds_weights
from models.hf.generation import token_ids
from models.hf.hub import describe_origin, find_model, read_commit
from models.hf.weights import list_places, load, read_config, save, verify_checkpoint, write_config

__all__ = [
    "INDEX",
    "SINGLE",
    "describe_origin",
    "find_model",
    "holds_weights",
    "list_places",
    "load",
    "read_commit",
    "read_config",
    "save",
    "token_ids",
    "verify_checkpoint",
    "write_config",
]
