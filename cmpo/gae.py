"""Generalized advantage estimation over packed rows: what a critic says each token, or each turn, was worth.

Shapes: R rows, T tokens.
"""

import chex
import jax
import jax.numpy as jnp

UNITS = ("token", "turn")


def generalized_advantage(
    credit: chex.Array,
    values: chex.Array,
    mask: chex.Array,
    turns: chex.Array,
    segment_ids: chex.Array,
    *,
    discount: float = 1.0,
    trace: float = 0.95,
    unit: str = "token",
) -> tuple[chex.Array, chex.Array, chex.Array]:
    """Advantages and the critic's targets, by the recursion over the steps t of a dialogue

        A_t = r_t + discount V_{t+1} - V_t + discount trace A_{t+1},   V = A = 0 after the last step.

    A step is a sampled token, or a turn with the value of its first token. The credit of a turn is the reward of its
    last token, or of the turn. Every token of a turn gets the turn's advantage.

    Source: Schulman et al. 2016, "High-Dimensional Continuous Control Using Generalized Advantage Estimation".

    Args:
      credit: [R, T] float, of the token's turn, the same on all tokens of a turn.
      values: [R, T] float, of the state that each token was drawn in.
      mask: [R, T] bool, sampled tokens; what the other arrays hold elsewhere may be anything.
      turns: [R, T] int, the number of the token's turn, another one for each turn.
      segment_ids: [R, T] int, which tokens are of one dialogue; a dialogue's tokens are in order.
      discount: for each step.
      trace: lambda of the paper: 0 trusts the critic, 1 the rewards.
      unit: "token" or "turn".

    Returns:
      advantages [R, T]; targets [R, T] of the values, advantage plus value; and where the critic learns [R, T] bool:
      all sampled tokens, or the first of each turn. The first two are 0 outside of the mask and of those places.

    Raises:
      ValueError: unknown `unit`.
      AssertionError: ranks, types or shapes do not match.
    """
    if unit not in UNITS:
        raise ValueError(f"unit: expected one of {UNITS}, got {unit!r}")
    arrays = (credit, values, mask, turns, segment_ids)
    chex.assert_rank(arrays, 2)
    chex.assert_type(arrays, [float, float, bool, int, int])
    chex.assert_equal_shape(arrays)
    credit, values = (jnp.where(mask, x, 0) for x in (credit, values))
    first, last = _find_ends(mask, turns, segment_ids)
    steps = mask if unit == "token" else first
    rewards = jnp.where(last if unit == "token" else first, credit, 0)
    zeros = jnp.zeros_like(values[:, 0])

    def step(after, here):
        value_after, advantage_after, segment_after = after
        reward, value, segment, counts = here
        same = segment == segment_after
        ahead = jnp.where(same, value_after, 0), jnp.where(same, advantage_after, 0)
        advantage = reward + discount * ahead[0] - value + discount * trace * ahead[1]
        moved = value, advantage, segment
        return jax.tree.map(lambda new, old: jnp.where(counts, new, old), moved, after), jnp.where(counts, advantage, 0)

    by_token = jax.tree.map(jnp.transpose, (rewards, values, segment_ids, steps))
    _, advantages = jax.lax.scan(step, (zeros, zeros, jnp.zeros_like(segment_ids[:, 0])), by_token, reverse=True)
    advantages = advantages.T
    targets = jnp.where(steps, advantages + values, 0)
    if unit == "turn":
        advantages = jnp.where(mask, _carry_on(advantages, first), 0)
    return advantages, targets, steps


def _find_ends(mask: chex.Array, turns: chex.Array, segment_ids: chex.Array) -> tuple[chex.Array, chex.Array]:
    """The first and the last sampled token of each turn, [R, T] bool; a turn's tokens are side by side."""

    def differs(shift: int) -> chex.Array:
        beside = jax.tree.map(lambda x: jnp.roll(x, shift, axis=1), (mask, turns, segment_ids))
        at_edge = jnp.arange(mask.shape[1]) == (0 if shift == 1 else mask.shape[1] - 1)
        return at_edge | ~beside[0] | (beside[1] != turns) | (beside[2] != segment_ids)

    return mask & differs(1), mask & differs(-1)


def _carry_on(x: chex.Array, begins: chex.Array) -> chex.Array:
    """Each place gets what `x` has at the last place up to it where something `begins`."""
    places = jnp.where(begins, jnp.arange(x.shape[1]), 0)
    return jnp.take_along_axis(x, jax.lax.cummax(places, axis=1), axis=1)
