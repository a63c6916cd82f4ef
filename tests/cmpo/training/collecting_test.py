"""Collecting dialogues: what the config says reaches everybody at the table, and what fails or stops is told."""

import asyncio
import contextlib
import json
import os
import signal
import threading

import jax
import pytest

from cmpo.run.interrupt import Interrupted
from cmpo.training import collecting
from rollouts.domains.fds import generator, rubrics
from rollouts.domains.fds.rubrics import PRINCIPLES
from rollouts.seeds import fold
from rollouts.types import DialogueError
from tests.builders.runs import Terse, tiny

SCENARIOS = [scenario for scenario, _ in zip(generator.deal_scenarios(3), range(4), strict=False)]


class Client:
    """Answers everybody alike, counts who sits at the table and keeps what was asked with which seed."""

    def __init__(self, answer="Fine. [end:4]", fails=lambda number: False):
        self.answer, self.fails, self.asked, self.inside, self.memory = answer, fails, [], 0, None

    async def __aenter__(self):
        self.inside += 1
        return self

    async def __aexit__(self, *_):
        self.inside -= 1

    @contextlib.contextmanager
    def remember_in(self, memory):
        self.memory = memory
        yield
        self.memory = None

    async def chat(self, messages, *, seed, response_format=None):
        self.asked.append((messages, seed))
        if self.memory:
            self.memory.asking += 1
        if self.fails(len(self.asked)):
            raise DialogueError("user_http_503", f"no {len(self.asked)}")
        if response_format is not None:
            items = response_format["json_schema"]["schema"]["required"][1:]
            return json.dumps({"reason": "so"} | dict.fromkeys(items, 1))
        return self.answer


def collect(config, *, scenarios=SCENARIOS, repeats=1, user=None, judge=None, **options):
    clients = {"user": user or Client(), "judge": judge or Client()}
    agents = collecting.serve_agent(Terse())
    dialogues = collecting.collect_dialogues(
        config, agents, scenarios, repeats=repeats, seed=7, clients=clients, **options
    )
    assert not any(client.inside for client in clients.values())
    return dialogues


def test_everything_the_config_says_of_an_episode_is_at_the_table():
    weights = {"persona": 0.0, "stage": 1.0, "quality": 2.0, "rules": 3.0}
    changes = {"episode.max_turns": 4, "episode.farewell": True, "episode.format_outcome": -7.0, "judge.votes": 3}
    config = tiny(**changes, **{f"judge.weights.{name}": weight for name, weight in weights.items()})
    clients = {"user": Client(), "judge": Client()}

    async def seated(**options):
        async with collecting.open_episodes(config, clients, **options) as episodes:
            (table,) = episodes.begin.args
            return table, [client.inside for client in clients.values()]

    table, inside = asyncio.run(seated())
    assert inside == [1, 1] and (table.user, table.judge) == tuple(clients.values())
    assert (table.max_turns, table.farewell, table.format_outcome, table.votes) == (4, True, -7.0, 3)
    assert table.judge_weights == weights and list(weights) == list(PRINCIPLES)
    table, inside = asyncio.run(seated(judged=False))
    assert inside == [1, 0] and table.judge is None


def test_every_scenario_is_played_so_often_each_time_with_a_seed_of_its_own():
    user, ended = Client(), []
    dialogues = collect(tiny(), repeats=2, user=user, done=lambda: ended.append(1))
    assert [(one.task.id, one.index) for one in dialogues] == [(one.id, n) for one in SCENARIOS for n in (0, 1)]
    assert len(ended) == 8 and {one.outcome for one in dialogues} == {4.0}
    first = {fold(fold(7, number), "user") for number in range(8)}
    assert first <= {seed for _, seed in user.asked} and len(first) == 8
    assert all(turn.notes["scores"] for one in dialogues for turn in one.turns)
    assert not any(turn.notes["scores"] for one in collect(tiny(), judged=False) for turn in one.turns)


class Page:
    """Keeps what it is given; of dialogue 1 it knows already."""

    def __init__(self, dialogue):
        self.dialogue, self.added, self.asking, self.failures = dialogue, [], 0, {}

    def read_dialogues(self, scenarios, repeats):
        assert (scenarios, repeats) == (SCENARIOS, 1)
        return {1: self.dialogue}

    def add(self, number, dialogue):
        self.added.append((number, dialogue))


def test_what_a_page_holds_is_not_played_again_and_what_ends_is_added():
    page, known = Page("a dialogue"), collect(tiny())
    page.dialogue = known[1]
    dialogues = collect(tiny(), page=page)
    assert dialogues[1] is known[1]
    assert sorted(number for number, _ in page.added) == [0, 2, 3]
    assert all(dialogues[number] is dialogue for number, dialogue in page.added)
    assert page.asking >= 2 * 3  # user and judge remember there what they answer


@pytest.mark.parametrize(("fraction", "enough"), [(0.5, True), (0.49, False)])
def test_more_failures_than_allowed_stop_the_run_and_are_told_by_cause(fraction, enough):
    config = tiny(**{"train.max_failed_fraction": fraction, "train.replacements": 0})
    some = Client(fails=lambda number: number in (1, 3))
    if enough:
        assert [one.ok for one in collect(config, user=some)].count(False) == 2
        return
    with pytest.raises(
        collecting.RolloutsFailed, match=r"^2 of 4 dialogues failed \(2 user_http_503\); the last: no 3$"
    ):
        collect(config, user=some)


def test_a_dialogue_that_failed_is_played_again_as_often_as_the_config_says():
    config = tiny(**{"train.replacements": 2})
    (dialogue,) = collect(config, scenarios=SCENARIOS[:1], user=Client(fails=lambda number: number < 3))
    assert dialogue.ok and dialogue.replaced == ("user_http_503",) * 2


def test_a_run_that_is_to_stop_gives_its_dialogues_up():
    class Silent(Client):
        async def chat(self, messages, *, seed, response_format=None):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.Event().wait(), 60)

    with pytest.raises(Interrupted, match="dialogues"):
        collect(tiny(), user=Silent(), stopping=lambda: True)


def test_evaluators_are_asked_about_all_but_failed_dialogues_each_with_a_seed_of_its_own():
    config, judge, ended = tiny(**{"train.replacements": 0}), Client(), []
    dialogues = collect(config, user=Client(fails=lambda number: number == 3))
    found = collecting.evaluate_dialogues(
        config, dialogues, seed=9, clients={"judge": judge}, done=lambda: ended.append(1)
    )
    assert [bool(one) for one in found] == [dialogue.ok for dialogue in dialogues] == [True, False, True, True]
    assert len(ended) == 4 and judge.inside == 0
    seeds = {seed for _, seed in judge.asked}
    assert {fold(fold(fold(9, n), rubrics.LOGIC.name), 0) for n in (0, 2, 3)} <= seeds


def test_dialogues_are_played_and_evaluated_where_a_loop_runs_already_as_in_a_notebook():
    config = tiny()

    def cell():
        dialogues = collect(config)
        judged = collecting.evaluate_dialogues(config, dialogues, seed=3, clients={"judge": Client()})
        return [[turn.text for turn in one.turns] for one in dialogues], judged

    async def notebook():
        return cell()

    assert asyncio.run(notebook()) == cell()


def test_ctrl_c_in_a_notebook_gives_dialogues_up_at_once():
    class Slow(Client):
        async def chat(self, messages, *, seed, response_format=None):
            threading.Timer(0.1, os.kill, [os.getpid(), signal.SIGINT]).start()
            await asyncio.sleep(600)

    async def notebook():
        signal.signal(signal.SIGINT, signal.default_int_handler)  # as a kernel has it, not as asyncio.run sets it
        with pytest.raises(KeyboardInterrupt):
            collect(tiny(), scenarios=SCENARIOS[:1], user=Slow())

    asyncio.run(notebook())


def test_processes_share_the_work_in_order(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    shares = []
    for number in range(3):
        monkeypatch.setattr(jax, "process_index", lambda number=number: number)
        shares.append(collecting._find_own_share(7).tolist())
    assert shares == [[0, 1, 2], [3, 4], [5, 6]]


def test_the_dialogues_of_a_share_have_the_numbers_they_have_in_the_whole(monkeypatch):
    alone = collect(tiny(), repeats=2)
    monkeypatch.setattr(collecting, "_find_own_share", lambda count: range(count)[2:])
    page = Page(None)
    page.read_dialogues = lambda scenarios, repeats: {}
    share = collect(tiny(), repeats=2, page=page)
    texts = [[[turn.text for turn in one.turns] for one in dialogues] for dialogues in (share, alone[4:])]
    assert texts[0] == texts[1]
    assert sorted(number for number, _ in page.added) == [4, 5, 6, 7]
