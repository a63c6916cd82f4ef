"""The truth about a policy where dialogues are too long to list: sampled without bias, with its error.

The gradient of a mean is `E sum_t grad log pi(a_t | s_t) (what comes after t - b(s_t))`, whatever the baseline b looks
at of the state. Here that is a critic that sees all of it, worth and anger included: it takes away most of the
variance, and no baseline adds bias. Gradients of several means come from the same dialogues, so that the gradient of
any `w_O R_O + w_P sum R_P - lambda sum c` is a sum of them, whatever lambda. `cmpo.lab.exact` is what this is held
against (`tests/cmpo/lab/truth_test.py`).

Legend: [...] leading axes, N turns (padded), K = `MEASURES`, P parameters, D features, R rows, C chunks.
"""

import functools
from typing import NamedTuple

import chex
import jax
import jax.flatten_util
import jax.numpy as jnp

from cmpo.lab import actor
from cmpo.lab.actor import Actor
from cmpo.lab.fitting import fit_parameters
from cmpo.lab.plan import LabConfig
from rollouts.domains.fds.embedded import latent
from rollouts.domains.fds.lab import callers, environment, telling
from rollouts.domains.fds.lab.environment import LabState, LabTurn
from rollouts.domains.fds.lab.transitions import VALUES

MEASURES = ("outcome", "process", "cost", "quality")
"""What a dialogue is worth: its satisfaction; the sums of process reward and of cost; the mean process reward."""

_HIDDEN, _ROWS, _RATE = 64, 1024, 3e-3  # of a critic: units, rows of an update, learning rate at the beginning


class Play(NamedTuple):
    """Turns of dialogues, [..., N] each; the acts [..., N, A]."""

    states: LabState  # before the turn
    acts: chex.Array
    turns: LabTurn
    outcome: chex.Array  # [...] float32


class MeasureCritic(NamedTuple):
    """A layer of hidden units from D features to the measures K; float32."""

    inner: chex.Array
    inner_bias: chex.Array
    outer: chex.Array
    outer_bias: chex.Array


def play_dialogues(
    key: chex.PRNGKey, config: LabConfig, policy: Actor, roots: LabState, acts: chex.Array | None = None
) -> Play:
    """Plays each of `roots` [R] to its end, chances apart; what follows it is padded to `config.max_turns`.

    With `acts` [R, A] those are done in the first turn.
    """
    turns = config.max_turns
    chance = jax.random.uniform(key, (len(roots.turns), turns, actor.CHANCES + environment.CHANCES))

    def play(state, first, chance):
        def take_turn(state, now):
            number, chance = now
            seen = environment.observe(state)
            drawn = actor.sample_acts(chance[: actor.CHANCES], policy, seen, press=config.press)
            done = drawn if first is None else jnp.where(number == 0, first, drawn)
            after, turn = environment.take_turn(chance[actor.CHANCES :], state, done, max_turns=turns)
            return after, (state, done, turn)

        state, played = jax.lax.scan(take_turn, state, (jnp.arange(turns), chance))
        return Play(*played, state.outcome)

    return jax.vmap(play)(roots, acts, chance)


def open_dialogues(key: chex.PRNGKey, config: LabConfig, count: int) -> LabState:
    """Draws `count` customers of the config's mix with their openings."""
    first, second = jax.random.split(key)
    chance = jax.random.uniform(second, (count, telling.CHANCES))
    return jax.vmap(environment.open_dialogue)(chance, callers.draw_customers(first, count, mix=config.mix))


def sum_ahead(play: Play) -> chex.Array:
    """Returns what follows from each turn on, [..., N, K]: the whole outcome and quality, process and cost to go."""
    valid = play.turns.valid
    whole = jnp.sum(play.turns.process, -1) / jnp.maximum(jnp.sum(valid, -1), 1)
    ahead = [jnp.flip(jnp.cumsum(jnp.flip(x, -1), -1), -1) for x in (play.turns.process, play.turns.cost)]
    outcome, whole = (jnp.broadcast_to(x[..., None], valid.shape) for x in (play.outcome, whole))
    return jnp.where(valid[..., None], jnp.stack([outcome, *ahead, whole], -1), 0)


def describe_state(state: LabState) -> chex.Array:
    """Returns all of a state as features, what is seen and what is hidden; [...] fields -> [..., D] float32."""
    customer, mood = state.customer, state.mood
    hidden = [
        jax.nn.one_hot(customer.demand, len(VALUES["demand"])),
        jax.nn.one_hot(mood.anger, latent.LIMITS.anger + 1),
        jax.nn.one_hot(mood.trust, latent.LIMITS.trust + 1),
    ]
    traits = ("level", "worth", "honest", "temper")
    scaled = {name: getattr(customer, name) / (len(VALUES[name]) - 1) for name in traits}
    scaled |= {name: getattr(mood, name) / getattr(latent.LIMITS, name) for name in ("patience", "offended")}
    return jnp.concatenate([observe_states(state), *hidden, jnp.stack(list(scaled.values()), -1)], -1)


def observe_states(states: LabState) -> chex.Array:
    """Returns what an agent knows of states with leading axes, [..., F] float32."""
    observe = environment.observe
    for _ in states.turns.shape:
        observe = jax.vmap(observe)
    return observe(states)


def fit_critic(
    key: chex.PRNGKey, features: chex.Array, ahead: chex.Array, valid: chex.Array, *, steps: int = 1500
) -> MeasureCritic:
    """Fits a critic by least squares to what came after turns; [R, D], [R, K] and [R] bool."""
    first, second = jax.random.split(key)
    mean = jnp.mean(ahead, 0, where=valid[:, None])
    scale = jnp.std(ahead, 0, where=valid[:, None]) + 1e-3
    inner = jax.random.normal(first, (features.shape[-1], _HIDDEN)) / features.shape[-1] ** 0.5
    critic = MeasureCritic(inner, jnp.zeros(_HIDDEN), jnp.zeros((_HIDDEN, ahead.shape[-1])), jnp.zeros(ahead.shape[-1]))
    targets = (ahead - mean) / scale

    def measure_error(critic, some):
        return jnp.mean(jnp.square(apply_critic(critic, features[some]) - targets[some]))

    critic = fit_parameters(second, critic, measure_error, valid, steps=steps, rows=_ROWS, rate=_RATE)
    return critic._replace(outer=critic.outer * scale, outer_bias=critic.outer_bias * scale + mean)


def apply_critic(critic: MeasureCritic, features: chex.Array) -> chex.Array:
    """Returns what is to be expected, [..., D] -> [..., K] float32."""
    return jnp.tanh(features @ critic.inner + critic.inner_bias) @ critic.outer + critic.outer_bias


def fit_critics(key: chex.PRNGKey, config: LabConfig, policy: Actor, count: int) -> tuple[MeasureCritic, MeasureCritic]:
    """Fits two critics of a policy to `count` dialogues: one that sees all, and one that sees what an agent sees."""
    play_key, open_key, fit_key = jax.random.split(key, 3)
    play = play_dialogues(play_key, config, policy, open_dialogues(open_key, config, count))
    ahead = sum_ahead(play).reshape(-1, len(MEASURES))
    valid = play.turns.valid.reshape(-1)
    features = (describe_state(play.states), observe_states(play.states))
    return tuple(fit_critic(fit_key, some.reshape(-1, some.shape[-1]), ahead, valid) for some in features)


def score_gradients(
    config: LabConfig, policy: Actor, play: Play, weights: chex.Array, *, rows: int
) -> tuple[chex.Array, chex.Array]:
    """Returns `sum_t weight_t grad log pi(a_t | s_t)` for each of several weights, and how many turns were left out.

    Args:
      config: of the play.
      policy: whose parameters are meant.
      play: of R dialogues.
      weights: [R, N, M] float32; of turns that did not take place they do not count.
      rows: turns to compute with; those that took place come first, so that none is left out if it is large enough.

    Returns:
      [M, P] float32, in the order of `jax.flatten_util.ravel_pytree`; and an int32 scalar.
    """
    valid = play.turns.valid.reshape(-1)
    chosen = jnp.argsort(~valid)[:rows]
    seen = observe_states(jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[chosen], play.states))
    acts = play.acts.reshape(-1, play.acts.shape[-1])[chosen]
    weights = jnp.where(valid[:, None], weights.reshape(-1, weights.shape[-1]), 0)[chosen]
    _, pull = jax.vjp(lambda policy: actor.score_acts(policy, seen, acts, press=config.press), policy)
    (gradients,) = jax.vmap(pull, 1)(weights)
    flat = jax.vmap(lambda tree: jax.flatten_util.ravel_pytree(tree)[0])(gradients)
    return flat, jnp.sum(valid) - jnp.sum(valid[chosen])


@functools.partial(jax.jit, static_argnames=("size", "rows"))
def sample_gradients(
    keys: chex.PRNGKey, config: LabConfig, policy: Actor, critic: MeasureCritic, roots: LabState | None = None,
    *, size: int, rows: int,
) -> tuple[chex.Array, chex.Array, chex.Array]:  # fmt: skip
    """Samples the gradients of the means of `MEASURES` with respect to a policy's parameters, without bias.

    Args:
      keys: [C], one for each chunk.
      config: whose customers, turns and `press` it is.
      policy: the policy.
      critic: its baseline, which sees `describe_state`; of another policy it does no harm but for the variance.
      roots: states [size] to begin with in every chunk; None draws customers and openings of the config's mix.
      size: dialogues of a chunk.
      rows: turns of a chunk to compute with, see `score_gradients`.

    Returns:
      [C, K, P] the mean gradient in each chunk, whose spread tells the error of their mean; [C, K + 1] the means
      themselves, and that of the number of turns; and how many turns were left out in all.
    """

    def sample(key):
        first, second = jax.random.split(key)
        begun = open_dialogues(first, config, size) if roots is None else roots
        play = play_dialogues(second, config, policy, begun)
        ahead = sum_ahead(play)
        weights = ahead - apply_critic(critic, describe_state(play.states))
        gradients, left_out = score_gradients(config, policy, play, weights / size, rows=rows)
        turns = jnp.mean(jnp.sum(play.turns.valid, -1).astype(jnp.float32))
        return gradients, jnp.append(jnp.mean(ahead[:, 0], 0), turns), left_out

    gradients, means, left_out = jax.lax.map(sample, keys)
    return gradients, means, jnp.sum(left_out)


@functools.partial(jax.jit, static_argnames="count")
def sample_advantages(
    key: chex.PRNGKey, config: LabConfig, policy: Actor, states: LabState, acts: chex.Array, *, count: int
) -> tuple[chex.Array, chex.Array]:
    """Samples Q and V of turns: dialogues go on from a state, first with the acts and then by the policy, or by it all.

    The advantage is their difference. What is to come of "quality" is that of these dialogues' own turns.

    Args:
      key: of the chances.
      config: whose turns and `press` it is.
      policy: the policy.
      states: [R], none over.
      acts: [R, A] bool, what was done there.
      count: dialogues from each.

    Returns:
      Q and V, [2, R, K] float32, means over `count` dialogues; and their standard errors, [2, R, K].
    """
    many = jax.tree.map(lambda x: jnp.repeat(x, count, 0), states)
    plays = [
        play_dialogues(jax.random.fold_in(key, number), config, policy, many, done)
        for number, done in enumerate((jnp.repeat(acts, count, 0), None))
    ]
    ahead = jnp.stack([sum_ahead(play)[:, 0] for play in plays]).reshape(2, -1, count, len(MEASURES))
    return jnp.mean(ahead, 2), jnp.std(ahead, 2, ddof=1) / count**0.5
