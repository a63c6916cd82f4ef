"""The slots of the KV cache: how many there are changes nothing, and what they hold is computed once."""

import asyncio
import functools

import jax
import numpy as np
import pytest

from models import cache
from rollouts.engine import sampling as device
from rollouts.engine import slots as slots_module
from tests.builders.engines import (
    SMALL,
    alone,
    engine_of,
    params,
    run,
    same,
    script,
)


async def talk_slowly(made, number, latency):
    """Like `talk`, with a user who takes `latency()` seconds to answer."""
    session, turns = made.open(), []
    for place, ids in enumerate(script(number)):
        await asyncio.sleep(latency())
        turns.append((ids, await session.generate(ids, seed=1000 * number + place)))
    session.close()
    return turns


LATENCIES = {
    "none": lambda: 0.0,
    "constant": lambda: 0.01,
    "random": functools.partial(np.random.default_rng(0).uniform, 0.0, 0.03),
}


@pytest.mark.parametrize("rows", [0, 2])
@pytest.mark.parametrize("latency", LATENCIES)
@pytest.mark.parametrize("slots", [4, 16, 24])
def test_transcripts_depend_neither_on_latency_nor_on_slots(slots, latency, rows):
    """To the bit in one layout; with fewer slots than dialogues, those that wait for their user are parked meanwhile.

    In another layout the products have another shape, and XLA may add in another order: the same tokens, with
    log-probabilities up to rounding.
    """
    made = engine_of(slots=slots, rows=rows, steps=3)

    async def everyone():
        async with made:
            return await asyncio.gather(*(talk_slowly(made, number, LATENCIES[latency]) for number in range(19)))

    results = asyncio.run(everyone())
    assert all(same(results[number], alone(number, slots=slots, rows=rows)) for number in range(19))
    assert made.counts.computed + made.counts.copied == made.counts.streamed
    assert bool(made.counts.parked) == (slots < 19)
    again = run([18, 0], made)  # and the engine is as good as new
    assert all(same(again[number], results[number]) for number in (18, 0))
    for number, turns in enumerate(results):
        for (_, ours), (_, other) in zip(turns, alone(number), strict=True):
            assert np.array_equal(ours.ids, other.ids)
            np.testing.assert_allclose(ours.logprobs, other.logprobs, atol=1e-5)


@pytest.mark.parametrize("rows", [0, 2])
def test_an_engine_that_fits_its_calls_to_who_is_there_draws_the_same(rows):
    """The same tokens, up to rounding in their log-probabilities, with as few rows as a power of 4 gives."""
    made = engine_of(slots=24, rows=rows, steps=3, fit=True)
    assert made.list_batches() == [1, 4, 16, 24]
    for numbers in ([7], [0, 1, 2], range(8, 19), range(19, 43), [7]):
        for number, turns in run(numbers, made).items():
            for (_, ours), (_, other) in zip(turns, alone(number), strict=True):
                assert np.array_equal(ours.ids, other.ids)
                np.testing.assert_allclose(ours.logprobs, other.logprobs, atol=1e-5)
    assert made.counts.computed + made.counts.copied == made.counts.streamed


def test_only_as_many_rows_as_are_needed_are_computed(monkeypatch):
    calls = []

    def keep_shapes(config, params, kv, logits, turns, grammar, masks, steps, slots, **options):
        calls.append((len(turns.active), None if slots is None else slots.tolist()))
        return decode(config, params, kv, logits, turns, grammar, masks, steps, slots, **options)

    decode = device.decode
    monkeypatch.setattr(device, "decode", keep_shapes)
    run([0], engine_of(fit=True))
    assert {(rows, len(slots)) for rows, slots in calls} == {(1, 1)}
    calls.clear()
    run([0, 1], engine_of(fit=True))
    assert {rows for rows, _ in calls} <= {1, 4} and max(calls)[1][2:] == [SMALL.slots] * 2
    calls.clear()
    run([0], engine_of())
    assert set(map(str, calls)) == {f"({SMALL.slots}, None)"}


def test_every_token_of_a_dialogue_is_computed_once():
    made = engine_of()
    turns = run([3], made)[3]
    assert made.counts.streamed == made.counts.computed == sum(len(ids) + len(turn.ids) for ids, turn in turns)
    assert made.counts.copied == made.counts.parked == 0


PROMPT, CHUNK = np.arange(20, 90), SMALL.chunk  # 70 tokens, four chunks and a bit


@pytest.mark.parametrize("slots", [8, 16])
def test_what_prompts_share_is_computed_once(slots):
    """Three groups of four: all share two chunks, a group its whole prompt, and every dialogue goes on by itself."""
    made = engine_of(slots=slots, window=0.01)
    prompts = [np.concatenate([PROMPT[: 2 * CHUNK], 100 + 10 * group + PROMPT[2 * CHUNK :] % 7]) for group in range(3)]

    async def one(made, group, number):
        session = made.open()
        ids = np.append(prompts[group], 290 - number)
        return ids, await session.generate(ids, seed=10 * group + number), session

    async def everyone(made, members):
        async with made:
            results = await asyncio.gather(*(one(made, *member) for member in members))
            for _, _, session in results:
                session.close()
            return [(ids, turn) for ids, turn, _ in results]

    members = [(group, number) for group in range(3) for number in range(4)]
    together = asyncio.run(everyone(made, members))
    assert made.counts.copied == 2 * 2 * CHUNK + 9 * 4 * CHUNK  # leaders of groups 1 and 2; the other nine
    assert made.counts.computed + made.counts.copied == made.counts.streamed
    for member, turn in zip(members, together, strict=True):
        assert same([turn], asyncio.run(everyone(engine_of(slots=slots), [member])))
    made.load(params(1))  # under other weights, nothing is left to copy
    asyncio.run(everyone(made, members[:1]))
    assert made.counts.copied == 0


def test_the_beginning_of_a_dialogue_that_is_gone_is_still_there_to_copy():
    async def twice(made):
        async with made:
            for _ in range(2):
                session = made.open()
                turn = await session.generate(PROMPT, seed=3)
                session.close()
            return [(PROMPT, turn)]

    made = engine_of()
    second = asyncio.run(twice(made))
    assert made.counts.copied == 4 * CHUNK and made.counts.computed == made.counts.streamed - 4 * CHUNK
    made.load(params())
    assert same(second, asyncio.run(twice(engine_of(slots=3))))


def test_a_newcomer_takes_the_place_of_the_one_it_begins_like():
    async def one_by_one(made, prompts):
        async with made:
            for prompt in prompts:
                session = made.open()
                await session.generate(prompt, seed=3)
                session.close()

    made, other = engine_of(slots=2), PROMPT[::-1]
    asyncio.run(one_by_one(made, [PROMPT, other, other, PROMPT]))
    assert made.counts.copied == 2 * 4 * CHUNK


def test_one_that_begins_like_another_does_not_wait_for_one_that_was_given_up():
    async def give_up():
        made = engine_of(window=0.02)
        async with made:
            first = asyncio.create_task(made.open().generate(PROMPT, seed=0))
            second = asyncio.create_task(made.open().generate(PROMPT, seed=1))
            await asyncio.sleep(0.005)
            first.cancel()
            return await asyncio.wait_for(second, 600)

    assert len(asyncio.run(give_up()).ids)


def test_room_grows_as_streams_need_it_and_changes_nothing(monkeypatch):
    expected = [run([number], engine_of(capacity=150))[number] for number in range(3)]
    monkeypatch.setattr(slots_module, "SMALLEST", 64)
    made = engine_of(capacity=150)
    assert cache.room(made._slots._kv) == 64
    assert all(same(run([number], made)[number], expected[number]) for number in range(3))
    assert cache.room(made._slots._kv) == 128


def test_slots_may_be_spread_over_devices():
    """The same tokens; log-probabilities up to rounding."""
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    layout = jax.sharding.NamedSharding(mesh, jax.P(None, None, "data"))
    weights = jax.device_put(params(), jax.sharding.NamedSharding(mesh, jax.P()))
    made = engine_of(weights, slots=4, kv_sharding=layout)
    results = run(range(9), made)
    assert made.counts.parked and made._slots._kv.k.sharding.is_equivalent_to(layout, 6)
    for number, turns in results.items():
        for (_, ours), (_, other) in zip(turns, alone(number), strict=True):
            assert np.array_equal(ours.ids, other.ids)
            np.testing.assert_allclose(ours.logprobs, other.logprobs, atol=1e-5)
