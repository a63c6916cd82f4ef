"""What a run in the lab is set to."""

import dataclasses
import math
from typing import Any

import chex
import jax
import numpy as np

from cmpo import advantage, pid

DIFFICULTIES = ("hard", "normal")


def _choice(default: Any) -> Any:
    return dataclasses.field(default=default, metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LabConfig:
    """What a run is set to; names are those of the trainer's config, and defaults those of configs/fds.py, as far as it
    has them. The learning rate with its end, the minibatches and the gains are others, as the policy is.

    A pytree. The numbers may be arrays under `vmap`; every other value is static, and another one compiles anew. With
    kp, ki and kd of 0 lambda stays at `initial_lambda`.

    Raises ValueError, naming the field.
    """

    # numbers
    target: chex.Numeric = 0.30  # the budget, vouchers a dialogue
    kp: chex.Numeric = 0.5
    ki: chex.Numeric = 0.15
    kd: chex.Numeric = 0.0
    smoothing: chex.Numeric = 0.7
    lambda_max: chex.Numeric = 5.0
    initial_lambda: chex.Numeric = 1.0
    learning_rate: chex.Numeric = 2e-2  # the peak; what follows is the trainer's schedule, without weight decay
    kl_weight: chex.Numeric = 0.02
    clip_low: chex.Numeric = 0.2
    clip_high: chex.Numeric = 0.2
    outcome_weight: chex.Numeric = 1.0
    process_weight: chex.Numeric = 1.0
    discount: chex.Numeric = 1.0
    # what is another from step `change_at` on
    target_change: chex.Numeric = 0.0  # is added to the budget
    judge_scale: chex.Numeric = 1.0  # process rewards are multiplied by it
    # choices
    normalize: str = _choice("center")
    credit: str = _choice("cost_to_go")
    price_scale: str = _choice("none")
    form: str = _choice("incremental")
    every: int = _choice(1)  # steps for which lambda is held
    smoothing_of: str = _choice("both")
    steps: int = _choice(60)
    rests: int = _choice(20)  # more of them at the end, in which nothing moves: an evaluation
    scenarios: int = _choice(12)  # of a step
    dialogues: int = _choice(4)  # of a scenario
    max_turns: int = _choice(15)
    minibatches: int = _choice(1)  # parts of a batch, of whole scenarios, each with its own update
    epochs: int = _choice(1)  # how often all parts are used
    final_fraction: float = _choice(0.2)  # the cosine of the learning rate ends at this share of its peak
    hidden: int = _choice(32)  # units of the policy's layer
    press: bool = _choice(False)  # may the policy give vouchers that nobody agreed to?
    difficulty: str = _choice("hard")
    change_at: int = _choice(0)  # 0: nothing changes
    difficulty_after: str = _choice("")  # of the customers after the change; "": as before

    def __post_init__(self):
        for name, allowed in _ALLOWED.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}: expected one of {allowed}, got {getattr(self, name)!r}")
        advantage.check_forms(self.normalize, self.credit, self.price_scale)
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ValueError(f"{name}: expected a whole number of {least} or more, got {value!r}")
        if self.scenarios % self.minibatches:
            raise ValueError(
                f"minibatches: expected a divisor of the {self.scenarios} scenarios of a step, got {self.minibatches}"
            )
        if type(self.final_fraction) is not float or not 0 <= self.final_fraction <= 1:
            raise ValueError(f"final_fraction: expected a number from 0.0 to 1.0, got {self.final_fraction!r}")
        if self.dialogues == 1 and advantage.compares_dialogues(self.normalize):
            raise ValueError(
                f"dialogues: expected 2 or more where turns are compared by {self.normalize!r}, got 1: with nothing to "
                "compare a dialogue with, nothing would be learnt from its outcome"
            )
        known = {name: value for name in NUMBERS if isinstance(value := getattr(self, name), _SCALARS)}
        for name, value in known.items():
            least, most = _RANGES.get(name, (0.0, math.inf))
            sound = not isinstance(value, str | bool) and abs(value) <= _LARGEST  # and no NaN
            if not sound or not least <= value <= most:
                raise ValueError(f"{name}: expected a finite number from {least} to {most}, got {value!r}")
        if len(known) == len(NUMBERS):  # arrays of a sweep are not checked
            pid.init(self.gains, self.initial_lambda)

    @property
    def gains(self) -> pid.PIDGains:
        """The controller's settings."""
        names = ("kp", "ki", "kd", "target", "smoothing", "lambda_max", "form", "every", "smoothing_of")
        return pid.PIDGains(**{name: getattr(self, name) for name in names})

    @property
    def mix(self) -> tuple[str, str]:
        """Who calls, as for `generator.deal_scenarios`: those over whom the frontiers are kept."""
        return self.difficulty, "test"

    @property
    def mix_after(self) -> tuple[str, str]:
        """Who calls after the change."""
        return self.difficulty_after or self.difficulty, "test"


NUMBERS = tuple(field.name for field in dataclasses.fields(LabConfig) if not field.metadata.get("static"))
"""The fields that may differ under one `vmap`."""

_SCALARS = (str, bool, int, float, np.number)
_LARGEST = float(np.finfo(np.float32).max)
_RANGES = dict.fromkeys(("target", "clip_low", "discount"), (0.0, 1.0))
_RANGES |= dict.fromkeys(("outcome_weight", "process_weight"), (-math.inf, math.inf))
_RANGES["target_change"] = (-1.0, 1.0)
_ALLOWED = {
    "form": pid.FORMS,
    "press": (False, True),
    "difficulty": DIFFICULTIES,
    "difficulty_after": ("", *DIFFICULTIES),
}
_LEAST = dict.fromkeys(("steps", "scenarios", "dialogues", "max_turns", "minibatches", "epochs", "hidden"), 1)
_LEAST |= {"rests": 0, "change_at": 0}
