"""The algorithms: what is learnt from a batch. Each has a file here; `load` gives one by its name."""

from collections.abc import Mapping
from typing import Any

from cmpo.algorithms.algorithm import Algorithm
from rollouts.domain import Domain
from rollouts.domains import import_factory

ALGORITHMS = {
    "cmpo": "cmpo.algorithms.cmpo",
    "grpo": "cmpo.algorithms.grpo",
    "capo": "cmpo.algorithms.capo",
    "ppo": "cmpo.algorithms.ppo",
    "reinforce": "cmpo.algorithms.reinforce",
    "gdpo": "cmpo.algorithms.gdpo",
    "sft": "cmpo.algorithms.sft",
}
"""Name -> the module whose `make` gives the algorithm."""


def load(config: Mapping[str, Any], domain: Domain) -> Algorithm:
    """Loads the algorithm that config.algo.name names, set up by the config for a domain.

    A name with a dot is that of a module, which may be your own.

    Raises ValueError, naming the field.
    """
    make = import_factory("config.algo.name", config["algo"]["name"], ALGORITHMS)
    try:
        made = make(config, domain)
    except TypeError as error:  # make takes other arguments, or what is abstract is missing
        raise ValueError(f"config.algo.name: {make.__module__}.make(config, domain): {error}") from None
    if not isinstance(made, Algorithm):
        raise ValueError(f"config.algo.name: expected an Algorithm from {make.__module__}.make, got {made!r}")
    return made
