"""CMPO on FDS, food-delivery disputes.

Default: a language model of a million parameters against the embedded user and judge, on a laptop.
  command   python -m cmpo.main --config=configs/fds.py --workdir=runs/fds      (or: make train)
  hardware  a CPU; on one core a step takes 12 to 16 s, and the whole about 16 minutes
  result    satisfaction 2.6 with vouchers for 29 to 34 %, 99 % finished; the best that reads has 2.8 there
Variants, joined by commas after a colon, e.g. `configs/fds.py:smoke` or `configs/fds.py:algo=grpo,difficulty=normal`:
  new                   a new model, which learns from more demonstrations first: an hour
  smoke                 the whole loop with a new model in about a minute, too short to learn; with a model=, its fewest
                        steps
  algo=NAME             cmpo | grpo | capo | ppo | reinforce | gdpo | sft, see docs/algorithms.md
  difficulty=hard|normal
  turns=NUMBER          also hold the mean number of the agent's turns at NUMBER
  model=NAME            qwen2.5-0.5b, -1.5b, -3b, -7b, -14b, -32b or -72b with the paper's settings, on all GPUs; any
                        other checkpoint by its directory or its name on the hub. --dry_run tells whether it fits
"""

import math
import pathlib

from ml_collections import ConfigDict

from configs import common
from rollouts.domains.fds.schema import FdsSettings

START = pathlib.Path(__file__).resolve().parents[1] / "starts" / "fds"
"""A model of a million parameters that reads, quotes and is polite, in Hugging Face's format; see starts/README.md."""

_SMALL = {  # a model of a million parameters, on a laptop
    "engine.max_new_tokens": 128,
    "engine.temperature": 0.5,
    "eval.temperature": 0.5,  # as trained, so that the budget is kept by the policy that is served
    "algo.credit": "cost_to_go",
    "sft.vary_facts": 0.6,
    "sft.vary_words": 0.35,
    "pid.kp": 2.0,
    "pid.ki": 0.1,
    "pid.initial_lambda": 1.0,  # from 0, a policy forgets in ten steps how to do without vouchers
    "train.learning_rate": 2.5e-4,
    "train.minibatches": 6,  # of two scenarios: more updates for the same work, docs/pid.md
    "train.final_fraction": 0.02,  # the less a policy walks in the end, the nearer it stays to its budget: docs/pid.md
    "train.rl_steps": 60,
}
_BEGUN = {  # that at START
    "sft.dialogues": 512,
    "sft.learning_rate": 3e-4,
    "train.sft_steps": 150,
}
_NEW = {  # a new one, as the first part of that was made
    "model.vocab_size": 1024,
    "sft.dialogues": 10_240,
    "sft.exercise_steps": 300,
    "train.sft_steps": 10_000,
    "train.seed": 2602,  # not that of runs which go on from it: their customers are others
}

PAPER = {  # the authors' settings beside those of any large model, as far as they are known
    "model.context_length": 8192,
    "engine.slots": 64,
    "episode.format_outcome": 0.0,
    "algo.kl_weight": 0.005,
    "algo.normalize": "group",
    "pid.kp": 0.0,
    "pid.ki": 0.2,
    "sft.dialogues": 1536,
    "sft.exercise_steps": 0,  # it can read
    "sft.batch_rows": 16,  # about 32 dialogues of 2,000 tokens
    "train.sft_steps": 48,  # one epoch
    "train.rl_steps": 120,  # two epochs over the 7,680 hard records
    "train.scenarios_per_step": 128,  # 512 dialogues, four of each
    "train.row_length": 4096,  # a dialogue's usual length; rows double where one is longer
}


_SMOKE = {
    "train.seed": 0,
    "sft.dialogues": 64,
    "sft.exercise_steps": 4,
    "train.sft_steps": 8,
    "train.rl_steps": 4,
    "train.scenarios_per_step": 4,
    "train.minibatches": 2,
    "train.checkpoint_every": 4,
    "engine.slots": 16,
    "eval.scenarios": 16,
}


def get_config(arg: str = "") -> ConfigDict:
    """The configuration for the variants named in `arg`. Raises ValueError for an unknown one."""
    config = common.get_config()
    config.domain = "fds"
    config.user = common.make_endpoint("embedded-user", temperature=1.2)
    config.judge = common.make_endpoint("embedded-judge", temperature=0.0, max_tokens=512)
    config.update(FdsSettings().model_dump())

    variants = common.read_variants(arg, _KINDS)
    kinds = {kind for kind, _ in variants}
    if {"new", "model"} <= kinds:
        raise ValueError("expected one of the variants new and model=, got both")
    if "model" not in kinds:
        _choose_small(config, new=bool(kinds & {"new", "smoke"}))
    for kind, value in variants:
        if kind == "model":
            common.choose_model(config, value)
            config.update_from_flattened_dict(PAPER)
            if config.mesh.tensor > 1:
                config.engine.slots = 48
        elif kind == "difficulty":
            config.data.difficulty = value
        elif kind == "smoke":
            config.update_from_flattened_dict(_SMOKE)
        elif kind == "algo":
            common.choose_algorithm(config, value)
        elif kind == "turns":
            _hold_turns(config, float(value))
    return config


def _choose_small(config: ConfigDict, *, new: bool) -> None:
    """Makes the model one of a million parameters, that at START or a new one like it."""
    config.update_from_flattened_dict(_SMALL | (_NEW if new else _BEGUN))
    if not new:
        common.begin_with(config, str(START))


def _hold_turns(config: ConfigDict, turns: float) -> None:
    """Makes turns a cost with a budget, beside the voucher."""
    with config.ignore_type():
        config.pid.target = ConfigDict({"voucher": config.pid.target, "turns": turns})
        # How many turns a policy needs follows its multiplier late: a strong proportional part damps the swing.
        config.pid.kp = ConfigDict({"voucher": config.pid.kp, "turns": 2 * config.pid.kp})
        config.pid.ki = ConfigDict({"voucher": config.pid.ki, "turns": config.pid.ki})
        config.pid.initial_lambda = ConfigDict({"voucher": config.pid.initial_lambda, "turns": 0.0})
    # Every turn costs one turn: compared with other turns alone, none would be to blame for those after it.
    config.algo.credit = "cost_to_go"


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


_KINDS = {
    "model": bool,
    "new": (),
    "difficulty": ("hard", "normal"),
    "smoke": (),
    "algo": tuple(common.ALGOS),
    "turns": _is_number,
}
"""The variants, in the order in which they are applied: a later one overrides an earlier one."""
