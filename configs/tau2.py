"""CMPO on tau2-bench: customers whose trouble takes tools and a policy.

Variants, joined by commas after a colon, e.g. `configs/tau2.py:domain=retail,user=llm`:
  domain=telecom|retail|airline|mock
  user=rules|llm|solo    who calls: rules need no LLM and know telecom alone; llm asks config.user; solo: nobody
"""

from ml_collections import ConfigDict

from configs import common
from rollouts.domains.tau2.schema import Tau2Settings

_VALUES = {"domain": ("telecom", "retail", "airline", "mock"), "user": ("rules", "llm", "solo")}


def get_config(arg: str = "") -> ConfigDict:
    """The configuration for the variants named in `arg`. Raises ValueError for an unknown one."""
    config = common.get_config()
    config.domain = "tau2"
    config.user = common.make_endpoint("user", url="http://127.0.0.1:8001/v1", temperature=0.0, max_tokens=512)
    config.update(Tau2Settings().model_dump())
    config.episode.max_turns = 51  # as many as fit in the official limit of 100 messages of everybody
    with config.ignore_type():
        config.pid.target = ConfigDict({"transfer": 0.1})
    for variant in filter(None, arg.split(",")):
        kind, _, value = variant.partition("=")
        if value not in _VALUES.get(kind, ()):
            known = [f"{kind}={'|'.join(values)}" for kind, values in _VALUES.items()]
            raise ValueError(f"unknown variant {variant!r}; expected one of {known}")
        config.data[kind] = value
    return config
