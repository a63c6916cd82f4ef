"""What a server is held to, read from its flags and from the config of its run."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from cmpo.algorithms.budgets import read_controller
from cmpo.pid import PIDGains
from rollouts import domains
from rollouts.domain import Cost, Domain


class Prices(NamedTuple):
    """What things are worth in money, of any one currency."""

    action: np.ndarray  # [C], a unit of each cost
    token: float  # a sampled one
    escalation: float

    def name_prices(self, costs: Sequence[Cost]) -> dict[str, float]:
        """Returns all prices by name, ready for JSON."""
        actions = {cost.name: float(price) for cost, price in zip(costs, self.action, strict=True)}
        return {**actions, "token": self.token, "escalation": self.escalation}


def read_budgets(text: str) -> dict[str, float]:
    """Reads --budget, such as voucher:0.30, several with a comma between them. Raises ValueError."""
    return _read_numbers("--budget", text)


def load_domain(config: Mapping[str, Any], budgets: Mapping[str, float]) -> Domain:
    """Loads the domain of a config with costs for these budgets, whatever budgets the config has.

    Raises ValueError, naming the flag, for a budget that is no cost's.
    """
    try:
        return domains.load({"domain": domains.name_of(config), "pid": {"target": budgets}})
    except ValueError as error:
        raise ValueError(str(error).replace("config.pid.target", "--budget")) from None


def make_controller(
    section: Mapping[str, Any], costs: Sequence[Cost], budgets: Mapping[str, float]
) -> tuple[PIDGains, float | np.ndarray]:
    """Makes a run's controller, `section` being its config.pid, for other budgets; see `read_controller`.

    Raises ValueError, naming the flag or the field.
    """
    names = [cost.name for cost in costs]
    own = {
        name: {key: value[key] for key in names if key in value} if hasattr(value, "keys") else value
        for name, value in section.items()
    }
    try:
        return read_controller(own | {"target": budgets}, costs)
    except ValueError as error:
        raise ValueError(str(error).replace("config.pid.target", "--budget")) from None


def read_prices(text: str, costs: Sequence[Cost]) -> Prices:
    """Reads --prices, such as action:1.0,token:0.0001,escalation:5.

    `action` is the price of a unit of every cost that has none by its own name, as in voucher:1.0. What has no price
    costs nothing. Raises ValueError.
    """
    found, names = _read_numbers("--prices", text), [cost.name for cost in costs]
    known = ("action", *names, "token", "escalation")
    if unknown := [name for name in found if name not in known]:
        raise ValueError(f"--prices: expected prices of some of {', '.join(known)}, got {unknown[0]!r}")
    action = np.array([found.get(name, found.get("action", 0.0)) for name in names])
    return Prices(action, found.get("token", 0.0), found.get("escalation", 0.0))


def _read_numbers(flag: str, text: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = (piece.strip() for piece in part.partition(":"))
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not name or not 0 <= value < math.inf:
            raise ValueError(f"{flag}: expected NAME:NUMBER,… with numbers of 0 or more, got {part!r} in {text!r}")
        if name in found:
            raise ValueError(f"{flag}: expected each name once, got {name!r} twice in {text!r}")
        found[name] = value
    return found
