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
SMOOTHING_OF = ("both", "proportional")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PIDGains:
    """What the controller is set to. Every number is a scalar or [C]; lists and tuples become arrays.

    A pytree: pass it to a jitted function or close over it, and `vmap` over gains to sweep them. `form`, `every` and
    `smoothing_of` are its static part; changing it recompiles.

    Attributes:
      kp: proportional gain, lambda per unit of error.
      ki: integral gain, lambda per unit of error and batch.
      kd: derivative gain, lambda per unit of change of the error (incremental) or of rising cost (positional).
      target: [C] or scalar (one constraint), the budget d of each cost.
      smoothing: a in (0, 1], weight of the newest cost in the smoothed one; 1 does not smooth.
      lambda_max: upper bound of the multiplier (and, positional, of the integral).
      form: "incremental" (the paper) or "positional" (Stooke et al. 2020).
      every: batches for which the multiplier is held; then it moves by the mean of their costs.
      smoothing_of: "both" (the paper): every term sees the smoothed cost; "proportional": the integral sees the cost as
        it is, the proportional and the derivative term the smoothed one, as in Stooke et al.'s code and `omnisafe`'s.

    Raises:
      ValueError: unknown form or `smoothing_of`, or an `every` that is not a whole number of 1 or more.
    """

    kp: chex.Numeric
    ki: chex.Numeric
    kd: chex.Numeric
    target: chex.Numeric
    smoothing: chex.Numeric
    lambda_max: chex.Numeric
    form: str = dataclasses.field(default="incremental", metadata={"static": True})
    every: int = dataclasses.field(default=1, metadata={"static": True})
    smoothing_of: str = dataclasses.field(default="both", metadata={"static": True})

    def __post_init__(self):
        for name, known in (("form", FORMS), ("smoothing_of", SMOOTHING_OF)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}: expected one of {known}, got {getattr(self, name)!r}")
        if type(self.every) is not int or self.every < 1:
            raise ValueError(f"every: expected a whole number of 1 or more, got {self.every!r}")
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


class HeldState(NamedTuple):
    """What a controller remembers that holds its multipliers for several batches.

    Attributes:
      controller: as it was after the latest move.
      pending_cost: [C] float, sum of the costs that were observed since then.
      pending_batches: [C] float, how many they are.
    """

    controller: PIDState
    pending_cost: chex.Array
    pending_batches: chex.Array

    @property
    def lambdas(self) -> chex.Array:
        """The multipliers in force, [C]."""
        return self.controller.lambdas

    @property
    def smoothed_cost(self) -> chex.Array:
        """J~ of the latest move, [C]."""
        return self.controller.smoothed_cost


ControllerState = PIDState | HeldState


def init(gains: PIDGains, initial_lambda: chex.Numeric = 0.0) -> ControllerState:
    """State before the first batch: the smoothed cost starts at the target, earlier errors at 0.

    It is a `PIDState`, or a `HeldState` where `gains.every` is more than 1.

    Args:
      gains: the settings. C is the length of the longest of them (1 if all are scalars).
      initial_lambda: scalar or [C], within [0, lambda_max]; the integral starts there too.

    Raises:
      ValueError: shapes that do not fit together, or a value out of range. Traced values (a sweep of gains under
        `vmap`, say) are not known yet and go unchecked.
    """
    numbers = {f.name: getattr(gains, f.name) for f in dataclasses.fields(gains) if not f.metadata.get("static")}
    numbers["initial_lambda"] = initial_lambda
    shape = _check(numbers)
    # One array each, never one shared by two fields: a donated buffer may appear only once.
    start = (initial_lambda, gains.target, 0, 0, initial_lambda)
    state = PIDState(*(jnp.full(shape, value, float) for value in start))
    return state if gains.every == 1 else HeldState(state, *(jnp.zeros(shape) for _ in range(2)))


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


def update(gains: PIDGains, state: ControllerState, cost: chex.Array) -> ControllerState:
    """One step of the controller.

    With `J~ = (1 - a) J~_prev + a J` and `e = J~ - target`:

    - incremental: `lambda <- clip(lambda + K_P (e - e_1) + K_I e + K_D (e - 2 e_1 + e_2), 0, lambda_max)`;
    - positional: `I <- clip(I + K_I e, 0, lambda_max)`, the clip against windup, and
      `lambda <- clip(K_P e + I + K_D max(0, J~ - J~_prev), 0, lambda_max)`.

    With `smoothing_of` "proportional", `K_I` multiplies `J - target` instead. With `every` n, J is the mean of the n
    latest batches in which the cost was observed; after the others only what is pending moves.

    Source: arXiv 2602.22697, the PID update of CMPO's multiplier (incremental); Stooke et al. 2020, "Responsive Safety
    in Reinforcement Learning by PID Lagrangian Methods", arXiv 2007.03964 (positional). `every` is not in them.

    Args:
      gains: the settings the state was made with.
      state: the state after the batch before.
      cost: [C] float, mean cost of a dialogue in this batch. Where it is not finite (no dialogue succeeded) that
        constraint's state stays as it is; the others move.

    Returns:
      The next state.

    Raises:
      AssertionError: `cost` is not a [C] float.
      ValueError: a state that `init` made for another `every`.
    """
    chex.assert_type(cost, float)
    chex.assert_equal_shape([cost, state.lambdas])
    if isinstance(state, HeldState) != (gains.every > 1):
        raise ValueError(f"state: expected that of init for every={gains.every}, got a {type(state).__name__}")
    observed = jnp.isfinite(cost)
    if gains.every == 1:
        return _select(observed, _move(gains, state, jnp.where(observed, cost, state.smoothed_cost)), state)
    before, *pending = state
    cost, batches = pending[0] + jnp.where(observed, cost, 0), pending[1] + observed
    due = batches >= gains.every
    moved = _select(due, _move(gains, before, cost / jnp.maximum(batches, 1)), before)
    return HeldState(moved, *(jnp.where(due, 0, x) for x in (cost, batches)))


def _select(wanted: chex.Array, new: PIDState, old: PIDState) -> PIDState:
    """`new` for the constraints that are `wanted`, [C] bool, `old` for the others."""
    return jax.tree.map(lambda new, old: jnp.where(wanted, new, old), new, old)


def _move(gains: PIDGains, state: PIDState, cost: chex.Array) -> PIDState:
    """`update` by finite costs [C], each of which moves its multiplier."""
    smoothed = (1 - gains.smoothing) * state.smoothed_cost + gains.smoothing * cost
    error = smoothed - gains.target
    summed = error if gains.smoothing_of == "both" else cost - gains.target
    if gains.form == "incremental":
        integral = state.integral
        slope, bend = error - state.error, error - 2 * state.error + state.previous_error
        lambdas = state.lambdas + gains.kp * slope + gains.ki * summed + gains.kd * bend
    else:
        integral = jnp.clip(state.integral + gains.ki * summed, 0, gains.lambda_max)
        lambdas = gains.kp * error + integral + gains.kd * jnp.maximum(0, smoothed - state.smoothed_cost)
    lambdas = jnp.clip(lambdas, 0, gains.lambda_max)
    return PIDState(lambdas, smoothed, error, state.error, integral)


def scan(gains: PIDGains, state: ControllerState, costs: chex.Array) -> tuple[ControllerState, chex.Array]:
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
