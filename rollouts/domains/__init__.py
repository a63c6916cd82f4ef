"""The worlds that an agent may work in, a folder each; `load` gives one by its name."""

import importlib

from rollouts.domain import Domain

NAMES = ("fds",)


def load(name: str) -> Domain:
    """The domain that config.domain names. Raises ValueError, naming the field, if there is none."""
    if name not in NAMES:
        raise ValueError(f"config.domain: expected one of {NAMES}, got {name!r}")
    return importlib.import_module(f"rollouts.domains.{name}.domain").DOMAIN
