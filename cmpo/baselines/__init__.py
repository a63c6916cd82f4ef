"""Baselines: each one loss or advantage function. GRPO and CAPO are CMPO with weights set to zero (see configs)."""
