"""A toy algorithm, to try the seam: REINFORCE with a baseline that is learnt beside the policy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cmpo.algorithms.algorithm import Algorithm, Head
from models import value_head


class Baseline(Algorithm):
    def head(self, model):
        return Head(functools.partial(value_head.init, model), value_head.apply, optax.adam(3e-2))

    def memory(self):
        return jnp.int32(0)  # batches seen

    def credit(self, memory, rewards):
        worth = rewards.outcome - np.sum(rewards.cost, axis=(2, 3))
        return np.where(rewards.turn_mask, worth[:, :, None], 0)

    def signals(self, signals, rows, values):
        return signals._replace(advantages=signals.advantages - values, own=signals.advantages)

    def loss(self, scores, rows, signals, total, axis_name):
        error = jnp.square(scores.values - signals.own)
        summed = jnp.sum(error - signals.advantages * scores.logprobs, where=rows.mask), jnp.sum(error, where=rows.mask)
        loss, error = (x / jnp.maximum(total, 1) for x in jax.lax.psum(summed, axis_name))
        return loss, {"value_error": error}

    def move(self, memory, summary, *, skipped):
        return memory + 1

    def describe(self, memory):
        return {"batches": int(memory)}


def make(config, domain):
    return Baseline(domain)
