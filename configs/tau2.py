"""CMPO on tau2-bench: customers whose trouble takes tools and a policy.

Default: a language model of a million parameters at the telephone company, whose users follow rules; no LLM is needed.
Variants, joined by commas after a colon, e.g. `configs/tau2.py:smoke` or `configs/tau2.py:domain=retail,user=llm`:
  smoke                  the whole loop in about a minute, too short to learn
  domain=telecom|retail|airline|mock
  user=rules|llm|solo    who calls: rules need no LLM and know telecom alone; llm asks config.user; solo: nobody
"""

from ml_collections import ConfigDict

from configs import common
from rollouts.domains.tau2.schema import Tau2Settings

_VALUES = {"domain": ("telecom", "retail", "airline", "mock"), "user": ("rules", "llm", "solo")}
_LAPTOP = {
    "data.train": "train+extra",
    "data.prompt": "short",
    "model.vocab_size": 1024,
    "model.context_length": 2560,
    "engine.max_new_tokens": 64,
    "episode.max_turns": 40,
    "algo.credit": "return_to_go",  # every message costs one: compared with others alone, none would be to blame
    "algo.process_weight": 0.0,
    "sft.dialogues": 1024,
    "train.sft_steps": 600,
    "train.rl_steps": 60,
    "train.row_length": 2560,
    "eval.scenarios": 40,
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
    with config.ignore_type():
        config.pid.target = ConfigDict({"message": 8.0})
    for variant in filter(None, arg.split(",")):
        kind, _, value = variant.partition("=")
        if variant == "smoke":
            config.update_from_flattened_dict(_SMOKE)
        elif value in _VALUES.get(kind, ()):
            config.data[kind] = value
        else:
            known = ["smoke", *(f"{kind}={'|'.join(values)}" for kind, values in _VALUES.items())]
            raise ValueError(f"unknown variant {variant!r}; expected one of {known}")
    if config.data.domain != "telecom":  # no other one has tasks beyond its benchmark
        config.data.train = "train"
    if config.data.domain == "mock":  # it has no splits: there is nothing to train on
        config.data.update({"train": "", "test": "base"})
    return config
