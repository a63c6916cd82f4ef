"""CMPO on tau2-bench: customers whose trouble takes tools and a policy.

Default: a language model of a million parameters at the telephone company, whose users follow rules; no LLM is needed.
Variants, joined by commas after a colon, e.g. `configs/tau2.py:smoke` or `configs/tau2.py:domain=retail,user=llm`:
  smoke                  the whole loop in about a minute, too short to learn
  model=NAME             qwen2.5-0.5b, -1.5b, -3b, -7b, -14b, -32b or -72b, on all GPUs, told what the official agent is
                         told; any other checkpoint by its directory or its name on the hub. --dry_run tells whether it
                         fits
  domain=telecom|retail|airline|mock
  algo=NAME              cmpo | grpo | capo | ppo | reinforce | gdpo | sft, see docs/algorithms.md
  user=rules|llm|solo    who calls: rules need no LLM and know telecom alone; llm, the default elsewhere, asks
                         config.user; solo: nobody
  budget=COST:NUMBER     what a dialogue may cost on average, e.g. transfer:0.1, or transfer:0.1+message:9; see
                         docs/tau2.md for the costs. Default: message:8
"""

import re

from ml_collections import ConfigDict

from configs import common
from rollouts.domains.tau2.schema import Tau2Settings

_CONTROLS = ("kp", "ki", "initial_lambda")
_UNITS = {  # cost -> these, in solved tasks per unit of the cost
    "transfer": (0.5, 0.15, 0.0),
    "write": (0.2, 0.05, 0.0),
    "tool_error": (0.2, 0.05, 0.0),
    "message": (0.05, 0.01, 0.06),  # begun at 0, the price came when the policy no longer tried to be short
    "refund": (3e-4, 6e-5, 0.0),
}


_ELSEWHERE = {"train": "train", "user": "llm"}  # only telecom has tasks beyond its benchmark, and a user by rules
_DOMAINS = {  # domain -> changes of config.data
    "telecom": {},
    "retail": _ELSEWHERE,
    "airline": _ELSEWHERE,
    "mock": _ELSEWHERE | {"train": "", "test": "base"},  # it has no splits: there is nothing to train on
}


def _split_budgets(text: str) -> list[tuple[str, str]]:
    """Splits COST:NUMBER, joined by +, into pairs."""
    return [part.partition(":")[::2] for part in text.split("+")]


def _is_budget(text: str) -> bool:
    budgets = _split_budgets(text)
    return len(dict(budgets)) == len(budgets) and all(  # no cost twice
        cost in _UNITS and re.fullmatch(r"\d*\.?\d+", number) for cost, number in budgets
    )


_KINDS = {  # the variants, in the order in which they are applied
    "model": bool,
    "domain": tuple(_DOMAINS),
    "user": ("rules", "llm", "solo"),
    "budget": _is_budget,
    "smoke": (),
    "algo": tuple(common.ALGOS),
}
_LAPTOP = {
    "data.train": "train+extra",
    "data.prompt": "short",
    "model.vocab_size": 1024,
    "model.context_length": 3072,
    "engine.max_new_tokens": 96,
    "episode.max_turns": 40,
    "algo.credit": "return_to_go",  # at the same price it spared a message more than "dialogue" did
    "algo.process_weight": 0.0,
    "algo.kl_weight": 0.005,  # an outcome is 0 or 1
    "pid.smoothing": 0.4,
    "sft.dialogues": 2048,
    "train.sft_steps": 1500,
    "train.rl_steps": 40,
    "train.row_length": 3072,
    "eval.scenarios": 40,
}
_LARGE = {
    "data.prompt": "full",  # policy and tools: 7,500 tokens
    "model.context_length": 16384,
    "engine.slots": 16,
    "episode.max_turns": 100,  # the benchmark's limit of steps ends a dialogue before
    "algo.normalize": "group",
    "sft.batch_rows": 8,
    "train.sft_steps": 64,
    "train.rl_steps": 140,  # twice as many tasks as telecom has
    "train.scenarios_per_step": 32,
    "train.row_length": 16384,
    "train.momentum_dtype": "bfloat16",  # 14B on 8 GPUs of 80 GB: activations of such rows leave no room for more
    "eval.temperature": 0.0,  # as the benchmark's client
}
_SMOKE = {
    "sft.dialogues": 32,
    "train.sft_steps": 8,
    "train.rl_steps": 2,
    "train.scenarios_per_step": 2,
    "train.checkpoint_every": 2,
    "engine.slots": 8,
    "eval.scenarios": 4,
}


def get_config(arg: str = "") -> ConfigDict:
    """The configuration for the variants named in `arg`. Raises ValueError for an unknown one."""
    config = common.get_config()
    config.domain = "tau2"
    config.user = common.make_endpoint("user", url="http://127.0.0.1:8001/v1", temperature=0.0, max_tokens=512)
    config.update(Tau2Settings().model_dump())
    config.update_from_flattened_dict(_LAPTOP)
    _set_budgets(config, "message:8")
    for kind, value in common.read_variants(arg, _KINDS):
        if kind == "model":
            common.choose_model(config, value)
            config.update_from_flattened_dict(_LARGE)
        elif kind == "smoke":
            config.update_from_flattened_dict(_SMOKE)
        elif kind == "budget":
            _set_budgets(config, value)
        elif kind == "algo":
            common.choose_algorithm(config, value)
        elif kind == "domain":
            config.data.update({"domain": value, **_DOMAINS[value]})
        else:
            config.data.user = value
    return config


def _set_budgets(config: ConfigDict, text: str) -> None:
    """Gives each cost in `text` (COST:NUMBER, joined by +) its budget, and the controller gains of its unit."""
    budgets = {cost: float(number) for cost, number in _split_budgets(text)}
    with config.ignore_type():
        config.pid.target = ConfigDict(budgets)
        for place, field in enumerate(_CONTROLS):
            config.pid[field] = ConfigDict({cost: _UNITS[cost][place] for cost in budgets})
