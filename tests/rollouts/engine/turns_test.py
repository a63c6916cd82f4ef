"""What a turn may ask of the engine for itself: options, a constraint, a watch."""

import asyncio

import numpy as np
import pytest

from rollouts.engine.engine import Sampled
from rollouts.engine.sampling import TurnOptions
from tests.builders.engines import CONFIG, STOP, engine_of, script

OPTIONS = [
    TurnOptions(6),
    TurnOptions(4, temperature=0.0),
    TurnOptions(3, temperature=0.5),
    TurnOptions(6, top_k=3),
    TurnOptions(5, temperature=1.3, top_p=0.6),
    TurnOptions(6, temperature=0.0, top_k=2, top_p=0.5),
]


class Only:
    """A constraint to some tokens, and a record of those that were drawn."""

    def __init__(self, *tokens):
        self.mask, self.drawn = np.isin(np.arange(CONFIG.vocab_size), tokens), []

    def allowed(self):
        return self.mask

    def accept(self, token):
        self.drawn.append(token)


def draw(made, *turns):
    """Draws turns of dialogues at once: (number of the dialogue, what `generate` takes beside ids and seed)."""

    async def one(number, choices):
        session = made.open()
        sampled = await session.generate(script(number)[0], 7 * number, **choices)
        session.close()
        return sampled

    async def all_at_once():
        async with made:
            return await asyncio.gather(*(one(number, choices) for number, choices in turns))

    return asyncio.run(all_at_once())


def bits(sampled):
    return [part.tobytes() for part in sampled[:3]], sampled.stop


def test_turns_of_different_options_share_a_batch_and_each_is_drawn_as_if_the_engine_had_them():
    together = draw(engine_of(), *((number, {"options": options}) for number, options in enumerate(OPTIONS)))
    for number, (options, sampled) in enumerate(zip(OPTIONS, together, strict=True)):
        (alone,) = draw(engine_of(**vars(options)), (number, {}))
        assert bits(alone) == bits(sampled)
        assert len(sampled.ids) <= options.max_new_tokens
    assert [len(sampled.ids) for sampled in together if sampled.stop == "length"] != []


def test_options_that_cannot_be_are_refused():
    for changes in ({"temperature": -1.0}, {"temperature": float("inf")}, {"top_p": 0.0}, {"top_k": -1}):
        with pytest.raises(ValueError, match=f"{next(iter(changes))}: expected"):
            TurnOptions(**changes)


def test_a_constraint_holds_for_its_turn_alone():
    only = Only(20, 30, STOP)
    bound, free = draw(engine_of(), (1, {"constraint": only}), (2, {}))
    assert set(bound.ids) <= {20, 30, STOP} and only.drawn == bound.ids.tolist()
    assert bits(free) == bits(draw(engine_of(), (2, {}))[0]) and not set(free.ids) <= {20, 30, STOP}
    (greedy,) = draw(engine_of(), (1, {"constraint": Only(20), "options": TurnOptions(5, temperature=0.0)}))
    assert greedy.ids.tolist() == [20] * 5 and greedy.stop == "length"


class Broken(Only):
    """A constraint that gives up at its second question, or at its first answer."""

    def __init__(self, at):
        super().__init__(20, 30)
        self.at = at

    def allowed(self):
        if self.at == "allowed" and self.drawn:
            raise RuntimeError("gave up")
        return self.mask

    def accept(self, token):
        if self.at == "accept":
            raise RuntimeError("gave up")
        super().accept(token)


@pytest.mark.parametrize("at", ["allowed", "accept"])
def test_a_constraint_that_fails_fails_its_turn_alone(at):
    async def play():
        made = engine_of()
        async with made:
            sessions = [made.open(), made.open()]
            failed, fine = await asyncio.gather(
                sessions[0].generate(script(1)[0], 1, constraint=Broken(at)),
                sessions[1].generate(script(2)[0], 14),
                return_exceptions=True,
            )
            return failed, fine, await sessions[0].generate(script(1)[1], 2)  # the stream goes on

    failed, fine, after = asyncio.run(play())
    assert str(failed) == "gave up" and bits(fine) == bits(draw(engine_of(), (2, {}))[0]) and len(after.ids)


def test_what_is_said_of_a_cut_turn_does_not_depend_on_a_constraint_beside_it():
    options = {"options": TurnOptions(6, top_k=2)}
    (alone,) = draw(engine_of(), (2, options))
    beside, _ = draw(engine_of(), (2, options), (1, {"constraint": Only(20, 30), "options": TurnOptions(6)}))
    assert bits(alone) == bits(beside) and (alone.logprobs > np.log(0.2)).any()


def test_a_temperature_next_to_nothing_is_0():
    (cold,), (greedy,) = (
        draw(engine_of(), (1, {"options": TurnOptions(6, temperature=heat), "constraint": Only(20, 30)}))
        for heat in (1.2e-38, 0.0)
    )
    assert bits(cold) == bits(greedy)


def test_a_watch_sees_a_turn_grow_and_may_end_it_and_what_it_does_not_keep_leaves_the_stream():
    seen = []

    def watch(so_far: Sampled):
        seen.append(so_far)
        return 3 if len(so_far.ids) >= 4 else None

    async def play(made, **first):
        async with made:
            session = made.open()
            prompt, reply = script(0)[0], script(0)[1]
            turns = [await session.generate(prompt, 1, **first), await session.generate(reply, 2)]
            return turns, session.ids.copy()

    first = {"constraint": Only(*range(20, 90)), "watch": watch}  # a turn that does not end by itself
    (cut, after), stream = asyncio.run(play(engine_of(), options=TurnOptions(6), **first))
    first = {"constraint": Only(*range(20, 90))}
    (short, same_after), same_stream = asyncio.run(play(engine_of(), options=TurnOptions(3), **first))
    assert [len(so_far.ids) for so_far in seen] == [1, 2, 3, 4] and cut.stop == "cut"
    assert bits(cut)[0] == bits(short)[0] and bits(after) == bits(same_after)
    assert np.array_equal(stream, same_stream)
    assert np.array_equal(stream[len(script(0)[0]) :][:3], seen[-1].ids[:3])


def test_a_watch_that_fails_fails_its_turn_alone():
    def watch(so_far):
        raise ZeroDivisionError

    async def play():
        made = engine_of()
        async with made:
            sessions = [made.open(), made.open()]
            return await asyncio.gather(
                sessions[0].generate(script(1)[0], 1, watch=watch),
                sessions[1].generate(script(2)[0], 14),
                return_exceptions=True,
            )

    failed, fine = asyncio.run(play())
    assert isinstance(failed, ZeroDivisionError) and bits(fine) == bits(draw(engine_of(), (2, {}))[0])


def test_a_stream_that_was_rewound_goes_on_as_if_nothing_had_followed():
    async def play(made, *, rewind):
        async with made:
            session = made.open()
            prompt, reply = script(3)[0], script(3)[1]
            if rewind:
                await session.generate(prompt, 5)
                session.rewind(len(prompt) - 1)
                return await session.generate(np.array([prompt[-1], *reply]), 6)
            return await session.generate(np.array([*prompt, *reply]), 6)

    once, twice = (asyncio.run(play(engine_of(), rewind=rewind)) for rewind in (False, True))
    assert np.array_equal(once.ids, twice.ids)
    np.testing.assert_allclose(once.logprobs, twice.logprobs, atol=1e-5)  # read in other chunks
