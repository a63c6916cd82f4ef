"""CMPO: outcome, process rewards and priced costs in one advantage; a controller sets the prices (arXiv 2602.22697)."""

import math

import jax.numpy as jnp
import numpy as np

from cmpo import pid
from cmpo.advantage import compute_effective_prices
from cmpo.algorithms import budgets
from cmpo.algorithms.algorithm import Algorithm
from cmpo.algorithms.capo import CAPO
from cmpo.algorithms.clipped import Clipped


def make(config, domain) -> Algorithm:
    """Makes CMPO from config.algo and config.pid, or CAPO if the domain has no costs. Raises ValueError."""
    return CMPO(config, domain) if domain.costs else CAPO(config, domain)


class CMPO(Clipped):
    """Its memory is the controller's state. With config.pid.enabled=False the prices keep their initial values."""

    def __init__(self, config, domain):
        super().__init__(config, domain)
        self.controls = config["pid"]
        self.gains, self.first = budgets.read_controller(self.controls, domain.costs)

    def memory(self):
        """The controller before the first batch."""
        return pid.init(self.gains, self.first)

    def credit(self, memory, rewards):
        """The hybrid advantage at the present prices."""
        return self.compare_turns(rewards, memory.lambdas)

    def move(self, memory, summary, *, skipped):
        """Makes one step of the controller. If an update was skipped, the prices do not change."""
        if not self.controls["enabled"]:
            return memory
        costs = [math.nan if skipped else summary[cost.measure] for cost in self.domain.costs]
        return pid.update(self.gains, memory, jnp.array(costs, jnp.float32))

    def multipliers(self, memory):
        """The prices in force."""
        return memory.lambdas

    def effective_prices(self, memory, rewards):
        """The prices in force, by the spread of each group's utilities."""
        return self.map_groups(compute_effective_prices, rewards, memory.lambdas)

    def describe(self, memory):
        """The costs as the controller has smoothed them."""
        smoothed = zip(self.domain.costs, np.asarray(memory.smoothed_cost).tolist(), strict=True)
        return {f"{cost.measure}_smoothed": value for cost, value in smoothed}

    def prices(self):
        """The most that the controller may charge; 0 if it is not enabled."""
        return np.asarray(self.gains.lambda_max, float) * self.controls["enabled"] * np.ones(len(self.domain.costs))
