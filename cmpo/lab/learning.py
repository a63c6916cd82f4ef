"""A whole run of CMPO in the lab, as one `lax.scan`: play, credit, update, move the multiplier.

Advantage, loss, controller and optimizer are the trainer's, imported. To the loss a dialogue is a row, and a turn is
one token with the log-probability of all its acts.

Legend: T steps with rests, B scenarios of a step, G dialogues of each, N turns (padded), F features, A acts.
"""

import dataclasses
import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from cmpo import pid, spreads
from cmpo.advantage import compute_variances, hybrid_advantage
from cmpo.algorithms.algorithm import Rewards
from cmpo.algorithms.clipped import map_groups
from cmpo.algorithms.optimizers import make_optimizer
from cmpo.lab import actor
from cmpo.lab.actor import Actor
from cmpo.lab.plan import LabConfig
from cmpo.loss import cmpo_loss
from rollouts.domains.fds.embedded.latent import Customer
from rollouts.domains.fds.lab import callers, environment, telling

START_SEED = 0
"""Of the start that all seeds share, as runs of the trainer share a phase 1."""

_SCHEDULE = {"warmup_fraction": 0.03, "weight_decay": 0.0, "max_grad_norm": 1.0}


class LabBatch(NamedTuple):
    """The dialogues of a step."""

    seen: chex.Array  # [B, G, N, F] float32
    acts: chex.Array  # [B, G, N, A] bool
    rewards: Rewards  # of [B, G] and [B, G, N]; one cost


class History(NamedTuple):
    """What a run went through, [T] float32 each, means over the dialogues of a step; and its policy in the end.

    In the last `config.rests` steps nothing moves: what the policy does there is what it has learnt, and no step of
    those before has seen their customers.
    """

    voucher_rate: chex.Array
    satisfaction: chex.Array
    process_reward: chex.Array  # the mean over dialogues of that of their turns
    finish_rate: chex.Array
    turns: chex.Array
    lambdas: chex.Array  # in force during the step
    spread: chex.Array  # standard deviation of the advantages of all turns
    kl: chex.Array
    clip_fraction: chex.Array
    entropy: chex.Array  # of a turn, nats
    grad_norm: chex.Array  # before it is clipped
    updates_skipped: chex.Array  # of the step, as they were not finite
    policy: Actor


class Means(NamedTuple):
    """Means over the dialogues of an evaluation, float32 scalars."""

    voucher_rate: chex.Array
    satisfaction: chex.Array
    process_reward: chex.Array
    finish_rate: chex.Array
    turns: chex.Array


def train(config: LabConfig, seed: chex.Numeric, start: Actor | None = None) -> History:
    """Trains a policy; pure, to jit, and to map over seeds, numbers of the config, and starts.

    Args:
      config: what the run is set to.
      seed: int, of customers, dialogues and acts.
      start: the policy to begin with, which is the reference as well; cloned from the demonstrator if None.
    """
    start = make_start(config) if start is None else start
    updates = config.steps * config.minibatches * config.epochs
    schedule = _SCHEDULE | {"steps": updates, "final_fraction": config.final_fraction}
    optimizer = make_optimizer(learning_rate=1.0, **schedule)

    def step(carry, now):
        policy, momentum, controller, scales = carry
        key, learns, changed = now
        batch = play_batch(key, config, policy, changed)
        seen = scales
        if config.normalize == "scaled":
            seen = spreads.update(scales, measure_variances(config, batch.rewards))
        advantages = credit_batch(config, batch.rewards, controller.lambdas, spreads.read_spreads(seen))
        sampled = _score(config, policy, batch)
        reference = _score(config, start, batch)
        entropy = actor.measure_entropy(policy, batch.seen, press=config.press)
        skipped = jnp.int32(0)
        for part in _divide_batch(config, (batch, advantages, sampled, reference)) * config.epochs:
            loss = functools.partial(measure_loss, config, *part)
            (value, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(policy)
            norm = optax.global_norm(gradient)
            updates, state = optimizer.update(gradient, momentum, policy)
            updates = jax.tree.map(lambda update: config.learning_rate * update, updates)
            # As in the trainer, an update that is not finite is left out, and then lambda stays.
            sound = jnp.isfinite(value) & jnp.isfinite(norm)
            learnt = optax.apply_updates(policy, updates), state
            policy, momentum = jax.tree.map(
                lambda new, old, sound=sound: jnp.where(sound, new, old), learnt, (policy, momentum)
            )
            skipped += ~sound
        outcome = summarize_batch(batch.rewards)
        gains = dataclasses.replace(config.gains, target=config.target + changed * config.target_change)
        moved = pid.update(gains, controller, jnp.where(skipped == 0, outcome.voucher_rate, jnp.nan)[None])
        valid = batch.rewards.turn_mask
        record = {
            **outcome._asdict(),
            "lambdas": controller.lambdas[0],
            "spread": jnp.std(advantages, where=valid),
            "kl": metrics["kl"],
            "clip_fraction": metrics["clip_fraction"],
            "entropy": jnp.mean(entropy, where=valid),
            "grad_norm": norm,
            "updates_skipped": skipped.astype(jnp.float32),
        }
        carry = jax.tree.map(lambda new, old: jnp.where(learns, new, old), (policy, momentum, moved, seen), carry)
        return carry, record

    count = config.steps + config.rests
    keys = jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(seed)))(jnp.arange(count))
    number = jnp.arange(count)
    changed = (number >= config.change_at) & (config.change_at > 0)
    begun = start, optimizer.init(start), pid.init(config.gains, config.initial_lambda), spreads.init(1)
    (policy, *_), records = jax.lax.scan(step, begun, (keys, number < config.steps, changed))
    return History(**records, policy=policy)


def make_start(config: LabConfig) -> Actor:
    """Clones the policy that runs begin with; it hangs on static settings alone."""
    key = jax.random.key(START_SEED)
    return actor.clone_policy(key, hidden=config.hidden, press=config.press, mix=config.mix)


def play_batch(key: chex.PRNGKey, config: LabConfig, policy: Actor, changed: chex.Numeric = False) -> LabBatch:
    """Plays the dialogues of a step: those of a scenario have the same customer, and chances of their own.

    `changed`, bool, says whether the change in mid-run that the config has was before it.
    """
    first, second = jax.random.split(key)
    customers = callers.draw_customers(first, config.scenarios, mix=config.mix)
    if config.mix_after != config.mix:
        others = callers.draw_customers(first, config.scenarios, mix=config.mix_after)
        customers = jax.tree.map(lambda new, old: jnp.where(changed, new, old), others, customers)
    draws = config.max_turns * (environment.CHANCES + actor.CHANCES) + telling.CHANCES
    chance = jax.random.uniform(second, (config.scenarios, config.dialogues, draws))
    play = functools.partial(_play_dialogue, config, policy)
    seen, acts, turns, outcome = jax.vmap(jax.vmap(play, (0, None)))(chance, customers)
    process = jnp.where(changed, config.judge_scale, 1.0) * turns.process
    rewards = Rewards(outcome=outcome, process=process, cost=turns.cost[..., None], turn_mask=turns.valid)
    return LabBatch(seen, acts, rewards)


def credit_batch(
    config: LabConfig, rewards: Rewards, lambdas: chex.Array, scales: chex.Array | None = None
) -> chex.Array:
    """Returns what each turn was worth, [B, G, N], at multipliers [1]; `scales` are the spreads of "scaled", [2]."""
    names = ("outcome_weight", "process_weight", "normalize", "credit", "discount", "price_scale")
    options = {name: getattr(config, name) for name in names}
    return map_groups(hybrid_advantage, rewards, lambdas, spreads=scales, **options)


def measure_variances(config: LabConfig, rewards: Rewards) -> chex.Array:
    """Returns how far the turns of a batch are from the mean of their group: of what is gained and of the cost, [2]."""
    options = {name: getattr(config, name) for name in ("outcome_weight", "process_weight", "credit", "discount")}
    return compute_variances(rewards.outcome, rewards.process, rewards.cost, rewards.turn_mask, **options)


def _divide_batch(config: LabConfig, arrays: tuple) -> list[tuple]:
    """Divides arrays [B, ...] into the minibatches of a step, in the order of scenarios."""
    size = config.scenarios // config.minibatches
    starts = range(0, config.scenarios, size)
    return [jax.tree.map(lambda x, start=start: x[start : start + size], arrays) for start in starts]


def measure_loss(
    config: LabConfig,
    batch: LabBatch,
    advantages: chex.Array,
    sampled: chex.Array,
    reference: chex.Array,
    policy: Actor,
) -> tuple[chex.Array, dict[str, chex.Array]]:
    """Returns CMPO's loss and its metrics; all arrays are [B, G, N]."""
    arrays = (_score(config, policy, batch), sampled, reference, advantages, batch.rewards.turn_mask)
    rows = [array.reshape(-1, array.shape[-1]) for array in arrays]
    options = {name: getattr(config, name) for name in ("clip_low", "clip_high", "kl_weight")}
    return cmpo_loss(*rows, **options)


def summarize_batch(rewards: Rewards) -> Means:
    """Returns the means over dialogues. A dialogue's satisfaction is 0 where it was not rated."""
    valid = rewards.turn_mask
    count = jnp.sum(valid, axis=-1)
    process = jnp.sum(rewards.process, axis=-1, where=valid) / count
    vouchers = jnp.any(rewards.cost[..., 0] > 0, axis=-1)
    each = (vouchers, rewards.outcome, process, rewards.outcome > 0, count)
    return Means(*(jnp.mean(one.astype(jnp.float32)) for one in each))


def _play_dialogue(
    config: LabConfig, policy: Actor, chance: chex.Array, customer: Customer
) -> tuple[chex.Array, chex.Array, environment.LabTurn, chex.Array]:
    """Plays one dialogue by uniform draws; returns what was seen [N, F], acts [N, A], turns [N], and the outcome."""

    def take_turn(state, chance):
        seen = environment.observe(state)
        acts = actor.sample_acts(chance[: actor.CHANCES], policy, seen, press=config.press)
        after, turn = environment.take_turn(chance[actor.CHANCES :], state, acts, max_turns=config.max_turns)
        return after, (seen, acts, turn)

    begun = environment.open_dialogue(chance[: telling.CHANCES], customer)
    state, (seen, acts, turns) = jax.lax.scan(take_turn, begun, chance[telling.CHANCES :].reshape(config.max_turns, -1))
    return seen, acts, turns, state.outcome


def _score(config: LabConfig, policy: Actor, batch: LabBatch) -> chex.Array:
    return actor.score_acts(policy, batch.seen, batch.acts, press=config.press)
