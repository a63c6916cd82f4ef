"""The methods and the paper's ablations on FDS, as data for ``python -m cmpo.sweep --config=configs/ablations.py``.

Each run is `base` with a variant and changes, as a command line has them; all that have phase 1 in common share it.
Variants, joined by commas after a colon:
  rates                 the methods alone, each with three learning rates: the config's, a third and three times of it
  budgets               CMPO alone: budgets of 15, 30 and 50 %, fixed prices of a voucher, none, and the credit of the
                        paper and of the authors' code
  anything else         goes to configs/fds.py, for all runs; smoke for instance
"""

from ml_collections import ConfigDict

from configs import fds

METHODS = ("sft", "reinforce", "ppo", "grpo", "capo", "gdpo", "cmpo")
CHANGES = {
    "fixed_lambda": ("pid.enabled=False", "pid.initial_lambda=1.0"),
    "no_smoothing": ("pid.smoothing=1.0",),
    "proportional_only": ("pid.ki=0.0",),
    "no_process_reward": ("algo.process_weight=0.0",),
    "no_outcome_reward": ("algo.outcome_weight=0.0",),
    "no_cost": ("pid.enabled=False", "pid.initial_lambda=0.0"),
    "group": ("algo.normalize=group",),
    "trajectory": ("algo.normalize=trajectory", "algo.credit=instant"),
    "instant": ("algo.credit=instant",),
    "dialogue": ("algo.credit=dialogue",),
    "return_to_go": ("algo.credit=return_to_go",),
    "budget_15": ("pid.target=0.15",),
    "budget_27": ("pid.target=0.27",),
    "budget_40": ("pid.target=0.4",),
    "budget_50": ("pid.target=0.5",),
    "no_sft": ("train.sft_steps=0",),
}
"""Of CMPO, whose own run has a budget of 30 %, center normalisation and the credit cost_to_go."""


PRICES = (0.3, 0.6, 0.9, 1.3, 2.0)
BUDGETS = {
    **{f"budget_{percent}": (f"pid.target={percent / 100}",) for percent in (15, 30, 50)},
    **{f"price_{round(100 * price)}": ("pid.enabled=False", f"pid.initial_lambda={price}") for price in PRICES},
    **{name: CHANGES[name] for name in ("no_cost", "instant", "dialogue")},
}
"""Of CMPO: whether a controller serves a budget, beside fixed prices, none, and credit for whole dialogues."""

RATES = {"slow": 1 / 3, "fast": 3.0}
"""The other learning rates, in units of the config's."""


def get_config(arg: str = "") -> ConfigDict:
    """The grid for the variants named in `arg`."""
    variants = [variant for variant in arg.split(",") if variant]
    base = ",".join(variant for variant in variants if variant not in ("rates", "budgets"))
    if {"rates", "budgets"} <= {*variants}:
        raise ValueError("expected one of the variants rates and budgets, got both")
    grid = {method: (method, ()) for method in METHODS}
    if "budgets" in variants:
        grid = {name: ("cmpo", changes) for name, changes in BUDGETS.items()}
    elif "rates" in variants:
        grid |= {
            f"{method}_{pace}": (method, (_scale_rate(method, _write_variant(method, base), factor),))
            for method in METHODS
            for pace, factor in RATES.items()
        }
    else:
        grid |= {name: ("cmpo", changes) for name, changes in CHANGES.items()}
    runs = {
        name: {"variant": _write_variant(method, base), "changes": changes} for name, (method, changes) in grid.items()
    }
    return ConfigDict({"base": "configs/fds.py", "order": tuple(grid), "runs": runs})


def _write_variant(method: str, base: str) -> str:
    return f"algo={method},{base}".rstrip(",")


def _scale_rate(method: str, variant: str, factor: float) -> str:
    """The change that scales the learning rate which makes the method: that of phase 1 for SFT, else of phase 2."""
    section = "sft" if method == "sft" else "train"
    return f"{section}.learning_rate={fds.get_config(variant)[section].learning_rate * factor:.3g}"
