"""Dialogues as arrays: played beside the rules, turn by turn, and what an agent sees of them."""

import collections
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rollouts.domains.fds.embedded import latent, signals, verdicts
from rollouts.domains.fds.lab import environment, transitions
from rollouts.domains.fds.lab.environment import FEATURES
from rollouts.domains.fds.lab.grading import ACTS
from rollouts.domains.fds.lab.telling import STANCES
from rollouts.domains.fds.rubrics import PRINCIPLES

COUNT, TURNS = 300, 7


@jax.jit
def play(key):
    """Plays a dialogue with acts by chance: before each turn the state; acts, turn, what is seen, the state after."""

    def take_turn(state, key):
        choose, draw = jax.random.split(key)
        acts = jax.random.bernoulli(choose, 0.2, (len(ACTS),))
        after, turn = environment.step(draw, state, acts, max_turns=TURNS - 1)
        return after, (state, acts, turn, environment.observe(state), after)

    first, *others = jax.random.split(key, TURNS + 1)
    return jax.lax.scan(take_turn, environment.reset(first), jnp.stack(others))[1]


@pytest.fixture(scope="module")
def played():
    return jax.tree.map(np.asarray, jax.vmap(play)(jax.random.split(jax.random.key(0), COUNT)))


def steps_of(played):
    """Yields (state, events, turn, seen, state after) of each turn, with scalars."""
    for number in range(COUNT):
        for turn in range(TURNS):
            yield jax.tree.map(lambda x, number=number, turn=turn: x[number, turn], played)


def name_events(acts):
    return frozenset(act for act, did in zip(ACTS, acts, strict=True) if did) or frozenset({"nothing"})


def test_dialogues_go_as_the_rules_let_them(played):
    ends, told_of = set(), collections.defaultdict(set)
    for state, acts, turn, _, after in steps_of(played):
        customer, mood, events = (
            transitions.decode_customer(state.customer), latent.Mood(*map(int, state.mood)), name_events(acts)
        )  # fmt: skip
        if state.over:
            chex.assert_trees_all_equal(after, state)
            assert not turn.valid and turn.process == turn.cost == 0
            continue
        moods = [mood for _, mood in latent.list_outcomes(customer, mood, events)]
        moved = latent.Mood(*map(int, after.mood))
        assert moved in moods and turn.valid
        end = latent.find_end(customer, moved)
        assert after.over == bool(end or after.turns == TURNS - 1) and after.turns == state.turns + 1
        may_come = [signal for _, signal in signals.list_signals(customer, mood, moved, events)]
        assert after.outcome in {signal.rating for signal in may_come}
        assert after.heat in {signal.heat for signal in may_come}
        moment = "" if end else signals.find_moment(mood, moved)
        places = [place for place, name in enumerate(signals.HINTS) if name != moment]
        np.testing.assert_array_equal(after.stances[places], state.stances[places])
        np.testing.assert_array_equal(after.hints[places], state.hints[places])
        if moment:
            place = list(signals.HINTS).index(moment)
            told = STANCES[after.stances[place]], after.hints[place]
            assert told in {(signal.stance, signal.hint) for signal in may_come}
            told_of[moment].add(told)
        expected = verdicts.score_turn(customer, mood, events)
        assert turn.process == pytest.approx(np.mean([expected[name] for name in PRINCIPLES]))
        assert turn.cost == ("voucher" in events)
        ends.add((end, bool(after.over)))
    assert len(told_of["evidence"]) == 5 and len(told_of["probe"]) > 8 and len(told_of["offer"]) == 2
    assert ends == {("", False), ("", True), ("rated", True), ("quit", True)}


def test_ratings_and_answers_come_as_often_as_the_rules_say():
    """An agreed voucher's rating is its expectation in the mean; the same for whether an offer is agreed to."""
    customer = transitions.encode_customer(
        latent.Customer(3, "compensation_flexible", True, 13, True, True, "steps", "flares")
    )
    mood = latent.Mood(patience=11, anger=1, trust=2, heard=1, evidence=2)
    state = environment.open_dialogue(jnp.zeros(3), customer)

    @functools.partial(jax.jit, static_argnums=1)
    def draw(mood, act):
        begun = state._replace(mood=latent.Mood(*map(jnp.int32, mood)))
        acts = jnp.array([name == act for name in ACTS])
        keys = jax.random.split(jax.random.key(1), 20_000)
        return jax.vmap(lambda key: environment.step(key, begun, acts)[0])(keys)

    who = transitions.decode_customer(customer)
    agreed = np.mean(draw(mood, "offer").mood.deal == 2)
    assert agreed == pytest.approx(latent.chance_to_agree(who, mood), abs=5 * 0.5 / 20_000**0.5)
    ((_, after),) = latent.list_outcomes(who, mood._replace(deal=2), frozenset({"voucher"}))
    mean = latent.expected_rating(who, after)
    outcomes = np.asarray(draw(mood._replace(deal=2), "voucher").outcome)
    assert outcomes.mean() == pytest.approx(mean, abs=5 * 0.5 / 20_000**0.5)
    assert set(outcomes.tolist()) == {np.floor(mean), np.floor(mean) + 1}


def test_nobody_sees_what_is_hidden(played):
    """Customers that differ in what is hidden alone look the same, in any mood with another trust and patience."""
    states, seen = played[0], played[3]
    observe = jax.jit(jax.vmap(jax.vmap(environment.observe)))
    np.testing.assert_array_equal(observe(states), seen)
    customer, mood = states.customer, states.mood
    other = states._replace(
        customer=customer._replace(
            worth=30 - customer.worth,
            demand=3 - customer.demand,
            honest=1 - customer.honest,
            temper=1 - customer.temper,
            level=6 - customer.level,
        ),
        mood=mood._replace(anger=3 - mood.anger, trust=3 - mood.trust, patience=18 - mood.patience),
    )
    np.testing.assert_array_equal(observe(other), seen)


def test_an_observation_says_what_was_told_and_done(played):
    for state, _, _, seen, _ in list(steps_of(played))[::5]:
        named = dict(zip(FEATURES, seen.tolist(), strict=True))
        mood = state.mood
        for field in ("heard", "evidence", "facts", "limits", "noted", "stepped", "probed", "deal"):
            assert named[f"{field}={getattr(mood, field)}"] == 1
        assert named["turns"] == pytest.approx(state.turns / environment.MAX_TURNS)
        assert named[f"first_heat={state.first_heat}"] == named[f"heat={state.heat}"] == 1
        assert named["discloses"] == state.customer.discloses and named["wants"] == state.customer.wants
        assert named[f"record={state.customer.supported}"] == 1
        for moment, place in (("opening", 0), ("evidence", 1), ("probe", 2), ("offer", 3)):
            assert named[f"hint_{moment}={state.hints[place]}"] == 1
        assert named[f"stance_opening={state.stances[0]}"] == named[f"stance_probe={state.stances[2]}"] == 1
    assert played[3].sum(-1).max() > 15  # one of each kind, and what is not a kind on top


class VariantsTest(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_a_turn_is_the_same_with_and_without_jit(self):
        state = environment.reset(jax.random.key(3))
        acts = jnp.array([act in ("listen", "ask") for act in ACTS])
        found = self.variant(environment.step)(jax.random.key(4), state, acts)
        chex.assert_trees_all_close(found, environment.step(jax.random.key(4), state, acts), atol=1e-6)
        assert int(found[0].mood.heard) == 1 and found[1].valid and float(found[1].process) > 0.5
