"""GRPO: the outcome alone, compared within its group (Shao et al. 2024). The judge and costs teach nothing."""

import jax.numpy as jnp

from cmpo.algorithms.algorithm import Algorithm
from cmpo.algorithms.clipped import Clipped


def make(config, domain) -> Algorithm:
    """Makes GRPO from config.algo; its advantage is the group's z-score if config.algo.normalize is "group"."""
    return GRPO(config, domain)


class GRPO(Clipped):
    """Every turn of a dialogue gets the dialogue's outcome.

    Raises ValueError, naming the field, where a dialogue would be compared with itself.
    """

    def __init__(self, config, domain):
        super().__init__(config, domain)
        if self.normalization() == "trajectory":
            raise ValueError(
                "config.algo.normalize: expected group, center or none, got 'trajectory': all turns of a dialogue have "
                "the same outcome"
            )

    def credit(self, memory, rewards):
        """The outcome, compared with the group's."""
        return self.compare_turns(rewards, jnp.zeros(len(self.domain.costs)), process_weight=0.0)
