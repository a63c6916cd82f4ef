"""Hybrid advantage: what one turn of one dialogue was worth, compared with its group.

Shapes: G dialogues of one scenario (the group), N turns (padded), C constraints.
"""

from typing import Any

import chex
import jax
import jax.numpy as jnp

_NORMALIZE_AXES = {
    "group": (0, 1),
    "trajectory": (1,),
    "turn": (0,),
    "decoupled": (0, 1),
    "scaled": (0, 1),
    "batch": (0, 1),
    "center": (0, 1),
    "none": None,
}
NORMALIZE = tuple(_NORMALIZE_AXES)
PRICE_SCALES = ("none", "one_plus_lambda")
CREDIT = ("instant", "cost_to_go", "return_to_go", "dialogue")


def hybrid_advantage(
    outcome: chex.Array,
    process: chex.Array,
    cost: chex.Array,
    turn_mask: chex.Array,
    lambdas: chex.Array,
    *,
    outcome_weight: float = 1.0,
    process_weight: float = 1.0,
    normalize: str = "group",
    credit: str = "instant",
    discount: float = 1.0,
    eps: float = 1e-6,
    price_scale: str = "none",
    spreads: chex.Array | None = None,
    groups_axis: str | None = None,
) -> chex.Array:
    """Advantage of every turn of one group; `jax.vmap` for many groups.

    The utility `u` of turn t of dialogue i is, with credit

    - "instant" (the paper): `w_O R_O[i] + w_P R_P[i,t] - lambda . c[i,t]`;
    - "cost_to_go": `w_O R_O[i] + w_P R_P[i,t] - sum_{s>=t} discount^(s-t) lambda . c[i,s]` over the valid turns s, so
      that a turn also answers for the cost it provokes later: who offers a voucher, for the one that is given;
    - "return_to_go": `w_O R_O[i] + sum_{s>=t} discount^(s-t) (w_P R_P[i,s] - lambda . c[i,s])`: for what the judge says
      later, too. The outcome is not discounted;
    - "dialogue" (the authors' code): `r[i] = w_O R_O[i] - sum_s lambda . c[i,s]`, and where that is above 0, `w_P`
      times the mean of `R_P[i,s]` on top: the same for all turns of a dialogue, which counts once in its group.

    The advantage is `(u - mean) / (std + eps)`, population standard deviation, over all valid turns of the group
    ("group"), of the dialogue ("trajectory") or with the same number in the group ("turn"); `u - mean` over those of
    the group ("center"); or `u` itself ("none"). "decoupled" normalises over the group what is gained and each cost
    apart, `z(u at lambda 0) - sum_k lambda_k z(c_k)`, with `z` as "group" has it and `c_k` as the credit charges it:
    more lambda then weighs more, whatever the spread. A cost that does not vary in the group adds nothing.
    "scaled" is the same with `spreads` in the place of the group's deviations: those of many batches
    (`cmpo.spreads`), so that a group counts for what it is worth, as with "center", and lambda is in deviations of the
    cost. "batch" is `(u - mean) / (std + eps)` over all valid turns of all groups under the `jax.vmap` whose axis is
    called `groups_axis`: dialogues are compared with those of other scenarios, too.

    With `price_scale` "one_plus_lambda" the advantage is multiplied by `1 / (1 + sum_k lambda_k)`: for "center" and
    "none" it then mixes what is gained and what it costs with weights that add up to 1, and its size does not grow
    with lambda.

    With "instant" credit "trajectory" is blind to the outcome, which is the same in all turns of a dialogue.
    Where all valid utilities are equal it is 0, but for "none". Divided by their spread, groups in which little is at
    stake count as much as those in which much is; "center" lets each count for what it is worth.
    A long dialogue so weighs more in its group's mean, but with "dialogue" credit; with that, or with one turn per
    dialogue (or equally many), process weight 0 and lambda 0 this is GRPO's advantage.

    Masked turns give exactly 0 and influence nothing, whatever they hold (NaN and inf included), in values and in
    gradients. A dialogue that failed is a row of `turn_mask` that is all False; its outcome may be NaN.

    Source: arXiv 2602.22697, the hybrid advantage of CMPO (outcome and process reward minus the multiplier times the
    turn's cost, normalised). The paper normalises per trajectory; "center" is that of Liu et al. 2025 (Dr. GRPO);
    "decoupled" is what GDPO does with rewards (arXiv 2601.05242) before it whitens the batch; "batch" is what PPO does
    (Andrychowicz et al. 2021, arXiv 2006.05990); "scaled" has the running deviation of reward scaling (Engstrom et al.
    2020, arXiv 2005.12729); "one_plus_lambda" is that of Stooke et al. 2020 (arXiv 2007.03964). "turn",
    `cost_to_go` and `return_to_go` are in none of them.

    Args:
      outcome: [G] float, user satisfaction at the end of each dialogue, 1..5 (0 when it ran out of turns).
      process: [G, N] float, the judge's score of each turn, 0..1.
      cost: [G, N, C] float, cost of each turn under each constraint (of a rate: 1 for the costly action, else 0).
      turn_mask: [G, N] bool, True for turns that took place and count.
      lambdas: [C] float, the multipliers, in utility per unit of cost.
      outcome_weight: w_O.
      process_weight: w_P (1 here; the authors' code uses 2).
      normalize: "group", "trajectory", "turn", "decoupled", "scaled", "batch", "center" or "none".
      credit: "instant", "cost_to_go", "return_to_go" or "dialogue".
      discount: per turn, 0..1; used by "cost_to_go" and "return_to_go".
      eps: added to the standard deviation.
      price_scale: "none" or "one_plus_lambda".
      spreads: [1 + C] float, for "scaled": standard deviations of what is gained and of each cost.
      groups_axis: for "batch": the name of the mapped axis of groups.

    Returns:
      [G, N] advantages, in standard deviations (in units of utility for "center" and "none"), dtype of the inputs.

    Raises:
      ValueError: unknown `normalize`, `credit` or `price_scale`; "trajectory" with "dialogue", which has nothing to
        compare; "scaled" without `spreads`, or "batch" without `groups_axis`.
      AssertionError: ranks, types or shapes do not match.
    """
    _check_arguments(normalize, credit, price_scale, spreads, groups_axis)
    chex.assert_rank([outcome, process, cost, turn_mask, lambdas], [1, 2, 3, 2, 1])
    chex.assert_type([outcome, process, cost, turn_mask, lambdas], [float, float, float, bool, float])
    chex.assert_equal_shape([process, turn_mask])
    chex.assert_shape(cost, (*process.shape, *lambdas.shape))
    chex.assert_shape(outcome, process.shape[:1])

    # Cleaned before any arithmetic: a NaN that met a product would come back through the gradient of `where`.
    outcome = jnp.where(turn_mask, jnp.expand_dims(outcome, 1), 0)
    process = jnp.where(turn_mask, process, 0)
    cost = jnp.where(jnp.expand_dims(turn_mask, 2), cost, 0)

    # Products are summed elementwise: a `dot` may run in reduced precision on an accelerator, and these are tiny.
    outcome, process = outcome_weight * outcome, process_weight * process
    over = groups_axis if normalize == "batch" else None
    if normalize in ("decoupled", "scaled"):
        parts = _divide_utility(outcome, process, cost, turn_mask, credit, discount)
        found = [_compare(part, turn_mask, credit, normalize) for part in parts]
        divisors = [std for _, std in found] if normalize == "decoupled" else spreads
        worth = found[0][0] / (divisors[0] + eps)
        for number, (centred, _) in enumerate(found[1:]):
            worth = worth - lambdas[number] * centred / (divisors[number + 1] + eps)
    else:
        price = jnp.sum(cost * lambdas, axis=-1)
        worth = _value_turns(outcome, process, price, turn_mask, credit, discount)
        if normalize != "none":
            worth, std = _compare(worth, turn_mask, credit, normalize, over)
            worth = worth if normalize == "center" else worth / (std + eps)
    return worth if price_scale == "none" else worth / (1 + jnp.sum(lambdas))


def compute_effective_prices(
    outcome: chex.Array,
    process: chex.Array,
    cost: chex.Array,
    turn_mask: chex.Array,
    lambdas: chex.Array,
    *,
    normalize: str = "group",
    credit: str = "instant",
    eps: float = 1e-6,
    price_scale: str = "none",
    spreads: chex.Array | None = None,
    groups_axis: str | None = None,
    **options: Any,
) -> chex.Array:
    """Computes what a unit of each cost takes off a turn's advantage in one group, [C].

    That is `lambda / (std(u) + eps)` where utilities are divided by their spread. It differs from group to group, and a
    higher lambda widens the spread that it is divided by (arXiv 2602.05863). For "trajectory" it is the mean over the
    dialogues whose utilities differ, for "turn" over such numbers of turns; for "decoupled" and "scaled" lambda by the
    spread of the cost, which lambda does not widen; for "center" and "none", lambda itself. NaN where all utilities, or
    costs, are equal. All of it by `1 + sum_k lambda_k` where `price_scale` says so.

    Arguments and errors are those of `hybrid_advantage`, whose other options are `options`.
    """
    _check_arguments(normalize, credit, price_scale, spreads, groups_axis)
    utility = hybrid_advantage(outcome, process, cost, turn_mask, lambdas, normalize="none", credit=credit, **options)
    scaled = lambdas if price_scale == "none" else lambdas / (1 + jnp.sum(lambdas))
    if normalize in ("center", "none"):
        return scaled
    if normalize == "scaled":
        return scaled / (spreads[1:] + eps)
    over = groups_axis if normalize == "batch" else None

    def invert_spread(values: chex.Array) -> chex.Array:
        centred, std = _compare(values, turn_mask, credit, normalize, over)
        differ = _add_up(centred != 0, _NORMALIZE_AXES[normalize], over) > 0
        return jnp.mean(1 / (std + eps), where=differ)

    if normalize == "decoupled":
        cost = jnp.where(jnp.expand_dims(turn_mask, 2), cost, 0)
        charged = _charge_costs(cost, turn_mask, credit, options.get("discount", 1.0))
        return scaled * jnp.stack([invert_spread(one) for one in charged])
    return scaled * invert_spread(utility)


def compute_variances(
    outcome: chex.Array,
    process: chex.Array,
    cost: chex.Array,
    turn_mask: chex.Array,
    *,
    outcome_weight: float = 1.0,
    process_weight: float = 1.0,
    credit: str = "instant",
    discount: float = 1.0,
) -> chex.Array:
    """Computes how far turns are from the mean of their group, in what is gained and in each cost, over a batch.

    Args:
      outcome, process, cost, turn_mask: of B groups, [B, G, ...]; otherwise as those of `hybrid_advantage`.
      outcome_weight, process_weight, credit, discount: as there.

    Returns:
      [1 + C] mean squares over all valid turns (with "dialogue" credit, over dialogues); NaN without any.
    """
    outcome = jnp.where(turn_mask, outcome_weight * jnp.expand_dims(outcome, 2), 0)
    process = jnp.where(turn_mask, process_weight * process, 0)
    cost = jnp.where(jnp.expand_dims(turn_mask, 3), cost, 0)

    def compare_group(outcome, process, cost, mask):
        parts = _divide_utility(outcome, process, cost, mask, credit, discount)
        found = [_compare(part, mask, credit, "group")[0] for part in parts]
        counted = _choose_counted(mask, credit, "group")
        return jnp.stack([jnp.sum(jnp.square(one), where=counted) for one in found]), jnp.sum(counted)

    squares, counts = jax.vmap(compare_group)(outcome, process, cost, turn_mask)
    return jnp.sum(squares, axis=0) / jnp.sum(counts)


def check_forms(normalize: str, credit: str, price_scale: str = "none") -> None:
    """Raises ValueError for an unknown form, and for a `normalize` and `credit` that leave nothing to compare."""
    if normalize not in NORMALIZE:
        raise ValueError(f"normalize: expected one of {NORMALIZE}, got {normalize!r}")
    if credit not in CREDIT:
        raise ValueError(f"credit: expected one of {CREDIT}, got {credit!r}")
    if (normalize, credit) == ("trajectory", "dialogue"):
        raise ValueError("normalize: expected another than 'trajectory' where credit is 'dialogue': all would be 0")
    if price_scale not in PRICE_SCALES:
        raise ValueError(f"price_scale: expected one of {PRICE_SCALES}, got {price_scale!r}")


def _check_arguments(
    normalize: str, credit: str, price_scale: str, spreads: chex.Array | None, groups_axis: str | None
) -> None:
    check_forms(normalize, credit, price_scale)
    if normalize == "scaled" and spreads is None:
        raise ValueError("spreads: expected deviations [1 + C] where normalize is 'scaled', got None")
    if normalize == "batch" and groups_axis is None:
        raise ValueError("groups_axis: expected the name of the mapped axis where normalize is 'batch', got None")


def compares_dialogues(normalize: str) -> bool:
    """Whether turns are compared with those of other dialogues of the group, so that a group needs several."""
    return normalize != "batch" and 0 in (_NORMALIZE_AXES.get(normalize) or ())


def _value_turns(
    outcome: chex.Array, process: chex.Array, price: chex.Array, mask: chex.Array, credit: str, discount: float
) -> chex.Array:
    """Utility of every turn, [G, N], before it is compared with others; `price` is [G, N], all is weighed and clean."""
    if credit == "dialogue":
        return _value_dialogues(outcome, process, price, mask)
    if credit == "cost_to_go":
        price = _return_to_go(price, discount)
    reward = process - price
    if credit == "return_to_go":
        reward = _return_to_go(reward, discount)
    return jnp.where(mask, outcome + reward, 0)


def _charge_costs(cost: chex.Array, mask: chex.Array, credit: str, discount: float) -> list[chex.Array]:
    """What every turn is charged of each of the C costs at a price of 1, [G, N] each."""
    zero = jnp.zeros_like(cost[..., 0])
    return [-_value_turns(zero, zero, cost[..., number], mask, credit, discount) for number in range(cost.shape[-1])]


def _divide_utility(
    outcome: chex.Array, process: chex.Array, cost: chex.Array, mask: chex.Array, credit: str, discount: float
) -> list[chex.Array]:
    """What every turn gains and what it is charged of each cost at a price of 1, 1 + C arrays [G, N]."""
    gained = _value_turns(outcome, process, jnp.zeros_like(process), mask, credit, discount)
    return [gained, *_charge_costs(cost, mask, credit, discount)]


def _return_to_go(value: chex.Array, discount: float) -> chex.Array:
    """Discounted sum over this turn and all later ones, [G, N] -> [G, N]."""
    turns = jnp.arange(value.shape[1])
    ahead = turns[None, :] - turns[:, None]
    weight = jnp.where(ahead >= 0, jnp.asarray(discount, value.dtype) ** jnp.maximum(ahead, 0), 0)
    return jnp.sum(weight * value[:, None, :], axis=-1)


def _value_dialogues(outcome: chex.Array, process: chex.Array, price: chex.Array, mask: chex.Array) -> chex.Array:
    """Utility of whole dialogues in each of their turns, [G, N]: of what is given a turn, the outcome in each."""
    turns = jnp.maximum(jnp.sum(mask, axis=1, keepdims=True), 1)
    worth = outcome - jnp.sum(price, axis=1, keepdims=True)
    quality = jnp.sum(process, axis=1, keepdims=True) / turns
    return jnp.where(mask, worth + jnp.where(worth > 0, quality, 0), 0)


def _compare(
    values: chex.Array, mask: chex.Array, credit: str, normalize: str, over: str | None = None
) -> tuple[chex.Array, chex.Array]:
    """`_centre` of values [G, N] along the axes of `normalize`, and over a mapped axis of groups if one is named."""
    return _centre(values, mask, _choose_counted(mask, credit, normalize), _NORMALIZE_AXES[normalize], over)


def _choose_counted(mask: chex.Array, credit: str, normalize: str) -> chex.Array:
    """Which turns count in a mean, [G, N] bool: all that are valid, but of whole dialogues each counts once."""
    once = credit == "dialogue" and normalize != "turn"
    return mask & (jnp.cumsum(mask, axis=1) == 1) if once else mask


def _centre(
    utility: chex.Array, mask: chex.Array, counted: chex.Array, axes: tuple[int, ...], over: str | None
) -> tuple[chex.Array, chex.Array]:
    """`u - mean` of those `counted` along `axes`, 0 where masked out or all equal, and their standard deviation."""
    # Measured from the largest utility, which changes nothing in exact arithmetic. In float32 the mean of equal
    # numbers can miss them by a rounding error as large as eps, and dividing by it would turn noise into advantages.
    pivot = jax.lax.stop_gradient(jnp.max(utility, axes, keepdims=True, where=mask, initial=-jnp.inf))
    pivot = pivot if over is None else jax.lax.pmax(pivot, over)
    utility = jnp.where(mask, utility - pivot, 0)
    count = jnp.maximum(_add_up(counted, axes, over), 1)
    mean = _add_up(utility, axes, over, where=counted) / count
    centred = jnp.where(mask, utility - mean, 0)
    variance = _add_up(jnp.square(centred), axes, over, where=counted) / count
    # Equal utilities are centred to exact zeros; any std will do for them, save 0, where sqrt has no finite slope.
    return centred, jnp.sqrt(jnp.where(variance > 0, variance, 1))


def _add_up(
    values: chex.Array, axes: tuple[int, ...], over: str | None, *, where: chex.Array | None = None
) -> chex.Array:
    """The sum along `axes`, which stay as axes of 1, and over the mapped axis that `over` names, if any."""
    total = jnp.sum(values, axes, keepdims=True, where=where)
    return total if over is None else jax.lax.psum(total, over)
