"""Numbers of a config that may differ from cost to cost: budgets, gains, bounds."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from cmpo import pid
from rollouts.domain import Cost, Domain


def read_per_cost(section: Mapping[str, Any], name: str, costs: Sequence[Cost]) -> float | np.ndarray:
    """Reads config.pid.{name}: the number of the only cost, or an array [C] if there are several.

    The config has one number for all costs, or a mapping from each cost's name to its number.

    Raises ValueError, naming the field, for a cost without a number, a number without a cost, and a budget of more
    than 1 for a share of dialogues.
    """
    value, names = section[name], [cost.name for cost in costs]
    if not hasattr(value, "keys"):
        if name == "target" and len(costs) > 1:
            raise ValueError(f"config.pid.target: expected a budget for each of {names}, by name, got {value}")
        return value if len(costs) == 1 else np.full(len(costs), value, float)
    if set(value) != set(names):
        raise ValueError(f"config.pid.{name}: expected a number for each of {names}, got {sorted(value)}")
    for cost in costs:
        if name == "target" and cost.total == "any" and value[cost.name] > 1:
            raise ValueError(f"config.pid.target.{cost.name}: expected 0 to 1, of dialogues, got {value[cost.name]}")
    return np.array([value[cost.name] for cost in costs], float)


def budgets_of(domain: Domain, config: Mapping[str, Any]) -> list[float]:
    """Returns what each cost may be in the mean over dialogues, [C]."""
    return np.broadcast_to(read_per_cost(config["pid"], "target", domain.costs), len(domain.costs)).tolist()


def read_controller(section: Mapping[str, Any], costs: Sequence[Cost]) -> tuple[pid.PIDGains, float | np.ndarray]:
    """Reads from config.pid what the controller is set to, and the multipliers that it begins with.

    Raises ValueError, naming the field.
    """
    names = ("kp", "ki", "kd", "target", "smoothing", "lambda_max", "initial_lambda")
    numbers = {name: read_per_cost(section, name, costs) for name in names}
    first = numbers.pop("initial_lambda")
    with name_section_in_errors("pid"):
        gains = pid.PIDGains(**numbers, **{name: section[name] for name in ("form", "every", "smoothing_of")})
        pid.init(gains, first)  # raises ValueError for numbers that cannot work
    return gains, first


@contextlib.contextmanager
def name_section_in_errors(section: str) -> Iterator[None]:
    """Puts the section of the config before the name of the argument in a component's ValueError."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"config.{section}.{error}") from None
