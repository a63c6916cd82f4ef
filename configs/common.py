"""The sections that every run has, with their defaults; `cmpo/run/schema.py` says what each setting means."""

import dataclasses

from ml_collections import ConfigDict

from cmpo.run import schema
from rollouts.endpoints.settings import Endpoint


def get_config() -> ConfigDict:
    """A config of the defaults, to which a domain's config file adds what is the domain's own."""
    config = ConfigDict(schema.default_config())
    config.agent = make_endpoint("", url="", temperature=0.6, max_tokens=1024)  # an agent to evaluate; "": none
    return config


def make_endpoint(model: str, *, url: str = "embedded", **changes) -> ConfigDict:
    """An endpoint's section; `rollouts/endpoints/settings.py` says what each setting means."""
    return ConfigDict(dataclasses.asdict(Endpoint(url, model, **changes)))
