"""The worlds that an agent may work in, a folder each; `load` gives one by its name."""

import importlib
from collections.abc import Mapping
from typing import Any

from rollouts.domain import Domain

NAMES = ("fds",)


def load(config: Mapping[str, Any]) -> Domain:
    """The domain that a run's config names, with the costs that config.pid.target holds a budget for.

    A single number is the budget of the domain's first cost. Raises ValueError, naming the field.
    """
    name, target = config.get("domain", "fds"), config.get("pid", {}).get("target")  # older files are all of FDS
    if name not in NAMES:
        raise ValueError(f"config.domain: expected one of {NAMES}, got {name!r}")
    constrained = () if target is None or isinstance(target, int | float) else tuple(target)
    return importlib.import_module(f"rollouts.domains.{name}.domain").make(constrained)
