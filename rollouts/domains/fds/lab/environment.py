"""A dialogue with the embedded customer as arrays: `reset`, `observe`, `step`, pure functions to jit and map.

Of one dialogue all fields are scalars. What the agent does in a turn is a set of acts, a bit for each of `ACTS`; it has
no words, and so no fault of language. A turn without an act says nothing, which is the event of that name.

Legend: A = `ACTS`, M = moments at which messages tell of worth and wish, F = `FEATURES`.
"""

import itertools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from rollouts.domains.fds.embedded import latent, signals
from rollouts.domains.fds.embedded.latent import Customer, Mood
from rollouts.domains.fds.embedded.signals import Signal
from rollouts.domains.fds.lab import callers, grading, telling, transitions
from rollouts.domains.fds.lab.grading import ACTS
from rollouts.domains.fds.lab.transitions import ENDS, EVENTS, NEVER, VALUES

MIX = ("hard", "test")
"""(difficulty, split): whose frontier is kept; those of "train" differ from them by half a percent."""

MAX_TURNS = 15
"""Turns after which a dialogue ends unrated, as in the trainer's default."""

CHANCES = 1 + telling.CHANCES
"""Uniform draws that a turn takes."""

_HINTED = tuple(signals.HINTS)
_WISHED = tuple(moment for moment, rows in signals.STANCE_ODDS.items() if any(row[0] < 1 for row in rows.values()))
_DONE = ("heard", "evidence", "facts", "limits", "noted", "stepped", "probed", "deal")
_HEATS = 3


class LabState(NamedTuple):
    """Where a dialogue stands."""

    customer: Customer  # of int32 codes
    mood: Mood  # of int32
    turns: chex.Array  # int32, those that took place
    first_heat: chex.Array  # int32, of the opening
    heat: chex.Array  # int32, of the latest message
    stances: chex.Array  # [M] int32, what was told at each moment of `signals.HINTS`, by its place in STANCES
    hints: chex.Array  # [M] int32
    over: chex.Array  # bool
    outcome: chex.Array  # float32, the satisfaction: the rating; 0 for who walked out, at the turn limit, and before


class LabTurn(NamedTuple):
    """What a turn brought; all 0 where the dialogue was over before."""

    valid: chex.Array  # bool, whether it took place
    process: chex.Array  # float32, the process reward, 0 to 1
    cost: chex.Array  # float32, 1 if a voucher was given


class CustomerAnswer(NamedTuple):
    """How a dialogue goes on after a turn, but for what chance decides of the message."""

    state: LabState  # with the rating rounded down
    moment: chex.Array  # int32, a place in `telling.MOMENTS`
    signal: Signal
    odds: telling.Odds


def reset(key: chex.PRNGKey, *, mix: tuple[str, str] = MIX) -> LabState:
    """Draws a customer and an opening; `mix` is (difficulty, split) as for `generator.deal_scenarios`."""
    chance = jax.random.uniform(key, (telling.CHANCES + callers.CHANCES,))
    return open_dialogue(chance[: telling.CHANCES], callers.draw_customer(chance[telling.CHANCES :], mix=mix))


def open_dialogue(chance: chex.Array, customer: Customer) -> LabState:
    """Draws the opening of a customer by uniform draws, [`telling.CHANCES`] float32."""
    signal = telling.draw_signal(chance, *telling.weigh_opening(customer))
    zero, told = jnp.int32(0), jnp.zeros(len(_HINTED), jnp.int32)
    return LabState(
        customer=customer,
        mood=transitions.start_mood(customer),
        turns=zero,
        first_heat=signal.heat,
        heat=signal.heat,
        stances=told.at[0].set(signal.stance),
        hints=told.at[0].set(signal.hint),
        over=jnp.bool_(False),
        outcome=jnp.float32(0),
    )


def step(
    key: chex.PRNGKey, state: LabState, acts: chex.Array, *, max_turns: int = MAX_TURNS
) -> tuple[LabState, LabTurn]:
    """Plays a turn of the agent and the customer's answer; see `take_turn`."""
    return take_turn(jax.random.uniform(key, (CHANCES,)), state, acts, max_turns=max_turns)


def take_turn(
    chance: chex.Array, state: LabState, acts: chex.Array, *, max_turns: int = MAX_TURNS
) -> tuple[LabState, LabTurn]:
    """Plays a turn by what was drawn before. A dialogue that is over stays as it is.

    Args:
      chance: [`CHANCES`] float32, uniform draws from 0 up to 1. Drawn at once for all turns, they compile once.
      state: before the turn.
      acts: [A] bool, which of `ACTS` the agent does.
      max_turns: after so many turns the dialogue ends without a rating.
    """
    outcomes = find_outcomes(state, acts)
    agrees = chance[0] < outcomes.chance
    after = jax.tree.map(lambda yes, no: jnp.where(agrees, yes, no), outcomes.agreed, outcomes.refused)
    # What follows looks at the mood many times. Without a barrier XLA computes it anew each time, and takes three times
    # as long to compile.
    answer = find_answer(state, acts, jax.lax.optimization_barrier(after), max_turns=max_turns)
    moved = hear_answer(answer, telling.draw_signal(chance[1:], answer.signal, answer.odds))
    valid = ~state.over
    state, before = jax.tree.map(lambda new, old: jnp.where(valid, new, old), moved, state), state
    turn = grade_turn(before, acts)
    return state, jax.tree.map(lambda brought: jnp.where(valid, brought, 0), turn)._replace(valid=valid)


def find_outcomes(state: LabState, acts: chex.Array) -> transitions.Outcomes:
    """Finds the moods that may follow a turn: two where an offer is answered."""
    return transitions.find_outcomes(state.customer, state.mood, _name_events(acts))


def find_answer(state: LabState, acts: chex.Array, after: Mood, *, max_turns: int = MAX_TURNS) -> CustomerAnswer:
    """Finds how a dialogue goes on after a turn that led to the mood `after`, but for what chance decides of it."""
    signal, odds = telling.weigh_answer(state.customer, state.mood, after, _name_events(acts))
    end = transitions.find_end(after)
    turns = state.turns + 1
    moved = state._replace(
        mood=after,
        turns=turns,
        heat=signal.heat,
        over=(end != ENDS.index("")) | (turns >= max_turns),
        outcome=signal.rating.astype(jnp.float32),
    )
    return CustomerAnswer(moved, telling.find_moment(state.mood, after) * (end == 0), signal, odds)


def hear_answer(answer: CustomerAnswer, signal: Signal) -> LabState:
    """Adds what a drawn signal told, of wish, worth and rating, to the state after a turn."""
    stances, hints = _note_told(answer.state, answer.moment, signal)
    return answer.state._replace(stances=stances, hints=hints, outcome=signal.rating.astype(jnp.float32))


def grade_turn(state: LabState, acts: chex.Array) -> LabTurn:
    """Returns what a turn in a dialogue that is not over brings."""
    events = _name_events(acts)
    process = grading.reward_turn(state.customer, state.mood, events)
    return LabTurn(~state.over, process, events["voucher"].astype(jnp.float32))


def observe(state: LabState) -> chex.Array:
    """Returns what an agent knows that has read all messages and knows what it did, [F] float32.

    Worth, demand, honesty, temper, trust, anger and patience are not in it, but what messages told of them is.
    """
    customer, mood = state.customer, state.mood
    parts = {field: jax.nn.one_hot(getattr(mood, field), getattr(latent.LIMITS, field) + 1) for field in _DONE}
    parts["turns"] = (state.turns / MAX_TURNS)[None]
    parts["first_heat"], parts["heat"] = jax.nn.one_hot(state.first_heat, _HEATS), jax.nn.one_hot(state.heat, _HEATS)
    parts |= {name: getattr(customer, name).astype(jnp.float32)[None] for name in ("discloses", "wants")}
    parts["record"] = jax.nn.one_hot(customer.supported, len(VALUES["supported"]))
    for moment in _WISHED:
        parts[f"stance_{moment}"] = jax.nn.one_hot(state.stances[_HINTED.index(moment)], len(telling.STANCES))
    for place, moment in enumerate(_HINTED):
        parts[f"hint_{moment}"] = jax.nn.one_hot(state.hints[place], len(signals.HINTS[moment][0]))
    return jnp.concatenate([parts[name] for name in _SIZES])


def _list_sizes() -> dict[str, int]:
    """Lists the parts of an observation in their order, and how many features each has."""
    return {
        **{field: getattr(latent.LIMITS, field) + 1 for field in _DONE},
        "turns": 1,
        "first_heat": _HEATS,
        "heat": _HEATS,
        "discloses": 1,
        "wants": 1,
        "record": len(VALUES["supported"]),
        **{f"stance_{moment}": len(telling.STANCES) for moment in _WISHED},
        **{f"hint_{moment}": len(signals.HINTS[moment][0]) for moment in _HINTED},
    }


_SIZES = _list_sizes()
FEATURES = tuple(
    itertools.chain.from_iterable(
        [name] if size == 1 else [f"{name}={value}" for value in range(size)] for name, size in _SIZES.items()
    )
)
"""What each entry of an observation says, [F]."""


def _name_events(acts: chex.Array) -> transitions.Events:
    """Returns the events of a turn with `acts`, [A] bool."""
    events = dict.fromkeys(EVENTS, NEVER) | {act: acts[place] for place, act in enumerate(ACTS)}
    return events | {"nothing": ~jnp.any(acts)}


def _note_told(state: LabState, moment: chex.Array, signal: Signal) -> tuple[chex.Array, chex.Array]:
    """Writes down what was told at a place of `telling.MOMENTS`; at the first, nothing was."""
    now = jnp.arange(1, len(telling.MOMENTS)) == moment
    return jnp.where(now, signal.stance, state.stances), jnp.where(now, signal.hint, state.hints)
