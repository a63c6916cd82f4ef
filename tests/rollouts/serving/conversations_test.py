"""Finding the stream of a conversation again."""

import numpy as np

from rollouts.serving.conversations import Conversations, Said, describe_tools, sort_arguments

TOLD = ""
HELLO, HI = Said("user", "Hello"), Said("assistant", "Hi!")
AGAIN, YES = Said("user", "Again?"), Said("assistant", "Yes.")


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

    def __init__(self, most=10, age=100.0):
        self.engine, self.now, self.ended = Sessions(), 0.0, []
        names = iter("abcdefghij")
        self.kept = Conversations(
            self.engine,
            most=most,
            age=age,
            ended=self.ended.append,
            clock=lambda: self.now,
            name_dialogue=lambda: next(names),
        )

    def answer(self, *messages, name="", told=TOLD):
        """Answers a conversation whose last message is the answer; returns where it went on."""
        (place,) = self.kept.go_on(self.kept.find(told, messages[:-1], name))
        ids = np.append(place.begun, [len(messages)])
        self.kept.keep(place, ids, messages[-1].content, told, messages, name)
        return place


def test_a_conversation_that_comes_back_longer_goes_on_in_its_stream():
    table = Table()
    first = table.answer(HELLO, HI)
    second = table.answer(HELLO, HI, AGAIN, YES)
    assert (first.count, second.count) == (0, 2) and second.session is first.session
    assert second.begun.tolist() == [2] and second.outputs == ("Hi!",) and second.dialogue == first.dialogue == "a"
    assert len(table.engine.open_now) == 1 and table.kept.open_sessions == 1


def test_a_turn_that_is_asked_for_once_more_gets_a_stream_that_begins_with_the_same_tokens():
    table = Table()
    table.answer(HELLO, HI)
    table.answer(HELLO, HI, AGAIN, YES)
    other = table.answer(HELLO, HI, AGAIN, Said("assistant", "No."))
    assert other.begun.tolist() == [2] and other.dialogue == "a" and len(table.engine.open_now) == 2
    assert table.answer(HELLO, HI, AGAIN, YES, AGAIN, YES).begun.tolist() == [2, 4]


def test_the_same_answer_sampled_twice_leaves_one_stream_and_ends_nothing():
    table = Table()
    table.answer(HELLO, HI)
    table.answer(HELLO, HI, AGAIN, YES)
    table.answer(HELLO, HI, AGAIN, YES)
    assert len(table.kept) == 2 and len(table.engine.open_now) == 1 and table.ended == []


def test_one_word_or_tool_that_differs_is_another_conversation():
    table = Table()
    table.answer(HELLO, HI)
    for messages, told in (
        ([Said("user", "hello"), HI], TOLD),
        ([HELLO, Said("assistant", "Hi")], TOLD),
        ([HELLO, Said("assistant", "Hi!", (("find", "{}"),))], TOLD),
        ([HELLO, HI], describe_tools([{"type": "function"}])),
        ([Said("system", "Be kind."), HELLO, HI], TOLD),
    ):
        assert table.kept.find(told, [*messages, AGAIN]) is None
    assert table.kept.find(TOLD, [HELLO, HI, AGAIN]).count == 2


def test_arguments_are_compared_as_json():
    assert sort_arguments('{"b":1, "a" : [1,2]}') == sort_arguments('{"a": [1, 2], "b": 1}')
    assert sort_arguments("no json") == "no json"


def test_a_named_session_is_found_although_its_client_changed_what_the_agent_said():
    table = Table()
    first = table.answer(HELLO, HI, name="s")
    short = Said("assistant", "without the thoughts")
    assert table.kept.find(TOLD, [HELLO, short, AGAIN]) is None
    second = table.answer(HELLO, short, AGAIN, YES, name="s")
    assert second.session is first.session and table.kept.dialogue_of("s") == "a"
    third = table.answer(HELLO, short, Said("user", "Another question"), YES, name="s")
    assert third.count == 0 and third.dialogue == "b"  # its history is another one


def test_nobody_who_names_a_session_gets_the_words_of_another():
    table = Table()
    table.answer(HELLO, HI, name="s")
    assert table.kept.find(TOLD, [Said("user", "Who?"), HI, AGAIN], "s") is None
    assert table.kept.find(describe_tools([{}]), [HELLO, HI, AGAIN], "s") is None


def test_conversations_are_let_go_by_age_and_by_number_and_each_dialogue_ends_once():
    table = Table(most=2, age=100.0)
    table.answer(HELLO, HI)
    table.answer(HELLO, HI, AGAIN, YES)
    table.now = 60.0
    table.answer(Said("user", "Another"), HI)  # the first entry of a is the longest unused
    assert table.ended == [] and len(table.kept) == 2
    table.now = 120.0
    table.kept.drop_old()
    assert table.ended == ["a"] and len(table.kept) == 1 and len(table.engine.open_now) == 1
    table.kept.close()
    assert table.ended == ["a", "b"] and not table.engine.open_now


def test_a_dialogue_with_a_request_under_way_has_not_ended():
    table = Table(most=1)
    table.answer(HELLO, HI)
    (place,) = table.kept.go_on(table.kept.find(TOLD, [HELLO, HI, AGAIN]))
    table.answer(Said("user", "Another"), HI)
    assert table.ended == []
    table.kept.release(place)
    assert table.ended == ["a"] and len(table.engine.open_now) == 1


def test_several_answers_to_a_request_are_of_one_dialogue():
    table = Table()
    places = table.kept.go_on(None, 3)
    for number, place in enumerate(places):
        table.kept.keep(place, np.array([1, number]), "", TOLD, [HELLO, Said("assistant", str(number))])
    assert [place.dialogue for place in places] == ["a"] * 3 and len(table.engine.open_now) == 3
    again = table.kept.go_on(table.kept.find(TOLD, [HELLO, Said("assistant", "2"), AGAIN]), 2)
    assert [place.begun.tolist() for place in again] == [[1, 2]] * 2 and again[0].session is places[2].session
    assert {place.dialogue for place in again} == {"a"} and len(table.engine.open_now) == 4
    for place in again:
        table.kept.release(place)
    table.kept.close()
    assert table.ended == ["a"] and not table.engine.open_now
