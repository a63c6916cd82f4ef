"""The agents that know the gym: on their frontiers through messages alone; the demonstrator varies and never lies."""

import asyncio
import itertools
import re

import numpy as np
import pytest

from rollouts import play
from rollouts.domains.fds import generator, turn_format
from rollouts.domains.fds.embedded import oracle
from rollouts.domains.fds.episode import Table
from rollouts.domains.fds.gym_agents import DEMONSTRATED_PRICES, OracleAgent, ReaderAgent, VariedAgent
from rollouts.domains.fds.shift import NO_SHIFT, parse_shift
from rollouts.endpoints.client import ChatClient, Endpoint
from rollouts.types import Message
from tests.builders.dialogues import FDS
from tests.builders.replies import read_turns

LIES = {"promise", "unbacked", "explain_false", "wrong_fact", "rude", "negated", "not_understood", "spam"}


def deal(count, shift=NO_SHIFT, split="test"):
    return list(itertools.islice(generator.deal_scenarios(11, split=split, shift=shift), count))


def play_dialogues(agent, scenarios):
    async def work():
        async with ChatClient("user", Endpoint("embedded", "embedded-user"), embedded=FDS.embedded) as user:
            return await play.play_all(agent, Table(user, None).episodes, scenarios, repeats=1, seed=0)

    return asyncio.run(work())


def measure(dialogues):
    """Returns voucher rate, mean satisfaction and its standard error."""
    ratings = np.array([max(dialogue.outcome, 0) for dialogue in dialogues])
    return np.mean([dialogue.cost[0] for dialogue in dialogues]), ratings.mean(), ratings.std() / len(ratings) ** 0.5


def read_plans(dialogue):
    """Yields (planned events, events read) of the turns of a dialogue."""
    for reply, read in read_turns(dialogue):
        plan = reply.think.rpartition("Plan: ")[2].rstrip(".").split(", ")
        yield {{"explain": "explain_true"}.get(act, act) for act in plan}, read


@pytest.fixture(scope="module")
def demonstrated():
    """Dialogues of the demonstrator with customers of training."""
    return play_dialogues(VariedAgent(), deal(128, split="train"))


@pytest.mark.parametrize("knows", ["all", "messages"])
@pytest.mark.parametrize("budget", [0.15, 0.5])
def test_oracle_and_reader_are_on_their_frontiers(knows, budget):
    agent = {"all": OracleAgent, "messages": ReaderAgent}[knows](oracle.price_for(budget, knows=knows))
    dialogues = play_dialogues(agent, deal(192))
    rate, mean, error = measure(dialogues)
    assert abs(rate - budget) < 0.09
    assert abs(mean - oracle.compute_frontier(knows=knows).satisfaction_at(rate)) < 2.5 * error
    assert all(dialogue.end == "rated" for dialogue in dialogues)


def test_what_they_plan_is_what_is_read(demonstrated):
    turns = [turn for one in demonstrated for turn in read_plans(one)]
    assert np.mean([planned == read for planned, read in turns]) > 0.99
    assert not any(read & LIES for _, read in turns)


def test_the_demonstrator_is_near_the_frontier_at_every_price():
    frontier, rates = oracle.compute_frontier(), []
    for price in (0.3, 1.1, 2.1):
        rate, mean, error = measure(play_dialogues(VariedAgent(prices=(price,), errors=0.0), deal(128)))
        assert frontier.satisfaction_at(rate) - 0.1 - 2 * error < mean < frontier.satisfaction_at(rate) + 2.5 * error
        rates.append(rate)
    assert rates[0] > 0.75 and 0.3 < rates[1] < 0.6 and rates[2] < 0.12


def test_the_demonstrator_says_what_it_believes_and_quotes_the_order(demonstrated):
    told, quoted, named, probed = [], 0, 0, 0
    for dialogue in demonstrated:
        order, replies = dialogue.task.order, [turn_format.parse(turn.text) for turn in dialogue.turns]
        told += [float(re.search(r"worth (\d\.\d)\.", reply.think)[1]) for reply in replies]
        said = " ".join(reply.response for reply in replies)
        quoted += order.record.kind == "silent" or order.record.text.lower() in said.lower()
        named += any(item.name in replies[0].response for item in order.items)
        probed += any("probe" in reply.think for reply in replies)
    assert min(told) < 0.7 and max(told) > 2.0
    assert quoted > 0.9 * len(demonstrated) and named > 0.95 * len(demonstrated)
    assert 0.35 < probed / len(demonstrated) < 0.65
    assert all(f", record: {one.task.order.record.text}, " in one.turns[0].text for one in demonstrated)
    lengths = [len(turn_format.parse(turn.text).think.split()) for one in demonstrated for turn in one.turns]
    assert max(lengths) <= 45


def test_thoughts_say_what_was_done(demonstrated):
    pictures, agreed = [], []
    for dialogue in demonstrated:
        seen = False
        for number, turn in enumerate(dialogue.turns):
            seen |= "[Sent Picture" in turn.messages[-1].content
            done = re.search(r"Done: (.*?)\.", turn.text)[1].split(", ")
            pictures.append(seen == ("photo" in done))
            agreed += [turn.cost[0] == 0 or "agreed" in done]
            assert (done == ["nothing"]) == (number == 0)
    assert np.mean(pictures) > 0.99 and np.mean(agreed) > 0.98


def test_beliefs_follow_the_worth(demonstrated):
    believed, worths = [], []
    for dialogue in demonstrated:
        believed.append(float(re.search(r"worth (\d\.\d)\.", dialogue.turns[-1].text)[1]))
        worths.append(dialogue.task.worth / 10)
    assert np.corrcoef(believed, worths)[0, 1] > 0.5 and abs(np.mean(believed) - np.mean(worths)) < 0.15


def test_errors_cost_and_are_as_frequent_as_they_should_be():
    scenarios = deal(96)
    sound, erring = (play_dialogues(VariedAgent(errors=share, prices=(1.1,)), scenarios) for share in (0.0, 1.0))
    assert measure(sound)[1] > measure(erring)[1] + 0.15
    assert not any(read & LIES for one in erring for _, read in read_plans(one))
    few = play_dialogues(VariedAgent(prices=(1.1,)), scenarios)
    same = [a.turns[0].text == b.turns[0].text for a, b in zip(sound, few, strict=True)]
    assert 0.03 < 1 - np.mean(same) < 0.3


def test_prices_are_drawn_from_the_whole_range():
    async def draw():
        agent, scenario = VariedAgent(), deal(1)[0]
        return {(await agent.open(scenario, seed))._price for seed in range(400)}

    assert asyncio.run(draw()) == set(DEMONSTRATED_PRICES) and (min(DEMONSTRATED_PRICES), max(DEMONSTRATED_PRICES)) == (
        0.3,
        2.1,
    )


@pytest.mark.parametrize("shift", ["noise", "all"])
def test_the_demonstrator_copes_with_messages_that_it_cannot_decode(shift):
    dialogues = play_dialogues(VariedAgent(errors=0.0), deal(64, shift=parse_shift(shift)))
    assert np.mean([dialogue.end == "rated" for dialogue in dialogues]) > 0.9
    assert measure(dialogues)[1] > 2.2
    assert np.mean([bool(read & LIES) for one in dialogues for _, read in read_plans(one)]) < 0.01


@pytest.mark.parametrize("agent", [VariedAgent(), ReaderAgent([(1.0, 1.0)]), OracleAgent([(1.0, 1.0)])])
def test_they_go_on_with_whoever_does_not_stop(agent):
    async def work():
        session = await agent.open(deal(1)[0], 0)
        texts = []
        for number in range(20):
            said = "My food was cold." if number == 0 else "Sure, yes please. [Sent Picture: cold food]"
            texts.append((await session.reply([Message("user", said)], 0)).text)
        return texts

    actions = [turn_format.parse(text).action for text in asyncio.run(work())]
    assert actions.count("voucher") <= 1
