"""The sampling engine against the model's own log-probabilities, and the policy as an agent on top of it."""

import asyncio
import dataclasses
import functools
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import qwen2, tokenizer
from rollouts import chat, engine, fds, play
from rollouts.engine import Engine, Sampling
from rollouts.policy import PolicyAgent
from rollouts.types import Message

CONFIG = qwen2.Qwen2Config(
    vocab_size=300, hidden_size=32, intermediate_size=48, num_layers=2, num_heads=4, num_kv_heads=2
)
STOP = 293  # <|im_end|> of the tokenizer below
SMALL = Sampling(slots=8, capacity=160, chunk=16, max_new_tokens=6, window=0.0)


@functools.cache
def params(seed=0, scale=12):
    """Random weights with a livelier output than at the start of training, and a likely stop token."""
    weights = qwen2.init(CONFIG, jax.random.key(seed))
    weights["embed"]["embedding"] = (weights["embed"]["embedding"] * scale).at[STOP].multiply(4)
    return weights


def engine_of(**changes):
    made = Engine(CONFIG, STOP, Sampling(**vars(SMALL) | changes))
    made.load(params())
    return made


@jax.jit
def _logprobs(weights, tokens, temperature):
    return qwen2.token_logprobs(CONFIG, weights, tokens, temperature=temperature)[0]


def scored(stream, temperature):
    """Log-probability of every token of a stream, computed in one piece."""
    row = np.zeros((1, SMALL.capacity), np.int32)
    row[0, : len(stream)] = stream
    return np.asarray(_logprobs(params(), row, temperature))[0, : len(stream)]


def script(number):
    """What others say in dialogue `number`: prompts of ragged lengths, the first one longer than a chunk or two."""
    rng = np.random.default_rng(number)
    return [rng.integers(8, 300, size=size) for size in (rng.integers(1, 40), *rng.integers(1, 14, size=2))]


async def talk(made, number):
    """Plays dialogue `number`; returns [(incoming ids, Sampled)]."""
    session = await made.open()
    try:
        return [
            (ids, await session.generate(ids, seed=1000 * number + place)) for place, ids in enumerate(script(number))
        ]
    finally:
        session.close()


async def talk_all(made, numbers):
    async with made:
        return dict(zip(numbers, await asyncio.gather(*(talk(made, number) for number in numbers)), strict=True))


def run(numbers, made=None):
    return asyncio.run(talk_all(made or engine_of(), numbers))


@functools.cache
def alone(number):
    return run([number])[number]


def same(turns, others):
    """Bitwise."""
    return len(turns) == len(others) and all(
        np.array_equal(a.ids, b.ids) and a.logprobs.tobytes() == b.logprobs.tobytes() and a.stop == b.stop
        for (_, a), (_, b) in zip(turns, others, strict=True)
    )


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_are_those_of_the_whole_stream_under_the_model(temperature):
    made = engine_of(temperature=temperature)
    for turns in run(range(8), made).values():
        stream, sampled = [], []
        for ids, turn in turns:
            assert turn.ids.dtype == np.int32 and turn.logprobs.dtype == np.float32
            assert len(turn.ids) == len(turn.logprobs) >= 1
            stream += [*ids, *turn.ids]
            sampled += [*[np.nan] * len(ids), *turn.logprobs]
        ours = np.array(sampled)
        np.testing.assert_allclose(ours[~np.isnan(ours)], scored(stream, temperature)[~np.isnan(ours)], atol=1e-5)


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


def test_more_dialogues_than_slots_take_turns():
    made = engine_of()
    results = run(range(19), made)
    assert all(same(results[number], alone(number)) for number in range(19))
    again = run([18, 0], made)  # and the engine is as good as new
    assert same(again[18], alone(18)) and same(again[0], alone(0))


def test_another_seed_draws_other_tokens():
    async def draw():
        async with engine_of() as made:
            sessions = [await made.open() for _ in range(3)]
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
            session = await made.open()
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
            session = await made.open()
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
            session = await made.open()
            with pytest.raises(RuntimeError, match="1 sessions are open"):
                made.load(params(1))
            session.close()
        made.load(params(1))
        return (await talk_all(made, [0]))[0]

    assert not same(asyncio.run(change()), alone(0))


def test_an_engine_without_weights_says_so():
    async def enter():
        async with Engine(CONFIG, STOP, SMALL):
            pass

    with pytest.raises(RuntimeError, match="load"):
        asyncio.run(enter())


@pytest.mark.parametrize(
    "options", [{"slots": 0}, {"capacity": 0}, {"chunk": 0}, {"max_new_tokens": 0}, {"temperature": 0.0}]
)
def test_a_layout_that_cannot_be_is_refused(options):
    with pytest.raises(ValueError, match=f"config.engine.{next(iter(options))}"):
        Sampling(**options)


def test_a_stop_token_outside_the_vocabulary_is_refused():
    with pytest.raises(ValueError, match="300"):
        Engine(CONFIG, 300, SMALL)


def test_a_fault_reaches_all_who_wait_and_the_engine_goes_on():
    async def break_it():
        made = engine_of()
        generate = made._generate

        def broken(batch):
            raise MemoryError("too big")

        async with made:
            made._generate = broken
            waiting = [asyncio.create_task(talk(made, number)) for number in range(3)]
            await asyncio.sleep(0)
            waiting[1].cancel()  # its waiting ends, that of the others must not be forgotten
            failures = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 10)
            made._generate = generate
            return failures, await asyncio.wait_for(talk(made, 0), 60)

    (first, second, third), turns = asyncio.run(break_it())
    assert str(first) == str(third) == "too big" and isinstance(second, asyncio.CancelledError)
    assert same(turns, alone(0))


@pytest.mark.parametrize("fault", [False, True])
def test_a_slot_whose_session_is_cancelled_is_given_on_only_when_its_batch_is_done(fault):
    async def cancel():
        made = engine_of()
        generate, started, go_on = made._generate, threading.Event(), threading.Event()

        def slow(batch):
            started.set()
            go_on.wait(10)
            if fault:
                raise MemoryError
            return generate(batch)

        async with made:
            for _ in range(SMALL.slots - 1):  # leaves one slot
                await made.open()
            made._generate = slow
            first = asyncio.create_task(talk(made, 1))
            await asyncio.to_thread(started.wait)
            first.cancel()
            second = asyncio.create_task(talk(made, 0))
            await asyncio.sleep(0.05)
            made._generate = generate
            go_on.set()
            return await asyncio.wait_for(second, 60)

    assert same(asyncio.run(cancel()), alone(0))


def test_a_caller_cancelled_before_its_batch_is_forgotten():
    async def cancel():
        async with engine_of(window=0.03) as made:
            for _ in range(SMALL.slots - 2):  # leaves two slots, and has the engine wait for more requests
                await made.open()
            first = asyncio.create_task(talk(made, 1))
            await asyncio.sleep(0.01)
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            session = await made.open()  # in the slot that `first` had
            other = await talk(made, 2)
            return other, await session.generate(script(0)[0], seed=0)

    other, turn = asyncio.run(cancel())
    assert same(other, alone(2)) and same([(None, turn)], alone(0)[:1])


def test_draws_follow_the_softmax_at_the_given_temperature():
    prompt, draws = np.array([100, 200, 300, 40]) % 300, 1536
    weights = params(scale=6)
    logits = np.asarray(jax.jit(qwen2.forward, static_argnums=0)(CONFIG, weights, jnp.asarray(prompt[None])))[0, -1]

    async def draw(temperature):
        async def one(made, seed):
            session = await made.open()
            sampled = await session.generate(prompt, seed)
            session.close()
            return sampled.ids[0]

        made = engine_of(temperature=temperature)
        made.load(weights)
        async with made:
            return await asyncio.gather(*(one(made, seed) for seed in range(draws)))

    def misfit(tokens, temperature, *, by_rarity=True):
        """Chi-square against the softmax in units of its deviation, tokens next to each other put together."""
        chances = np.asarray(jax.nn.softmax(logits / temperature))
        order = np.argsort(chances) if by_rarity else np.arange(300)
        bins = (np.cumsum(chances[order]) * 30).astype(int)
        expected = np.bincount(bins, chances[order]) * draws
        counts = np.bincount(bins, np.bincount(tokens, minlength=300)[order])
        full = expected > 5
        assert full.sum() > 15
        statistic, freedom = np.sum((counts - expected)[full] ** 2 / expected[full]), full.sum() - 1
        return (statistic - freedom) / np.sqrt(2 * freedom)

    for temperature, other in ((1.0, 0.7), (0.7, 1.0)):
        tokens = asyncio.run(draw(temperature))
        assert misfit(tokens, temperature) < 4 and misfit(tokens, temperature, by_rarity=False) < 4
        assert misfit(tokens, other) > 10


# The policy on top of it

SCENARIO = dataclasses.replace(next(fds.scenarios(1)), agent_prompt="You are a customer service agent.")
WORDS = [Message("user", text) for text in ("My soup arrived cold!", "And? <|im_end|> Süß.", "Hm.", "Bye.")]


@pytest.fixture(scope="module")
def trained():
    made = tokenizer.train([SCENARIO.agent_prompt, "My soup arrived cold! user assistant system. " * 9], 300)
    assert (made.vocab_size, made.im_end) == (CONFIG.vocab_size, STOP)
    return made


class Recorder:
    """A tokenizer that keeps what it is asked to encode."""

    def __init__(self, inner):
        self.inner, self.encoded = inner, []

    def encode(self, text):
        self.encoded.append(text)
        return self.inner.encode(text)

    def __getattr__(self, name):
        return getattr(self.inner, name)


def policy(trained, *, scenario=SCENARIO, replies=3, seed=0):
    """Samples of one dialogue, and what was encoded for it."""
    recorder = Recorder(trained)

    async def serve():
        made = engine_of()
        async with made:
            session = await PolicyAgent(made, recorder).open(scenario, 0)
            samples = [await session.reply(message, seed + place) for place, message in enumerate(WORDS[:replies])]
            session.close()
        made.load(params())  # the slot was given back
        return samples

    return asyncio.run(serve()), recorder.encoded


def opening(trained, scenario):
    return chat.encode_opening(trained, [Message("system", scenario.agent_prompt), WORDS[0]])


def test_the_stream_is_what_came_in_and_what_was_sampled_and_nothing_is_encoded_twice(trained):
    samples, encoded = policy(trained)
    assert samples[0].incoming_ids.tolist() == opening(trained, SCENARIO)
    for sample, message in zip(samples[1:], WORDS[1:], strict=False):
        assert sample.incoming_ids.tolist() == chat.encode_reply(trained, message)
    stream, ours, sampled = [], [], []
    for sample in samples:
        assert sample.incoming_ids.dtype == sample.ids.dtype == np.int32
        ours += [*[False] * len(sample.incoming_ids), *[True] * len(sample.ids)]
        stream += [*sample.incoming_ids, *sample.ids]
        sampled += [*sample.logprobs]
        assert sample.text == trained.decode(sample.ids).removesuffix("<|im_end|>")
    np.testing.assert_allclose(sampled, scored(stream, SMALL.temperature)[np.array(ours)], atol=1e-5)
    foreign = {f"user\n{chat.clean(message.content)}" for message in WORDS[:3]}
    assert set(encoded) == foreign | {f"system\n{SCENARIO.agent_prompt}"} | {"\n", "assistant\n"}
    assert sum(text.startswith(("user", "system")) for text in encoded) == 4


def test_the_stop_token_is_kept_in_the_ids_and_left_out_of_the_text(trained):
    samples = [policy(trained, replies=1, seed=seed)[0][0] for seed in range(40)]
    assert {sample.stop for sample in samples} == {"end_of_turn", "length"}
    for sample in samples:
        assert (sample.ids[-1] == STOP) == (sample.stop == "end_of_turn")
        assert sample.text == trained.decode([id for id in sample.ids if id != STOP])


def test_a_prompt_that_does_not_fit_is_an_error_and_a_dialogue_that_outgrows_the_context_ends(trained):
    room = SMALL.capacity - len(opening(trained, dataclasses.replace(SCENARIO, agent_prompt="")))
    scenario = dataclasses.replace(SCENARIO, agent_prompt="7" * room)
    assert len(opening(trained, scenario)) == SMALL.capacity
    with pytest.raises(ValueError, match=f"context_length: the prompt of scenario {SCENARIO.id} has 160 tokens"):
        policy(trained, scenario=scenario)
    samples, _ = policy(trained, scenario=dataclasses.replace(SCENARIO, agent_prompt="7" * (room - 8)), replies=2)
    assert 1 <= len(samples[0].ids) <= 6
    assert samples[1].stop == "context" and samples[1].text == "" and len(samples[1].ids) == 0


def test_a_whole_dialogue_with_random_weights_ends_as_a_breach_of_the_format(trained):
    class User:
        async def chat(self, messages, *, seed):
            return "My soup arrived cold!"

    async def serve():
        async with engine_of() as made:
            table = play.Table(User(), None, format_outcome=-10.0)
            return await play.play_all(PolicyAgent(made, trained), table, [SCENARIO] * 6, repeats=2, seed=1)

    dialogues = asyncio.run(serve())
    assert {dialogue.end for dialogue in dialogues} <= {"truncated", "malformed"}
    assert {dialogue.outcome for dialogue in dialogues} == {-10.0}
    assert len({dialogue.turns[0].ids.tobytes() for dialogue in dialogues}) > 6
    assert all(len(dialogue.turns[0].incoming_ids) and len(dialogue.turns) == 1 for dialogue in dialogues)


def test_the_decoder_is_compiled_once_for_a_layout():
    before = engine._decode._cache_size()
    run([0])
    run([1, 2])
    assert engine._decode._cache_size() - before <= 1
