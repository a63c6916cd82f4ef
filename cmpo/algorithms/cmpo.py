"""CMPO: outcome, process rewards and priced costs in one advantage; a controller sets the prices (arXiv 2602.22697)."""

import math
from typing import Any, NamedTuple

import chex
import jax.numpy as jnp
import numpy as np

from cmpo import pid, spreads
from cmpo.advantage import compute_effective_prices, compute_variances
from cmpo.algorithms import budgets
from cmpo.algorithms.algorithm import Algorithm
from cmpo.algorithms.capo import CAPO
from cmpo.algorithms.clipped import Clipped


def make(config, domain) -> Algorithm:
    """Makes CMPO from config.algo and config.pid, or CAPO if the domain has no costs. Raises ValueError."""
    return CMPO(config, domain) if domain.costs else CAPO(config, domain)


class ScaledMemory(NamedTuple):
    """The memory of CMPO where config.algo.normalize is "scaled"; else it is the controller's state alone."""

    controller: pid.ControllerState
    spreads: spreads.SpreadState

    @property
    def lambdas(self) -> chex.Array:
        """The prices in force, [C]."""
        return self.controller.lambdas


class CMPO(Clipped):
    """Its memory is the controller's state. With config.pid.enabled=False the prices keep their initial values."""

    remembers_spreads = True

    def __init__(self, config, domain):
        super().__init__(config, domain)
        self.controls = config["pid"]
        self.gains, self.first = budgets.read_controller(self.controls, domain.costs)
        self.scaled = self.normalization() == "scaled"

    def memory(self):
        """The controller before the first batch."""
        controller = pid.init(self.gains, self.first)
        return ScaledMemory(controller, spreads.init(len(self.domain.costs))) if self.scaled else controller

    def observe(self, memory, rewards):
        """Takes the spreads of the batch into account where turns are scaled by them."""
        if not self.scaled:
            return memory
        names = ("outcome_weight", "process_weight", "credit", "discount")
        options = {name: self.settings[name] for name in names}
        variances = compute_variances(rewards.outcome, rewards.process, rewards.cost, rewards.turn_mask, **options)
        return memory._replace(spreads=spreads.update(memory.spreads, variances))

    def credit(self, memory, rewards):
        """The hybrid advantage at the present prices."""
        return self.compare_turns(rewards, memory.lambdas, **self.read_forms(memory))

    def read_forms(self, memory: Any) -> dict[str, Any]:
        """Returns the options of `hybrid_advantage` that are CMPO's own."""
        own = {"price_scale": self.settings["price_scale"]}
        return own | {"spreads": spreads.read_spreads(memory.spreads)} if self.scaled else own

    def move(self, memory, summary, *, skipped):
        """Makes one step of the controller. If an update was skipped, the prices do not change."""
        if not self.controls["enabled"]:
            return memory
        costs = [math.nan if skipped else summary[cost.measure] for cost in self.domain.costs]
        controller = memory.controller if self.scaled else memory
        controller = pid.update(self.gains, controller, jnp.array(costs, jnp.float32))
        return memory._replace(controller=controller) if self.scaled else controller

    def multipliers(self, memory):
        """The prices in force."""
        return memory.lambdas

    def effective_prices(self, memory, rewards):
        """The prices in force, by what advantages are divided by."""
        return self.map_groups(compute_effective_prices, rewards, memory.lambdas, **self.read_forms(memory))

    def describe(self, memory):
        """The costs as the controller has smoothed them."""
        controller = memory.controller if self.scaled else memory
        smoothed = zip(self.domain.costs, np.asarray(controller.smoothed_cost).tolist(), strict=True)
        return {f"{cost.measure}_smoothed": value for cost, value in smoothed}

    def prices(self):
        """The most that the controller may charge; 0 if it is not enabled."""
        return np.asarray(self.gains.lambda_max, float) * self.controls["enabled"] * np.ones(len(self.domain.costs))
