"""Says which numbers and names a config may hold, beyond their types. Endpoints, engine and mesh check their own.

A command checks these before it does anything else, so that a mistake does not cost the first minutes of a run.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from cmpo import advantage, pid

_DTYPES = ("float32", "bfloat16", "float16")
_CHOICES = {
    "algo.normalize": advantage.NORMALIZE,
    "algo.credit": advantage.CREDIT,
    "pid.form": pid.FORMS,
    "model.dtype": _DTYPES,
    "train.momentum_dtype": _DTYPES,
}


class Range(NamedTuple):
    """The values that a number may have, both ends included."""

    least: float = 0
    most: float = math.inf
    beyond: bool = False  # must it be more than `least`?

    def holds(self, value: float) -> bool:
        """Whether `value` is within."""
        return self.least <= value <= self.most and not (self.beyond and value == self.least)

    def __str__(self) -> str:
        if self.least == -math.inf:
            return f"{self.most} or less"
        if not self.beyond:
            return f"{self.least} or more" if self.most == math.inf else f"{self.least} to {self.most}"
        return f"more than {self.least}" + (f" and at most {self.most}" if self.most < math.inf else "")


_ANY, _COUNT, _FROM_0, _SHARE, _POSITIVE = Range(-math.inf), Range(1), Range(), Range(0, 1), Range(0, beyond=True)
_RANGES = {
    "model.": {
        **dict.fromkeys(("vocab_size", "hidden_size", "intermediate_size", "num_layers"), _FROM_0),  # 0: the file's
        **dict.fromkeys(("num_heads", "num_kv_heads", "initializer_range", "lora_rank", "lora_alpha"), _FROM_0),
        "context_length": _COUNT,
    },
    "mesh.": dict.fromkeys(("data", "fsdp", "tensor"), Range(-1)),
    "engine.": {
        **dict.fromkeys(("slots", "chunk", "steps", "max_new_tokens"), _COUNT),
        **dict.fromkeys(("rows", "top_k"), _FROM_0),
        "temperature": _POSITIVE,
        "top_p": Range(0, 1, beyond=True),
    },
    "judge.": {"votes": _COUNT, "weights.*": _FROM_0},
    "episode.": {"max_turns": _COUNT, "format_outcome": Range(-math.inf, 0)},
    "algo.": {
        "group_size": _COUNT,
        **dict.fromkeys(("outcome_weight", "process_weight"), _ANY),
        **dict.fromkeys(("clip_low", "discount"), _SHARE),
        **dict.fromkeys(("clip_high", "kl_weight"), _FROM_0),
    },
    "pid.": {
        **dict.fromkeys(("kp", "ki", "kd", "initial_lambda"), _FROM_0),
        "lambda_max": _POSITIVE,
        "target": _SHARE,  # of dialogues
        "target.*": _FROM_0,
        **{f"{name}.*": _FROM_0 for name in ("kp", "ki", "kd", "initial_lambda")},
        "lambda_max.*": _POSITIVE,
        "smoothing.*": Range(0, 1, beyond=True),
        "smoothing": Range(0, 1, beyond=True),
    },
    "sft.": {**dict.fromkeys(("dialogues", "batch_rows"), _COUNT), "learning_rate": _FROM_0},
    "train.": {
        "seed": Range(0, 2**31 - 1),
        **dict.fromkeys(("sft_steps", "rl_steps", "replacements"), _FROM_0),
        **dict.fromkeys(("scenarios_per_step", "minibatches", "epochs", "importance_cap"), _COUNT),
        **dict.fromkeys(("row_length", "micro_rows", "checkpoint_every", "keep_checkpoints", "max_skipped"), _COUNT),
        **dict.fromkeys(("learning_rate", "weight_decay"), _FROM_0),
        "max_grad_norm": _POSITIVE,
        **dict.fromkeys(("warmup_fraction", "final_fraction", "max_failed_fraction"), _SHARE),
    },
    "eval.": {"scenarios": _COUNT, "seed": Range(0, 2**31 - 1), "temperature": _FROM_0},
}
RANGES = {section + name: found for section, names in _RANGES.items() for name, found in names.items()}
"""The values that each number of a config may have, by field; for endpoints see `rollouts.endpoints.settings`."""


def check_config(config: ConfigDict) -> None:
    """Raises ValueError, naming the field, for a value that no run can begin with."""
    for name, value in flatten(config.to_dict()).items():
        if isinstance(value, float) and not math.isfinite(value) and not name.endswith(("_timeout", "_wait")):
            raise ValueError(f"config.{name}: expected a finite number, got {value}")
        known = RANGES.get(name) or RANGES.get(f"{name.rpartition('.')[0]}.*")
        if known and not known.holds(value):
            raise ValueError(f"config.{name}: expected {known}, got {value!s:.30}")
        bits = 63 if ".budget_" in name else 31  # integers have 32 on devices
        if isinstance(value, int) and value >= 2**bits:
            raise ValueError(f"config.{name}: expected less than 2^{bits}, got {value!s:.30}")
        if value not in _CHOICES.get(name, (value,)):
            raise ValueError(f"config.{name}: expected one of {_CHOICES[name]}, got {value!r}")
    if not any(config.judge.weights.values()):
        raise ValueError("config.judge.weights: expected one above 0, got none")
    train, batch = config.train, config.train.scenarios_per_step * config.algo.group_size
    if train.minibatches > batch:
        raise ValueError(
            f"config.train.minibatches: expected at most the {batch} dialogues of a step, got {train.minibatches}"
        )


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the leaves of nested dicts by their dotted names."""
    flat, branches = {}, [("", tree)]
    while branches:
        prefix, branch = branches.pop(0)
        for name, value in branch.items():
            if isinstance(value, Mapping):
                branches.append((f"{prefix}{name}.", value))
            else:
                flat[prefix + name] = value
    return flat
