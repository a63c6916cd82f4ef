"""Qwen2.5 and kin in Hugging Face's format: safetensors and config.json, strictly read and written."""

from models.hf.weights import INDEX, SINGLE, holds_weights, load, read_config, save, table, verify, write_config

__all__ = ["INDEX", "SINGLE", "holds_weights", "load", "read_config", "save", "table", "verify", "write_config"]
