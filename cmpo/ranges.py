"""What the numbers and names in a config may be, beyond their types; endpoints, engine and mesh check their own.

A command looks at these before it does anything: the first minutes of a run would be lost otherwise.
"""

import math
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from cmpo import advantage, pid
from rollouts.types import PRINCIPLES

_DTYPES = ("float32", "bfloat16", "float16")
_CHOICES = {
    "algo.normalize": advantage.NORMALIZE,
    "algo.credit": advantage.CREDIT,
    "pid.form": pid.FORMS,
    "model.dtype": _DTYPES,
    "train.momentum_dtype": _DTYPES,
}
_RANGES = {  # least and most
    **dict.fromkeys(("train.scenarios_per_step", "train.row_length", "train.micro_rows"), (1, math.inf)),
    **dict.fromkeys(("train.checkpoint_every", "train.keep_checkpoints", "train.max_skipped"), (1, math.inf)),
    **dict.fromkeys(("train.epochs", "train.minibatches", "train.importance_cap"), (1, math.inf)),
    **dict.fromkeys(("sft.dialogues", "sft.batch_rows", "algo.group_size"), (1, math.inf)),
    **dict.fromkeys(("model.context_length", "episode.max_turns", "eval.scenarios", "judge.votes"), (1, math.inf)),
    **dict.fromkeys(("train.sft_steps", "train.rl_steps", "train.replacements"), (0, math.inf)),
    **dict.fromkeys(("train.learning_rate", "sft.learning_rate", "train.weight_decay"), (0, math.inf)),
    **dict.fromkeys(("train.max_grad_norm", "algo.clip_high", "algo.kl_weight"), (0, math.inf)),
    **dict.fromkeys(("model.initializer_range", "model.lora_rank", "model.lora_alpha"), (0, math.inf)),
    **dict.fromkeys(("pid.kp", "pid.ki", "pid.kd", "pid.lambda_max", "pid.initial_lambda"), (0, math.inf)),
    **dict.fromkeys(("train.warmup_fraction", "train.final_fraction", "train.max_failed_fraction"), (0, 1)),
    **dict.fromkeys(("algo.clip_low", "algo.discount", "pid.smoothing"), (0, 1)),
    **{f"judge.weights.{name}": (0, math.inf) for name in PRINCIPLES},
    "train.seed": (0, 2**31 - 1),
}


def check(config: ConfigDict) -> None:
    """Raises ValueError, naming the field, for a value that no run can begin with."""
    for name, value in flatten(config.to_dict()).items():
        least, most = _RANGES.get(name, (-math.inf, math.inf))
        if isinstance(value, float) and not math.isfinite(value) and not name.endswith(("_timeout", "_wait")):
            raise ValueError(f"config.{name}: expected a finite number, got {value}")
        if not isinstance(value, str) and not least <= value <= most:
            expected = f"{least} or more" if most == math.inf else f"{least} to {most}"
            raise ValueError(f"config.{name}: expected {expected}, got {value}")
        bits = 63 if ".budget_" in name else 31  # integers have 32 on devices
        if isinstance(value, int) and value >= 2**bits:
            raise ValueError(f"config.{name}: expected less than 2^{bits}, got {value!s:.30}")
        if value not in _CHOICES.get(name, (value,)):
            raise ValueError(f"config.{name}: expected one of {_CHOICES[name]}, got {value!r}")
    if not any(config.judge.weights.values()):
        raise ValueError("config.judge.weights: expected one above 0, got none")


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The leaves of nested dicts by their dotted names."""
    flat, branches = {}, [("", tree)]
    while branches:
        prefix, branch = branches.pop(0)
        for name, value in branch.items():
            if isinstance(value, Mapping):
                branches.append((f"{prefix}{name}.", value))
            else:
                flat[prefix + name] = value
    return flat
