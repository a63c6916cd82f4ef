"""The policy: Qwen2.5 in Flax, its KV cache, attention and tokenizer."""
