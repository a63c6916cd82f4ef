"""The lab's policy: a layer of hidden units over what an agent sees, and how it learns to serve before any reward.

In a turn it says or leaves each of `STATEMENTS`, by a chance of its own, and then makes one of `MOVES`, or none. A
probe, an offer, a voucher and a close are alternatives: what one would tell comes too late for the others
(`rollouts.domains.fds.embedded.graph` leaves the same out). A turn counts as one token, whose log-probability is their
sum.

Legend: F = `FEATURES`, H hidden units, A = `ACTS`, S = `STATEMENTS`, K = `MOVES` with none, [...] leading axes.
"""

import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from cmpo.lab.fitting import fit_parameters
from rollouts.domains.fds.lab import callers, demonstrator, environment, telling
from rollouts.domains.fds.lab.environment import FEATURES
from rollouts.domains.fds.lab.grading import ACTS

MOVES = ("voucher", "probe", "offer", "close")
STATEMENTS = tuple(act for act in ACTS if act not in MOVES)

CHANCES = len(STATEMENTS) + 1
"""Uniform draws that a turn takes."""

DEMONSTRATIONS, CLONE_STEPS, CLONE_TURNS, CLONE_RATE = 4096, 400, 512, 1e-2
"""Dialogues to imitate, updates, turns in each, and their learning rate at the beginning."""

_AGREED = FEATURES.index("deal=2")
_NEVER = -1e9  # a logit


class Actor(NamedTuple):
    """Parameters, float32."""

    inner: chex.Array  # [F, H]
    inner_bias: chex.Array  # [H]
    outer: chex.Array  # [H, S + K]
    outer_bias: chex.Array  # [S + K]


def init_policy(key: chex.PRNGKey, hidden: int) -> Actor:
    """Draws a policy that does everything with even chances."""
    outputs = len(STATEMENTS) + len(MOVES) + 1
    inner = jax.random.normal(key, (len(FEATURES), hidden)) / len(FEATURES) ** 0.5
    return Actor(inner, jnp.zeros(hidden), jnp.zeros((hidden, outputs)), jnp.zeros(outputs))


def compute_logits(policy: Actor, seen: chex.Array, *, press: bool) -> tuple[chex.Array, chex.Array]:
    """Returns the logits of statements [..., S] and log-probabilities of moves [..., K]; the first move is none.

    Without `press` a voucher is given only where it was agreed.
    """
    inside = jnp.tanh(seen @ policy.inner + policy.inner_bias)
    logits = inside @ policy.outer + policy.outer_bias
    says, moves = logits[..., : len(STATEMENTS)], logits[..., len(STATEMENTS) :]
    if not press:
        barred = jnp.arange(len(MOVES) + 1) == 1 + MOVES.index("voucher")
        moves = jnp.where(barred & (seen[..., _AGREED, None] == 0), _NEVER, moves)
    return says, jax.nn.log_softmax(moves)


def sample_acts(chance: chex.Array, policy: Actor, seen: chex.Array, *, press: bool) -> chex.Array:
    """Draws a turn's acts, [..., A] bool, by uniform draws, [..., `CHANCES`] float32."""
    says, moves = compute_logits(policy, seen, press=press)
    said = chance[..., :-1] < jax.nn.sigmoid(says)
    # The last of the sums is 1 but for rounding, and left out. A voucher that is barred adds nothing to them.
    moved = jnp.sum(chance[..., -1:] >= jnp.cumsum(jnp.exp(moves), axis=-1)[..., :-1], axis=-1)
    made = moved[..., None] == jnp.arange(1, len(MOVES) + 1)
    drawn = dict(zip(STATEMENTS, jnp.moveaxis(said, -1, 0), strict=True))
    drawn |= dict(zip(MOVES, jnp.moveaxis(made, -1, 0), strict=True))
    return jnp.stack([drawn[act] for act in ACTS], axis=-1)


def score_acts(policy: Actor, seen: chex.Array, acts: chex.Array, *, press: bool) -> chex.Array:
    """Returns the log-probability of a turn's acts, [...] float32. Of several moves in one turn the first counts."""
    says, moves = compute_logits(policy, seen, press=press)
    said, made = (acts[..., [ACTS.index(act) for act in some]] for some in (STATEMENTS, MOVES))
    moved = jnp.where(jnp.any(made, axis=-1), 1 + jnp.argmax(made, axis=-1), 0)
    spoken = jnp.sum(jax.nn.log_sigmoid(jnp.where(said, says, -says)), axis=-1)
    return spoken + jnp.take_along_axis(moves, moved[..., None], axis=-1)[..., 0]


def measure_entropy(policy: Actor, seen: chex.Array, *, press: bool) -> chex.Array:
    """Returns the entropy of a turn's acts in nats, [...] float32."""
    says, moves = compute_logits(policy, seen, press=press)
    chance = jax.nn.sigmoid(says)
    spoken = -chance * jax.nn.log_sigmoid(says) - (1 - chance) * jax.nn.log_sigmoid(-says)
    return jnp.sum(spoken, axis=-1) - jnp.sum(jnp.exp(moves) * jnp.maximum(moves, _NEVER), axis=-1)


@functools.partial(jax.jit, static_argnames=("hidden", "press", "mix", "demonstrations", "steps"))
def clone_policy(
    key: chex.PRNGKey,
    *,
    hidden: int,
    press: bool = False,
    mix: tuple[str, str] = environment.MIX,
    demonstrations: int = DEMONSTRATIONS,
    steps: int = CLONE_STEPS,
) -> Actor:
    """Teaches a new policy to do what `demonstrator` does, as phase 1 does with a language model.

    It imitates the most likely; what the demonstrator keeps to itself, its price for a voucher, becomes chance.
    """
    play_key, init_key, learn_key = jax.random.split(key, 3)
    turns = environment.MAX_TURNS * (2 + environment.CHANCES)
    chance = jax.random.uniform(play_key, (demonstrations, 2 + telling.CHANCES + callers.CHANCES + turns))
    seen, acts, valid = jax.vmap(functools.partial(_demonstrate, mix=mix))(chance)
    seen, acts, valid = seen.reshape(-1, len(FEATURES)), acts.reshape(-1, len(ACTS)), valid.reshape(-1)
    policy = init_policy(init_key, hidden)

    def measure_loss(policy, rows):
        return -jnp.mean(score_acts(policy, seen[rows], acts[rows], press=press))

    return fit_parameters(learn_key, policy, measure_loss, valid, steps=steps, rows=CLONE_TURNS, rate=CLONE_RATE)


def _demonstrate(chance: chex.Array, *, mix: tuple[str, str]) -> tuple[chex.Array, chex.Array, chex.Array]:
    """Plays one dialogue of the demonstrator: what it sees [N, F], its acts [N, A] bool, and which turns are [N]."""
    manner, opening, caller, turns = jnp.split(chance, np.cumsum([2, telling.CHANCES, callers.CHANCES]))
    manner = demonstrator.draw_manner(manner)

    def take_turn(state, chance):
        acts = demonstrator.err(chance[:2], demonstrator.plan_acts(state, manner, mix=mix))
        after, turn = environment.take_turn(chance[2:], state, acts)
        return after, (environment.observe(state), acts, turn.valid)

    begun = environment.open_dialogue(opening, callers.draw_customer(caller, mix=mix))
    return jax.lax.scan(take_turn, begun, turns.reshape(environment.MAX_TURNS, -1))[1]
