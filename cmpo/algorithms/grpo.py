"""GRPO: the outcome alone, compared within its group; no judge and no price (Shao et al. 2024)."""

import jax.numpy as jnp

from cmpo.algorithms.algorithm import Algorithm
from cmpo.algorithms.clipped import Clipped


def make(config, domain) -> Algorithm:
    """Makes GRPO from config.algo; its advantage is the group's z-score if config.algo.normalize is "group"."""
    return GRPO(config, domain)


class GRPO(Clipped):
    """Every turn of a dialogue gets the dialogue's outcome."""

    def credit(self, memory, rewards):
        """The outcome, compared with the group's."""
        return self.compare_turns(rewards, jnp.zeros(len(self.domain.costs)), process_weight=0.0)
