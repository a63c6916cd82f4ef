"""GDPO: each reward normalised in its group, then summed, then whitened over the batch (arXiv 2601.05242)."""

import jax.numpy as jnp
import numpy as np

from cmpo.algorithms.algorithm import Algorithm
from cmpo.algorithms.clipped import Clipped


def make(config, domain) -> Algorithm:
    """GDPO by config.algo: outcome, process rewards and costs are rewards of their own."""
    return GDPO(config, domain)


class GDPO(Clipped):
    """A reward with a wide spread cannot drown another: each has a deviation of 1 in its group before it is weighed.

    Costs are rewards of -1 a unit, weighed by config.algo.cost_weight. The paper has rewards of whole answers; here
    process rewards and costs are those of turns. config.algo.normalize does not count.
    """

    def normalization(self):
        """Each reward is compared within its group."""
        return "group"

    def credit(self, memory, rewards):
        """The weighed sum of normalised rewards, with mean 0 and deviation 1 over the turns of the batch."""
        settings, count = self.settings, len(self.domain.costs)
        parts = [
            (settings["outcome_weight"], {"outcome_weight": 1.0, "process_weight": 0.0, "lambdas": jnp.zeros(count)}),
            (settings["process_weight"], {"outcome_weight": 0.0, "process_weight": 1.0, "lambdas": jnp.zeros(count)}),
        ]
        for cost in jnp.eye(count):
            parts.append((settings["cost_weight"], {"outcome_weight": 0.0, "process_weight": 0.0, "lambdas": cost}))
        valid = rewards.turn_mask
        worth = np.zeros(valid.shape, np.float32)
        for weight, one in parts:
            if weight:
                worth += weight * np.asarray(self.compare_turns(rewards, normalize="group", **one))
        if not valid.any():
            return np.zeros(valid.shape, np.float32)
        mean, std = np.mean(worth, where=valid), np.std(worth, where=valid)
        return np.where(valid, (worth - mean) / (std + 1e-6), 0).astype(np.float32)

    def multipliers(self, memory):
        """The fixed price of every cost."""
        return np.full(len(self.domain.costs), self.settings["cost_weight"], np.float32)
