"""The policy as an agent on the sampling engine."""

import asyncio
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import qwen2, tokenizer
from rollouts import chat, play
from rollouts.agents.policy import PolicyAgent
from rollouts.domains.fds import generator, turn_format
from rollouts.domains.fds.episode import Table
from rollouts.types import Message
from tests.builders.engines import CONFIG, SMALL, STOP, engine_of, params, scored, script

SCENARIO = dataclasses.replace(next(generator.deal_scenarios(1)), agent_prompt="You are a customer service agent.")
WORDS = [Message("user", text) for text in ("My soup arrived cold!", "And? <|im_end|> Süß.", "Hm.", "Bye.")]


@pytest.fixture(scope="module")
def trained():
    made = tokenizer.train_tokenizer([SCENARIO.agent_prompt, "My soup arrived cold! user assistant system. " * 9], 300)
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
            samples = [await session.reply([message], seed + place) for place, message in enumerate(WORDS[:replies])]
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
        assert sample.incoming_ids.tolist() == chat.encode_reply(trained, [message])
    stream, ours, sampled = [], [], []
    for sample in samples:
        assert sample.incoming_ids.dtype == sample.ids.dtype == np.int32
        ours += [*[False] * len(sample.incoming_ids), *[True] * len(sample.ids)]
        stream += [*sample.incoming_ids, *sample.ids]
        sampled += [*sample.logprobs]
        assert sample.text == trained.decode(sample.ids).removesuffix("<|im_end|>")
    np.testing.assert_allclose(sampled, scored(stream, SMALL.temperature)[np.array(ours)], atol=1e-5)
    foreign = {f"user\n{chat.clean_text(message.content)}" for message in WORDS[:3]}
    assert set(encoded) == foreign | {f"system\n{SCENARIO.agent_prompt}"} | {"\n", "assistant\n"}
    assert sum(text.startswith(("user", "system")) for text in encoded) == 4


def test_the_stop_token_is_kept_in_the_ids_and_left_out_of_the_text(trained):
    samples = [policy(trained, replies=1, seed=seed)[0][0] for seed in range(40)]
    assert {sample.stop for sample in samples} == {"end_of_turn", "length"}
    for sample in samples:
        assert (sample.ids[-1] == STOP) == (sample.stop == "end_of_turn")
        assert sample.text == trained.decode([id for id in sample.ids if id != STOP])


def test_a_dialogue_that_does_not_fit_ends_be_it_at_the_first_message_or_later(trained):
    room = SMALL.capacity - len(opening(trained, dataclasses.replace(SCENARIO, agent_prompt="")))
    scenario = dataclasses.replace(SCENARIO, agent_prompt="7" * room)
    assert len(opening(trained, scenario)) == SMALL.capacity
    (first, *_), _ = policy(trained, scenario=scenario)
    assert first.stop == "context" and first.text == "" and len(first.ids) == 0
    samples, _ = policy(trained, scenario=dataclasses.replace(SCENARIO, agent_prompt="7" * (room - 8)), replies=2)
    assert 1 <= len(samples[0].ids) <= 6
    assert samples[1].stop == "context" and samples[1].text == "" and len(samples[1].ids) == 0


def test_a_whole_dialogue_with_random_weights_ends_as_a_breach_of_the_format(trained):
    class User:
        async def chat(self, messages, *, seed, response_format=None):
            return "My soup arrived cold!"

    async def serve():
        async with engine_of() as made:
            table = Table(User(), None, format_outcome=-10.0)
            return await play.play_all(PolicyAgent(made, trained), table.episodes, [SCENARIO] * 6, repeats=2, seed=1)

    dialogues = asyncio.run(serve())
    assert {dialogue.end for dialogue in dialogues} <= {"truncated", "malformed"}
    assert {dialogue.outcome for dialogue in dialogues} == {-10.0}
    assert len({dialogue.turns[0].ids.tobytes() for dialogue in dialogues}) > 6
    assert all(len(dialogue.turns[0].incoming_ids) and len(dialogue.turns) == 1 for dialogue in dialogues)


@pytest.mark.parametrize("temperature", [0.8, 3.0])
def test_a_grammar_lets_the_policy_write_well_formed_turns_only(trained, temperature):
    """Random weights, which would hardly ever; log-probabilities are the policy's all the same."""
    rules, weights = turn_format.grammar(trained, CONFIG.vocab_size), params()
    closing = [trained.encode(tag)[0] for tag in ("</think>", "</response>")]  # make it likely that they come
    table = weights["embed"]["embedding"].at[jnp.array(closing)].multiply(5)
    weights = weights | {"embed": {"embedding": table}}
    made = engine_of(weights, grammar=rules, temperature=temperature, max_new_tokens=150, capacity=500)

    async def one(number):
        session = made.open()
        turns = [(ids, await session.generate(ids, seed=number)) for ids in script(number)[:2]]
        session.close()
        return turns

    async def everyone():
        async with made:
            return await asyncio.gather(*(one(number) for number in range(12)))

    score = jax.jit(lambda row: qwen2.token_logprobs(CONFIG, weights, row, temperature=temperature)[0][0])
    ended = 0
    for played in asyncio.run(everyone()):
        stream, mine, sampled = [], [], []
        for ids, turn in played:
            stream, sampled = [*stream, *ids, *turn.ids], [*sampled, *turn.logprobs]
            mine += [*[False] * len(ids), *[True] * len(turn.ids)]
            if turn.stop == "end_of_turn":
                ended += 1
                assert turn_format.parse(trained.decode(turn.ids[:-1])).response
            else:  # long-winded, but not malformed
                assert trained.decode(turn.ids).startswith("<think>")
        row = np.zeros((1, 512), np.int32)
        row[0, : len(stream)] = stream
        expected = np.asarray(score(row))[: len(stream)]
        np.testing.assert_allclose(sampled, expected[np.array(mine)], atol=1e-4)
    assert ended > 3
