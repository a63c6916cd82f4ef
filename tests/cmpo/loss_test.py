"""The CMPO loss against hand values and NumPy, over devices, micro-batches, and with rubbish outside the mask."""

import functools

import chex
import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized
from jax.sharding import Mesh, PartitionSpec

from cmpo.advantage import hybrid_advantage
from cmpo.loss import cmpo_loss

# One row of five tokens; the last lies outside the mask and holds rubbish.
RATIO, HALF = np.float32([[1.5, 0.5, 1.5, 1.0, 1.0]]), np.log(0.5)
SAMPLED = np.float32([[-2.0, -2.0, -2.0, -2.0, np.nan]])
LOGPROBS = SAMPLED + np.log(RATIO)
REFERENCE = LOGPROBS + np.float32([[-HALF, HALF, 0, 0, np.inf]])
ADVANTAGES = np.float32([[1, -1, -1, 2, np.nan]])
MASK = np.array([[True, True, True, True, False]])
ARGS = (LOGPROBS, SAMPLED, REFERENCE, ADVANTAGES, MASK)


def numpy_loss(logprobs, sampled, reference, advantages, mask, low, high, kl_weight):
    """The docstring's formula in float64, and its slope in `logprobs`."""
    loss, slope = 0.0, np.zeros(mask.shape)
    for cell in zip(*np.nonzero(mask), strict=True):
        ratio = np.exp(float(logprobs[cell]) - float(sampled[cell]))
        advantage, x = float(advantages[cell]), float(reference[cell]) - float(logprobs[cell])
        bounded = ratio > 1 + high if advantage > 0 else ratio < 1 - low
        surrogate = min(max(ratio, 1 - low), 1 + high) * advantage if bounded else ratio * advantage
        loss += -surrogate + kl_weight * (np.exp(x) - x - 1)
        slope[cell] = -(0 if bounded else ratio * advantage) + kl_weight * (1 - np.exp(x))
    return loss / max(mask.sum(), 1), slope / max(mask.sum(), 1)


class HandValuesTest(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True, with_device=True, with_pmap=True)
    def test_matches_hand_values(self):
        def function(*args):
            loss = functools.partial(cmpo_loss, clip_low=0.2, clip_high=0.3, kl_weight=0.1)
            return jax.value_and_grad(loss, has_aux=True)(*args)

        (loss, metrics), gradient = self.variant(function)(*ARGS)
        # r A against clip(r, .8, 1.3) A: min(1.5, 1.3), min(-.5, -.8), min(-1.5, -1.3), min(2, 2)
        # = 1.3, -.8, -1.5, 2; their mean is .25.
        # KL with exp(x) = 2, .5, 1, 1: 2 - .6931472 - 1, .5 + .6931472 - 1, 0, 0; mean .5 / 4 = .125.
        want = {
            "policy_loss": -0.25,
            "kl": 0.125,
            "clip_fraction": 0.5,  # the first two tokens
            "ratio_mean": 1.125,
            "ratio_max": 1.5,
            "logprob_gap_max": -HALF,
        }
        chex.assert_trees_all_close(metrics, jax.tree.map(jnp.float32, want), atol=1e-6)
        chex.assert_trees_all_close(loss, jnp.float32(-0.2375), atol=1e-6)
        # Slopes in logprob: -r A unless clipped = 0, 0, 1.5, -2; of the KL 1 - exp(x) = -1, .5, 0, 0; over 4 tokens.
        slopes = jnp.float32([[-0.025, 0.0125, 0.375, -0.5, 0.0]])
        chex.assert_trees_all_close(gradient, slopes, atol=1e-6)

    @chex.variants(with_jit=True, without_jit=True, with_device=True, with_pmap=True)
    @parameterized.parameters(None, 7.0)
    def test_an_empty_mask_gives_zero(self, denominator):
        function = jax.value_and_grad(functools.partial(cmpo_loss, denominator=denominator), has_aux=True)
        rubbish = [np.full((2, 3), x, np.float32) for x in (np.nan, np.inf, -np.inf, np.nan)]
        result = self.variant(function)(*rubbish, np.zeros((2, 3), bool))
        chex.assert_trees_all_equal(result, jax.tree.map(jnp.zeros_like, result))

    @chex.variants(with_jit=True, without_jit=True, with_device=True, with_pmap=True)
    def test_half_precision_is_summed_in_single(self):
        # A mean over 300 tokens of 1: bfloat16 could not count past 256.
        ones = jnp.ones((1, 300), jnp.bfloat16)
        loss, _ = self.variant(functools.partial(cmpo_loss, kl_weight=0.0))(ones, ones, ones, ones, ones > 0)
        chex.assert_type(loss, jnp.float32)
        assert loss == -1


SHAPE = (3, 5)
small = hnp.arrays(np.float32, SHAPE, elements=st.floats(-1, 1, width=32))
ragged = hnp.arrays(np.int32, SHAPE[0], elements=st.integers(0, SHAPE[1])).map(
    lambda n: np.arange(SHAPE[1]) < n[:, None]
)
masks = st.one_of(ragged, hnp.arrays(bool, SHAPE))
value_and_grad = jax.jit(jax.value_and_grad(cmpo_loss, has_aux=True))


@hypothesis.settings(deadline=None, max_examples=50)
@hypothesis.given(small, small, small, small, masks, st.floats(0, 0.5), st.floats(0, 0.5), st.floats(0, 1))
def test_matches_numpy(logprobs, sampled, reference, advantages, mask, low, high, kl_weight):
    ratio = np.exp(logprobs.astype(float) - sampled)
    # On the bound itself the slope is one of two, and rounding picks.
    hypothesis.assume(np.abs(ratio[..., None] - [1 - low, 1 + high]).min() > 1e-5)
    want = numpy_loss(logprobs, sampled, reference, advantages, mask, low, high, kl_weight)
    for rubbish in (0, np.nan):
        args = [np.where(mask, x, np.float32(rubbish)) for x in (logprobs, sampled, reference, advantages)]
        options = {"clip_low": low, "clip_high": high, "kl_weight": kl_weight}
        (loss, _), gradient = value_and_grad(*args, mask, **options)
        np.testing.assert_allclose(loss, want[0], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(gradient, want[1], rtol=1e-5, atol=1e-5)
        assert np.all(gradient[~mask] == 0)


def test_only_logprobs_are_differentiated():
    gradients = jax.grad(lambda *floats: cmpo_loss(*floats, MASK)[0], argnums=(1, 2, 3))(*ARGS[:4])
    chex.assert_trees_all_equal(gradients, (jnp.zeros((1, 5)),) * 3)


def test_a_runaway_policy_is_seen():
    one = np.ones((1, 2), np.float32)
    loss, metrics = cmpo_loss(one * np.float32([[-1, 99]]), -one, -one, -one, one > 0)
    assert np.isposinf(loss) and np.isposinf(metrics["ratio_max"]) and metrics["logprob_gap_max"] == 100


# --- over devices ---

DEVICES, ROWS, TOKENS = 8, 16, 6
P = PartitionSpec


@functools.cache
def batch():
    """Features and `cmpo_loss`'s last four arrays: ragged, no token on the second device, rubbish outside the mask."""
    rng = np.random.default_rng(0)
    mask = np.arange(TOKENS) < rng.integers(0, TOKENS + 1, (ROWS, 1))
    mask[2:4] = False
    features, *data = rng.normal(scale=0.3, size=(4, ROWS, TOKENS)).astype(np.float32)
    return features, *(np.where(mask, x, np.float32(np.nan)) for x in data), mask


PARAMS = {"scale": np.float32(1.1), "bias": np.linspace(-0.1, 0.1, TOKENS, dtype=np.float32)}


def model_loss(params, data, **options):
    """The loss of a small model, whose parameters all devices share."""
    features, *rest = data
    return cmpo_loss(params["scale"] * features + params["bias"], *rest, **options)


def split(data):
    return jax.tree.map(lambda x: x.reshape(DEVICES, -1, *x.shape[1:]), data)


def first(tree):
    return jax.tree.map(lambda x: x[0], tree)


def mesh():
    return Mesh(np.array(jax.devices("cpu")[:DEVICES]), "data")


def shard_map(function, **options):
    return jax.jit(jax.shard_map(function, mesh=mesh(), in_specs=(P(), P("data")), out_specs=P(), **options))


def pmap(function, out_axes=0):
    devices = jax.devices("cpu")[:DEVICES]
    return jax.pmap(function, axis_name="data", in_axes=(None, 0), out_axes=out_axes, devices=devices)


def vmap(function):
    return jax.vmap(function, axis_name="data", in_axes=(None, 0))


over_devices = functools.partial(model_loss, axis_name="data")


def agree(result):
    """Asserts that `((loss, metrics), gradient)` is that of one device with the whole batch."""
    want = jax.jit(jax.value_and_grad(model_loss, has_aux=True))(PARAMS, batch())
    assert abs(want[0][0]) > 1e-3 and 0 < want[0][1]["clip_fraction"] < 1 and abs(want[1]["scale"]) > 1e-3
    chex.assert_trees_all_close(result, want, rtol=1e-5, atol=1e-6)


def test_there_are_eight_devices():
    assert len(jax.devices("cpu")) >= DEVICES


@pytest.mark.parametrize("check_vma", [True, False])
def test_gradient_outside_shard_map(check_vma):
    agree(jax.value_and_grad(shard_map(over_devices, check_vma=check_vma), has_aux=True)(PARAMS, batch()))


def test_gradient_outside_pmap():
    function = pmap(over_devices, out_axes=None)
    agree(jax.value_and_grad(function, has_aux=True)(PARAMS, split(batch())))


def test_gradient_outside_vmap():
    agree(jax.value_and_grad(lambda *args: first(vmap(over_devices)(*args)), has_aux=True)(PARAMS, split(batch())))


def gradient_inside(params, data, pmean):
    value, gradient = jax.value_and_grad(over_devices, has_aux=True)(params, data)
    return value, jax.lax.pmean(gradient, "data") if pmean else gradient


@pytest.mark.parametrize("pmean", [False, True])
def test_gradient_inside_shard_map(pmean):
    # Compiles with out_specs=P(): JAX itself has proved the result to be the same on all devices.
    agree(shard_map(functools.partial(gradient_inside, pmean=pmean))(PARAMS, batch()))


@pytest.mark.parametrize("mapped", [pmap, lambda f: jax.jit(vmap(f))], ids=["pmap", "vmap"])
def test_gradient_inside_pmap_and_vmap_needs_pmean(mapped):
    result = mapped(functools.partial(gradient_inside, pmean=True))(PARAMS, split(batch()))
    for device in range(DEVICES):
        agree(jax.tree.map(lambda x, d=device: x[d], result))
    bare = mapped(functools.partial(gradient_inside, pmean=False))(PARAMS, split(batch()))[1]
    # The second device has no tokens, so its own part is 0; the docstring's "n times its own part".
    assert bare["scale"][1] == 0
    chex.assert_trees_all_close(bare["scale"].mean(), first(result)[1]["scale"], rtol=1e-5)


def test_gradient_inside_unchecked_shard_map_needs_pmean():
    agree(shard_map(functools.partial(gradient_inside, pmean=True), check_vma=False)(PARAMS, batch()))


# --- micro-batches ---

MEANS = ("policy_loss", "kl", "clip_fraction", "ratio_mean")


@pytest.mark.parametrize("cuts", [(4, 12), (2, 4)])  # ragged parts; the second of (2, 4) has no token
def test_micro_batches_add_up_to_the_whole(cuts):
    function = jax.jit(jax.value_and_grad(model_loss, has_aux=True))
    (loss, metrics), gradient = function(PARAMS, batch())
    count = batch()[-1].sum()
    rows = np.split(np.arange(ROWS), cuts)
    parts = [function(PARAMS, tuple(x[r] for x in batch()), denominator=count) for r in rows]
    add = lambda *trees: jax.tree.map(lambda *xs: sum(xs), *trees)  # noqa: E731
    chex.assert_trees_all_close(add(*(p[0][0] for p in parts)), loss, rtol=1e-5)
    chex.assert_trees_all_close(add(*(p[1] for p in parts)), gradient, rtol=1e-5, atol=1e-6)
    for name, value in metrics.items():
        each = jnp.stack([p[0][1][name] for p in parts])
        chex.assert_trees_all_close(each.sum() if name in MEANS else each.max(), value, rtol=1e-5)


def test_micro_batches_on_devices_add_up_to_the_whole():
    count = batch()[-1].sum()

    def accumulate(params, data):
        """Each device goes through its two rows one at a time."""
        grad = jax.value_and_grad(functools.partial(over_devices, denominator=count), has_aux=True)
        parts = [grad(params, tuple(x[i : i + 1] for x in data)) for i in range(ROWS // DEVICES)]
        (loss, metrics), gradient = jax.tree.map(lambda *xs: sum(xs), *parts)
        for name in set(metrics) - set(MEANS):
            metrics[name] = jnp.maximum(*(p[0][1][name] for p in parts))
        return (loss, metrics), gradient

    agree(shard_map(accumulate)(PARAMS, batch()))


# --- GRPO ---


def test_lambda_zero_without_process_reward_is_grpo():
    rng = np.random.default_rng(2)
    groups, size, turns, length = 2, 4, 2, 6
    reward = rng.integers(0, 6, (groups, size)).astype(np.float32)
    logprobs, sampled, reference = rng.normal(-1, 0.4, (3, groups * size, length)).astype(np.float32)
    mask = rng.uniform(size=(groups * size, length)) < 0.7

    # GRPO, by itself: rewards standardised in their group, the same number on every token, token mean over the batch.
    standard = (reward - reward.mean(1, keepdims=True)) / (reward.std(1, keepdims=True) + 1e-6)
    per_token = np.repeat(standard.reshape(-1, 1), length, axis=1)
    ratio, x = np.exp(logprobs - sampled), reference - logprobs
    surrogate = np.minimum(ratio * per_token, np.clip(ratio, 0.8, 1.2) * per_token)
    grpo = (-surrogate + 0.005 * (np.exp(x) - x - 1))[mask].mean()

    process, cost = rng.uniform(size=(groups, size, turns)), rng.integers(0, 2, (groups, size, turns, 1))
    valid, lambdas = np.ones((groups, size, turns), bool), np.zeros(1, np.float32)
    function = jax.vmap(functools.partial(hybrid_advantage, process_weight=0.0), in_axes=(0, 0, 0, 0, None))
    per_turn = function(reward, process.astype(np.float32), cost.astype(np.float32), valid, lambdas)
    turn_of_token = np.arange(length) * turns // length
    advantages = per_turn.reshape(groups * size, turns)[:, turn_of_token]
    loss, _ = cmpo_loss(logprobs, sampled, reference, advantages, mask)
    np.testing.assert_allclose(loss, grpo, rtol=1e-5)


@pytest.mark.parametrize("position", range(5))
def test_refuses_wrong_shapes_and_types(position):
    for wrong in (ARGS[position][:, :1], np.zeros((1, 5), np.int32)):
        args = [*ARGS]
        args[position] = wrong
        with pytest.raises(AssertionError):
            cmpo_loss(*args)
    with pytest.raises(AssertionError):
        cmpo_loss(*ARGS, denominator=np.ones(3))
