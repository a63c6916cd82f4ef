"""The methods and the paper's ablations on FDS, as data for ``python -m cmpo.sweep --config=configs/ablations.py``.

Each run is `base` with a variant and changes, as a command line has them; all that have phase 1 in common share it.
"""

from ml_collections import ConfigDict

METHODS = ("sft", "reinforce", "ppo", "grpo", "capo", "gdpo", "cmpo")
CHANGES = {
    "fixed_lambda": ("pid.enabled=False", "pid.initial_lambda=1.0"),
    "no_smoothing": ("pid.smoothing=1.0",),
    "proportional_only": ("pid.ki=0.0",),
    "no_process_reward": ("algo.process_weight=0.0",),
    "no_outcome_reward": ("algo.outcome_weight=0.0",),
    "no_cost": ("pid.enabled=False",),
    "group": ("algo.normalize=group",),
    "trajectory": ("algo.normalize=trajectory",),
    "return_to_go": ("algo.credit=return_to_go",),
    "budget_15": ("pid.target=0.15",),
    "budget_27": ("pid.target=0.27",),
    "budget_40": ("pid.target=0.4",),
    "budget_50": ("pid.target=0.5",),
    "half_the_sft": ("train.sft_steps=600",),
}
"""Of CMPO, whose own run has a budget of 30 %, center normalisation and instant credit."""


def get_config(arg: str = "") -> ConfigDict:
    """The grid. `arg` are variants of configs/fds.py for all of its runs, for instance smoke."""
    runs = ConfigDict()
    for name in (*METHODS, *CHANGES):
        method = name if name in METHODS else "cmpo"
        variant = ",".join(filter(None, [f"algo={method}", arg]))
        runs[name] = ConfigDict({"variant": variant, "changes": CHANGES.get(name, ())})
    return ConfigDict({"base": "configs/fds.py", "order": (*METHODS, *CHANGES), "runs": runs})
