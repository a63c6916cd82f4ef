"""Scenes: the same dialogues as at a keyboard, side by side, and let go when nobody is there."""

import asyncio
import contextlib

import pytest

from cmpo import play as command
from cmpo.cli import agents as named
from cmpo.cli.page import open_page_table
from cmpo.evaluation.summary import describe_worth
from cmpo.training.clients import make_clients
from configs import fds
from rollouts import domains
from rollouts.serving.scenes import Scene, Scenes
from rollouts.types import DialogueError, Sample
from tests.builders.pages import Counted

CONFIG = fds.get_config()
DOMAIN = domains.load(CONFIG)
LINES = (
    "The food was cold!",
    "[Sent Picture: a cold soup] What can you do?",
    "A voucher would be fine.",
    "Ok. [end:4]",
)


class Says:
    """An agent that says one thing, raises it if it is an error, or never answers where it is None."""

    def __init__(self, what):
        self.what = what

    async def open(self, task, seed):
        return Says(self.what)

    async def reply(self, messages, seed):
        if self.what is None:
            await asyncio.Event().wait()
        if isinstance(self.what, Exception):
            raise self.what
        return Sample(self.what)

    def close(self):
        pass


def run(work, agents, config=CONFIG):
    """Runs `work(table)` with a table of agents."""

    async def open_and_work():
        async with asyncio.timeout(60), open_page_table(config, make_clients(config), agents) as table:
            return await work(table)

    return asyncio.run(open_and_work())


async def hear(scene, lines, names=None):
    """Says lines, each when all have answered; returns the scene's events once it is over or after the last answer."""
    lines = iter(lines)

    async def follow():
        async for _ in scene.follow_events(0, 60):
            if scene.find_listeners(names):
                if (line := next(lines, None)) is None:
                    return
                scene.say(line, scene.find_listeners(names))

    await follow()
    return scene.events


def of(events, agent, kind):
    return [event for event in events if event["kind"] == kind and event.get("agent") == agent]


def test_the_dialogues_are_those_at_a_keyboard():
    scripted = {name: DOMAIN.scripted_agent(CONFIG, name) for name in ("never", "generous", "always")}

    async def work(table):
        return await hear(Scene(table, table.tasks[1], list(scripted), seed=5), LINES), table.tasks[1]

    events, task = run(work, scripted)
    for name in scripted:
        lines = iter(LINES)
        shown, served_by = [], named.load_scripted(CONFIG, name)
        dialogue = command.play_with_person(
            CONFIG,
            make_clients(CONFIG),
            "customer",
            served_by,
            task,
            5,
            lambda _, lines=lines: next(lines),
            shown.append,
        )
        assert dialogue.end == "rated" and len(dialogue.turns) == 3
        turns = {event["number"]: event for event in of(events, name, "turn")}
        for number, turn in enumerate(dialogue.turns):
            expected = DOMAIN.show_turn(turn.notes)
            assert {key: turns[number][key] for key in expected._fields} == expected._asdict()
            assert turns[number]["judged"] and turns[number]["raw"] == ""
        assert turns[2]["spent"] == [("voucher", float(dialogue.cost[0]))]
        (end,) = of(events, name, "end")
        assert end == {
            "kind": "end",
            "agent": name,
            "badge": ("rated 4/5", "good"),
            "worth": describe_worth(DOMAIN, dialogue),
            "failure": "",
        }
        assert [event["text"] for event in of(events, name, "said")] == list(LINES)
        assert f"{events[0]['text']}\n\n{DOMAIN.show_help('user')}\n" == shown[0]
    assert sum(event["kind"] == "told" for event in events) == 1
    spent = [of(events, name, "turn")[-1]["spent"][0][1] for name in scripted]
    assert spent[0] == 0 and 1 in spent


def test_a_verdict_comes_after_its_turn_and_a_mean_of_votes_at_the_end():
    config = fds.get_config()
    config.judge.votes = 2

    async def work(table):
        answer, asked = table.judge.chat, []

        async def disagree(messages, *, seed, response_format=None):
            asked.append(seed)
            text = await answer(messages, seed=seed, response_format=response_format)
            return text.replace('"persona": 1.0', '"persona": 0.0') if len(asked) == 2 else text

        table.judge.chat = disagree
        return await hear(Scene(table, table.tasks[0], ["never"], seed=5), [LINES[0], "[end:1]"])

    events = run(work, {"never": DOMAIN.scripted_agent(config, "never")}, config)
    kinds = [event["kind"] for event in events]
    assert kinds[:4] == ["told", "ready", "said", "turn"] and kinds[-1] == "end"
    turns = of(events, "never", "turn")
    assert [turn["judged"] for turn in turns] == [False, True, True, True]
    personas = [dict(badge[0].split() for badge in turn["badges"][1:]).get("persona") for turn in turns]
    assert personas == [None, "1", "0", "0.5"]


def test_what_cannot_be_read_is_shown_as_it_is():
    async def work(table):
        async def mumble(messages, *, seed, response_format=None):
            return "Well, <i>fine</i>."

        table.judge.chat = mumble
        return await hear(Scene(table, table.tasks[0], ["never"], seed=5), [LINES[0], "[end:1]"])

    events = run(work, {"never": DOMAIN.scripted_agent(CONFIG, "never")})
    assert of(events, "never", "turn")[1]["remark"] == "Well, <i>fine</i>."
    (end,) = of(events, "never", "end")
    assert end["badge"] == ("failed", "bad") and end["failure"].startswith("judge_malformed: ")


@pytest.mark.parametrize(
    ("bad", "shown"),
    [
        (Says("No tags."), ("malformed -3/5", "")),
        (Says(ValueError("out of order")), ("failed", "ValueError: out of order")),
        (Says(DialogueError("agent_timeout", "too late")), ("failed", "agent_timeout: too late")),
    ],
    ids=["malformed", "error", "failure"],
)
def test_when_one_dialogue_ends_the_others_go_on(bad, shown):
    async def work(table):
        scene = Scene(table, table.tasks[0], ["bad", "never"], seed=5)
        return await hear(scene, LINES)

    events = run(work, {"bad": bad, "never": DOMAIN.scripted_agent(CONFIG, "never")})
    (end,) = of(events, "bad", "end")
    assert (end["badge"][0], end["failure"]) == shown and len(of(events, "bad", "said")) == 1
    assert of(events, "never", "end")[0]["badge"] == ("rated 4/5", "good")
    if shown[0].startswith("malformed"):
        (turn,) = of(events, "bad", "turn")
        assert (turn["said"], turn["raw"], turn["badges"]) == ("", "No tags.", [("format error", "bad")])


def test_words_wait_until_all_have_answered():
    async def work(table):
        scene = Scene(table, table.tasks[0], ["slow", "never"], seed=5)
        assert scene.find_listeners() == []  # nobody has begun
        events = scene.follow_events(0, 60)
        while not scene.find_listeners():
            await anext(events)
        assert scene.find_listeners() == ["slow", "never"] and scene.find_listeners(["never"]) == ["never"]
        scene.say("Hello", ["slow", "never"])
        while not scene.find_listeners(["never"]):
            await anext(events)
        assert scene.find_listeners() == [] and scene.find_listeners(["slow", "never"]) == []
        scene.say("[end:3]", ["never"])
        while not of(scene.events, "never", "end"):
            await anext(events)
        assert not scene.over and scene.find_listeners(["never"]) == []
        await events.aclose()
        assert scene.readers == 0
        scene.close()

    run(work, {"slow": Says(None), "never": DOMAIN.scripted_agent(CONFIG, "never")})


async def settle(done):
    while not done():
        await asyncio.sleep(0.01)


def test_whoever_leaves_frees_the_sessions():
    agents = {"waits": Counted(DOMAIN.scripted_agent(CONFIG, "never")), "busy": Counted(Says(None))}

    async def work(table):
        scenes = Scenes(table, absence=0.2)
        key = scenes.begin(table.tasks[0], list(agents))
        async with contextlib.aclosing(scenes.find(key).follow_events(0, 60)) as events:
            while not scenes.find(key).find_listeners():
                await anext(events)
            scenes.find(key).say("Hello", list(agents))
            await asyncio.sleep(0.5)  # longer than an absence, but somebody is there
            assert scenes.find(key) and not agents["waits"].sessions["closed"]
        await settle(lambda: not scenes.find(key))
        await settle(lambda: all(agent.sessions == {"opened": 1, "closed": 1} for agent in agents.values()))

    run(work, agents)


def test_a_scene_is_let_go_by_age_though_it_is_followed():
    agents = {"waits": Counted(DOMAIN.scripted_agent(CONFIG, "never"))}

    async def work(table):
        scenes = Scenes(table, age=0.1)
        key = scenes.begin(table.tasks[0], ["waits"])
        kinds = [event["kind"] async for event in scenes.find(key).follow_events(0, 60)]
        assert kinds == ["told", "ready"] and scenes.find(key) is None
        await settle(lambda: agents["waits"].sessions["closed"] == 1)

    run(work, agents)


def test_too_many_scenes_end_the_one_that_was_left_alone_for_longest():
    agents = {"waits": Counted(DOMAIN.scripted_agent(CONFIG, "never"))}

    async def work(table):
        scenes = Scenes(table, most=3)
        first, second, third = (scenes.begin(table.tasks[number], ["waits"]) for number in range(3))
        assert len({first, second, third}) == 3 and len(first) >= 20
        async with contextlib.aclosing(scenes.find(first).follow_events(0, 60)) as events:
            await anext(events)  # so the first is not alone
            fourth = scenes.begin(table.tasks[3], ["waits"])
            assert [bool(scenes.find(key)) for key in (first, second, third, fourth)] == [True, False, True, True]
            await settle(lambda: agents["waits"].sessions == {"opened": 4, "closed": 1})
            for key in (first, third, fourth):
                scenes.end(key)

    run(work, agents)
