"""PID-Lagrangian controller: moves the price of a cost until the cost meets its budget.

    state = init(gains)
    state = update(gains, state, cost)  # once a batch; state.lambdas is the price for the next one

Shapes: C constraints, K batches. Costs are rates (mean cost of a dialogue), multipliers are utility per unit of cost.
"""

import dataclasses
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

FORMS = ("incremental", "positional")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PIDGains:
    """What the controller is set to. Every number is a scalar or [C]; lists and tuples become arrays.

    A pytree: pass it to a jitted function or close over it, and `vmap` over gains to sweep them. `form` is its static
    part; changing it recompiles.

    Attributes:
      kp: proportional gain, lambda per unit of error.
      ki: integral gain, lambda per unit of error and batch.
      kd: derivative gain, lambda per unit of change of the error (incremental) or of rising cost (positional).
      target: [C] or scalar (one constraint), the budget d of each cost.
      smoothing: a in (0, 1], weight of the newest cost in the smoothed one; 1 does not smooth.
      lambda_max: upper bound of the multiplier (and, positional, of the integral).
      form: "incremental" (the paper) or "positional" (Stooke et al. 2020).

    Raises:
      ValueError: unknown form.
    """

    kp: chex.Numeric
    ki: chex.Numeric
    kd: chex.Numeric
    target: chex.Numeric
    smoothing: chex.Numeric
    lambda_max: chex.Numeric
    form: str = dataclasses.field(default="incremental", metadata={"static": True})

    def __post_init__(self):
        if self.form not in FORMS:
            raise ValueError(f"form: expected one of {FORMS}, got {self.form!r}")
        for name, value in vars(self).items():
            if isinstance(value, (list, tuple)):
                object.__setattr__(self, name, np.asarray(value, float))


class PIDState(NamedTuple):
    """What the controller remembers, all [C] float; checkpoint it with the policy.

    Attributes:
      lambdas: the multipliers in force.
      smoothed_cost: J~ of the latest batch.
      error: e of the latest batch, `smoothed_cost - target`.
      previous_error: e of the batch before it.
      integral: I of the positional form; the incremental form leaves it alone.
    """

    lambdas: chex.Array
    smoothed_cost: chex.Array
    error: chex.Array
    previous_error: chex.Array
    integral: chex.Array


def init(gains: PIDGains, initial_lambda: chex.Numeric = 0.0) -> PIDState:
    """State before the first batch: the smoothed cost starts at the target, earlier errors at 0.

    Args:
      gains: the settings. C is the length of the longest of them (1 if all are scalars).
      initial_lambda: scalar or [C], within [0, lambda_max]; the integral starts there too.

    Raises:
      ValueError: shapes that do not fit together, or a value out of range. Traced values (a sweep of gains under
        `vmap`, say) are not known yet and go unchecked.
    """
    numbers = {f.name: getattr(gains, f.name) for f in dataclasses.fields(gains) if f.name != "form"}
    numbers["initial_lambda"] = initial_lambda
    shape = _check(numbers)
    # One array each, never one shared by two fields: a donated buffer may appear only once.
    start = (initial_lambda, gains.target, 0, 0, initial_lambda)
    return PIDState(*(jnp.full(shape, value, float) for value in start))


def _check(numbers: dict[str, chex.Numeric]) -> tuple[int]:
    """Raises ValueError on settings that cannot work; returns their common shape, (C,)."""
    shapes = {name: jnp.shape(value) for name, value in numbers.items()}
    try:
        shape = np.broadcast_shapes((1,), *shapes.values())
    except ValueError as error:
        raise ValueError(f"expected scalars or [C] of one length C, got shapes {shapes}") from error
    if len(shape) != 1:
        raise ValueError(f"expected scalars or [C], got shapes {shapes}")

    known = {name: np.asarray(value) for name, value in numbers.items() if not isinstance(value, jax.core.Tracer)}
    lambda_max = known.get("lambda_max", np.inf)
    for name, value in known.items():
        fine, wanted = {
            "target": (True, "a finite number"),
            "smoothing": ((value > 0) & (value <= 1), "0 < smoothing <= 1"),
            "lambda_max": (value > 0, "a finite number > 0"),
            "initial_lambda": ((value >= 0) & (value <= lambda_max), "0 <= initial_lambda <= lambda_max"),
        }.get(name, (value >= 0, "a finite number >= 0"))
        if not np.all(np.isfinite(value) & fine):
            raise ValueError(f"{name}: expected {wanted}, got {value}")
    return shape


def update(gains: PIDGains, state: PIDState, cost: chex.Array) -> PIDState:
    """One step of the controller.

    With `J~ = (1 - a) J~_prev + a J` and `e = J~ - target`:

    - incremental: `lambda <- clip(lambda + K_P (e - e_1) + K_I e + K_D (e - 2 e_1 + e_2), 0, lambda_max)`;
    - positional: `I <- clip(I + K_I e, 0, lambda_max)`, the clip against windup, and
      `lambda <- clip(K_P e + I + K_D max(0, J~ - J~_prev), 0, lambda_max)`.

    Source: arXiv 2602.22697, the PID update of CMPO's multiplier (incremental); Stooke et al. 2020, "Responsive Safety
    in Reinforcement Learning by PID Lagrangian Methods" (positional).

    Args:
      gains: the settings the state was made with.
      state: the state after the batch before.
      cost: [C] float, mean cost of a dialogue in this batch. Where it is not finite (no dialogue succeeded) that
        constraint's state stays as it is; the others move.

    Returns:
      The next state.

    Raises:
      AssertionError: `cost` is not a [C] float.
    """
    chex.assert_type(cost, float)
    chex.assert_equal_shape([cost, state.lambdas])
    observed = jnp.isfinite(cost)
    cost = jnp.where(observed, cost, state.smoothed_cost)

    smoothed = (1 - gains.smoothing) * state.smoothed_cost + gains.smoothing * cost
    error = smoothed - gains.target
    if gains.form == "incremental":
        integral = state.integral
        slope, bend = error - state.error, error - 2 * state.error + state.previous_error
        lambdas = state.lambdas + gains.kp * slope + gains.ki * error + gains.kd * bend
    else:
        integral = jnp.clip(state.integral + gains.ki * error, 0, gains.lambda_max)
        lambdas = gains.kp * error + integral + gains.kd * jnp.maximum(0, smoothed - state.smoothed_cost)
    lambdas = jnp.clip(lambdas, 0, gains.lambda_max)
    moved = PIDState(lambdas, smoothed, error, state.error, integral)
    return jax.tree.map(lambda new, old: jnp.where(observed, new, old), moved, state)


def scan(gains: PIDGains, state: PIDState, costs: chex.Array) -> tuple[PIDState, chex.Array]:
    """Runs `update` over the costs of K batches, as one `jax.lax.scan`.

    Args:
      gains: the settings.
      state: the state before the first of them.
      costs: [K, C] float.

    Returns:
      The state after the last batch, and [K, C] multipliers: entry k is the one after `costs[k]`.
    """

    def step(state, cost):
        state = update(gains, state, cost)
        return state, state.lambdas

    return jax.lax.scan(step, state, costs)
