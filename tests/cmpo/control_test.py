"""The controller in a closed loop: on a simulated plant with delay and noise, and as the augmented Lagrangian.

The plant is a policy that gives vouchers at a rate. Each step moves its logit by what a voucher is worth more than its
price; the worth falls as the rate grows. The rate that the controller sees is counted over a batch.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cmpo import pid

FORMS = ("incremental", "positional")
TARGET, FIRST_LAMBDA, SEEDS = 0.3, 1.0, 64
WORTH, FALL, PACE = 2.0, 1.2, 0.5  # of a voucher at a rate of 0, by rate, and of the logit a step


class Response(NamedTuple):
    """Of the noiseless rate, in a step from 0.6 to TARGET; steps count from the first."""

    overshoot: float  # how far it fell below the target
    settled: int  # the step after the last one in which it was 0.03 from where it ended, or more
    error: float  # how far it ended from the target


move = jax.jit(pid.update)


def run_plant(steps=400, *, noise=0, delay=1, seeds=1, **gains):
    """Runs the loop; returns rates and lambdas, [steps, seeds]. `noise`: dialogues of a batch; 0: none."""
    defaults = {"kp": 0.0, "ki": 0.0, "kd": 0.0, "smoothing": 0.7, "lambda_max": 5.0}
    settings = pid.PIDGains(**defaults | {"target": np.full(seeds, TARGET)} | gains)
    state, rng = pid.init(settings, FIRST_LAMBDA), np.random.default_rng(0)
    logit = np.full(seeds, np.log(0.6 / 0.4))
    prices, rates = [np.full(seeds, FIRST_LAMBDA)] * delay, []
    for _ in range(steps):
        rates.append(1 / (1 + np.exp(-logit)))
        counted = rng.binomial(noise, rates[-1]) / noise if noise else rates[-1]
        state = move(settings, state, jnp.asarray(counted, jnp.float32))
        prices.append(np.asarray(state.lambdas, float))
        logit = logit + PACE * (WORTH - FALL * rates[-1] - prices[-1 - delay])
    return np.array(rates), np.array(prices[delay:])


def measure(**settings):
    rates = run_plant(**settings)[0][:, 0]
    away = np.flatnonzero(np.abs(rates - rates[-1]) >= 0.03)
    settled = int(away[-1]) + 1 if len(away) else 0
    return Response(max(0, TARGET - rates.min()), settled, rates[-1] - TARGET)


@pytest.mark.parametrize("form", FORMS)
def test_p_leaves_an_error_and_the_integral_removes_it(form):
    """Without an integral lambda is its first value plus kp e, in both forms."""
    p = measure(kp=2.0, form=form)
    # WORTH - FALL r = 1 + 2 (r - TARGET)
    rate = (WORTH - FIRST_LAMBDA + 2 * TARGET) / (2 + FALL)
    assert p.error == pytest.approx(rate - TARGET, abs=1e-4) and p.error > 0.15
    for kp, kd in ((0.0, 0.0), (2.0, 0.0), (2.0, 1.0)):
        assert abs(measure(kp=kp, ki=0.1, kd=kd, form=form).error) < 1e-3


@pytest.mark.parametrize("form", FORMS)
def test_the_proportional_part_damps_what_the_integral_swings(form):
    integral, both = (measure(kp=kp, ki=0.3, form=form) for kp in (0.0, 2.0))
    assert integral.overshoot > 0.1 and both.overshoot < 0.5 * integral.overshoot
    assert both.settled < 0.5 * integral.settled
    # Overdamped: no overshoot, and the slow way there takes longer.
    slow = measure(kp=4.0, ki=0.05, form=form)
    assert slow.overshoot < 0.02 and slow.settled > both.settled


@pytest.mark.parametrize("form", FORMS)
def test_delay_takes_the_damping_away(form):
    near, far = (measure(kp=2.0, ki=0.3, delay=delay, form=form) for delay in (1, 6))
    assert far.overshoot > near.overshoot + 0.05 and far.settled > 1.5 * near.settled


@pytest.mark.parametrize("form", FORMS)
def test_with_noise_the_mean_is_on_budget_and_every_gain_has_its_price(form):
    def run(**gains):
        rates, lambdas = run_plant(noise=48, seeds=SEEDS, ki=0.1, form=form, **gains)
        return rates[200:], np.diff(lambdas[200:], axis=0).std()

    calm, _ = run(kp=2.0)
    assert calm.mean() == pytest.approx(TARGET, abs=0.01)
    smooth = {"kp": 2.0, "smoothing": 0.2}
    settings = {
        "pi": {"kp": 2.0}, "strong": {"kp": 6.0}, "pid": {"kp": 2.0, "kd": 2.0}, "smooth": smooth,
        "raw": smooth | {"smoothing_of": "proportional"}, "held": {"kp": 2.0, "every": 4},
    }  # fmt: skip
    moves = {name: run(**gains)[1] for name, gains in settings.items()}
    assert moves["strong"] > 2 * moves["pi"] and moves["pid"] > 1.5 * moves["pi"]
    assert moves["smooth"] < moves["raw"] < moves["pi"]
    assert moves["held"] < 0.6 * moves["pi"]


@pytest.mark.parametrize("form", FORMS)
def test_what_the_rate_ends_at_hangs_on_the_noise_and_the_pace(form, monkeypatch):
    """The deviation over seeds: larger batches and a slower policy bring it down."""

    def deviate(noise, pace):
        monkeypatch.setattr(f"{__name__}.PACE", pace)
        return run_plant(600, noise=noise, seeds=SEEDS, kp=2.0, ki=0.2 * pace, form=form)[0][-1].std()

    assert deviate(192, 0.5) < 0.7 * deviate(48, 0.5)
    assert deviate(48, 0.05) < 0.6 * deviate(48, 0.5)


def test_incremental_without_kd_is_gradient_descent_ascent_on_the_augmented_lagrangian():
    """min (x - a)^2 / 2 with w x = d: L = f + mu c + kp c^2 / 2; ki is the step of the ascent in mu.

    lambda = mu + kp c(x), where the multiplier has seen the batch that the descent is made with (arXiv 2509.22500,
    2406.04558).
    """
    a, w, d, pace, kp, ki = np.array([2.0, -1.0]), np.array([1.0, 0.5]), 0.4, 0.1, 3.0, 0.7
    gains = pid.PIDGains(kp=kp, ki=ki, kd=0.0, target=d, smoothing=1.0, lambda_max=100.0)
    state, x, y, mu = pid.init(gains, 1.0), np.array([1.5, 0.0]), np.array([1.5, 0.0]), 1.0

    def augmented(y, mu):
        excess = w @ y - d
        return 0.5 * jnp.sum((y - a) ** 2) + mu * excess + 0.5 * kp * excess**2

    descend = jax.jit(jax.grad(augmented))
    found, expected = [], []
    for _ in range(60):
        state = pid.update(gains, state, jnp.float32([w @ x]))
        x = x - pace * ((x - a) + float(state.lambdas[0]) * w)
        mu = mu + ki * (w @ y - d)
        y = y - pace * np.asarray(descend(y, mu))
        found.append([*x, float(state.lambdas[0]) - kp * float(state.error[0])])
        expected.append([*y, mu])
    np.testing.assert_allclose(found, expected, atol=2e-4)
    assert abs(w @ x - d) < 1e-3 and abs(found[0][2] - found[-1][2]) > 0.1
    # What the constraint costs, the multiplier of the problem itself: (w a - d) / |w|^2.
    assert state.lambdas[0] == pytest.approx((w @ a - d) / (w @ w), abs=1e-3)


def test_the_first_lambda_of_the_incremental_form_is_a_multiplier_and_of_the_positional_form_an_integral():
    """From the same start both forms are the same until a bound is felt."""
    costs = np.random.default_rng(0).uniform(0.2, 0.5, (30, 1)).astype(np.float32)
    runs = []
    for form in FORMS:
        gains = pid.PIDGains(kp=1.0, ki=0.1, kd=0.0, target=0.3, smoothing=0.7, lambda_max=5.0, form=form)
        runs.append(functools.partial(pid.scan, gains)(pid.init(gains, 1.0), costs)[1])
    np.testing.assert_allclose(*runs, atol=1e-5)
