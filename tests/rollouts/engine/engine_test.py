"""The sampling engine against the model's own log-probabilities: who is served when, and that it changes nothing."""

import asyncio
import threading

import numpy as np
import pytest

from rollouts.engine import sampling as device
from rollouts.engine.engine import Engine
from rollouts.engine.sampling import Sampling
from tests.builders.engines import (
    CONFIG,
    SMALL,
    STOP,
    alone,
    engine_of,
    params,
    run,
    same,
    scored,
    script,
    talk,
    talk_all,
)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_are_those_of_the_whole_stream_under_the_model(temperature):
    made = engine_of(temperature=temperature)
    for turns in run(range(8), made).values():
        stream, mine, sampled, model = [], [], [], []
        for ids, turn in turns:
            assert turn.ids.dtype == np.int32 and turn.logprobs.dtype == turn.model_logprobs.dtype == np.float32
            assert len(turn.ids) == len(turn.logprobs) == len(turn.model_logprobs) >= 1
            stream += [*ids, *turn.ids]
            mine += [*[False] * len(ids), *[True] * len(turn.ids)]
            sampled, model = [*sampled, *turn.logprobs], [*model, *turn.model_logprobs]
        np.testing.assert_allclose(sampled, scored(stream, temperature)[np.array(mine)], atol=1e-5)
        np.testing.assert_allclose(model, scored(stream, 1.0)[np.array(mine)], atol=1e-5)


def test_a_dialogue_is_the_same_to_the_bit_whoever_else_is_served():
    together = run(range(8))
    assert all(same(together[number], alone(number)) for number in range(8))
    assert not same(alone(0), alone(1))


def test_the_order_of_arrival_changes_nothing():
    async def staggered(made, numbers):
        async def late(place, number):
            await asyncio.sleep(0.003 * place)
            return await talk(made, number)

        async with made:
            results = await asyncio.gather(*(late(place, number) for place, number in enumerate(numbers)))
            return dict(zip(numbers, results, strict=True))

    for numbers in ([3, 1, 7, 2, 0, 6], [2, 3]):
        results = asyncio.run(staggered(engine_of(), numbers))
        assert all(same(results[number], alone(number)) for number in numbers)


def test_another_seed_draws_other_tokens():
    async def draw():
        async with engine_of() as made:
            sessions = [made.open() for _ in range(3)]
            return await asyncio.gather(
                *(session.generate(np.arange(9), seed) for session, seed in zip(sessions, (1, 2, 1), strict=True))
            )

    first, second, third = asyncio.run(draw())
    assert np.array_equal(first.ids, third.ids) and not np.array_equal(first.ids, second.ids)


def test_why_a_turn_stops():
    turns = [turn for turns in run(range(8)).values() for _, turn in turns]
    for turn in turns:
        assert (turn.stop == "end_of_turn") == (turn.ids[-1] == STOP)  # the stop token included
        assert STOP not in turn.ids[:-1] and len(turn.ids) <= 6
        assert turn.stop in ("end_of_turn", "length") and (turn.stop == "end_of_turn" or len(turn.ids) == 6)
    assert {turn.stop for turn in turns} == {"end_of_turn", "length"}

    async def fill():
        async with engine_of() as made:
            session = made.open()
            assert session.room == 160
            sampled = await session.generate(np.arange(158), seed=5)
            assert session.room == 0
            with pytest.raises(ValueError, match="got 1"):
                await session.generate(np.array([1]), seed=5)
            return sampled

    full = asyncio.run(fill())
    assert (full.stop, len(full.ids)) == ("context", 2)
    stream = [*range(158), *full.ids]
    np.testing.assert_allclose(full.logprobs, scored(stream, SMALL.temperature)[-2:], atol=1e-5)


def test_what_does_not_fit_is_refused_and_changes_nothing():
    async def misuse():
        async with engine_of() as made:
            session = made.open()
            for count in (0, 160, 200):
                with pytest.raises(ValueError, match=f"1 to 159 tokens.*got {count}"):
                    await session.generate(np.ones(count, np.int32), seed=0)
            turn = await session.generate(script(0)[0], seed=0)
            assert session.room == 160 - len(script(0)[0]) - len(turn.ids)
            return turn

    assert np.array_equal(asyncio.run(misuse()).ids, alone(0)[0][1].ids)


def test_new_weights_come_between_sessions_only():
    async def change():
        made = engine_of()
        async with made:
            session = made.open()
            with pytest.raises(RuntimeError, match="1 sessions are open"):
                made.load(params(1))
            session.close()
        made.load(params(1))
        return (await talk_all(made, [0]))[0]

    assert not same(asyncio.run(change()), alone(0))


def test_weights_are_told_apart_and_old_ones_are_not_sampled_from():
    made = engine_of()
    made.load(params(1), version=7)
    made.open(7).close()
    made.open().close()  # any will do
    with pytest.raises(RuntimeError, match="the engine has weights of version 7, expected 8: call load first"):
        made.open(8)


def test_an_engine_without_weights_says_so():
    async def enter():
        async with Engine(CONFIG, STOP, SMALL):
            pass

    with pytest.raises(RuntimeError, match="load"):
        asyncio.run(enter())


@pytest.mark.parametrize(
    "options",
    [
        *({name: 0} for name in ("slots", "capacity", "chunk", "steps", "max_new_tokens", "top_p")),
        *({"rows": 65}, {"rows": -1}, {"top_k": -1}, {"top_p": 1.5}, {"temperature": -1}),
    ],
    ids=str,
)
def test_a_layout_that_cannot_be_is_refused(options):
    with pytest.raises(ValueError, match=f"^{next(iter(options))}: expected "):
        Sampling(**options)


def test_a_stop_token_outside_the_vocabulary_is_refused():
    with pytest.raises(ValueError, match="300"):
        Engine(CONFIG, 300, SMALL)


def test_a_fault_reaches_all_who_wait_and_the_engine_goes_on():
    async def break_it():
        made = engine_of()
        round_ = made._run_round

        def broken(*_):
            raise MemoryError("too big")

        async with made:
            kept = made.open()
            before = await kept.generate(script(0)[0], seed=0)
            made._run_round = broken
            waiting = [asyncio.create_task(talk(made, number)) for number in range(3)]
            await asyncio.sleep(0)
            waiting[1].cancel()  # its waiting ends, that of the others must not be forgotten
            failures = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 600)
            made._run_round = round_
            after = await kept.generate(script(0)[1], seed=1)  # its keys and values are gone, and computed again
            return failures, [before, after], await asyncio.wait_for(talk(made, 2), 600)

    (first, second, third), kept, turns = asyncio.run(break_it())
    assert str(first) == str(third) == "too big" and isinstance(second, asyncio.CancelledError)
    assert same(turns, alone(2))
    assert same([(None, kept[0])], alone(0)[:1]) and np.array_equal(kept[1].ids, alone(0)[1][1].ids)


@pytest.mark.parametrize("fault", [False, True])
def test_a_slot_whose_session_is_cancelled_is_given_on_only_when_its_round_is_done(fault):
    async def cancel():
        made = engine_of(slots=1)
        round_, started, go_on = made._run_round, threading.Event(), threading.Event()

        def slow(*arguments):
            started.set()
            go_on.wait(600)
            if fault:
                raise MemoryError
            return round_(*arguments)

        async with made:
            made._run_round = slow
            first = asyncio.create_task(talk(made, 1))
            await asyncio.to_thread(started.wait)
            first.cancel()
            second = asyncio.create_task(talk(made, 0))
            await asyncio.sleep(0.05)
            made._run_round = round_
            go_on.set()
            return await asyncio.wait_for(second, 600)

    assert same(asyncio.run(cancel()), alone(0, slots=1))


def test_a_caller_cancelled_before_its_batch_is_forgotten():
    async def cancel():
        async with engine_of(window=0.03) as made:
            idle = [made.open() for _ in range(2)]  # has the engine wait for more requests
            first = asyncio.create_task(talk(made, 1))
            await asyncio.sleep(0.01)
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            return await talk(made, 2), await idle[0].generate(script(0)[0], seed=0)

    other, turn = asyncio.run(cancel())
    assert same(other, alone(2)) and same([(None, turn)], alone(0)[:1])


def test_leaving_in_the_middle_waits_for_the_thread():
    made, inside = engine_of(), threading.Semaphore(0)
    round_, rounds = made._run_round, []

    def counted(*arguments):
        inside.release()
        result = round_(*arguments)
        rounds.append(result)
        return result

    async def leave():
        made._run_round = counted
        async with made:
            task = asyncio.create_task(talk(made, 0))
            await asyncio.to_thread(inside.acquire)
        ended = len(rounds)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return ended

    assert asyncio.run(leave()) == 1
    assert same(run([0], made)[0], alone(0))


def test_a_layout_is_compiled_once():
    before = device.decode._cache_size(), device.extend._cache_size()
    options = {"slots": 5, "chunk": 7}  # as no other test has it
    run([0], engine_of(**options))
    run([1, 2, 3, 4], engine_of(**options))
    assert (device.decode._cache_size(), device.extend._cache_size()) == (before[0] + 1, before[1] + 1)
