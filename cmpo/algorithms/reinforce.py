"""REINFORCE: the outcome, less its mean over the batch (Williams 1992)."""

import numpy as np

from cmpo.algorithms.algorithm import Algorithm
from cmpo.algorithms.clipped import Clipped


def make(config, domain) -> Algorithm:
    """REINFORCE by config.algo; the loss is clipped as that of the others, which a first update does not feel."""
    return REINFORCE(config, domain)


class REINFORCE(Clipped):
    """No group is compared; what the judge says and what a turn costs teach nothing."""

    def normalization(self):
        """Turns are compared with the mean of the batch."""
        return "batch"

    def credit(self, memory, rewards):
        """The outcome, less the mean over all dialogues that did not fail."""
        played = rewards.turn_mask.any(-1)
        mean = np.mean(rewards.outcome, where=played) if played.any() else 0.0
        worth = self.settings["outcome_weight"] * (rewards.outcome - mean)
        return np.where(rewards.turn_mask, worth[:, :, None], 0).astype(np.float32)
