"""The updates: the same whatever the packing, the micro-batch and the number of devices."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cmpo import pid
from cmpo.advantage import hybrid_advantage
from cmpo.algorithms.sft import sft_loss
from cmpo.distributed import sharding
from cmpo.loss import cmpo_loss
from cmpo.run import train_state
from cmpo.training import packing, update_step
from models import qwen2

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
    return train_state.init(CONFIG, qwen2.init(CONFIG, jax.random.key(3)), SGD, pid.init(GAINS), seed=3)


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


def updated(parts, share, per_stream, *, mesh, micro_rows, row_length, share_prefix=False):
    """The parameters after one update; `per_stream` [10] gives each stream's advantage."""
    mesh = mesh_of(*mesh)
    rows = packing.pack(parts, row_length=row_length, rows=16, share=share_prefix)
    extras = () if per_stream is None else (per_stream[rows.turns], rows.sampled_logprobs - 0.1)
    update = update_step.make_update(CONFIG, mesh, SGD, share, temperature=TEMPERATURE)
    params = jax.device_put(fresh_state().params, sharding.find_shardings(mesh, qwen2.shapes(CONFIG)))
    rows, extras = sharding.place_rows(mesh, (rows, extras), micro_rows)
    params, _, metrics = update(params, fresh_state().opt_state, {}, rows, extras)
    layout = sharding.find_shardings(mesh, qwen2.shapes(CONFIG))
    jax.tree.map(lambda x, wanted: chex.assert_equal(x.sharding, wanted), params, layout)
    return jax.device_get(params), jax.device_get(metrics)


def logprobs_of(params, parts):
    """Of each stream, [1, its length]; every one in a row of its own, with whatever behind it."""
    tokens = np.zeros((len(parts), max(len(part.tokens) for part in parts)), np.int32)
    for row, part in zip(tokens, parts, strict=True):
        row[: len(part.tokens)] = part.tokens
    logprobs, _ = qwen2.token_logprobs(CONFIG, params, tokens, temperature=TEMPERATURE)
    return [row[None, : len(part.tokens)] for row, part in zip(logprobs, parts, strict=True)]


def expected(parts, loss_of_row):
    """The same, from single unpacked streams and one gradient."""
    params, total = fresh_state().params, sum(part.mask.sum() for part in parts)

    def loss(params):
        return sum(map(loss_of_row, logprobs_of(params, parts), parts)) / total

    value, gradients = jax.jit(jax.value_and_grad(loss))(params)
    return jax.tree.map(lambda p, g: p - g, params, gradients), value


def largest_gap(parts):
    """The largest difference between the model's log-probabilities and those the streams came with."""
    logprobs = jax.jit(functools.partial(logprobs_of, parts=parts))(fresh_state().params)
    return max(np.max(np.abs(row[0] - part.logprobs)[part.mask]) for row, part in zip(logprobs, parts, strict=True))


MESHES = [(1, 1, 1), (8, 1, 1), (1, 8, 1), (1, 1, 2), (2, 2, 2)]  # data, fsdp, tensor


@pytest.mark.parametrize(
    ("mesh", "micro_rows", "row_length"), [((1,), 16, 16), ((1,), 2, 32), ((4,), 1, 32), ((8,), 2, 64)]
)
def test_sft_update_is_the_gradient_of_the_mean_over_all_tokens(mesh, micro_rows, row_length):
    parts = list(streams(0))
    params, metrics = updated(
        parts, update_step.sft_share, None, mesh=mesh, micro_rows=micro_rows, row_length=row_length
    )
    want, loss = expected(parts, lambda logprobs, part: -jnp.sum(logprobs[0], where=part.mask))
    chex.assert_trees_all_close(params, want, atol=2e-6)
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)


@pytest.mark.parametrize(
    ("mesh", "row_length"),
    [*((mesh, 0) for mesh in MESHES), ((1, 1, 1), 32), ((2, 2, 2), 64)],
    ids=str,
)
def test_cmpo_update_is_the_gradient_of_the_whole_batch(mesh, row_length):
    """With a row_length: in groups that share what they begin with, split over rows or several in a row."""
    parts, per_stream = list(streams(1)), np.random.default_rng(2).normal(size=10).astype(np.float32)
    parts, layout = (grouped(1), {"row_length": row_length}) if row_length else (parts, {"row_length": 32})
    layout |= {"mesh": mesh, "micro_rows": 1, "share_prefix": bool(row_length)}
    options = {"clip_low": 0.2, "clip_high": 0.3, "kl_weight": 0.05}

    def whole(logprobs, part):
        advantage = jnp.full(logprobs.shape, per_stream[part.turns[-1]])
        sampled = part.logprobs[None]
        loss, _ = cmpo_loss(logprobs, sampled, sampled - 0.1, advantage, part.mask[None], denominator=1, **options)
        return loss

    params, metrics = updated(parts, update_step.cmpo_share(**options), per_stream, **layout)
    want, loss = expected(parts, whole)
    chex.assert_trees_all_close(params, want, atol=2e-6)
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
    assert metrics["entropy"] == pytest.approx(np.log(32), rel=0.02)  # small random weights: nearly uniform
    assert metrics["logprob_gap_max"] == pytest.approx(largest_gap(parts), rel=1e-5)


def test_an_update_that_is_not_finite_changes_nothing_and_the_next_is_as_if_it_had_not_been():
    mesh, optimizer = mesh_of(1), optax.adam(0.1)
    packed = packing.pack(list(streams(6)), row_length=32, rows=16)
    share = update_step.cmpo_share(clip_low=0.2, clip_high=0.2, kl_weight=0.05)
    update = update_step.make_update(CONFIG, mesh, optimizer, share, temperature=TEMPERATURE)
    advantages, reference = np.ones(packed.tokens.shape, np.float32), packed.sampled_logprobs

    def updated(state, *extras):
        state, inputs = jax.tree.map(jnp.copy, state), sharding.place_rows(mesh, (packed, extras), 16)
        params, opt_state, metrics = update(*state, {}, *inputs)
        return (params, opt_state), int(metrics["updates_skipped"])

    def spoilt(x, value):
        x = x.copy()
        x[tuple(np.argwhere(packed.mask)[3])] = value  # one token is enough
        return x

    params = fresh_state().params
    once, skipped = updated((params, optimizer.init(params)), advantages, reference)
    assert skipped == 0
    for extras in ((spoilt(advantages, np.nan), reference), (advantages, spoilt(reference, np.inf))):
        after, skipped = updated(once, *extras)
        assert skipped == 1
        chex.assert_trees_all_equal(after, once)
    after, skipped = updated(after, advantages, reference)
    assert skipped == 0
    chex.assert_trees_all_equal(after, updated(once, advantages, reference)[0])


def test_score_gives_the_models_log_probabilities_in_place():
    parts, mesh = list(streams(4)), mesh_of(2, 2, 2)
    rows = packing.pack(parts, row_length=32, rows=8)
    params = jax.device_put(fresh_state().params, sharding.find_shardings(mesh, qwen2.shapes(CONFIG)))
    scores = update_step.make_score(CONFIG, mesh, temperature=TEMPERATURE)(
        {}, params, sharding.place_rows(mesh, rows, 1)
    )
    scores = scores.reshape(rows.tokens.shape)
    want, _ = jax.jit(functools.partial(qwen2.token_logprobs, CONFIG, temperature=TEMPERATURE))(
        params, rows.tokens, positions=rows.positions, segment_ids=rows.segment_ids
    )
    np.testing.assert_allclose(scores, np.where(rows.mask, want, 0), atol=1e-5)
    assert np.any(scores != 0)


def test_tokens_get_the_advantage_of_their_turn():
    rng = np.random.default_rng(5)
    rewards = packing.Rewards(
        outcome=rng.normal(size=(3, 2)).astype(np.float32),
        process=rng.normal(size=(3, 2, 4)).astype(np.float32),
        cost=rng.integers(0, 2, (3, 2, 4, 1)).astype(np.float32),
        turn_mask=rng.random((3, 2, 4)) < 0.8,
    )
    turns = np.array([[0, 5, 23], [9, 9, 16]], np.int32)
    lambdas = jnp.array([0.7])
    got = update_step.token_advantages(rewards, turns, lambdas, process_weight=2.0, normalize="none")
    for place, turn in np.ndenumerate(turns):
        group, rest = divmod(turn, 8)
        alone = hybrid_advantage(
            *(getattr(rewards, name)[group] for name in ("outcome", "process", "cost", "turn_mask")),
            lambdas,
            process_weight=2.0,
            normalize="none",
        )
        np.testing.assert_allclose(got[place], alone[divmod(rest, 4)], rtol=1e-6)


def test_several_updates_are_one_record():
    first = {"loss": 1.0, "ratio_max": 1.0, "logprob_gap_max": 0.5, "updates_skipped": 0}
    second = {"loss": 4.0, "ratio_max": 3.0, "logprob_gap_max": 2.0, "updates_skipped": 1}
    found = {"loss": 2.5, "ratio_max": 3.0, "logprob_gap_max": 0.5, "updates_skipped": 1}
    assert update_step.summary([first, second]) == found
    assert update_step.summary([second]) == second


@pytest.mark.parametrize("part", ["loss", "gradient"])
def test_an_update_is_skipped_if_but_one_of_loss_and_gradient_is_not_finite(part):
    """A loss of nan with a gradient of 0, or of 0 with a gradient of nan."""

    def share(logprobs, entropy, rows, extras, total):
        nothing = jnp.sum(0 * logprobs, where=rows.mask)
        loss = nothing + jnp.nan if part == "loss" else jnp.sqrt(nothing)
        return loss, {"loss": loss}

    mesh, before = mesh_of(1), fresh_state()
    rows = sharding.place_rows(mesh, packing.pack(list(streams(0)), row_length=32, rows=8), 8)
    update = step_of(mesh, share)
    after, _, metrics = update(jax.tree.map(jnp.copy, before.params), before.opt_state, {}, rows, ())
    assert np.isfinite(metrics["loss"]) == (part == "gradient")
    assert np.isfinite(metrics["grad_norm"]) == (part == "loss") and metrics["updates_skipped"] == 1
    chex.assert_trees_all_equal(after, before.params)


def step_of(mesh, share):
    return update_step.make_update(CONFIG, mesh, SGD, share, temperature=TEMPERATURE)


@pytest.mark.parametrize("count", [1, 3])
def test_the_entropy_on_record_is_the_mean_over_tokens_that_are_scored(count):
    """Of 1 + 2 + 3 nats, on two devices; what stands outside the mask is no number."""
    mask = np.arange(4).reshape(2, 1, 2) < count
    rows = packing.pack(list(streams(0))[:1], row_length=16).replace(
        mask=mask, sampled_logprobs=np.zeros((2, 1, 2), np.float32)
    )
    entropy, zeros = np.where(mask, np.arange(4).reshape(2, 1, 2) + 1.0, np.nan), np.zeros((2, 1, 2))
    rows = jax.tree.map(lambda x: np.broadcast_to(x[0, 0], (2, 1, 2)) if x.shape != mask.shape else x, rows)
    shares = {
        update_step.sft_share: (),
        update_step.cmpo_share(clip_low=0.2, clip_high=0.2, kl_weight=0.0): (zeros, zeros),
    }
    for share, extras in shares.items():
        by_fsdp = jax.vmap(share, in_axes=(0, 0, 0, 0, None), axis_name="fsdp")
        on_devices = jax.vmap(by_fsdp, in_axes=(0, 0, 0, 0, None), axis_name="data")
        inputs = jax.tree.map(lambda x: jnp.asarray(x)[:, None], (zeros, entropy, rows, extras))
        _, metrics = on_devices(*inputs, count)
        np.testing.assert_allclose(metrics["entropy"], (count + 1) / 2)


def test_tokens_of_an_older_policy_are_weighted_and_then_the_present_ones():
    """Of three tokens, the present policy finds the first twice as likely, the second 8 times: more than the cap."""
    rows = packing.Rows(
        tokens=np.zeros((1, 3), np.int32),
        positions=np.zeros((1, 3), np.int32),
        segment_ids=np.ones((1, 3), np.int32),
        mask=np.array([[True, True, False]]),
        sampled_logprobs=-np.ones((1, 3), np.float32),
        turns=np.zeros((1, 3), np.int32),
    )
    present = jnp.log(jnp.array([[2.0, 8.0, 1.0]])) - 1
    after, advantages, metrics = update_step.corrected(rows, jnp.array([[1.0, -3.0, 5.0]]), present, cap=3.0)
    np.testing.assert_allclose(advantages, [[2.0, -9.0, 0.0]], rtol=1e-6)
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


def test_begin_rl_freezes_the_present_parameters():
    optimizer = optax.adam(0.1)
    before = train_state.init(CONFIG, qwen2.init(CONFIG, jax.random.key(0)), optimizer, pid.init(GAINS), seed=0)
    moved = before._replace(params=jax.tree.map(lambda x: x + 1, before.params))
    begun = train_state.begin_rl(CONFIG, moved, optimizer, pid.init(GAINS, 0.5))
    chex.assert_trees_all_equal(begun.reference, moved.params)
    assert float(before.pid.lambdas[0]) == 0 and float(begun.pid.lambdas[0]) == 0.5
    chex.assert_trees_all_equal(begun.opt_state, optimizer.init(moved.params))


def test_schedule_warms_up_and_ends_at_the_final_fraction():
    optimizer = train_state.optimizer(
        learning_rate=1.0, steps=20, warmup_fraction=0.1, final_fraction=0.2, weight_decay=0.0, max_grad_norm=1e9
    )
    params = {"x": jnp.zeros(1)}
    opt_state, sizes = optimizer.init(params), []
    for _ in range(21):
        changes, opt_state = optimizer.update({"x": jnp.ones(1)}, opt_state, params)
        sizes.append(-float(changes["x"][0]))  # Adam's step for a constant gradient is the learning rate
    np.testing.assert_allclose(sizes[:3], [0.0, 0.5, 1.0], atol=1e-3)
    np.testing.assert_allclose(sizes[20], 0.2, atol=1e-3)
