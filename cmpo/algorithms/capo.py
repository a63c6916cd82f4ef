"""CAPO: the outcome and the judge's score of each turn; costs have no price."""

import jax.numpy as jnp

from cmpo.algorithms.algorithm import Algorithm
from cmpo.algorithms.clipped import Clipped


def make(config, domain) -> Algorithm:
    """Makes CAPO from config.algo."""
    return CAPO(config, domain)


class CAPO(Clipped):
    """CMPO with costs that are free."""

    def credit(self, memory, rewards):
        """Outcome and process rewards, compared within the group."""
        free = jnp.zeros(len(self.domain.costs))
        return self.compare_turns(rewards, free)
