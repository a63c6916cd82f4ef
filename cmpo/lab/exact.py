"""Exact values of a policy by dynamic programming over all that may happen from given states on.

What chance decides in the gym is discrete: who calls, whether an offer is accepted, and what a message tells. From a
state on, with a few turns left, every state that may come is listed once, with the chances that lead from one to the
other; no policy is in that. Values of a policy then follow by one backward recursion, and as it is differentiable,
exact gradients do. Listed states grow more than tenfold with every turn, so that two or three turns from a state are a
matter of seconds, and whole dialogues of fifteen are out of reach: `cmpo.lab.truth` samples those.

Legend: S states of a layer, K sets of acts, A acts, F features, E links.
"""

import functools
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from cmpo.lab import actor
from cmpo.lab.actor import MOVES, STATEMENTS, Actor
from rollouts.domains.fds.embedded import signals
from rollouts.domains.fds.embedded.latent import Customer, Mood
from rollouts.domains.fds.lab import environment
from rollouts.domains.fds.lab.environment import LabState
from rollouts.domains.fds.lab.grading import ACTS

_BLOCK = 16  # states that are expanded at a time


class Layer(NamedTuple):
    """The states in which one turn may begin, each once, and what may follow each set of acts."""

    seen: np.ndarray  # [S, F] float32
    process: np.ndarray  # [S, K] float32
    cost: np.ndarray  # [S, K] float32
    outcome: np.ndarray  # [S, K] float32, the mean rating, with 0 where the dialogue goes on
    ends: np.ndarray  # [S, K] float32, the chance that the dialogue ends
    turns: int  # of a dialogue that ends by this turn
    source: np.ndarray  # [E] int32, a place in the flat [S * K]
    child: np.ndarray  # [E] int32, a state of the next layer
    chance: np.ndarray  # [E] float32


class Values(NamedTuple):
    """Means of what is still to come, of states [S] or of acts in them [S, K]; float32."""

    outcome: chex.Array
    process: chex.Array  # summed over turns
    cost: chex.Array
    turns: chex.Array
    quality: chex.Array  # the process reward of the turns to come, divided by the turns of the whole dialogue
    inverse_turns: chex.Array  # of the whole dialogue

    def weigh(self, price: chex.Numeric, outcome_weight: float = 1.0, process_weight: float = 1.0) -> chex.Array:
        """Returns `w_O R_O + w_P sum R_P - price * cost`."""
        return outcome_weight * self.outcome + process_weight * self.process - price * self.cost


def list_acts() -> np.ndarray:
    """Lists the sets of acts that a policy chooses from, [K, A] bool: statements, the last the quickest, then moves."""
    said = itertools.product((False, True), repeat=len(STATEMENTS))
    made = np.vstack([np.zeros(len(MOVES), bool), np.eye(len(MOVES), dtype=bool)])
    listed = np.array([[*some, *one] for some, one in itertools.product(said, made)])
    return listed[:, [(*STATEMENTS, *MOVES).index(act) for act in ACTS]]


def list_chances(policy: Actor, seen: chex.Array, *, press: bool) -> chex.Array:
    """Returns the chance of each set of `list_acts`, [..., F] -> [..., K] float32."""
    says, moves = actor.compute_logits(policy, seen, press=press)
    said = np.array(list(itertools.product((False, True), repeat=len(STATEMENTS))))
    spoken = jnp.sum(jax.nn.log_sigmoid(jnp.where(said, says[..., None, :], -says[..., None, :])), axis=-1)
    both = spoken[..., :, None] + moves[..., None, :]
    return jnp.exp(both).reshape(*seen.shape[:-1], -1)


def list_layers(roots: LabState, *, max_turns: int, press: bool = False, limit: int = 100_000) -> tuple[Layer, ...]:
    """Lists all that may happen from `roots` on, one layer for each turn that is left.

    Args:
      roots: states of arrays with a leading axis, none over, all with the same number of turns.
      max_turns: after so many turns of the whole dialogue it ends unrated.
      press: whether vouchers may be given that nobody agreed to.
      limit: the most states of a layer.

    Raises ValueError where roots are over or differ in turns, or a layer has more states than `limit`.
    """
    turns = sorted(set(np.asarray(roots.turns).tolist()))
    if len(turns) != 1 or np.any(roots.over) or turns[0] >= max_turns:
        raise ValueError(f"roots: expected dialogues that are not over, with as many turns each, got turns {turns}")
    layers, states = [], jax.tree.map(np.asarray, roots)
    for played in range(turns[0] + 1, max_turns + 1):
        layer, states = _expand_states(states, played, max_turns, press)
        layers.append(layer)
        if states is None:
            break
        if len(states.turns) > limit:
            raise ValueError(f"limit: expected at most {limit} states, got {len(states.turns)} after turn {played}")
    return tuple(layers)


def evaluate_policy(policy: Actor, layers: Sequence[Layer], *, press: bool = False) -> list[tuple[Values, Values]]:
    """Returns V [S] and Q [S, K] of every state of every layer, exact but for rounding; differentiable.

    `Q(s, a) = r(s, a) + sum_s' P(s' | s, a) V(s')` and `V(s) = sum_a pi(a | s) Q(s, a)`, from the last turn back.
    What a policy may not do, a voucher that nobody agreed to, leads nowhere: its Q counts that turn alone.
    """
    found, after = [], Values(*jnp.zeros((len(Values._fields), 1)))
    for layer in reversed(layers):
        shape = layer.process.shape

        def follow(value, layer=layer, shape=shape):
            links = layer.chance * value[layer.child]
            return jax.ops.segment_sum(links, layer.source, shape[0] * shape[1]).reshape(shape)

        inverse = layer.ends / layer.turns + follow(after.inverse_turns)
        acts = Values(
            outcome=layer.outcome + follow(after.outcome),
            process=layer.process + follow(after.process),
            cost=layer.cost + follow(after.cost),
            turns=1 + follow(after.turns),
            quality=layer.process * inverse + follow(after.quality),
            inverse_turns=inverse,
        )
        chances = list_chances(policy, layer.seen, press=press)
        after = Values(*(jnp.sum(chances * value, axis=-1) for value in acts))
        found.append((after, acts))
    return found[::-1]


def expect_dialogue(policy: Actor, layers: Sequence[Layer], weights: chex.Array, *, press: bool = False) -> Values:
    """Returns the means over dialogues that begin in the roots with chances `weights` [S]; scalars, differentiable."""
    values, _ = evaluate_policy(policy, layers, press=press)[0]
    return Values(*(jnp.sum(weights * value) for value in values))


def visit_states(
    policy: Actor, layers: Sequence[Layer], weights: chex.Array, *, press: bool = False
) -> list[chex.Array]:
    """Returns how often a dialogue comes to each state, [S] for every layer; `weights` [S] are those of the roots."""
    visits = [jnp.asarray(weights)]
    for layer, below in itertools.pairwise(layers):
        reached = (visits[-1][:, None] * list_chances(policy, layer.seen, press=press)).reshape(-1)
        visits.append(jax.ops.segment_sum(reached[layer.source] * layer.chance, layer.child, len(below.seen)))
    return visits


class _Block(NamedTuple):
    """What may follow every set of acts in some states, if an offer is accepted or not: [S, K] or [S, K, 2]."""

    turn: environment.LabTurn
    chance: chex.Array
    answer: environment.CustomerAnswer
    rating: chex.Array  # the mean; 0 where the dialogue goes on
    stances: chex.Array  # [S, K, 2, stances], the chance of each
    hints: chex.Array


def _expand_states(states: LabState, played: int, max_turns: int, press: bool) -> tuple[Layer, LabState | None]:
    """Returns the layer of `states`, and the states of the next; None if no dialogue goes on."""
    count, acts = len(states.turns), list_acts()
    pressed = acts[:, ACTS.index("voucher")] & (states.mood.deal != 2)[:, None]
    columns, links, heard = [], [], []
    for first in range(0, count, _BLOCK):
        rows = np.minimum(np.arange(first, first + _BLOCK), count - 1)
        block = jax.tree.map(np.asarray, _expand_block(jax.tree.map(lambda x, rows=rows: x[rows], states), max_turns))
        weights = np.where(pressed[rows, :, None] & (not press), 0, block.chance)
        weights[count - first :] = 0  # what fills up the last block
        over = block.answer.state.over
        ended = np.where(over, weights, 0)
        turn = block.turn
        columns.append((turn.process, turn.cost, np.sum(ended * block.rating, -1), np.sum(ended, -1)))
        alive = np.nonzero(((weights > 0) & ~over).reshape(-1))[0]  # of places [S, K, 2]
        answer = jax.tree.map(lambda x: x.reshape(-1, *x.shape[3:]), block.answer)
        known = np.column_stack([_pack(answer.state), answer.moment])[alive]
        known, where, answers = np.unique(known, axis=0, return_index=True, return_inverse=True)
        odds = [table.reshape(-1, table.shape[-1])[alive][where] for table in (block.stances, block.hints)]
        odds = odds[0][:, :, None] * odds[1][:, None, :]
        one, stance, hint = np.nonzero(odds)  # what may be told, sorted by the answer that tells it
        heard.append(_hear(known[one], stance, hint))
        many = np.bincount(one, minlength=len(known))
        begins = np.cumsum(many) - many
        told = many[answers.reshape(-1)]
        option = np.arange(told.sum()) - np.repeat(np.cumsum(told) - told - begins[answers.reshape(-1)], told)
        source = np.repeat(alive, told)
        chance = weights.reshape(-1)[source] * odds[one, stance, hint][option]
        links.append((first * len(acts) + source // 2, option + sum(map(len, heard[:-1])), chance))
    layer = [np.concatenate(column)[:count] for column in zip(*columns, strict=True)]
    source, option, chance = (np.concatenate(column) for column in zip(*links, strict=True))
    following, child = np.unique(np.concatenate(heard), axis=0, return_inverse=True)
    child = child.reshape(-1)[option].astype(np.int32)
    seen = np.asarray(jax.vmap(environment.observe)(states))
    layer = Layer(seen, *layer, played, source.astype(np.int32), child, chance.astype(np.float32))
    return layer, _unpack(following) if len(following) else None


@functools.partial(jax.jit, static_argnames="max_turns")
def _expand_block(states: LabState, max_turns: int) -> _Block:
    def expand(state, acts):
        outcomes = environment.find_outcomes(state, acts)
        moods = jax.tree.map(lambda *some: jnp.stack(some), outcomes.agreed, outcomes.refused)
        moods = jax.lax.optimization_barrier(moods)
        answer = jax.vmap(lambda mood: environment.find_answer(state, acts, mood, max_turns=max_turns))(moods)
        chance = jnp.stack([outcomes.chance, 1 - outcomes.chance])
        stances, hints = (jnp.diff(table, axis=-1, prepend=0) for table in (answer.odds.stance, answer.odds.hint))
        rating = answer.signal.rating + answer.odds.better
        return _Block(environment.grade_turn(state, acts), chance, answer, rating, stances, hints)

    return jax.vmap(jax.vmap(expand, (None, 0)), (0, None))(states, list_acts())


def _hear(known: np.ndarray, stance: np.ndarray, hint: np.ndarray) -> np.ndarray:
    """Adds what was told to packed states with the place of the moment after them."""
    nothing = np.zeros_like(stance)
    signal = signals.Signal(*[nothing] * len(signals.Signal._fields))._replace(stance=stance, hint=hint)
    answer = environment.CustomerAnswer(_unpack(known[:, :-1]), known[:, -1], signal, None)
    return _pack(jax.tree.map(np.asarray, jax.vmap(lambda one: environment.hear_answer(one, one.signal))(answer)))


def _pack(states: LabState) -> np.ndarray:
    """Returns all fields of states that are not over, a row each, int32."""
    parts = (*states.customer, *states.mood, states.turns, states.first_heat, states.heat, states.stances, states.hints)
    return np.column_stack([np.asarray(part) for part in parts]).astype(np.int32)


def _unpack(rows: np.ndarray) -> LabState:
    sizes = [len(Customer._fields), len(Mood._fields), 1, 1, 1, len(signals.HINTS)]
    customer, mood, turns, first, heat, stances, hints = np.split(rows, np.cumsum(sizes), axis=1)
    return LabState(
        customer=Customer(*customer.T),
        mood=Mood(*mood.T),
        turns=turns[:, 0],
        first_heat=first[:, 0],
        heat=heat[:, 0],
        stances=stances,
        hints=hints,
        over=np.zeros(len(rows), bool),
        outcome=np.zeros(len(rows), np.float32),
    )
