"""Finding the stream of a conversation again."""

import numpy as np

from rollouts.serving.conversations import (
    Conversations,
    KeptConversation,
    Spoken,
    describe_tools,
    hash_others,
    sort_arguments,
)

TOLD = ""
HELLO, HI = Spoken("user", "Hello"), Spoken("assistant", "Hi!")
AGAIN, YES = Spoken("user", "Again?"), Spoken("assistant", "Yes.")


class Sessions:
    """An engine that counts the sessions that are open."""

    def __init__(self):
        self.open_now = set()

    def open(self):
        session = Session(self)
        self.open_now.add(session)
        return session


class Session:
    def __init__(self, engine):
        self._engine = engine

    def close(self):
        self._engine.open_now.discard(self)


class Table:
    """Conversations with a clock of their own, and a record of who has ended."""

    def __init__(self, most=10, room=1000, age=100.0):
        self.engine, self.now, self.ended = Sessions(), 0.0, []
        names = iter("abcdefghij")
        self.kept = Conversations(
            self.engine,
            most=most,
            room=room,
            age=age,
            ended=self.ended.append,
            clock=lambda: self.now,
            name_dialogue=lambda: next(names),
        )

    def answer(self, *messages, name="", told=TOLD):
        """Answers a conversation whose last message is the answer; returns what was known, and where it went on."""
        known = self.kept.find(told, messages[:-1], name)
        (place,) = self.kept.go_on(known, name=name)
        self.keep(place, known, *messages, told=told)
        return known, place

    def keep(self, place, known, *messages, told=TOLD):
        begun, outputs = (known.ids, known.outputs) if known else (np.zeros(0, int), ())
        ids, others = np.append(begun, [len(messages)]), hash_others(told, messages)
        outputs = (*outputs, messages[-1].content)
        new = KeptConversation(place.dialogue, ids, outputs, len(messages), others, place.session)
        self.kept.keep(place, new, told, messages)


def test_a_conversation_that_comes_back_longer_goes_on_in_its_stream():
    table = Table()
    nothing, first = table.answer(HELLO, HI)
    known, second = table.answer(HELLO, HI, AGAIN, YES)
    assert nothing is None and known.count == 2 and second.session is first.session
    assert known.ids.tolist() == [2] and known.outputs == ("Hi!",) and second.dialogue == first.dialogue == "a"
    assert len(table.engine.open_now) == 1 and table.kept.open_sessions == 1 and len(table.kept) == 1


def test_a_turn_that_is_asked_for_once_more_gets_a_stream_that_begins_with_the_same_tokens():
    table = Table()
    table.answer(HELLO, HI)
    table.answer(HELLO, HI, AGAIN, YES)
    known, other = table.answer(HELLO, HI, AGAIN, Spoken("assistant", "No."))
    assert known.ids.tolist() == [2] and other.dialogue == "a" and len(table.engine.open_now) == 2
    assert table.answer(HELLO, HI, AGAIN, YES, AGAIN, YES)[0].ids.tolist() == [2, 4]


def test_the_same_answer_sampled_twice_leaves_one_stream_and_ends_nothing():
    table = Table()
    table.answer(HELLO, HI)
    table.answer(HELLO, HI, AGAIN, YES)
    table.answer(HELLO, HI, AGAIN, YES)
    assert len(table.kept) == 1 and len(table.engine.open_now) == 1 and table.ended == []
    table.answer(HELLO, HI)  # of another dialogue, which takes the place of the first state of this one
    assert len(table.kept) == 2 and table.ended == []
    table.kept.close()
    assert table.ended == ["a", "b"] and not table.engine.open_now


def test_one_word_or_tool_that_differs_is_another_conversation():
    table = Table()
    table.answer(HELLO, HI)
    for messages, told in (
        ([Spoken("user", "hello"), HI], TOLD),
        ([HELLO, Spoken("assistant", "Hi")], TOLD),
        ([HELLO, Spoken("assistant", "Hi!", (("find", "{}"),))], TOLD),
        ([HELLO, HI], describe_tools([{"type": "function"}])),
        ([Spoken("system", "Be kind."), HELLO, HI], TOLD),
    ):
        assert table.kept.find(told, [*messages, AGAIN]) is None
    assert table.kept.find(TOLD, [HELLO, HI, AGAIN]).count == 2


def test_arguments_are_compared_as_json():
    assert sort_arguments('{"b":1, "a" : [1,2]}') == sort_arguments('{"a": [1, 2], "b": 1}')
    assert sort_arguments("no json") == "no json"


def test_a_named_session_is_found_although_its_client_changed_what_the_agent_said():
    table = Table()
    _, first = table.answer(HELLO, HI, name="s")
    short = Spoken("assistant", "without the thoughts")
    assert table.kept.find(TOLD, [HELLO, short, AGAIN]) is None
    _, second = table.answer(HELLO, short, AGAIN, YES, name="s")
    assert second.session is first.session and table.kept.find_dialogue("s") == first.dialogue == second.dialogue
    known, third = table.answer(HELLO, short, Spoken("user", "Another question"), YES, name="s")
    assert known is None and third.dialogue == "a"  # its history is another one, so the name is not its


def test_a_name_is_one_dialogue_also_after_it_was_let_go_and_two_names_are_two():
    table = Table(age=10.0)
    _, first = table.answer(HELLO, HI, name="alice")
    _, other = table.answer(HELLO, HI, name="bob")  # the same words
    assert first.dialogue != other.dialogue and len(table.engine.open_now) == 2 and table.ended == []
    assert table.answer(HELLO, HI, AGAIN, YES, name="alice")[1].session is first.session
    table.now = 20.0
    _, again = table.answer(HELLO, HI, AGAIN, YES, AGAIN, YES, name="alice")
    assert again.dialogue == first.dialogue and table.ended == [other.dialogue, first.dialogue]


def test_of_several_answers_to_a_named_session_the_one_that_is_sent_back_goes_on():
    table = Table()
    places = table.kept.go_on(None, 2, "s")
    answers = [Spoken("assistant", "one"), Spoken("assistant", "two")]
    for place, answer in zip(places, answers, strict=True):
        table.keep(place, None, HELLO, answer)
    assert table.answer(HELLO, answers[0], AGAIN, YES, name="s")[1].session is places[0].session


def test_nobody_who_names_a_session_gets_the_words_of_another():
    table = Table()
    table.answer(HELLO, HI, name="s")
    assert table.kept.find(TOLD, [Spoken("user", "Who?"), HI, AGAIN], "s") is None
    assert table.kept.find(describe_tools([{}]), [HELLO, HI, AGAIN], "s") is None
    assert table.kept.find(TOLD, [Spoken("assistant", "Welcome!"), HELLO, AGAIN], "s") is None
    assert table.kept.find(TOLD, [HELLO, HI, AGAIN]) is None and table.kept.find(TOLD, [HELLO, HI, AGAIN], "t") is None


def test_conversations_are_let_go_by_age_and_by_number_and_each_dialogue_ends_once():
    table = Table(most=2, age=100.0)
    table.answer(HELLO, HI)
    table.answer(HELLO, HI, AGAIN, YES)
    table.now = 60.0
    table.answer(Spoken("user", "Another"), HI)
    assert table.ended == [] and len(table.kept) == 2
    table.answer(Spoken("user", "A third"), HI)
    assert table.ended == ["a"] and len(table.kept) == 2 and len(table.engine.open_now) == 2
    table.now = 170.0
    table.kept.drop_old()
    assert table.ended == ["a", "b", "c"] and not table.engine.open_now


def test_a_dialogue_with_a_request_under_way_has_not_ended():
    table = Table(most=1)
    table.answer(HELLO, HI)
    (place,) = table.kept.go_on(table.kept.find(TOLD, [HELLO, HI, AGAIN]))
    table.answer(Spoken("user", "Another"), HI)
    assert table.ended == ["b"]  # the other one has no room
    table.kept.release(place)
    assert table.kept.find(TOLD, [HELLO, HI, AGAIN]).count == 2 and table.ended == ["b"]


def test_several_answers_to_a_request_are_of_one_dialogue():
    table = Table()
    places = table.kept.go_on(None, 3)
    for number, place in enumerate(places):
        table.keep(place, None, HELLO, Spoken("assistant", str(number)))
    assert [place.dialogue for place in places] == ["a"] * 3 and len(table.engine.open_now) == 3
    again = table.kept.go_on(table.kept.find(TOLD, [HELLO, Spoken("assistant", "2"), AGAIN]), 2)
    assert again[0].session is places[2].session
    assert {place.dialogue for place in again} == {"a"} and len(table.engine.open_now) == 4
    for place in again:
        table.kept.release(place)
    table.kept.close()
    assert table.ended == ["a"] and not table.engine.open_now


def test_conversations_are_let_go_by_the_room_that_their_streams_take():
    table = Table(room=3)
    table.answer(HELLO, HI)  # a token
    table.answer(HELLO, HI, AGAIN, YES)  # two
    table.answer(Spoken("user", "Another"), HI)
    assert table.ended == [] and len(table.engine.open_now) == 2
    table.answer(Spoken("user", "A third"), HI)
    assert table.ended == ["a"] and len(table.engine.open_now) == 2
