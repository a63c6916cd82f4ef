"""The lab's policy: its probabilities, its draws, and what it learns from demonstrations."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cmpo.lab import actor
from cmpo.lab.actor import MOVES, STATEMENTS
from rollouts.domains.fds.lab.environment import FEATURES
from rollouts.domains.fds.lab.grading import ACTS

EVERY = [
    [act in said or act == moved for act in ACTS]
    for count in range(len(STATEMENTS) + 1)
    for said in itertools.combinations(STATEMENTS, count)
    for moved in (None, *MOVES)
]
"""All that a turn may be."""


def some_policy(seed=0):
    """A policy that prefers one thing to another."""
    begun = actor.init_policy(jax.random.key(seed), 5)
    return jax.tree.map(lambda x: x + jax.random.normal(jax.random.key(seed + 1), x.shape), begun)


def some_view(agreed):
    seen = np.array(jax.random.uniform(jax.random.key(9), (len(FEATURES),)))
    seen[FEATURES.index("deal=2")] = agreed
    return jnp.asarray(seen)


@pytest.mark.parametrize("press, agreed", [(False, 0), (False, 1), (True, 0)])
def test_the_probabilities_of_all_turns_sum_to_one_and_draws_come_by_them(press, agreed):
    policy, seen, acts = some_policy(), some_view(agreed), jnp.array(EVERY)
    views = jnp.broadcast_to(seen, (len(EVERY), len(FEATURES)))
    odds = np.exp(actor.score_acts(policy, views, acts, press=press))
    assert odds.sum() == pytest.approx(1, abs=1e-5)
    gives = acts[:, ACTS.index("voucher")]
    assert (odds[gives].max() > 0) == (press or agreed)

    @jax.jit
    @jax.vmap
    def draw(chance):
        return actor.sample_acts(chance, policy, seen, press=press)

    drawn = draw(jax.random.uniform(jax.random.key(1), (20_000, actor.CHANCES)))
    weights = 2 ** np.arange(len(ACTS))
    counts = np.bincount(np.asarray(drawn) @ weights, minlength=2 ** len(ACTS))[np.array(EVERY) @ weights]
    assert counts.sum() == 20_000
    assert np.all(np.abs(counts / 20_000 - odds) < 5 * np.sqrt(odds / 20_000) + 5e-5)
    entropy = -np.sum(odds * np.log(np.maximum(odds, 1e-30)))
    assert actor.measure_entropy(policy, seen, press=press) == pytest.approx(entropy, abs=1e-3)


def test_a_voucher_that_is_barred_is_never_drawn_whatever_the_chance():
    """A chance at the very edge of two moves, too."""
    policy, seen = some_policy(), some_view(0)
    _, moves = actor.compute_logits(policy, seen, press=False)
    edges = np.cumsum(np.exp(moves))
    around = np.float32([*edges, *np.nextafter(edges, 0), *np.nextafter(edges, 2), 0.0, np.nextafter(np.float32(1), 0)])
    chances = jnp.full((len(around), actor.CHANCES), 0.5).at[:, -1].set(around)
    drawn = jax.vmap(lambda chance: actor.sample_acts(chance, policy, seen, press=False))(chances)
    assert not drawn[:, ACTS.index("voucher")].any() and drawn[:, ACTS.index("probe")].any()


def test_cloning_teaches_what_is_done_when():
    policy = actor.clone_policy(jax.random.key(0), hidden=8)

    def chances(**told):
        view = dict.fromkeys(FEATURES, 0.0) | {f"record={1}": 1.0, "first_heat=1": 1.0, "discloses": 1.0}
        view |= dict.fromkeys(("limits=0", "noted=0", "stepped=0", "probed=0", "facts=0"), 1.0)
        view |= {name.replace("__", "="): value for name, value in told.items()}
        says, moves = actor.compute_logits(policy, jnp.array([view[name] for name in FEATURES]), press=False)
        return dict(zip(STATEMENTS, jax.nn.sigmoid(says).tolist(), strict=True)) | dict(
            zip(("none", *MOVES), jnp.exp(moves).tolist(), strict=True)
        )

    first = chances(heard__0=1.0, evidence__0=1.0, deal__0=1.0, heat__1=1.0)
    assert first["listen"] > 0.8 and first["ask"] > 0.4 and first["none"] > 0.8
    later = chances(heard__1=1.0, evidence__2=1.0, deal__0=1.0, heat__0=1.0, turns=1 / 15)
    assert later["ask"] < first["ask"] / 2 and later["none"] < 0.4
    agreed = chances(heard__1=1.0, evidence__2=1.0, deal__2=1.0, heat__0=1.0, turns=2 / 15)
    assert agreed["voucher"] > 0.6
