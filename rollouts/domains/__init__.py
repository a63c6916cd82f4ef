"""The worlds that an agent may work in, a folder each; `load` gives one by its name."""

import importlib
from collections.abc import Mapping
from typing import Any

from rollouts.domain import Domain

DOMAINS = {"fds": "rollouts.domains.fds.domain"}
"""Name -> the module whose `make` gives the domain."""


def load(config: Mapping[str, Any]) -> Domain:
    """The domain that a run's config names, with the costs that config.pid.target holds a budget for.

    A single number is the budget of the domain's first cost. A name with a dot is that of a module: yours, for one.

    Raises ValueError, naming the field.
    """
    name, target = config.get("domain", "fds"), config.get("pid", {}).get("target")  # older files are all of FDS
    place = DOMAINS.get(name, name)
    if "." not in place:
        raise ValueError(f"config.domain: expected one of {tuple(DOMAINS)}, or a module, got {name!r}")
    try:
        module = importlib.import_module(place)
    except ModuleNotFoundError as error:
        raise ValueError(f"config.domain: no module {error.name!r}, wanted for {name!r}") from None
    constrained = () if target is None or isinstance(target, int | float) else tuple(target)
    return module.make(constrained)
