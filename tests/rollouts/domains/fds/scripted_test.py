"""Whole dialogues of scripted agents over the embedded endpoint: the same whatever the timing, spent as is meant."""

import asyncio
import dataclasses
import itertools
import json
import random
import re

import numpy as np
import pytest

from rollouts import play
from rollouts.domains.fds import generator, turn_format
from rollouts.domains.fds.episode import Table
from rollouts.domains.fds.rubrics import PRINCIPLES
from rollouts.domains.fds.scripted import HABITS, Habits, HabitSession, ScriptedAgent
from rollouts.domains.fds.words import bank
from rollouts.endpoints.client import ChatClient, Endpoint
from rollouts.seeds import fold
from rollouts.types import Message
from tests.builders.dialogues import FDS


def client(name, **options):
    """Asks the embedded endpoint."""
    return ChatClient(name, Endpoint("embedded", f"embedded-{name}", **options), embedded=FDS.embedded)


class Delayed:
    """A client, or an agent's session, that takes a random time for each answer."""

    def __init__(self, inner, rng):
        self.inner, self.rng = inner, rng

    async def chat(self, messages, *, seed, response_format=None):
        await asyncio.sleep(self.rng.random() * 0.01)
        return await self.inner.chat(messages, seed=seed, response_format=response_format)

    async def open(self, task, seed):
        await asyncio.sleep(self.rng.random() * 0.01)
        return Delayed(await self.inner.open(task, seed), self.rng)

    async def reply(self, messages, seed):
        await asyncio.sleep(self.rng.random() * 0.01)
        return await self.inner.reply(messages, seed)

    def close(self):
        self.inner.close()


def embedded(style, scenarios, *, repeats=1, seed=0, concurrency=64, delays=None, judged=True):
    async def play_them():
        async with (
            client("user", concurrency=concurrency) as user,
            client("judge", concurrency=concurrency) as judging,
        ):
            agent, clients = ScriptedAgent(style), [user, judging if judged else None]
            if delays is not None:
                rng = random.Random(delays)
                agent, clients = Delayed(agent, rng), [Delayed(client, rng) for client in clients]
            return await play.play_all(agent, Table(*clients).episodes, scenarios, repeats=repeats, seed=seed)

    return asyncio.run(play_them())


def deal(count, **options):
    return list(itertools.islice(generator.deal_scenarios(11, **options), count))


def plain(dialogue):
    """A dialogue without arrays, to be compared."""
    return json.dumps(dataclasses.asdict(dialogue), default=np.ndarray.tolist)


def test_the_same_seed_plays_the_same_dialogues_whatever_the_timing():
    scenarios = deal(6)
    first = embedded("generous", scenarios, repeats=2)
    assert [dialogue.task for dialogue in first] == [scenario for scenario in scenarios for _ in range(2)]
    assert [dialogue.index for dialogue in first] == [0, 1] * 6
    expected = [plain(dialogue) for dialogue in first]
    assert len(set(expected)) == 12
    for options in ({"concurrency": 1}, {"delays": 1}, {"delays": 2, "concurrency": 3}):
        assert [plain(dialogue) for dialogue in embedded("generous", scenarios, repeats=2, **options)] == expected
    assert not set(expected) & {plain(dialogue) for dialogue in embedded("generous", scenarios, repeats=2, seed=1)}


def test_a_dialogue_alone_is_the_one_from_the_batch():
    scenarios = deal(5)
    batch = embedded("generous", scenarios)

    async def alone():
        async with client("user") as user:
            table = Table(user, None)
            return await play.play_dialogue(
                ScriptedAgent("generous"), table.episodes, scenarios[3], index=0, seed=fold(0, 3)
            )

    texts = [(said.messages[-1].content, said.text) for said in asyncio.run(alone()).turns]
    assert texts == [(said.messages[-1].content, said.text) for said in batch[3].turns]


@pytest.mark.parametrize("style", HABITS)
def test_embedded_dialogues_are_whole(style):
    for dialogue in embedded(style, deal(24)):
        assert dialogue.ok and dialogue.end in ("rated", "quit"), dialogue.failure_message
        assert dialogue.success == (dialogue.end == "rated") == (dialogue.outcome > 0)
        assert ("[quit]" if dialogue.end == "quit" else f"[end:{dialogue.outcome:.0f}]") in dialogue.last_words
        assert 1 <= len(dialogue.turns) <= 15
        vouchers = [said.notes["action"] == "voucher" for said in dialogue.turns]
        assert sum(vouchers) == dialogue.cost[0] <= 1
        if any(vouchers):
            assert vouchers[-1]  # the embedded customer leaves with a voucher
        for said in dialogue.turns:
            assert turn_format.render_reply(turn_format.parse(said.text)) == said.text
            assert "[end" not in said.messages[-1].content and "[quit" not in said.messages[-1].content
            assert set(said.notes["scores"]) == set(PRINCIPLES)
            assert said.process_reward == pytest.approx(np.mean(list(said.notes["scores"].values())))
            read = set(said.notes["reason"].partition("turn: ")[2].split(", ")) - {"crowded"}  # as the judge read it
            assert set(said.notes["events"]) == read


def test_the_scripted_agents_spend_as_they_are_meant_to():
    scenarios = deal(96, split="test")
    rates, outcomes = {}, {}
    for style in HABITS:
        dialogues = embedded(style, scenarios, judged=False)
        assert all(dialogue.ok for dialogue in dialogues)
        rates[style] = np.mean([dialogue.cost[0] for dialogue in dialogues])
        outcomes[style] = np.mean([dialogue.outcome for dialogue in dialogues])
    assert 0.45 < rates["generous"] < 0.95  # beyond the budget of 30 %: there is something to learn
    assert rates["never"] == 0.0 and rates["always"] > 0.95
    assert 1.5 < outcomes["never"] < outcomes["always"] < 3.2


def test_agents_that_wait_hear_the_angry_before_they_ask():
    firsts = [one.turns[0].text for one in embedded("never", deal(64), judged=False)]
    waited = ["Plan: listen." in text for text in firsts]
    assert 20 < sum(waited) < 64
    assert all("Plan: listen, ask." in text for text, waits in zip(firsts, waited, strict=True) if not waits)


def test_what_is_too_much_for_a_turn_is_done_in_the_next():
    all_of_it = dict.fromkeys((field.name for field in dataclasses.fields(Habits)), 1.0)
    habits = Habits(**all_of_it | {"waits": 0.0, "hesitates": 0.0, "presses": 0.0, "slips": 0.0})
    scenario = next(one for one in generator.deal_scenarios(0) if one.order.complaint == "food temperature")
    session, plans = HabitSession(habits, scenario, random.Random(0)), []
    for said in (
        "The food was cold. They should hear about it.",
        "Here is the picture. [Sent Picture: cold] They should hear about it.",
        "They should hear about it.",
        "Yes, a voucher would be fine.",
    ):
        think = turn_format.parse(asyncio.run(session.reply([Message("user", said)], 0)).text).think
        plans.append(think.rpartition("Plan: ")[2])
    assert plans == ["listen, ask.", "explain, note.", "offer.", "voucher."]


@pytest.mark.parametrize("style", HABITS)
def test_played_outputs_cost_by_their_words_what_their_episodes_charged(style):
    for dialogue in embedded(style, deal(12), judged=False):
        texts = [said.text for said in dialogue.turns]
        priced = [FDS.read_turn(text, texts[:number]).cost.tolist() for number, text in enumerate(texts)]
        assert priced == [said.cost.tolist() for said in dialogue.turns]


def test_a_voucher_is_turned_down_in_words_that_the_agent_says():
    spoken = {
        text
        for act in ("limit", "close")
        for one in bank.list_templates("replies", (act,), False)
        for text in one.texts
    }
    declined = set()
    for given in [
        said.text for one in embedded("generous", deal(24), judged=False) for said in one.turns if said.cost[0]
    ][:5]:
        for seed in range(60):
            text = FDS.decline_action(given, seed)
            assert text == FDS.decline_action(given, seed) and FDS.read_turn(text, ()).cost.tolist() == [0]
            reply, was = turn_format.parse(text), turn_format.parse(given)
            assert reply.think.split("Plan:")[0] == was.think.split("Plan:")[0]
            assert reply.think.endswith("Plan: limit, close.") and "voucher" not in reply.response
            assert spoken >= set(re.split(r"(?<=[.?]) ", reply.response))
            declined.add(reply.response)
    assert len(declined) > 20
    assert turn_format.parse(FDS.decline_action("no turn", 0)).think == "Plan: limit, close."


def test_an_unknown_style_is_refused():
    with pytest.raises(ValueError, match="generous"):
        ScriptedAgent("stingy")
