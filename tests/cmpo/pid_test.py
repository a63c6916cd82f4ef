"""The PID-Lagrangian controller against hand values, a plain Python reference, and a toy plant."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized

from cmpo import pid

FORMS = ("incremental", "positional")


def gains(**changes):
    default = {"kp": 1.0, "ki": 0.5, "kd": 0.25, "target": 0.5, "smoothing": 0.5, "lambda_max": 5.0}
    return pid.PIDGains(**default | changes)


def reference(g, initial, costs):
    """One constraint, plain floats."""
    lam = integral = initial
    smoothed, e1, e2, lambdas = g.target, 0.0, 0.0, []
    clip = lambda x: min(max(x, 0.0), g.lambda_max)  # noqa: E731
    for cost in costs:
        if np.isfinite(cost):
            before, smoothed = smoothed, (1 - g.smoothing) * smoothed + g.smoothing * cost
            e = smoothed - g.target
            if g.form == "incremental":
                lam = clip(lam + g.kp * (e - e1) + g.ki * e + g.kd * (e - 2 * e1 + e2))
            else:
                integral = clip(integral + g.ki * e)
                lam = clip(g.kp * e + integral + g.kd * max(0.0, smoothed - before))
            e1, e2 = e, e1
        lambdas.append(lam)
    return np.array(lambdas)


class HandValuesTest(chex.TestCase):
    # Costs 1, 1, 0 with a = .5 from J~ = .5: J~ = .75, .875, .4375; e = .25, .375, -.0625.
    @chex.variants(with_jit=True, without_jit=True, with_device=True, with_pmap=True)
    @parameterized.named_parameters(
        # 0      + (.25 - 0)      + .5*.25   + .25*(.25)                   = .4375
        # .4375  + (.375 - .25)   + .5*.375  + .25*(.375 - .5 + 0)         = .71875
        # .71875 + (-.0625 -.375) - .5*.0625 + .25*(-.0625 - .75 + .25)    = .109375
        ("incremental", "incremental", [0.4375, 0.71875, 0.109375]),
        # I = .125, .3125, .28125; lambda = .25 + .125 + .25*.25 = .4375;
        # .375 + .3125 + .25*.125 = .71875; -.0625 + .28125 + 0 (the cost fell) = .21875
        ("positional", "positional", [0.4375, 0.71875, 0.21875]),
    )
    def test_matches_hand_values(self, form, expected):
        settings = gains(form=form)
        update = self.variant(pid.update)
        state = pid.init(settings)
        for cost, want in zip([1.0, 1.0, 0.0], expected, strict=True):
            if "pmap" in self.id():  # the pmap variant broadcasts array leaves only
                settings = jax.tree.map(jnp.float32, settings)
            state = update(settings, state, jnp.array([cost]))
            chex.assert_trees_all_close(state.lambdas, jnp.array([want]), atol=1e-7)
        # The last of the hand-worked values of J~, e and the error before.
        chex.assert_trees_all_close(state[1:4], tuple(jnp.array([x]) for x in (0.4375, -0.0625, 0.375)))


class ProportionalSmoothingTest(chex.TestCase):
    # J~ and e as above; the integral sees .5, .5, -.5.
    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.named_parameters(
        # 0      + .25    + .5*.5 + .25*.25                     = .5625
        # .5625  + .125   + .5*.5 + .25*(.375 - .5)             = .90625
        # .90625 - .4375  - .5*.5 + .25*(-.0625 - .75 + .25)    = .078125
        ("incremental", "incremental", [0.5625, 0.90625, 0.078125]),
        # I = .25, .5, .25; .25 + .25 + .25*.25; .375 + .5 + .25*.125; -.0625 + .25.
        ("positional", "positional", [0.5625, 0.90625, 0.1875]),
    )
    def test_the_integral_sees_the_raw_error(self, form, expected):
        settings = gains(form=form, smoothing_of="proportional")
        _, lambdas = self.variant(pid.scan)(settings, pid.init(settings), jnp.array([[1.0], [1.0], [0.0]]))
        chex.assert_trees_all_close(lambdas[:, 0], jnp.array(expected), atol=1e-7)


@pytest.mark.parametrize("form", FORMS)
def test_held_for_two_batches_it_moves_by_their_mean(form):
    """The cost of the second constraint is not known in the third batch, so that it moves a batch later."""
    costs = np.float32([[1.0, 0.75], [0.5, 0.25], [0.25, np.nan], [0.75, 1.0], [1.0, 0.5], [0.0, 0.25]])
    means = np.float32([[0.75, 0.5], [0.5, 0.75], [0.5, np.nan]])
    plain, held = gains(form=form, target=[0.25, 0.25]), gains(form=form, target=[0.25, 0.25], every=2)
    _, expected = pid.scan(plain, pid.init(plain, 0.1), means)
    last, lambdas = jax.jit(pid.scan)(held, pid.init(held, 0.1), costs)
    first = [0.1, *expected[:, 0]]
    np.testing.assert_allclose(lambdas[:, 0], np.repeat(first, 2)[1:7], rtol=1e-6)
    second = [0.1, expected[0, 1], expected[0, 1], expected[0, 1], expected[1, 1], expected[1, 1]]
    np.testing.assert_allclose(lambdas[:, 1], second, rtol=1e-6)
    assert len(set(lambdas[:, 0].tolist())) == 4 and last.pending_batches.tolist() == [0, 1]
    assert last.smoothed_cost.tolist() == [0.5, 0.5625]  # from .25: .5, .5, .5; and .375, .5625
    whole, _ = pid.scan(held, pid.scan(held, pid.init(held, 0.1), costs[:3])[0], costs[3:])
    chex.assert_trees_all_equal(whole, last)


def test_a_state_of_another_number_of_batches_is_refused():
    with pytest.raises(ValueError, match="state: expected that of init for every=2, got a PIDState"):
        pid.update(gains(every=2), pid.init(gains()), jnp.ones(1))
    with pytest.raises(ValueError, match="state: expected that of init for every=1, got a HeldState"):
        pid.update(gains(), pid.init(gains(every=3)), jnp.ones(1))


def test_initial_state():
    state = pid.init(gains(target=[0.3, 0.1]), initial_lambda=0.7)
    want = ([0.7, 0.7], [0.3, 0.1], [0, 0], [0, 0], [0.7, 0.7])
    chex.assert_trees_all_equal(state, pid.PIDState(*map(jnp.float32, want)))


@pytest.mark.parametrize("form", FORMS)
def test_a_cost_on_target_holds_the_initial_multiplier(form):
    settings = gains(form=form)
    state = pid.update(settings, pid.init(settings, 0.7), jnp.array([0.5]))
    chex.assert_trees_all_close(state.lambdas, jnp.array([0.7]))


@pytest.mark.parametrize("form", FORMS)
def test_stays_within_bounds(form):
    settings = gains(form=form, ki=2.0, lambda_max=1.5)
    _, high = pid.scan(settings, pid.init(settings), jnp.ones((20, 1)))
    _, low = pid.scan(settings, pid.init(settings, 1.0), jnp.zeros((20, 1)))
    assert high.max() == high[-1] == 1.5 and high.min() >= 0
    assert low.min() == low[-1] == 0 and low.max() <= 1.5


@pytest.mark.parametrize("form", FORMS)
def test_does_not_wind_up(form):
    # A hundred batches of overspending must not take more than a few thrifty ones to undo.
    settings = gains(form=form, kp=0.0, kd=0.0, smoothing=1.0, lambda_max=2.0)
    full, _ = pid.scan(settings, pid.init(settings), jnp.ones((100, 1)))
    assert full.lambdas == 2.0
    # Each thrifty batch takes ki * (0 - .5) = .25 off.
    _, lambdas = pid.scan(settings, full, jnp.zeros((8, 1)))
    chex.assert_trees_all_close(lambdas[:, 0], jnp.arange(7, -1, -1) * 0.25)
    # And below: a hundred thrifty batches are no credit.
    empty, _ = pid.scan(settings, pid.init(settings), jnp.zeros((100, 1)))
    chex.assert_trees_all_close(pid.update(settings, empty, jnp.ones(1)).lambdas, jnp.array([0.25]))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_non_finite_cost_moves_nothing_but_its_own_component_is_spared(form, bad):
    settings = gains(form=form, target=[0.5, 0.5])
    state = pid.update(settings, pid.init(settings), jnp.array([1.0, 1.0]))
    after = pid.update(settings, state, jnp.array([bad, 1.0]))
    moved = pid.update(settings, state, jnp.array([1.0, 1.0]))
    for name in pid.PIDState._fields:
        old, new, want = getattr(state, name), getattr(after, name), getattr(moved, name)
        assert new[0] == old[0] and new[1] == want[1], name
    assert moved.lambdas[0] != state.lambdas[0]


def test_gradient_passes_a_non_finite_cost():
    def total(smoothing, cost):
        settings = gains(target=[0.5, 0.5], smoothing=smoothing)
        return pid.update(settings, pid.init(settings), cost).lambdas.sum()

    # lambda = (kp + ki + kd) * a * (cost - target) for the second constraint; the first does not move.
    got = jax.grad(total, argnums=(0, 1))(0.5, jnp.array([jnp.nan, 1.0]))
    chex.assert_trees_all_close(got, (jnp.float32(0.875), jnp.array([0, 0.875])))


COSTS = np.random.default_rng(0).uniform(0, 1, (40, 3)).astype(np.float32)
COSTS[[3, 17], [0, 2]] = np.nan


@pytest.mark.parametrize("form", FORMS)
def test_scan_is_a_loop_of_updates_and_the_reference(form):
    settings = gains(form=form, target=(0.3, 0.5, 0.6), lambda_max=1.0)
    first = state = pid.init(settings, 0.2)
    loop = []
    for cost in COSTS:
        state = pid.update(settings, state, cost)
        loop.append(state.lambdas)
    last, lambdas = jax.jit(pid.scan)(settings, first, COSTS)
    chex.assert_trees_all_close((last, lambdas), (state, jnp.stack(loop)), atol=1e-6)
    for c, target in enumerate((0.3, 0.5, 0.6)):
        one = dataclasses.replace(settings, target=target)
        np.testing.assert_allclose(lambdas[:, c], reference(one, 0.2, COSTS[:, c]), atol=1e-5)
    # The bounds were felt, or the reference has proved less than it seems.
    assert lambdas.min() == 0 and lambdas.max() == 1


@pytest.mark.parametrize("form", FORMS)
def test_resumed_is_uninterrupted(form):
    settings = gains(form=form, target=(0.3, 0.5, 0.6))
    whole, _ = pid.scan(settings, pid.init(settings), COSTS)
    half, _ = pid.scan(settings, pid.init(settings), COSTS[:20])
    saved = pid.PIDState(*map(np.asarray, half))
    chex.assert_trees_all_equal(pid.scan(settings, saved, COSTS[20:])[0], whole)


@pytest.mark.parametrize("form", FORMS)
def test_closed_loop_reaches_the_target(form):
    # A plant where dearer vouchers are given less: rate = .8 - .2 lambda, so that lambda = 2.5 meets a target of .3.
    settings = gains(form=form, target=0.3, kp=0.5, kd=0.1, smoothing=0.7)
    step = jax.jit(pid.update)
    state = pid.init(settings)
    for _ in range(200):
        state = step(settings, state, jnp.clip(0.8 - 0.2 * state.lambdas, 0, 1))
    chex.assert_trees_all_close((state.lambdas, state.smoothed_cost), (jnp.array([2.5]), jnp.array([0.3])), atol=1e-3)


def test_vmap_sweeps_gains():
    def last(ki):
        settings = gains(ki=ki)
        return pid.scan(settings, pid.init(settings), COSTS[:3, 1:2])[0].lambdas

    sweep = jnp.array([0.0, 0.5, 1.0])
    chex.assert_trees_all_close(jax.vmap(last)(sweep), jnp.stack([last(float(ki)) for ki in sweep]), atol=1e-6)


def test_the_state_can_be_donated():
    settings = gains()
    step = jax.jit(functools.partial(pid.update, settings), donate_argnums=0)
    assert step(pid.init(settings, 0.7), jnp.array([1.0])).lambdas > 0.7


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"form": "velocity"}, "form: expected one of .*incremental.*positional.*got 'velocity'"),
        ({"smoothing_of": "integral"}, "smoothing_of: expected one of .*both.*proportional.*got 'integral'"),
        ({"every": 0}, "every: expected a whole number of 1 or more, got 0"),
        ({"every": 2.0}, "every: expected a whole number of 1 or more, got 2.0"),
        ({"smoothing": 0.0}, "smoothing: expected 0 < smoothing <= 1"),
        ({"smoothing": 1.1}, "smoothing: expected 0 < smoothing <= 1"),
        ({"lambda_max": 0.0}, "lambda_max: expected a finite number > 0"),
        ({"lambda_max": np.inf}, "lambda_max: expected a finite number > 0"),
        ({"target": [0.3, np.nan]}, "target: expected a finite number"),
        ({"ki": -0.1}, "ki: expected a finite number >= 0"),
        ({"target": [0.3, 0.3], "kp": [1.0, 1.0, 1.0]}, r"one length C.*'kp': \(3,\)"),
        ({"target": [[0.3]]}, r"scalars or \[C\].*'target': \(1, 1\)"),
    ],
)
def test_refuses_settings_that_cannot_work(changes, message):
    with pytest.raises(ValueError, match=message):
        pid.init(gains(**changes))


@pytest.mark.parametrize("initial", [-0.1, 5.1])
def test_refuses_an_initial_multiplier_out_of_bounds(initial):
    with pytest.raises(ValueError, match="0 <= initial_lambda <= lambda_max"):
        pid.init(gains(), initial)


def test_refuses_a_cost_of_another_shape():
    with pytest.raises(AssertionError):
        pid.update(gains(), pid.init(gains()), jnp.zeros(2))


def test_the_ends_of_the_range_are_in_it_and_gains_stay_as_they_are():
    assert [float(pid.init(gains(), end).lambdas[0]) for end in (0.0, 5.0)] == [0.0, 5.0]
    with pytest.raises(dataclasses.FrozenInstanceError):
        gains().kp = 2.0
