"""Exact values and gradients: equal to a brute-force walk through the gym's own rules in plain Python, float64."""

import functools
import itertools

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from cmpo.lab import actor, exact
from cmpo.lab.actor import MOVES, STATEMENTS
from rollouts.domains.fds.embedded import latent, signals, verdicts
from rollouts.domains.fds.lab import environment, telling
from rollouts.domains.fds.lab.grading import ACTS
from tests.builders.customers import CUSTOMER
from tests.builders.lab import make_states

MAX_TURNS, BEGUN = 15, 13
MOOD = latent.Mood(patience=2, anger=0, trust=1, heard=1, evidence=2, noted=1)
CASES = (
    (CUSTOMER._replace(demand="compensation_flexible"), MOOD),  # an offer is answered, and a probe
    (CUSTOMER._replace(wants="short", temper="silent"), MOOD._replace(deal=2, patience=3)),  # a voucher is agreed
)
WEIGHTS = np.array([0.75, 0.25], np.float32)
MEASURES = ("outcome", "process", "cost", "turns", "quality")


@pytest.fixture(scope="module")
def layers():
    return exact.list_layers(make_states(CASES, BEGUN), max_turns=MAX_TURNS)


@pytest.fixture(scope="module")
def policy():
    begun = actor.init_policy(jax.random.key(0), 3)
    return jax.tree.map(lambda x: x + jax.random.normal(jax.random.key(1), x.shape) / 2, begun)


class Walk:
    """All dialogues of CASES, by `latent`, `signals` and `verdicts`; only what an agent sees is read off the lab."""

    def __init__(self):
        self.turns = [self._try_acts(*case) for case in CASES]
        self.views, keys = self._view([make_states([case], BEGUN) for case in CASES]), {}
        for number, turn in enumerate(self.turns):
            for _, _, _, going in turn:
                for _, after, moment, signal in going:
                    keys.setdefault((number, after, moment, signal.heat, signal.stance, signal.hint), len(keys))
        self.keys = keys
        self.later_views = self._view([self._make(*key) for key in keys])
        self.later = {(key[0], key[1]): None for key in keys}
        for number, mood in self.later:
            self.later[number, mood] = self._try_acts(CASES[number][0], mood)

    def _try_acts(self, customer, mood):
        """For each set of acts: its reward, its cost, what ratings end it, and with what chances it goes on."""
        found = []
        for acts in exact.list_acts():
            events = frozenset(act for act, did in zip(ACTS, acts, strict=True) if did) or frozenset({"nothing"})
            scores = verdicts.score_turn(customer, mood, events)
            ended, going = 0.0, []
            for chance, after in latent.list_outcomes(customer, mood, events):
                end, moment = latent.find_end(customer, after), signals.find_moment(mood, after)
                for odds, signal in signals.list_signals(customer, mood, after, events):
                    if end:
                        ended += chance * odds * signal.rating
                    else:
                        going.append((chance * odds, after, moment, signal))
            reward = np.mean([scores[name] for name in ("persona", "stage", "quality", "rules")])
            found.append((reward, float("voucher" in events), ended, going))
        return found

    def _make(self, number, after, moment, heat, stance, hint):
        state = make_states([(CASES[number][0], after)], BEGUN + 1)._replace(heat=np.array([heat], np.int32))
        if moment:
            place = list(signals.HINTS).index(moment)
            state.stances[0, place], state.hints[0, place] = telling.STANCES.index(stance), hint
        return state

    def _view(self, states):
        whole = jax.tree.map(lambda *some: np.concatenate(some), *states)
        return np.asarray(jax.vmap(environment.observe)(whole), np.float64)

    def measure(self, flat, unravel):
        """The mean of each of MEASURES over dialogues: every way that a dialogue may go, one by one."""
        policy = unravel(flat)
        first, later = (_choose(policy, views) for views in (self.views, self.later_views))
        total = np.zeros(len(MEASURES))
        for number, turn in enumerate(self.turns):
            for chosen, (reward, cost, ended, going) in zip(first[number], turn, strict=True):
                weight = WEIGHTS[number] * chosen
                over = 1 - sum(chance for chance, *_ in going)
                here = BEGUN + 1
                total += weight * np.array([ended, over * reward, over * cost, over, over * reward / here])
                for chance, after, moment, signal in going:
                    row = self.keys[number, after, moment, signal.heat, signal.stance, signal.hint]
                    odds, last = later[row], self.later[number, after]
                    rewards, costs, ratings = (np.array(column) for column in list(zip(*last, strict=True))[:3])
                    sums = odds @ ratings, reward + odds @ rewards, cost + odds @ costs
                    total += weight * chance * np.array([*sums, 2, sums[1] / (here + 1)])
        return total


def _choose(policy, seen):
    """The chance of each of the lab's sets of acts, [views, K]; float64, and with no help from the lab's actor."""
    inner, inner_bias, outer, outer_bias = (np.asarray(part, np.float64) for part in policy)
    logits = np.tanh(seen @ inner + inner_bias) @ outer + outer_bias
    says, moves = np.split(logits, [len(STATEMENTS)], axis=1)
    agreed = seen[:, environment.FEATURES.index("deal=2")] == 1
    weights = np.exp(moves)
    weights[~agreed, 1 + MOVES.index("voucher")] = 0
    weights /= weights.sum(1, keepdims=True)
    says = 1 / (1 + np.exp(-says))
    columns = []
    for acts in exact.list_acts():
        did = dict(zip(ACTS, acts, strict=True))
        one = np.prod([says[:, k] if did[act] else 1 - says[:, k] for k, act in enumerate(STATEMENTS)], axis=0)
        made = next((k for k, act in enumerate(MOVES, start=1) if did[act]), 0)
        columns.append(one * weights[:, made])
    return np.stack(columns, 1)


@pytest.fixture(scope="module")
def walk():
    return Walk()


def test_each_set_of_acts_is_listed_once_with_its_chance(policy):
    acts = exact.list_acts()
    assert len(np.unique(acts, axis=0)) == len(acts) == 2 ** len(STATEMENTS) * (len(MOVES) + 1)
    seen = jax.random.uniform(jax.random.key(2), (len(environment.FEATURES),))
    for press in (False, True):
        chances = exact.list_chances(policy, seen, press=press)
        scores = actor.score_acts(
            policy, jnp.broadcast_to(seen, (len(acts), len(seen))), jnp.asarray(acts), press=press
        )
        np.testing.assert_allclose(chances, np.exp(scores), rtol=1e-4, atol=1e-9)


def test_values_are_those_of_every_dialogue_one_by_one(layers, policy, walk):
    flat, unravel = jax.flatten_util.ravel_pytree(policy)
    expected = dict(zip(MEASURES, walk.measure(flat, unravel), strict=True))
    found = exact.expect_dialogue(policy, layers, WEIGHTS)._asdict()
    assert 0.02 < expected["cost"] < 0.5 and 1.2 < expected["turns"] < 1.95  # something of everything happens
    assert {name: float(found[name]) for name in MEASURES} == pytest.approx(expected, rel=2e-5)


@pytest.mark.parametrize("measure", ["outcome", "process", "cost", "quality"])
def test_the_gradient_is_the_slope_of_every_dialogue_one_by_one(layers, policy, walk, measure):
    flat, unravel = jax.flatten_util.ravel_pytree(policy)
    flat = np.asarray(flat, np.float64)
    gradient = jax.grad(lambda x: getattr(exact.expect_dialogue(unravel(x), layers, WEIGHTS), measure))(flat)
    wide = actor.Actor(*(np.shape(part) for part in policy))
    ends = np.cumsum([0, *map(np.prod, wide)])

    def unravel64(x):
        return [x[a:b].reshape(shape) for (a, b), shape in zip(itertools.pairwise(ends), wide, strict=True)]

    slope = functools.partial(_slope, lambda x: walk.measure(x, unravel64)[MEASURES.index(measure)], flat)
    directions = np.random.default_rng(0).normal(size=(2, len(flat)))
    np.testing.assert_allclose(np.asarray(gradient) @ directions.T, [slope(one) for one in directions], rtol=2e-3)


def _slope(function, x, direction, step=1e-4):
    return (function(x + step * direction) - function(x - step * direction)) / (2 * step)


def test_the_advantage_is_zero_in_the_mean_and_its_policy_gradient_is_the_gradient(layers, policy):
    price = 1.3
    found = exact.evaluate_policy(policy, layers)
    visits = exact.visit_states(policy, layers, WEIGHTS)
    assert [float(visit.sum()) for visit in visits][0] == 1
    advantages = []
    for layer, (values, acts) in zip(layers, found, strict=True):
        advantage = acts.weigh(price) - values.weigh(price)[:, None]
        means = jnp.sum(exact.list_chances(policy, layer.seen, press=False) * advantage, -1)
        np.testing.assert_allclose(means, 0, atol=1e-5)
        assert np.std(advantage) > 0.1
        advantages.append(advantage)

    def weigh(policy):
        chances = [exact.list_chances(policy, layer.seen, press=False) for layer in layers]
        return sum(jnp.sum(v[:, None] * p * a) for v, p, a in zip(visits, chances, advantages, strict=True))

    whole = jax.grad(lambda policy: exact.expect_dialogue(policy, layers, WEIGHTS).weigh(price))(policy)
    for ours, theirs in zip(jax.grad(weigh)(policy), whole, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_by_the_price_what_is_weighed_falls_as_fast_as_cost(layers, policy):
    values = exact.expect_dialogue(policy, layers, WEIGHTS)
    assert jax.grad(values.weigh)(1.3) == pytest.approx(-float(values.cost))


@pytest.mark.parametrize(
    "turns, over, limit, what", [(15, False, 9, "turns"), (13, True, 9, "over"), (13, False, 9, "limit")]
)
def test_what_cannot_be_listed_is_an_error(turns, over, limit, what):
    roots = make_states(CASES[:1], turns)._replace(over=np.array([over]))
    with pytest.raises(ValueError, match=what):
        exact.list_layers(roots, max_turns=MAX_TURNS, limit=limit)
