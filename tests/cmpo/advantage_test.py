"""The hybrid advantage against hand values, a NumPy reference, GRPO, and rubbish outside the mask."""

import functools
import itertools

import chex
import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized

from cmpo.advantage import CREDIT, compute_effective_prices, compute_variances, hybrid_advantage
from cmpo.advantage import NORMALIZE as ALL

# Two dialogues, the second ends after one turn. The cell outside the mask is rubbish on purpose.
OUTCOME = np.array([4.0, 2.0], np.float32)
PROCESS = np.array([[0.5, 1.0], [0.0, np.nan]], np.float32)
COST = np.array([[[0.0], [1.0]], [[0.0], [np.inf]]], np.float32)
MASK = np.array([[True, True], [True, False]])
LAMBDAS = np.array([2.0], np.float32)
ARGS = (OUTCOME, PROCESS, COST, MASK, LAMBDAS)

NORMALIZE = tuple(name for name in ALL if name not in ("scaled", "batch"))  # those that a group alone is enough for

FORMS = [form for form in itertools.product(NORMALIZE, CREDIT) if form != ("trajectory", "dialogue")]

jitted = jax.jit(hybrid_advantage, static_argnames=("normalize", "credit"))


def reference(outcome, process, cost, mask, lambdas, *, w_o, w_p, normalize, credit, discount, eps):
    """The docstring's formulas, turn by turn, in float64."""
    if normalize == "decoupled":
        apart = {"normalize": "group", "credit": credit, "discount": discount, "eps": eps}
        result = reference(outcome, process, cost, mask, 0 * lambdas, w_o=w_o, w_p=w_p, **apart)
        for lam, one in zip(lambdas, np.eye(len(lambdas)), strict=True):  # of a price of 1 alone: minus the cost
            result += float(lam) * reference(outcome, process, cost, mask, one, w_o=0.0, w_p=0.0, **apart)
        return result
    groups, utility, once = [], {}, credit == "dialogue"
    for i in range(len(outcome)):
        valid = [t for t in range(mask.shape[1]) if mask[i, t]]
        price = {t: sum(float(lam) * float(c) for lam, c in zip(lambdas, cost[i, t], strict=True)) for t in valid}
        for t in valid:
            if once:
                worth = w_o * float(outcome[i]) - sum(price.values())
                scores = [w_p * float(process[i, s]) for s in valid]
                utility[i, t] = worth + (np.mean(scores) if worth > 0 else 0)
                continue
            ahead = [s for s in valid if s >= t]
            judged = ahead if credit == "return_to_go" else [t]
            charged = [t] if credit == "instant" else ahead
            utility[i, t] = w_o * float(outcome[i])
            utility[i, t] += sum(discount ** (s - t) * w_p * float(process[i, s]) for s in judged)
            utility[i, t] -= sum(discount ** (s - t) * price[s] for s in charged)
        groups.append([(i, t) for t in valid])
    if normalize in ("group", "center"):
        groups = [sum(groups, [])]
    elif normalize == "turn":
        groups = [[cell for cell in sum(groups, []) if cell[1] == t] for t in range(mask.shape[1])]
    result = np.zeros(mask.shape)
    for cells in groups:
        values = list({i: utility[i, t] for i, t in cells}.values()) if once else [utility[cell] for cell in cells]
        for cell in cells:
            result[cell] = utility[cell]
            if normalize != "none":
                spread = 1 if normalize == "center" else np.std(values) + eps
                result[cell] = (utility[cell] - np.mean(values)) / spread
    return result


class HandValuesTest(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True, with_device=True, with_pmap=True)
    @parameterized.named_parameters(
        # u = outcome + process - 2 cost: 4+.5, 4+1-2; 2.
        ("instant", "none", "instant", [[4.5, 3.0], [2.0, 0.0]]),
        # 4.5, 3, 2 have mean 19/6; away from it by 8/6, -1/6, -7/6; variance (64+1+49)/36/3 = 19/18, std 1.0274023.
        ("instant_group", "group", "instant", [[1.2977714, -0.1622214], [-1.1355499, 0.0]]),
        ("instant_center", "center", "instant", [[8 / 6, -1 / 6], [-7 / 6, 0.0]]),
        # 4.5, 3 have mean 3.75 and std .75; one turn alone has std 0.
        ("instant_trajectory", "trajectory", "instant", [[1.0, -1.0], [0.0, 0.0]]),
        # First turns: 4.5, 2 have mean 3.25 and std 1.25; the second turn is alone.
        ("instant_turn", "turn", "instant", [[1.0, 0.0], [-1.0, 0.0]]),
        # Gained: 4.5, 5, 2, mean 23/6, variance (16 + 49 + 121)/36/3 = 1.7222, std 1.3123346. Cost: 0, 1, 0, mean 1/3,
        # std sqrt(2)/3. (4/6)/1.3123346 + 2*.7071068; (7/6)/1.3123346 - 2*1.4142136; -(11/6)/1.3123346 + 2*.7071068.
        ("instant_decoupled", "decoupled", "instant", [[1.9222141, -1.9394262], [0.0172121, 0.0]]),
        # Gained: 4 + .75; 2, and cost: 1; 0, both one std from their mean. 1 - 2; -1 + 2.
        ("dialogue_decoupled", "decoupled", "dialogue", [[-1.0, -1.0], [1.0, 0.0]]),
        # u = 2.75, 2; and 2.75 alone.
        ("dialogue_turn", "turn", "dialogue", [[1.0, 0.0], [-1.0, 0.0]]),
        # Price to go, halved per turn: 1, 2; 0. Outcome and process: 4.5, 5; 2.
        ("cost_to_go", "none", "cost_to_go", [[3.5, 3.0], [2.0, 0.0]]),
        # Process minus price: .5, -1; 0. To go, halved per turn: .5 - .5, -1; 0. Plus outcome: 4, 3; 2.
        ("to_go", "none", "return_to_go", [[4.0, 3.0], [2.0, 0.0]]),
        # 4, 3, 2 have mean 3 and std sqrt(2/3).
        ("to_go_group", "group", "return_to_go", [[1.2247449, 0.0], [-1.2247449, 0.0]]),
        # 4 - 2 + (.5 + 1) / 2; 2. Mean 2.375, both .375 away.
        ("dialogue", "none", "dialogue", [[2.75, 2.75], [2.0, 0.0]]),
        ("dialogue_group", "group", "dialogue", [[1.0, 1.0], [-1.0, 0.0]]),
        ("dialogue_center", "center", "dialogue", [[0.375, 0.375], [-0.375, 0.0]]),
    )
    def test_matches_hand_values(self, normalize, credit, expected):
        function = self.variant(
            functools.partial(hybrid_advantage, normalize=normalize, credit=credit, discount=0.5, eps=0.0)
        )
        chex.assert_trees_all_close(np.asarray(function(*ARGS)), np.float32(expected), atol=1e-6)

    def test_weights_and_several_constraints(self):
        # 3*4 + 2*.5 - (2*1 + .5*4) = 9.
        result = hybrid_advantage(
            np.float32([4]),
            np.float32([[0.5]]),
            np.float32([[[1, 4]]]),
            np.array([[True]]),
            np.float32([2, 0.5]),
            outcome_weight=3.0,
            process_weight=2.0,
            normalize="none",
        )
        assert result == 9.0

    def test_quality_counts_only_where_a_dialogue_is_worth_its_price(self):
        # 4 - 5 = -1: no process score; 2 - 0 = 2, and 0.
        result = hybrid_advantage(*ARGS[:-1], np.float32([5]), normalize="none", credit="dialogue")
        chex.assert_trees_all_close(result, jnp.array([[-1.0, -1.0], [2.0, 0.0]]))

    def test_what_comes_later_counts_in_full_unless_a_discount_is_given(self):
        # Price to go: 2, 2; 0. Outcome and process: 4.5, 5; 2.
        result = hybrid_advantage(*ARGS, normalize="none", credit="cost_to_go")
        chex.assert_trees_all_close(result, jnp.array([[2.5, 3.0], [2.0, 0.0]]))
        # Process minus price: .5, -1; 0. To go: -.5, -1; 0. Plus outcome: 3.5, 3; 2.
        result = hybrid_advantage(*ARGS, normalize="none", credit="return_to_go")
        chex.assert_trees_all_close(result, jnp.array([[3.5, 3.0], [2.0, 0.0]]))

    def test_eps_is_added_to_the_standard_deviation(self):
        # Utilities 4 and 2: mean 3, std 1; 1 / (1 + 1).
        result = hybrid_advantage(OUTCOME, np.zeros((2, 1), np.float32), COST[:, :1], MASK[:, :1], LAMBDAS, eps=1.0)
        chex.assert_trees_all_close(result, jnp.array([[0.5], [-0.5]]))


# Quarters add up exactly in float32, so that equal utilities stay equal.
def quarters(low, high):
    return st.integers(low * 4, high * 4).map(lambda n: n / 4)


@st.composite
def groups(draw, g=3, n=4, c=2):
    lengths = draw(hnp.arrays(np.int32, g, elements=st.integers(0, n)))
    holes = draw(hnp.arrays(bool, (g, n)))
    mask = (np.arange(n) < lengths[:, None]) & ~holes if draw(st.booleans()) else np.arange(n) < lengths[:, None]
    array = lambda shape, low, high: draw(hnp.arrays(np.float32, shape, elements=quarters(low, high)))  # noqa: E731
    return array(g, 0, 5), array((g, n), 0, 1), array((g, n, c), 0, 2), mask, array(c, 0, 5)


@pytest.mark.parametrize(("normalize", "credit"), FORMS)
@hypothesis.settings(deadline=None, max_examples=50)
@hypothesis.given(inputs=groups(), w_o=quarters(0, 2), w_p=quarters(0, 2), discount=st.sampled_from([0.0, 0.5, 1.0]))
def test_matches_numpy_reference(normalize, credit, inputs, w_o, w_p, discount):
    options = {"normalize": normalize, "credit": credit, "discount": discount, "eps": 1e-3}
    expected = reference(*inputs, w_o=w_o, w_p=w_p, **options)
    outcome, process, cost, mask, lambdas = inputs
    rubbish = (
        np.where(mask.any(1), outcome, np.nan),
        np.where(mask, process, np.inf),
        np.where(mask[..., None], cost, np.nan),
        mask,
        lambdas,
    )
    for given in (inputs, rubbish):
        result = np.asarray(jitted(*given, outcome_weight=w_o, process_weight=w_p, **options))
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)
        assert np.all(result[~mask] == 0)


def many_groups(seed, b=5, g=4, n=3, c=2):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, n + 1, (b, g, 1))
    return (
        rng.uniform(0, 5, (b, g)).astype(np.float32),
        rng.uniform(0, 1, (b, g, n)).astype(np.float32),
        rng.integers(0, 2, (b, g, n, c)).astype(np.float32),
        np.arange(n) < lengths,
        rng.uniform(0, 5, c).astype(np.float32),
    )


@pytest.mark.parametrize("normalize", NORMALIZE)
def test_vmap_over_groups_equals_a_loop(normalize):
    *arrays, lambdas = many_groups(0)
    function = functools.partial(jitted, normalize=normalize, credit="return_to_go", discount=0.9)
    mapped = jax.vmap(function, in_axes=(0, 0, 0, 0, None))(*arrays, lambdas)
    chex.assert_shape(mapped, (5, 4, 3))
    for one, group in zip(mapped, zip(*arrays, strict=True), strict=True):
        chex.assert_trees_all_close(one, function(*group, lambdas), atol=1e-5)


@pytest.mark.parametrize(("normalize", "credit"), FORMS)
def test_gradients_see_nothing_outside_the_mask(normalize, credit):
    outcome = np.float32([4, np.nan, 3])  # the second dialogue failed
    process = np.float32([[0.5, np.nan], [np.nan, np.inf], [0.25, 0.75]])
    mask = np.array([[True, False], [False, False], [True, True]])
    cost = np.where(mask, 1, np.nan).astype(np.float32)[..., None]

    def total(outcome, process, cost, lambdas, w_o, w_p):
        options = {"outcome_weight": w_o, "process_weight": w_p, "normalize": normalize, "credit": credit}
        return jnp.sum(jitted(outcome, process, cost, mask, lambdas, **options) * jnp.arange(1.0, 7.0).reshape(3, 2))

    gradient = jax.grad(total, argnums=range(6))
    got = gradient(outcome, process, cost, LAMBDAS, 1.0, 1.0)
    clean = np.float32([4, 0, 3]), np.where(mask, process, 0), np.where(mask[..., None], cost, 0)
    want = gradient(*clean, LAMBDAS, 1.0, 1.0)
    chex.assert_tree_all_finite(got)
    chex.assert_trees_all_close(got, want, rtol=1e-5)
    assert np.all(got[1][~mask] == 0) and np.all(got[2][~mask] == 0) and got[0][1] == 0
    alone = normalize in ("trajectory", "turn")  # two turns alone are 1 and -1, whatever they hold
    assert alone or np.any(got[1][mask] != 0)


@pytest.mark.parametrize("normalize", [form for form in NORMALIZE if form != "none"])
def test_no_valid_turn_gives_zeros(normalize):
    nan = np.full((2, 2), np.nan, np.float32)
    result = hybrid_advantage(nan[0], nan, nan[..., None], nan == 0, LAMBDAS, normalize=normalize)
    chex.assert_trees_all_equal(result, jnp.zeros((2, 2)))
    zero = np.zeros((2, 2), np.float32)
    with jax.debug_nans(True):  # nor does a NaN appear on the way
        hybrid_advantage(zero[0], zero, zero[..., None], zero > 0, LAMBDAS, normalize=normalize)


@pytest.mark.parametrize("normalize", [form for form in NORMALIZE if form != "none"])
def test_equal_utilities_give_exact_zeros_and_finite_gradients(normalize):
    # The float32 mean of equal numbers may miss them: the rounding error must not be divided by itself.
    mask, zero = np.ones((1, 7), bool), np.zeros((1, 7), np.float32)
    function = jax.vmap(lambda outcome: jitted(outcome, zero, zero[..., None], mask, LAMBDAS, normalize=normalize))
    outcomes = np.linspace(0, 5, 50, dtype=np.float32)[:, None]
    chex.assert_trees_all_equal(function(outcomes), jnp.zeros((50, 1, 7)))
    chex.assert_tree_all_finite(jax.grad(lambda o: function(o)[..., 0].sum())(outcomes))


def test_without_process_and_cost_it_is_grpo():
    rng = np.random.default_rng(1)
    rewards = rng.integers(0, 6, 8).astype(np.float32)
    # GRPO: each sample's reward, standardised over the group, on all of its tokens.
    grpo = (rewards - rewards.mean()) / (rewards.std() + 1e-6)
    process, cost = rng.uniform(size=(8, 3)).astype(np.float32), np.ones((8, 3, 1), np.float32)
    lengths = rng.integers(1, 4, (8, 1))
    for credit, mask in (("instant", process >= 0), ("dialogue", np.arange(3) < lengths)):
        result = hybrid_advantage(
            rewards, process, cost, mask, np.zeros(1, np.float32), process_weight=0.0, credit=credit
        )
        np.testing.assert_allclose(result, np.where(mask, grpo[:, None], 0), rtol=1e-5)


@pytest.mark.parametrize("compute", [hybrid_advantage, compute_effective_prices])
def test_refuses_what_it_does_not_know(compute):
    known = "'group', 'trajectory', 'turn', 'decoupled', 'scaled', 'batch', 'center', 'none'.*'whiten'"
    with pytest.raises(ValueError, match=known):
        compute(*ARGS, normalize="whiten")
    with pytest.raises(ValueError, match="price_scale: expected one of .*'one_plus_lambda'.*got 'lambda'"):
        compute(*ARGS, price_scale="lambda")
    with pytest.raises(ValueError, match=r"spreads: expected deviations \[1 \+ C\] where normalize is 'scaled'"):
        compute(*ARGS, normalize="scaled")
    with pytest.raises(
        ValueError, match="groups_axis: expected the name of the mapped axis where normalize is 'batch'"
    ):
        compute(*ARGS, normalize="batch")
    with pytest.raises(ValueError, match="'instant', 'cost_to_go'.*'gae'"):
        compute(*ARGS, credit="gae")
    with pytest.raises(ValueError, match="normalize: expected another than 'trajectory' where credit is 'dialogue'"):
        compute(*ARGS, normalize="trajectory", credit="dialogue")


@pytest.mark.parametrize(
    "position, wrong",
    [(0, OUTCOME[:1]), (1, PROCESS[:, :1]), (2, COST[:, :, 0]), (3, MASK.astype(np.float32)), (4, np.ones(2))],
)
def test_refuses_wrong_shapes_and_types(position, wrong):
    args = [*ARGS]
    args[position] = wrong
    with pytest.raises(AssertionError):
        hybrid_advantage(*args)


@pytest.mark.parametrize(
    ("normalize", "expected"),
    [
        ("group", 2 / np.std([4.5, 3.0, 2.0])),
        ("trajectory", 2 / np.std([4.5, 3.0])),
        ("turn", 2 / np.std([4.5, 2.0])),
        ("decoupled", 2 / np.std([0.0, 1.0, 0.0])),
        ("center", 2.0),
        ("none", 2.0),
    ],
)
def test_the_effective_price_is_the_multiplier_by_the_spread(normalize, expected):
    """The second dialogue has one turn, which differs from nothing of its own."""
    np.testing.assert_allclose(compute_effective_prices(*ARGS, normalize=normalize), [expected], rtol=1e-5)


def test_a_group_in_which_all_are_equal_has_no_effective_price_and_eps_counts():
    assert compute_effective_prices(*ARGS, eps=1.0) == pytest.approx([2 / (np.std([4.5, 3.0, 2.0]) + 1)])
    alike = (np.ones(2, np.float32), *(np.zeros_like(x) for x in (PROCESS, COST)), MASK, LAMBDAS)
    for normalize in ("group", "turn", "decoupled"):
        assert np.isnan(compute_effective_prices(*alike, normalize=normalize)).all()


def test_decoupled_more_lambda_weighs_more_and_a_cost_that_does_not_vary_adds_nothing():
    """With "group" the advantage of what costs stops at a bound, however high lambda is."""
    gaps = {}
    for normalize in ("decoupled", "group"):
        found = [hybrid_advantage(*ARGS[:-1], np.float32([lam]), normalize=normalize) for lam in (10, 100)]
        gaps[normalize] = [float(one[0, 0] - one[0, 1]) for one in found]
    assert gaps["decoupled"][1] > 9 * gaps["decoupled"][0] and gaps["group"][1] < 1.1 * gaps["group"][0]
    same = np.ones_like(COST)
    dear, free = (
        hybrid_advantage(OUTCOME, PROCESS, same, MASK, np.float32([lam]), normalize="decoupled") for lam in (3, 0)
    )
    chex.assert_trees_all_close(dear, free)


SPREADS = np.float32([2.0, 0.5])


def test_scaled_by_hand():
    """Gained: 4.5, 5, 2 with mean 23/6; cost: 0, 1, 0 with mean 1/3."""
    result = hybrid_advantage(*ARGS, normalize="scaled", spreads=SPREADS, eps=0.0)
    expected = [[4 / 12 + 4 / 3, 7 / 12 - 8 / 3], [-11 / 12 + 4 / 3, 0]]
    np.testing.assert_allclose(result, expected, rtol=1e-6)
    again = hybrid_advantage(*ARGS, normalize="scaled", spreads=SPREADS - 1 / 4, eps=1 / 4)
    np.testing.assert_allclose(again, expected, rtol=1e-6)


@pytest.mark.parametrize("credit", CREDIT)
def test_scaled_by_the_deviations_of_one_group_is_decoupled(credit):
    outcome, process, cost, mask, lambdas = (x[0] if x.ndim > 1 else x for x in many_groups(3, b=1, g=8, n=5))
    variances = compute_variances(outcome[None], process[None], cost[None], mask[None], credit=credit, discount=0.9)
    assert np.all(variances > 0)
    options = {"credit": credit, "discount": 0.9}
    scaled, decoupled = (
        hybrid_advantage(
            outcome, process, cost, mask, lambdas, normalize=normalize, spreads=np.sqrt(variances), **options
        )
        for normalize in ("scaled", "decoupled")
    )
    chex.assert_trees_all_close(scaled, decoupled, atol=1e-4)


@pytest.mark.parametrize("credit", CREDIT)
def test_variances_are_those_within_groups(credit):
    """Of three groups, the last of which has no valid turn; rubbish outside the mask."""
    outcome, process, cost, mask, lambdas = many_groups(4, b=3)
    mask[2] = False
    options = {"credit": credit, "discount": 0.5}
    squares, counts = np.zeros(3), 0
    for i in range(2):
        counted = mask[i] & (np.cumsum(mask[i], axis=1) == 1) if credit == "dialogue" else mask[i]
        counts += counted.sum()
        for number, one in enumerate([0 * lambdas, *np.eye(2, dtype=np.float32)]):
            weights = {"w_o": 1.5, "w_p": 0.5} if number == 0 else {"w_o": 0.0, "w_p": 0.0}
            centred = reference(
                outcome[i], process[i], cost[i], mask[i], one, normalize="center", eps=0, **weights, **options
            )
            squares[number] += np.square(centred)[counted].sum()
    outcome, process = np.where(mask.any(2), outcome, np.nan), np.where(mask, process, np.inf)
    rubbish = outcome, process, np.where(mask[..., None], cost, np.nan)
    found = compute_variances(*rubbish, mask, outcome_weight=1.5, process_weight=0.5, **options)
    np.testing.assert_allclose(found, squares / counts, rtol=1e-4)
    assert np.isnan(compute_variances(*rubbish, mask & False, **options)).all()


def compare_batch(function, arrays, lambdas, **options):
    mapped = functools.partial(function, lambdas=lambdas, normalize="batch", groups_axis="b", **options)
    return jax.jit(jax.vmap(lambda *group: mapped(*group), axis_name="b"))(*arrays)


def test_batch_by_hand():
    """Utilities 4.5, 3, 2 and 1.5 of two groups: mean 2.75, variance (49 + 1 + 9 + 25) / 16 / 4."""
    other = (np.float32([1, np.nan]), np.float32([[0.5, 9], [9, 9]]), np.zeros_like(COST))
    arrays = [np.stack(pair) for pair in zip(ARGS[:3], other, strict=True)]
    mask = np.stack([MASK, [[True, False], [False, False]]])
    result = compare_batch(hybrid_advantage, [*arrays, mask], LAMBDAS, eps=0.0)
    std = np.sqrt(84 / 64)
    np.testing.assert_allclose(result, np.array([[[1.75, 0.25], [-0.75, 0]], [[-1.25, 0], [0, 0]]]) / std, rtol=1e-6)
    prices = compare_batch(compute_effective_prices, [*arrays, mask], LAMBDAS)
    np.testing.assert_allclose(prices, [[2 / std], [2 / std]], rtol=1e-5)
    alike = compare_batch(hybrid_advantage, [*(np.ones_like(x) for x in arrays), mask], LAMBDAS)
    chex.assert_trees_all_equal(alike, jnp.zeros((2, 2, 2)))


@pytest.mark.parametrize("credit", CREDIT)
def test_a_batch_is_one_large_group(credit):
    *arrays, lambdas = many_groups(5)
    found = compare_batch(hybrid_advantage, arrays, lambdas, credit=credit, discount=0.9)
    merged = [x.reshape(-1, *x.shape[2:]) for x in arrays]
    expected = hybrid_advantage(*merged, lambdas, normalize="group", credit=credit, discount=0.9)
    chex.assert_trees_all_close(found, expected.reshape(found.shape), atol=1e-5)

    def value_first_group(outcome):
        return jnp.sum(compare_batch(hybrid_advantage, [outcome, *arrays[1:]], lambdas, credit=credit)[0])

    assert np.any(jax.grad(value_first_group)(arrays[0])[1:] != 0)  # it hangs on the other groups, too


@pytest.mark.parametrize("normalize", ALL)
def test_one_plus_lambda_divides_the_advantage_and_the_effective_price(normalize):
    *arrays, lambdas = many_groups(6, b=2)
    spreads = np.float32([2.0, 0.5, 0.25])
    for function in (hybrid_advantage, compute_effective_prices):
        apply = functools.partial(function, lambdas=lambdas, normalize=normalize, spreads=spreads, groups_axis="b")
        plain, divided = (
            jax.vmap(functools.partial(apply, price_scale=scale), axis_name="b")(*arrays)
            for scale in ("none", "one_plus_lambda")
        )
        chex.assert_trees_all_close(divided * (1 + lambdas.sum()), plain, rtol=1e-5)
    assert np.nansum(np.abs(plain)) > 0


def test_the_effective_price_of_scaled_is_that_of_its_spread():
    prices = compute_effective_prices(*ARGS, normalize="scaled", spreads=SPREADS, eps=0.5)
    np.testing.assert_allclose(prices, [2.0 / (0.5 + 0.5)])
