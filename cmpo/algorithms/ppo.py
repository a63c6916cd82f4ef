"""PPO: a critic on the policy's hidden states says what was to be expected (Schulman et al. 2017)."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cmpo.algorithms.algorithm import Algorithm, Head
from cmpo.algorithms.clipped import Clipped
from cmpo.algorithms.optimizers import count_updates, make_optimizer
from cmpo.gae import generalized_advantage
from models import value_head


def make(config, domain) -> Algorithm:
    """PPO by config.algo; its optimizer of the critic by config.train, too."""
    return PPO(config, domain)


class Critic(NamedTuple):
    """What the critic learns from, each [R, T] float32."""

    targets: jax.Array
    values: jax.Array  # before the update
    weights: jax.Array  # 0 where it learns nothing; they add up to the number of sampled tokens


class PPO(Clipped):
    """A turn brings its process reward less the cost at a fixed price, the last one the outcome as well."""

    def normalization(self):
        """Turns are compared with what the critic expects."""
        return "critic"

    def __init__(self, config, domain):
        super().__init__(config, domain)
        self.train = config["train"]

    def head(self, model):
        """The critic."""
        train = self.train
        optimizer = make_optimizer(
            **{name: train[name] for name in ("warmup_fraction", "final_fraction", "weight_decay", "max_grad_norm")},
            learning_rate=self.settings["value_learning_rate"],
            steps=count_updates(train),
        )
        return Head(functools.partial(value_head.init, model), value_head.apply, optimizer)

    def credit(self, memory, rewards):
        """What each turn brings."""
        settings, valid = self.settings, rewards.turn_mask
        ends = valid & ~np.pad(valid[:, :, 1:], ((0, 0), (0, 0), (0, 1)))
        brought = settings["process_weight"] * rewards.process - settings["cost_weight"] * rewards.cost.sum(-1)
        brought = brought + np.where(ends, settings["outcome_weight"] * rewards.outcome[:, :, None], 0)
        return np.where(valid, brought, 0).astype(np.float32)

    def multipliers(self, memory):
        """The fixed price of every cost."""
        return np.full(len(self.domain.costs), self.settings["cost_weight"], np.float32)

    def signals(self, signals, rows, values):
        """Generalized advantages, with mean 0 and deviation 1 over the sampled tokens."""
        settings = self.settings
        options = {"discount": settings["discount"], "trace": settings["gae_trace"], "unit": settings["gae"]}
        estimate = jax.vmap(functools.partial(generalized_advantage, **options))  # over micro-batches
        advantages, targets, steps = estimate(signals.advantages, values, rows.mask, rows.turns, rows.segment_ids)
        weights = steps * (jnp.sum(rows.mask) / jnp.maximum(jnp.sum(steps), 1))
        return signals._replace(advantages=whiten(advantages, rows.mask), own=Critic(targets, values, weights))

    def loss(self, scores, rows, signals, total, axis_name):
        """The clipped loss, and the critic's clipped squared error."""
        loss, metrics = super().loss(scores, rows, signals, total, axis_name)
        error = value_error(scores.values, signals.own, clip=self.settings["value_clip"])
        error = jax.lax.psum(jnp.sum(error, where=rows.mask), axis_name) / jnp.maximum(total, 1)
        return loss + self.settings["value_weight"] * error, metrics | {"value_loss": jax.lax.stop_gradient(error)}


def whiten(x: jax.Array, mask: jax.Array, eps: float = 1e-6) -> jax.Array:
    """`(x - mean) / (std + eps)` over the masked entries, 0 elsewhere and where all are equal."""
    # Measured from the largest entry: the float32 mean of equal numbers may miss them by more than eps.
    x = x - jnp.max(x, where=mask, initial=-jnp.inf)
    mean, std = jnp.mean(x, where=mask), jnp.std(x, where=mask)
    return jnp.where(mask, (x - mean) / (std + eps), 0)


def value_error(values: jax.Array, critic: Critic, *, clip: float) -> jax.Array:
    """Half the squared error of values [R, T], by the weights of their places.

    Where a value has moved by more than `clip` since before the update, the larger of its error and that of the value
    moved by `clip` counts: it gains nothing by going further. 0: no clip.
    """
    error = jnp.square(values - critic.targets)
    if clip:
        near = critic.values + jnp.clip(values - critic.values, -clip, clip)
        error = jnp.maximum(error, jnp.square(near - critic.targets))
    return 0.5 * critic.weights * error
