"""The updates: the same whatever the packing, the micro-batch and the number of devices."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cmpo import pid
from cmpo.algorithms.algorithm import Head, Rows, Signals
from cmpo.algorithms.clipped import clipped_loss
from cmpo.algorithms.optimizers import make_optimizer
from cmpo.algorithms.sft import imitation_loss, sft_loss
from cmpo.distributed import sharding
from cmpo.loss import cmpo_loss
from cmpo.run import train_state
from cmpo.training import packing, update_step
from models import qwen2, value_head

CONFIG = qwen2.Qwen2Config(
    vocab_size=32, hidden_size=16, intermediate_size=24, num_layers=2, num_heads=4, num_kv_heads=2, max_positions=64
)
TEMPERATURE = 0.7
SGD = optax.sgd(1.0)  # the change of the parameters is the gradient
GAINS = pid.PIDGains(kp=0.1, ki=0.1, kd=0.0, target=0.3, smoothing=1.0, lambda_max=5.0)


def streams(seed, count=10):
    rng = np.random.default_rng(seed)
    for number in range(count):
        size = int(rng.integers(4, 16))
        mask = rng.random(size) < 0.5
        mask[0], mask[-1] = False, True
        tokens = rng.integers(0, 32, size).astype(np.int32)
        yield packing.Stream(
            # Of 32 tokens, each has a log-probability of about -3.5: ratios are 0.6 to 1.5, beyond both clips.
            tokens,
            mask,
            np.where(mask, -3.0 - 0.1 * number, 0.0).astype(np.float32),
            np.where(mask, number, 0).astype(np.int32),
        )


def fresh_state():
    return train_state.begin_run(qwen2.init(CONFIG, jax.random.key(3)), SGD, seed=3)


def mesh_of(data, fsdp=1, tensor=1):
    return sharding.make_mesh(data, fsdp, tensor, devices=jax.devices()[: data * fsdp * tensor])


def grouped(seed):
    """Ten streams in groups of 4, 1, 3 and 2; the first and the third group share 9 and 5 tokens, the last none."""
    parts, common = list(streams(seed)), np.random.default_rng(seed).integers(0, 32, 9).astype(np.int32)
    for group, shared, members in ((0, 9, range(4)), (1, 9, range(4, 5)), (2, 5, range(5, 8)), (3, 0, range(8, 10))):
        for number in members:
            part = parts[number]
            begin = common[:shared] + group
            begun = (np.concatenate([begin % 32, part.tokens]), *(np.pad(x, (shared, 0)) for x in part[1:4]))
            parts[number] = packing.Stream(*begun, group)
    return parts


def updated(parts, loss, per_stream, *, mesh, micro_rows, row_length, share_prefix=False):
    """The parameters after one update; `per_stream` [10] gives each stream's advantage."""
    mesh = mesh_of(*mesh)
    rows = packing.pack_rows(parts, row_length=row_length, rows=16, share=share_prefix)
    signals = () if per_stream is None else Signals(per_stream[rows.turns], rows.sampled_logprobs - 0.1)
    update = update_step.make_update(CONFIG, mesh, SGD, loss, temperature=TEMPERATURE)
    layout = sharding.find_shardings(mesh, qwen2.shapes(CONFIG))
    policy = fresh_state().policy._replace(params=jax.device_put(fresh_state().policy.params, layout))
    rows, signals = sharding.place_rows(mesh, (rows, signals), micro_rows)
    policy, _, metrics = update(policy, update_step.WITHOUT_HEAD, {}, rows, signals)
    jax.tree.map(lambda x, wanted: chex.assert_equal(x.sharding, wanted), policy.params, layout)
    return jax.device_get(policy.params), jax.device_get(metrics)


def rows_of(parts):
    """Tokens and mask of streams, each in a row of its own, with padding behind it."""
    shape = len(parts), max(len(part.tokens) for part in parts)
    tokens, mask = np.zeros(shape, np.int32), np.zeros(shape, bool)
    for row, part in enumerate(parts):
        tokens[row, : len(part.tokens)], mask[row, : len(part.tokens)] = part.tokens, part.mask
    return tokens, mask


def logprobs_of(params, parts):
    """Of each stream, [1, its length]."""
    tokens, _ = rows_of(parts)
    logprobs, _ = qwen2.token_logprobs(CONFIG, params, tokens, temperature=TEMPERATURE)
    return [row[None, : len(part.tokens)] for row, part in zip(logprobs, parts, strict=True)]


def expected(parts, loss_of_row):
    """The parameters after one update and the loss, from single unpacked streams and one gradient."""
    params, total = fresh_state().policy.params, sum(part.mask.sum() for part in parts)

    def loss(params):
        return sum(map(loss_of_row, logprobs_of(params, parts), parts)) / total

    value, gradients = jax.jit(jax.value_and_grad(loss))(params)
    return jax.tree.map(lambda p, g: p - g, params, gradients), value


def largest_gap(parts):
    """The largest difference between the model's log-probabilities and those the streams came with."""
    logprobs = jax.jit(functools.partial(logprobs_of, parts=parts))(fresh_state().policy.params)
    return max(np.max(np.abs(row[0] - part.logprobs)[part.mask]) for row, part in zip(logprobs, parts, strict=True))


@functools.cache
def imitation():
    """Streams, and what an update on them gives."""
    parts = list(streams(0))
    return parts, *expected(parts, lambda logprobs, part: -jnp.sum(logprobs[0], where=part.mask))


CLIPPED = functools.partial(clipped_loss, clip_low=0.2, clip_high=0.3, kl_weight=0.05)
PER_STREAM = np.random.default_rng(2).normal(size=10).astype(np.float32)


@functools.cache
def reinforcement(shared):
    """Streams, what an update on them by CMPO's loss gives, and the largest gap of a token's log-probability."""
    parts = grouped(1) if shared else list(streams(1))

    def whole(logprobs, part):
        advantage = jnp.full(logprobs.shape, PER_STREAM[part.turns[-1]])
        sampled = part.logprobs[None]
        options = CLIPPED.keywords
        loss, _ = cmpo_loss(logprobs, sampled, sampled - 0.1, advantage, part.mask[None], denominator=1, **options)
        return loss

    return parts, *expected(parts, whole), largest_gap(parts)


MESHES = [(1, 1, 1), (8, 1, 1), (1, 8, 1), (1, 1, 2), (2, 2, 2)]  # data, fsdp, tensor


@pytest.mark.parametrize(
    ("mesh", "micro_rows", "row_length"), [((1,), 16, 16), ((1,), 2, 32), ((4,), 1, 32), ((8,), 2, 64)]
)
def test_sft_update_is_the_gradient_of_the_mean_over_all_tokens(mesh, micro_rows, row_length):
    parts, want, loss = imitation()
    params, metrics = updated(parts, imitation_loss, None, mesh=mesh, micro_rows=micro_rows, row_length=row_length)
    chex.assert_trees_all_close(params, want, atol=2e-6)
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)


@pytest.mark.parametrize(
    ("mesh", "row_length"),
    [*((mesh, 0) for mesh in MESHES), ((1, 1, 1), 32), ((2, 2, 2), 64)],
    ids=str,
)
def test_cmpo_update_is_the_gradient_of_the_whole_batch(mesh, row_length):
    """With a row_length: in groups that share what they begin with, split over rows or several in a row."""
    parts, want, loss, gap = reinforcement(bool(row_length))
    layout = {"mesh": mesh, "micro_rows": 1, "row_length": row_length or 32, "share_prefix": bool(row_length)}
    params, metrics = updated(parts, CLIPPED, PER_STREAM, **layout)
    chex.assert_trees_all_close(params, want, atol=2e-6)
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
    assert metrics["entropy"] == pytest.approx(np.log(32), rel=0.02)  # small random weights: nearly uniform
    assert metrics["logprob_gap_max"] == pytest.approx(gap, rel=1e-5)


def test_an_update_that_is_not_finite_changes_nothing_and_the_next_is_as_if_it_had_not_been():
    mesh, optimizer = mesh_of(1), optax.adam(0.1)
    packed = packing.pack_rows(list(streams(6)), row_length=32, rows=16)
    loss = functools.partial(clipped_loss, clip_low=0.2, clip_high=0.2, kl_weight=0.05)
    update = update_step.make_update(CONFIG, mesh, optimizer, loss, temperature=TEMPERATURE)
    advantages, reference = np.ones(packed.tokens.shape, np.float32), packed.sampled_logprobs

    def updated(policy, *signals):
        policy, inputs = jax.tree.map(jnp.copy, policy), sharding.place_rows(mesh, (packed, Signals(*signals)), 16)
        policy, _, metrics = update(policy, update_step.WITHOUT_HEAD, {}, *inputs)
        return policy, int(metrics["updates_skipped"])

    def spoilt(x, value):
        x = x.copy()
        x[tuple(np.argwhere(packed.mask)[3])] = value  # one token is enough
        return x

    params = fresh_state().policy.params
    once, skipped = updated(train_state.begin_training(optimizer, params), advantages, reference)
    assert skipped == 0
    for signals in ((spoilt(advantages, np.nan), reference), (advantages, spoilt(reference, np.inf))):
        after, skipped = updated(once, *signals)
        assert skipped == 1
        chex.assert_trees_all_equal(after, once)
    after, skipped = updated(after, advantages, reference)
    assert skipped == 0
    chex.assert_trees_all_equal(after, updated(once, advantages, reference)[0])


def test_score_gives_the_models_log_probabilities_in_place():
    parts, mesh = list(streams(4)), mesh_of(2, 2, 2)
    rows = packing.pack_rows(parts, row_length=32, rows=8)
    params = jax.device_put(fresh_state().policy.params, sharding.find_shardings(mesh, qwen2.shapes(CONFIG)))
    scores = update_step.make_score(CONFIG, mesh, temperature=TEMPERATURE)(
        {}, params, sharding.place_rows(mesh, rows, 1)
    )
    scores = scores.reshape(rows.tokens.shape)
    want, _ = jax.jit(functools.partial(qwen2.token_logprobs, CONFIG, temperature=TEMPERATURE))(
        params, rows.tokens, positions=rows.positions, segment_ids=rows.segment_ids
    )
    np.testing.assert_allclose(scores, np.where(rows.mask, want, 0), atol=1e-5)
    assert np.any(scores != 0)


def test_several_updates_are_one_record():
    first = {"loss": 1.0, "ratio_max": 1.0, "logprob_gap_max": 0.5, "updates_skipped": 0}
    second = {"loss": 4.0, "ratio_max": 3.0, "logprob_gap_max": 2.0, "updates_skipped": 1}
    found = {"loss": 2.5, "ratio_max": 3.0, "logprob_gap_max": 0.5, "updates_skipped": 1}
    assert update_step.summarize_updates([first, second]) == found
    assert update_step.summarize_updates([second]) == second


@pytest.mark.parametrize("part", ["loss", "gradient"])
def test_an_update_is_skipped_if_but_one_of_loss_and_gradient_is_not_finite(part):
    """A loss of nan with a gradient of 0, or of 0 with a gradient of nan."""

    def loss(scores, rows, signals, total, axis_name):
        nothing = jnp.sum(0 * scores.logprobs, where=rows.mask)
        return nothing + jnp.nan if part == "loss" else jnp.sqrt(nothing), {}

    mesh, before = mesh_of(1), fresh_state().policy
    rows = sharding.place_rows(mesh, packing.pack_rows(list(streams(0)), row_length=32, rows=8), 8)
    update = update_step.make_update(CONFIG, mesh, SGD, loss, temperature=TEMPERATURE)
    after, _, metrics = update(jax.tree.map(jnp.copy, before), update_step.WITHOUT_HEAD, {}, rows, ())
    assert np.isfinite(metrics["loss"]) == (part == "gradient")
    assert np.isfinite(metrics["grad_norm"]) == (part == "loss") and metrics["updates_skipped"] == 1
    chex.assert_trees_all_equal(after, before)


@pytest.mark.parametrize("mesh", [(1, 1, 1), (2, 1, 1)], ids=str)
def test_the_entropy_on_record_is_the_mean_over_the_tokens_that_are_scored(mesh):
    parts = list(streams(7))
    _, metrics = updated(parts, imitation_loss, None, mesh=mesh, micro_rows=1, row_length=32)
    tokens, mask = rows_of(parts)
    score = jax.jit(functools.partial(qwen2.token_logprobs, CONFIG, temperature=TEMPERATURE))
    _, entropy = score(fresh_state().policy.params, tokens)
    assert metrics["entropy"] == pytest.approx(float(np.mean(np.asarray(entropy)[mask])), rel=1e-6)


def test_tokens_of_an_older_policy_are_weighted_and_then_the_present_ones():
    """Of three tokens, the present policy finds the first twice as likely, the second 8 times: more than the cap."""
    rows = Rows(
        tokens=np.zeros((1, 3), np.int32),
        positions=np.zeros((1, 3), np.int32),
        segment_ids=np.ones((1, 3), np.int32),
        mask=np.array([[True, True, False]]),
        sampled_logprobs=-np.ones((1, 3), np.float32),
        turns=np.zeros((1, 3), np.int32),
    )
    present = jnp.log(jnp.array([[2.0, 8.0, 1.0]])) - 1
    signals = Signals(jnp.array([[1.0, -3.0, 5.0]]), reference=present, own=present)
    after, weighted, metrics = update_step.correct_for_age(rows, signals, present, cap=3.0)
    np.testing.assert_allclose(weighted.advantages, [[2.0, -9.0, 0.0]], rtol=1e-6)
    chex.assert_trees_all_equal(weighted[1:], signals[1:])
    np.testing.assert_array_equal(after.sampled_logprobs, present)
    chex.assert_trees_all_equal(after.mask, rows.mask)
    assert metrics["importance_capped"] == 0.5


def test_sft_loss_by_hand():
    logprobs, mask = (
        jnp.array([[-1.0, -2.0, jnp.nan], [-4.0, jnp.inf, -8.0]]),
        jnp.array([[True, True, False], [True, False, False]]),
    )
    assert sft_loss(logprobs, mask) == pytest.approx(7 / 3)  # (1 + 2 + 4) / 3
    assert sft_loss(logprobs, mask, denominator=14) == pytest.approx(0.5)
    assert sft_loss(logprobs, jnp.zeros_like(mask)) == 0


@pytest.mark.parametrize("one_step_off", [False, True])
def test_begin_rl_freezes_the_present_parameters_and_begins_what_is_the_algorithms(one_step_off):
    optimizer, head = (
        optax.adam(0.1),
        Head(functools.partial(value_head.init, CONFIG), value_head.apply, optax.sgd(1.0)),
    )
    before = train_state.begin_run(qwen2.init(CONFIG, jax.random.key(0)), optimizer, seed=5)
    assert before.reference == before.behaviour == before.memory == before.head == ()
    moved = before._replace(policy=jax.tree.map(lambda x: x + 1, before.policy))
    options = {"memory": pid.init(GAINS, 0.5), "head": head, "one_step_off": one_step_off}
    begun = train_state.begin_rl(CONFIG, moved, optimizer, **options)
    chex.assert_trees_all_equal(begun.reference, moved.policy.params)
    chex.assert_trees_all_equal(begun.behaviour, moved.policy.params if one_step_off else ())
    chex.assert_trees_all_equal(begun.policy, train_state.begin_training(optimizer, moved.policy.params))
    assert float(begun.memory.lambdas[0]) == 0.5
    again, other = (
        train_state.begin_rl(CONFIG, moved._replace(seed=jnp.int32(seed)), optimizer, **options) for seed in (5, 6)
    )
    chex.assert_trees_all_equal(begun.head, again.head)
    kernels = [state.head.params["value_head"]["kernel"] for state in (begun, other)]
    assert np.all(kernels[0] != kernels[1])


WANTED = 0.5  # of every value
HEAD = Head(functools.partial(value_head.init, CONFIG), value_head.apply, optax.sgd(3.0))


@functools.cache
def with_a_head():
    """Streams, policy and head, and one gradient of both over the unpacked streams."""
    parts = list(streams(8))
    tokens, mask = rows_of(parts)

    def alone(params, own):
        before = value_head.apply(own, qwen2.hidden(CONFIG, params, tokens))[:, :-1]  # of what came before each token
        return jnp.mean(jnp.square(before - WANTED), where=mask[:, 1:])

    policy, own = fresh_state().policy, train_state.begin_training(HEAD.optimizer, HEAD.init(jax.random.key(1)))
    return parts, policy, own, jax.jit(jax.grad(alone, argnums=(0, 1)))(policy.params, own.params)


@pytest.mark.parametrize("mesh", [(1, 1, 1), (2, 2, 2)], ids=str)
def test_a_head_and_the_policy_below_it_learn_from_the_states_before_each_token(mesh):
    """Each by the steps of its own optimizer."""
    parts, policy, own, gradients = with_a_head()

    def loss(scores, rows, signals, total, axis_name):
        error = jnp.sum(jnp.square(scores.values - WANTED), where=rows.mask)
        return jax.lax.psum(error, axis_name) / total, {}

    expected = (
        jax.tree.map(lambda x, g: x - g, policy.params, gradients[0]),
        jax.tree.map(lambda x, g: x - 3 * g, own.params, gradients[1]),
    )
    devices = mesh_of(*mesh)
    rows = sharding.place_rows(devices, packing.pack_rows(parts, row_length=32, rows=8), 1)
    values = update_step.make_values(CONFIG, devices, HEAD)({}, (policy.params, own.params), rows)
    assert np.all(np.asarray(values)[~np.asarray(rows.mask)] == 0)
    off = np.square(np.asarray(values)[np.asarray(rows.mask)] - WANTED)
    update = update_step.make_update(CONFIG, devices, SGD, loss, temperature=TEMPERATURE, head=HEAD)
    both = jax.tree.map(jnp.copy, (policy, own))  # which the update takes over
    placed = jax.device_put(both, sharding.find_shardings(devices, both))
    after, changed, metrics = update(*placed, {}, rows, ())
    np.testing.assert_allclose(metrics["loss"], np.mean(off), rtol=1e-5)
    chex.assert_trees_all_close((after.params, changed.params), expected, atol=2e-6)
    assert metrics["head_grad_norm"] == pytest.approx(float(optax.global_norm(gradients[1])), rel=1e-4)
    assert metrics["grad_norm"] == pytest.approx(float(optax.global_norm(gradients[0])), rel=1e-4)


def test_schedule_warms_up_and_ends_at_the_final_fraction():
    optimizer = make_optimizer(
        learning_rate=1.0, steps=20, warmup_fraction=0.1, final_fraction=0.2, weight_decay=0.0, max_grad_norm=1e9
    )
    params = {"x": jnp.zeros(1)}
    opt_state, sizes = optimizer.init(params), []
    for _ in range(21):
        changes, opt_state = optimizer.update({"x": jnp.ones(1)}, opt_state, params)
        sizes.append(-float(changes["x"][0]))  # Adam's step for a constant gradient is the learning rate
    np.testing.assert_allclose(sizes[:3], [0.0, 0.5, 1.0], atol=1e-3)
    np.testing.assert_allclose(sizes[20], 0.2, atol=1e-3)
