"""The lab's demonstrator: it does no harm, and gives by what it was told and by its price."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rollouts.domains.fds.embedded import population, signals
from rollouts.domains.fds.lab import callers, demonstrator, environment
from rollouts.domains.fds.lab.grading import ACTS
from rollouts.domains.fds.lab.telling import STANCES
from rollouts.domains.fds.scenario import DEMANDS


@jax.jit
def play(key, price, errors):
    """Plays 2000 dialogues: vouchers, outcomes, and the process reward of each turn with what is valid."""

    def play_one(key):
        first, second, third = jax.random.split(key, 3)
        manner = demonstrator.Manner(price, jax.random.bernoulli(first))

        def take_turn(state, key):
            err, draw = jax.random.split(key)
            acts = demonstrator.plan_acts(state, manner)
            acts = demonstrator.err(jax.random.uniform(err, (2,)), acts, errors)
            return environment.step(draw, state, acts)

        return jax.lax.scan(take_turn, environment.reset(second), jax.random.split(third, 8))

    return jax.vmap(play_one)(jax.random.split(key, 2000))


def test_it_makes_no_mistake_but_on_purpose_and_gives_the_less_the_dearer():
    rates = []
    for price in (0.3, 1.2, 2.1):
        states, turns = play(jax.random.key(0), price, 0.0)
        assert turns.process[turns.valid].min() == 1 and states.over.all() and (states.outcome > 0).all()
        rates.append(float(turns.cost.sum(1).mean()))
    assert rates[0] > 0.75 and 0.25 < rates[1] < 0.6 and rates[2] < 0.1
    _, erring = play(jax.random.key(0), 1.2, 0.15)
    assert 0.9 < erring.process[erring.valid].mean() < 0.99


def test_worth_is_estimated_by_bayes_rule():
    state = environment.open_dialogue(
        jnp.zeros(3), callers.draw_customer(jnp.full(callers.CHANCES, 0.5), mix=environment.MIX)
    )
    place = {moment: number for number, moment in enumerate(signals.HINTS)}
    stances, hints = np.zeros(4, np.int32), np.zeros(4, np.int32)
    stances[place["opening"]], hints[place["probe"]], hints[place["offer"]] = STANCES.index("open"), 2, 3
    levels = population.weigh_levels(*environment.MIX)
    belief = np.array(sum(levels[level - 1] * population.weigh_demands(level) for level in range(1, 6)))
    nothing = belief.sum(0) @ np.arange(31)
    for row, demand in enumerate(DEMANDS):
        belief[row] *= signals.STANCE_ODDS["opening"][demand][STANCES.index("open")]
    for worth in range(31):
        belief[:, worth] *= signals.HINTS["probe"][worth][2] * signals.HINTS["offer"][worth][3]
    told = (belief / belief.sum()).sum(0) @ np.arange(31)
    estimate = jax.jit(demonstrator.estimate_worth)
    assert estimate(state._replace(stances=stances, hints=hints)) == pytest.approx(told, rel=1e-4)
    assert estimate(state._replace(stances=0 * stances, hints=0 * hints)) == pytest.approx(nothing, rel=1e-4)


def test_errors_change_one_good_act_as_often_as_they_should():
    acts = jnp.array([act in ("listen", "voucher") for act in ACTS])
    chances = jax.random.uniform(jax.random.key(0), (20_000, 2))
    changed = np.asarray(jax.vmap(lambda chance: demonstrator.err(chance, acts, 0.25))(chances)) != np.asarray(acts)
    assert set(changed.sum(1).tolist()) == {0, 1} and not changed[:, ACTS.index("voucher")].any()
    np.testing.assert_allclose(changed.mean(0)[:-1], 0.25 / 9, atol=5 * (0.25 / 9 / 20_000) ** 0.5)


def test_manners_come_alike():
    chances = jax.random.uniform(jax.random.key(0), (20_000, 2))
    manners = jax.vmap(lambda chance: demonstrator.draw_manner(chance, (0.5, 1.0, 1.5)))(chances)
    prices, counts = np.unique(np.asarray(manners.price), return_counts=True)
    assert prices.tolist() == [0.5, 1.0, 1.5] and np.abs(counts / 20_000 - 1 / 3).max() < 0.02
    assert abs(np.mean(manners.probes) - demonstrator.PROBES) < 0.02
