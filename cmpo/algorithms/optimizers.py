"""The optimizer of everything that is trained."""

import functools
from collections.abc import Mapping
from typing import Any

import optax


def count_updates(train: Mapping[str, Any]) -> int:
    """Counts the updates of phase 2 by config.train."""
    return train["rl_steps"] * train["epochs"] * train["minibatches"]


@functools.cache  # equal settings give the same object, by which jitted functions are found again
def make_optimizer(
    *,
    learning_rate: float,
    steps: int,
    warmup_fraction: float,
    final_fraction: float,
    weight_decay: float,
    max_grad_norm: float,
    momentum_dtype: str = "float32",
) -> optax.GradientTransformation:
    """Makes AdamW behind a clip of the global norm: linear warm-up, then a cosine to `final_fraction` of the peak.

    `momentum_dtype` is the type of the first moment; the second is float32.
    """
    warmup = max(1, round(warmup_fraction * steps))
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, learning_rate, warmup, max(steps, warmup + 1), learning_rate * final_fraction
    )
    adamw = optax.adamw(schedule, weight_decay=weight_decay, mu_dtype=momentum_dtype)
    return optax.chain(optax.clip_by_global_norm(max_grad_norm), adamw)
