"""Estimators of the gradient: what credit, normalisation or critic make of a batch, held against the truth.

A batch's gradient is that of the trainer's loss before any update: the mean over all turns of all its dialogues of
advantage times `grad log pi`. Its direction is compared with that of the true gradient; its size is another matter,
for the optimizer divides by it.

Legend: B scenarios, G dialogues of each, N turns, E estimators, L prices, K = `truth.MEASURES`, P parameters, C chunks.
"""

import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from cmpo.advantage import hybrid_advantage
from cmpo.gae import generalized_advantage
from cmpo.lab import truth
from cmpo.lab.actor import Actor
from cmpo.lab.plan import LabConfig
from cmpo.lab.truth import MEASURES, MeasureCritic, Play
from rollouts.domains.fds.lab import callers, environment, telling


class Estimator(NamedTuple):
    """How turns are credited: by a credit and a normalisation, or, with credit "gae", by a critic with `trace`."""

    credit: str
    normalize: str = "none"
    trace: float = 0.0

    @property
    def name(self) -> str:
        """What a table calls it."""
        return f"gae, trace {self.trace:g}" if self.credit == "gae" else f"{self.credit}, {self.normalize}"


class Batches(NamedTuple):
    """What batches said, of C chunks of M batches each."""

    mean: np.ndarray  # [C, E, L, P] float32, the mean gradient of a chunk
    power: np.ndarray  # [C, M, E, L] float32, the squared norm of each batch's gradient
    along: np.ndarray  # [C, M, E, L, K] float32, its product with the true gradient of each measure


class Agreement(NamedTuple):
    """How an estimator agrees with a true gradient."""

    cosine: float  # of the mean gradient, as if of endlessly many batches
    cosine_error: float  # standard error
    size: float  # of the mean gradient along the truth, 1 if as large as the truth
    beside: float  # bias across the truth, as a share of the mean gradient: sqrt(1 - cosine^2)
    noise: float  # variance of a batch's gradient, over the squared norm of the mean gradient
    single: float  # mean cosine of one batch's gradient
    felt: float  # the price by which the gradients of gain and cost come nearest to the mean; inf if it has no gain


def play_groups(key: chex.PRNGKey, config: LabConfig, policy: Actor) -> Play:
    """Plays the dialogues of a step as `learning.play_batch` deals them, [B * G], the groups one after the other."""
    first, second, third = jax.random.split(key, 3)
    customers = callers.draw_customers(first, config.scenarios, mix=config.mix)
    customers = jax.tree.map(lambda x: jnp.repeat(x, config.dialogues), customers)
    chance = jax.random.uniform(second, (config.scenarios * config.dialogues, telling.CHANCES))
    return truth.play_dialogues(third, config, policy, jax.vmap(environment.open_dialogue)(chance, customers))


def credit_turns(
    config: LabConfig, estimator: Estimator, play: Play, values: chex.Array, price: chex.Numeric
) -> chex.Array:
    """Returns the advantages of all turns of `play_groups`, [B * G, N], at multiplier `price`.

    `values` [B * G, N, K] are what a critic expects of each turn; only "gae" looks at them.
    """
    turns, weights = play.turns, (config.outcome_weight, config.process_weight)
    if estimator.credit == "gae":
        last = turns.valid & ~jnp.roll(turns.valid, -1, axis=1).at[:, -1].set(False)
        reward = weights[1] * turns.process - price * turns.cost
        reward = reward + jnp.where(last, weights[0] * play.outcome[:, None], 0)
        expected = values @ jnp.stack([*jnp.asarray(weights, jnp.float32), -jnp.float32(price), jnp.float32(0)])
        numbers = jnp.broadcast_to(jnp.arange(reward.shape[1]), reward.shape)
        options = {"discount": config.discount, "trace": estimator.trace, "unit": "turn"}
        return generalized_advantage(reward, expected, turns.valid, numbers, jnp.zeros_like(numbers), **options)[0]
    shape = config.scenarios, config.dialogues
    arrays = play.outcome, turns.process, turns.cost[..., None], turns.valid
    groups = [x.reshape(*shape, *x.shape[1:]) for x in arrays]
    worth = functools.partial(
        hybrid_advantage,
        lambdas=jnp.full(1, price, jnp.float32),
        outcome_weight=weights[0],
        process_weight=weights[1],
        normalize=estimator.normalize,
        credit=estimator.credit,
        discount=config.discount,
    )
    return jax.vmap(worth)(*groups).reshape(turns.valid.shape)


@functools.partial(jax.jit, static_argnames=("estimators", "batches", "rows"))
def sample_batches(
    keys: chex.PRNGKey, config: LabConfig, policy: Actor, critic: MeasureCritic, gradients: chex.Array,
    prices: chex.Array, *, estimators: tuple[Estimator, ...], batches: int, rows: int,
) -> tuple[Batches, chex.Array]:  # fmt: skip
    """Samples what each estimator makes of the same batches.

    Args:
      keys: [C], of chunks.
      config: of the batches.
      policy: the policy.
      critic: of what an agent sees, for "gae".
      gradients: [K, P], the true gradients of `truth.MEASURES`.
      prices: [L] float32, multipliers.
      estimators: E of them.
      batches: of a chunk.
      rows: turns of a batch to compute with, see `truth.score_gradients`.

    Returns:
      what the batches said, and how many turns were left out in all.
    """

    def sample(key):
        play = play_groups(key, config, policy)
        values = truth.apply_critic(critic, truth.observe_states(play.states))
        weights = [
            jax.vmap(functools.partial(credit_turns, config, estimator, play, values))(prices)
            for estimator in estimators
        ]
        weights = jnp.concatenate(weights) / jnp.sum(play.turns.valid)
        found, left_out = truth.score_gradients(config, policy, play, jnp.moveaxis(weights, 0, -1), rows=rows)
        return found.reshape(len(estimators), len(prices), -1), left_out

    def sample_chunk(key):
        def add(total, key):
            found, left_out = sample(key)
            return total + found / batches, (jnp.sum(found**2, -1), found @ gradients.T, left_out)

        zero = jnp.zeros((len(estimators), len(prices), gradients.shape[1]))
        mean, (power, along, left_out) = jax.lax.scan(add, zero, jax.random.split(key, batches))
        return Batches(mean, power, along), jnp.sum(left_out)

    found, left_out = jax.lax.map(sample_chunk, keys)
    return found, jnp.sum(left_out)


def compare_gradients(
    batches: Batches, place: tuple[int, int], gradients: np.ndarray, weights: np.ndarray
) -> Agreement:
    """Compares an estimator with the true gradient of one objective.

    The squared norms of means are cleaned of what sampling adds to them, the variance over the number of samples; the
    cosine's standard error is by leaving out one chunk of batches at a time.

    Args:
      batches: what `sample_batches` found.
      place: which estimator, and which price.
      gradients: [C', K, P] float32, chunks of sampled true gradients of `truth.MEASURES`, per turn.
      weights: [K] float32, of the measures in the objective.
    """
    gradients = np.asarray(gradients, np.float64)
    parts = np.tensordot(gradients, weights, (1, 0))  # [C', P]
    goal, parts_mean = parts.mean(0), gradients.mean(0)
    goal_power = goal @ goal - np.sum(parts.var(0, ddof=1)) / len(parts)
    means, power = np.asarray(batches.mean[:, *place], np.float64), np.asarray(batches.power[:, :, *place], np.float64)
    chunks, size = power.shape

    def compare(kept: np.ndarray) -> tuple[float, float, float]:
        mean, count = means[kept].mean(0), len(kept) * size
        variance = (power[kept].mean() - mean @ mean) * count / (count - 1)
        return float(mean @ goal), float(mean @ mean - variance / count), float(variance)

    product, signal, variance = compare(np.arange(chunks))
    cosine = _divide_norms(product, signal, goal_power)
    others = [compare(np.delete(np.arange(chunks), out)) for out in range(chunks)]
    left = np.array([_divide_norms(one[0], one[1], goal_power) for one in others])
    singles = np.asarray(batches.along[:, :, *place], np.float64) @ weights / np.sqrt(power * goal_power)
    cost = MEASURES.index("cost")
    gain = np.delete(weights, cost) @ np.delete(parts_mean, cost, 0)
    (gained, charged), *_ = np.linalg.lstsq(np.stack([gain, -parts_mean[cost]], 1), means.mean(0))
    return Agreement(
        cosine=cosine,
        cosine_error=float(np.sqrt((chunks - 1) * left.var())),
        size=float(product / goal_power),
        beside=float(np.sqrt(max(0.0, 1 - cosine**2))),
        noise=float(variance / signal) if signal > 0 else float("inf"),
        single=float(singles.mean()),
        felt=float(charged / gained) if gained > 0 else float("inf"),
    )


def _divide_norms(product: float, *powers: float) -> float:
    """Returns a cosine of what may be noise alone; NaN where a cleaned power is not above 0."""
    if min(powers) <= 0:
        return float("nan")
    return float(np.clip(product / np.sqrt(np.prod(powers)), -1.0, 1.0))
