"""The worlds that an agent may work in, one folder each; `load` returns one by its name."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from rollouts.domain import Domain

DOMAINS = {"fds": "rollouts.domains.fds.domain", "tau2": "rollouts.domains.tau2.domain"}
"""Name -> the module whose `make` returns the domain."""


def name_of(config: Mapping[str, Any]) -> str:
    """Returns the name of a config's domain. A config that names none is from before there were several: FDS."""
    return config.get("domain", "fds")


def load(config: Mapping[str, Any]) -> Domain:
    """Returns the domain that a run's config names, with the costs that have a budget in config.pid.target.

    A single number is the budget of the domain's first cost. A name with a dot is a module's, for example your own.

    Raises ValueError, naming the field.
    """
    target = config.get("pid", {}).get("target")
    make = import_factory("config.domain", name_of(config), DOMAINS)
    constrained = () if target is None or isinstance(target, int | float) else tuple(target)
    try:
        domain = make(constrained)
    except TypeError as error:  # an abstract method is missing
        raise ValueError(f"config.domain: {make.__module__}: {error}") from None
    _check_domain(domain, make.__module__)
    return domain


def import_factory(field: str, name: str, table: Mapping[str, str]) -> Callable[..., Any]:
    """Imports the module that `name` stands for in `table`, or the module of that name; returns its function `make`.

    Raises ValueError, naming the `field` of the config, if there is no such module, or no `make` in it.
    """
    place = table.get(name, name)
    if "." not in place:
        raise ValueError(f"{field}: expected one of {tuple(table)}, or package.module, got {name!r}")
    try:
        module = importlib.import_module(place)
    except ModuleNotFoundError as error:
        raise ValueError(f"{field}: no module {error.name!r}, which {name!r} needs") from None
    except (ImportError, SyntaxError, TypeError) as error:  # TypeError: of a name that begins with a dot
        raise ValueError(f"{field}: {place}: {type(error).__name__}: {error}") from None
    if not callable(getattr(module, "make", None)):
        raise ValueError(f"{field}: expected a function make in {place}, found none")
    return module.make


def _check_domain(domain: Domain, place: str) -> None:
    """Raises ValueError if the domain lacks something that a run would need only at its end."""
    for field in ("turn_format", "objective", "scores", "measures"):
        if not hasattr(domain, field):
            raise ValueError(f"config.domain: {place}: expected {type(domain).__name__}.{field}, found none")
    if domain.objective not in domain.scores:
        raise ValueError(
            f"config.domain: {place}: expected the objective among the scores {tuple(domain.scores)}, got "
            f"{domain.objective!r}"
        )
    for cost in domain.costs:
        if cost.total not in ("any", "sum"):
            raise ValueError(
                f"config.domain: {place}: expected the total of {cost.name!r} to be any or sum, got {cost.total!r}"
            )
