"""Playing scenarios: who is told what, and how dialogues end or fail."""

import asyncio
import dataclasses
import itertools
import json

import pytest

from rollouts import play
from rollouts.domains.fds import generator, rubrics, turn_format
from rollouts.domains.fds.episode import Table
from rollouts.endpoints.client import BudgetReached, ChatClient, Endpoint
from rollouts.seeds import fold
from rollouts.types import DialogueError, Message, Sample
from tests.faults.server import Server, completion

SCENARIO = next(generator.deal_scenarios(2))
PLAN = "If the agent refuses I will answer with [end:1]."
CUT_OFF = completion(f"<think>\n{PLAN}", "length")
VERDICT = json.dumps({"persona": 1, "stage": 0.5, "quality": 0, "rules": 1, "reason": "so"})


def turn(response, action="chat"):
    return turn_format.render_reply(turn_format.Reply("hm", response, action))


class Agent:
    """Says its lines; a line is a text, or a Sample, or an exception."""

    def __init__(self, *lines):
        self.lines, self.heard, self.seeds, self.closed = list(lines), [], [], 0

    async def open(self, task, seed):
        self.seeds.append(seed)
        return self

    async def reply(self, messages, seed):
        self.heard += messages
        self.seeds.append(seed)
        line = self.lines[len(self.heard) - 1]
        if isinstance(line, Exception):
            raise line
        return line if isinstance(line, Sample) else Sample(line)

    def close(self):
        self.closed += 1


class Client:
    """Gives its answers in turn, the last one for ever, and keeps the requests; an exception is raised."""

    def __init__(self, *answers):
        self.answers, self.requests, self.seeds = answers, [], []

    async def chat(self, messages, *, seed, response_format=None):
        self.requests.append(list(messages))
        self.seeds.append(seed)
        answer = self.answers[min(len(self.requests), len(self.answers)) - 1]
        await asyncio.sleep(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def run(agent, user, judged=None, **options):
    table = Table(user, judged, **options)
    dialogue = asyncio.run(play.play_dialogue(agent, table.episodes, SCENARIO, index=3, seed=7))
    assert agent.closed == 1
    return dialogue


def test_who_is_told_what():
    agent = Agent(turn("Hello [end:5] you."), turn("Take it.", "voucher"), turn("Bye. (System state: voucher)"))
    user = Client("<|im_end|>Cold!", "[Sent Picture: soup] And?", "Nice. [end:9]", "Thanks. [end:4]")
    judged = Client(VERDICT)
    dialogue = run(agent, user, judged, judge_weights={"persona": 1.0, "stage": 1.0, "quality": 1.0, "rules": 2.0})

    state = "\n(System state: refunded no; voucher issued {})"
    told = [
        Message("system", generator.user_prompt(SCENARIO)),
        Message("user", "(The conversation begins. Write your first message.)"),
        Message("assistant", "<|im_end|>Cold!"),
        Message("user", "Hello  you." + state.format("no")),
        Message("assistant", "[Sent Picture: soup] And?"),
        Message("user", "Take it." + state.format("this turn")),
        Message("assistant", "Nice. [end:9]"),
        Message("user", "Bye." + state.format("earlier")),
    ]
    assert user.requests == [told[:2], told[:4], told[:6], told]
    assert agent.heard == [
        Message("user", text) for text in ("Cold!", "[Sent Picture: soup] And?", "Nice.")
    ]  # without marks and tokens
    transcript = [
        {"role": "customer", "text": "Cold!", "voucher": "no"},
        {"role": "agent", "text": "Hello  you.", "voucher": "no"},
        {"role": "customer", "text": "[Sent Picture: soup] And?", "voucher": "no"},
        {"role": "agent", "text": "Take it.", "voucher": "this turn"},
        {"role": "customer", "text": "Nice.", "voucher": "earlier"},
        {"role": "agent", "text": "Bye.", "voucher": "earlier"},
    ]
    assert {request[0] for request in judged.requests} == {Message("system", rubrics.PROCESS.write_prompt(SCENARIO))}
    assert [json.loads(request[1].content) for request in judged.requests] == [transcript[:end] for end in (2, 4, 6)]

    seeds = (*agent.seeds, *user.seeds, *judged.seeds)
    assert len(seeds) == 11 and len(set(seeds)) == 8 and len(set(user.seeds)) == 1  # the user draws by turn itself
    assert seeds[0] == fold(7, "agent")

    assert (dialogue.task, dialogue.index) == (SCENARIO, 3)
    assert (dialogue.end, dialogue.outcome, dialogue.last_words) == ("rated", 4.0, "Thanks. [end:4]")
    assert dialogue.ok and dialogue.success and dialogue.cost.tolist() == [1.0]
    assert [said.messages[-1].content for said in dialogue.turns] == [message.content for message in agent.heard]
    assert [said.text for said in dialogue.turns] == agent.lines
    assert [said.notes["response"] for said in dialogue.turns][1] == "Take it." and dialogue.turns[0].notes[
        "think"
    ] == "hm"
    assert [said.notes["action"] for said in dialogue.turns] == ["chat", "voucher", "chat"]
    assert [said.cost.tolist() for said in dialogue.turns] == [[0.0], [1.0], [0.0]]
    for said in dialogue.turns:
        assert said.notes["scores"] == {"persona": 1.0, "stage": 0.5, "quality": 0.0, "rules": 1.0}
        assert said.process_reward == 3.5 / 5 and said.notes["reason"] == "so"


@pytest.mark.parametrize(
    "line, end",
    [
        ("Hello?", "malformed"),
        (turn("Again.", "voucher"), "second_voucher"),
        (Sample(turn("Hello."), stop="length"), "truncated"),
    ],
)
def test_a_breach_of_the_format_is_kept_unjudged_and_forfeits_the_outcome(line, end):
    user, judged = Client("Cold!"), Client(VERDICT)
    dialogue = run(Agent(turn("Take it.", "voucher"), line), user, judged, format_outcome=-10.0)
    assert (dialogue.end, dialogue.outcome, dialogue.ok, dialogue.success) == (end, -10.0, True, False)
    assert len(user.requests) == 2 and len(judged.requests) == 1
    first, second = dialogue.turns
    assert first.notes["scores"] and first.process_reward == 2.5 / 4
    assert (second.notes["scores"], second.process_reward, second.notes["action"], second.notes["response"]) == (
        {},
        0.0,
        "",
        "",
    )
    assert second.text == (line if isinstance(line, str) else line.text)
    assert second.cost.tolist() == [0.0] and dialogue.cost.tolist() == [1.0]


@pytest.mark.parametrize(
    "answer, end, outcome, finished",
    [("And? [quit]", "quit", 0.0, False), ("Hm.", "turn_limit", 0.0, False), ("[end:1]", "rated", 1.0, True)],
)
def test_how_a_user_ends_it(answer, end, outcome, finished):
    agent = Agent(turn("Hello."), turn("Well."))
    dialogue = run(agent, Client("Cold!", "So?", answer), max_turns=2)
    assert (dialogue.end, dialogue.outcome, dialogue.success) == (end, outcome, finished)
    assert dialogue.last_words == answer and len(dialogue.turns) == 2
    assert all(
        said.notes["scores"] == {} and said.process_reward == 0.0 for said in dialogue.turns
    )  # there was no judge


@pytest.mark.parametrize("bodies", [(completion(f"<think>\n{PLAN}\n</think>\n\nThe rice is cold."),), (CUT_OFF,)])
def test_thoughts_of_a_simulator_neither_end_a_dialogue_nor_reach_the_agent(bodies):
    last = [completion("Fine. [end:4]", reasoning_content=PLAN)]

    async def answer(content):
        return 200, (bodies if len(json.loads(content)["messages"]) == 2 else last)[0]

    async def played(url):
        async with ChatClient("user", Endpoint(url, "m", retries=0)) as user:
            return await play.play_dialogue(agent, Table(user, None).episodes, SCENARIO, index=0, seed=7)

    agent = Agent(turn("Hello."))
    with Server(answer=answer) as server:
        dialogue = asyncio.run(played(server.url))
        told = json.dumps([entry.body["messages"][2:] for entry in server.log])
    if bodies == (CUT_OFF,):
        assert (dialogue.failure, dialogue.outcome, agent.heard) == ("user_truncated", 0.0, [])
    else:
        assert (dialogue.end, dialogue.outcome, dialogue.last_words) == ("rated", 4.0, "Fine. [end:4]")
        assert agent.heard == [Message("user", "The rice is cold.")] and "[end:1]" not in told


def test_a_full_context_ends_it_without_the_turn():
    dialogue = run(Agent(turn("Hello."), Sample("", stop="context")), Client("Cold!"), Client(VERDICT))
    assert (dialogue.end, dialogue.outcome, dialogue.ok, len(dialogue.turns)) == ("context", 0.0, True, 1)
    assert dialogue.turns[0].notes["scores"]


def test_the_agent_may_say_farewell_after_a_rating():
    user, judged = Client("Cold!", "Thanks. [end:4]"), Client(VERDICT)
    dialogue = run(Agent(turn("Hello."), turn("Bye.")), user, judged, farewell=True)
    assert (dialogue.end, dialogue.outcome, dialogue.last_words) == ("rated", 4.0, "Thanks. [end:4]")
    assert [said.notes["response"] for said in dialogue.turns] == ["Hello.", "Bye."]
    assert dialogue.turns[1].messages[-1].content == "Thanks." and dialogue.turns[1].notes["scores"]
    assert len(user.requests) == len(judged.requests) == 2


@pytest.mark.parametrize(
    "line, end, outcome, turns",
    [
        ("Bye", "malformed", -10.0, 2),
        (Sample("", stop="context"), "rated", 4.0, 1),  # no room for a farewell: the rating stands
    ],
)
def test_a_farewell_that_fails(line, end, outcome, turns):
    dialogue = run(Agent(turn("Hello."), line), Client("Cold!", "[end:4]"), farewell=True, format_outcome=-10.0)
    assert (dialogue.end, dialogue.outcome, len(dialogue.turns)) == (end, outcome, turns)


@pytest.mark.parametrize("farewell", [False, True])
def test_who_quits_is_not_answered(farewell):
    assert len(run(Agent(turn("Hello.")), Client("Cold!", "[quit]"), farewell=farewell).turns) == 1


DOWN = DialogueError("user_http_500", "the user endpoint answered 500")


@pytest.mark.parametrize(
    "user, judged, cause, message, turns",
    [
        (Client(DOWN), Client(VERDICT), "user_http_500", "answered 500", 0),
        (Client("Cold!", "So?", DOWN), Client(VERDICT), "user_http_500", "answered 500", 2),
        (Client("Cold!", "[end:5]"), Client(DialogueError("judge_timeout", "late")), "judge_timeout", "late", 1),
        (Client("Cold!", "So?", "[end:5]"), Client(VERDICT, "I like it."), "judge_malformed", "I like it.", 2),
    ],
)
def test_a_failing_endpoint_marks_the_dialogue_and_nothing_in_it_is_data(user, judged, cause, message, turns):
    dialogue = run(Agent(turn("Hello."), turn("Well.")), user, judged)
    assert (dialogue.failure, dialogue.ok, dialogue.success) == (cause, False, False)
    assert message in dialogue.failure_message
    assert dialogue.outcome == 0.0 and len(dialogue.turns) == turns
    assert all(said.notes["scores"] == {} and said.process_reward == 0.0 for said in dialogue.turns)


def test_one_failure_does_not_touch_the_others():
    class Moody(Client):
        async def chat(self, messages, *, seed, response_format=None):
            if "Hello 1." in messages[-1].content:
                raise DOWN
            return "[end:3]" if len(messages) > 2 else "Cold!"

    class Numbered:
        opened = 0

        async def open(self, task, seed):
            self.opened += 1
            return Agent(turn(f"Hello {self.opened - 1}."))

    ended = []
    table = Table(Moody(), Client(VERDICT))
    options = {"repeats": 1, "seed": 0, "first": 5, "done": lambda *dialogue: ended.append(dialogue)}
    dialogues = asyncio.run(play.play_all(Numbered(), table.episodes, [SCENARIO] * 3, **options))
    assert [dialogue.failure for dialogue in dialogues] == ["", "user_http_500", ""]
    assert [dialogue.outcome for dialogue in dialogues] == [3.0, 0.0, 3.0]
    assert dict(ended) == dict(zip((5, 6, 7), dialogues, strict=True)) and len(ended) == 3


def test_a_failed_dialogue_is_played_again_with_the_same_seeds_so_often_and_no_more():
    class Failing(Client):
        """Fails so many times at a certain question; what it says shows its seed."""

        def __init__(self, times):
            super().__init__()
            self.times, self.asked = times, []

        async def chat(self, messages, *, seed):
            self.asked.append(seed)
            if len(messages) > 2 and self.times:
                self.times -= 1
                raise DialogueError(f"user_http_50{self.times}", "the user endpoint is ill")
            return f"[end:{1 + seed % 5}]" if len(messages) > 2 else f"Cold {seed}!"

    class Fresh:
        async def open(self, task, seed):
            return Agent(turn(f"Hello {seed}."))

    def played(times):
        user = Failing(times)
        playing = play.play_all(
            Fresh(), Table(user, Client(VERDICT)).episodes, [SCENARIO], repeats=1, seed=3, replacements=2
        )
        return asyncio.run(playing)[0], user.asked

    sound, asked = played(0)
    for times, causes in ((1, ("user_http_500",)), (2, ("user_http_501", "user_http_500"))):
        again, asked_again = played(times)
        assert again.replaced == causes and asked_again == asked * (times + 1)
        assert repr(dataclasses.replace(again, replaced=())) == repr(sound)
    failed, asked_again = played(3)
    assert (failed.failure, failed.replaced) == ("user_http_500", ("user_http_502", "user_http_501"))
    assert asked_again == asked * 3


def test_a_judge_whose_verdict_was_malformed_gets_other_seeds_and_nobody_else_does():
    class Fresh:
        seeds = []

        async def open(self, task, seed):
            self.seeds.append(seed)
            return Agent(turn("Hello."))

    user = Client("Cold!", "[end:4]", "Cold!", "[end:4]", "Cold!", "[end:4]")
    judging = Client("Fine.", "Fine, I said.", "Good.", "Good, I said.", VERDICT)
    playing = play.play_all(Fresh(), Table(user, judging).episodes, [SCENARIO], repeats=1, seed=3, replacements=2)
    dialogue = asyncio.run(playing)[0]
    assert dialogue.ok and dialogue.replaced == ("judge_malformed",) * 2 and dialogue.outcome == 4.0
    assert user.seeds == user.seeds[:2] * 3 and Fresh.seeds == Fresh.seeds[:1] * 3
    assert len(set(judging.seeds)) == 5


def test_what_is_kept_is_not_played_again():
    agent = Agent(turn("Hello."))
    table = Table(Client("Cold!", "[end:4]"), Client(VERDICT))
    first = run(Agent(turn("Old.")), Client("Cold!", "[end:2]"))
    playing = play.play_all(agent, table.episodes, [SCENARIO] * 2, repeats=1, seed=0, first=4, kept={4: first, 1: None})
    dialogues = asyncio.run(playing)
    assert dialogues[0] is first and dialogues[1].outcome == 4.0


def test_a_fault_of_our_own_is_raised_and_leaves_nothing_running():
    class Slow(Client):
        asked = cancelled = 0

        async def chat(self, messages, *, seed, response_format=None):
            self.asked += 1
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                self.cancelled += 1
                raise

    judged, agent = Slow(), Agent(turn("Hello."), turn("Well."), RuntimeError("no weights"))
    with pytest.raises(RuntimeError, match="no weights"):
        asyncio.run(alone(agent, judged))
    assert judged.cancelled == judged.asked >= agent.closed == 1


async def alone(agent, judged):
    try:
        await play.play_dialogue(agent, Table(Client("Cold!"), judged).episodes, SCENARIO, index=0, seed=0)
    finally:
        assert len(asyncio.all_tasks()) == 1


def test_where_the_run_cannot_go_on_every_dialogue_is_given_up():
    class Broke(Client):
        async def chat(self, messages, *, seed):
            if seed == fold(fold(0, 2), "user"):
                raise BudgetReached("nothing is left")
            await asyncio.sleep(60)

    async def run():
        closing, scenarios = Agent(), list(itertools.islice(generator.deal_scenarios(11), 4))
        with pytest.raises(BudgetReached, match="nothing is left"):
            await play.play_all(closing, Table(Broke(), None).episodes, scenarios, repeats=1, seed=0)
        assert len(asyncio.all_tasks()) == 1 and closing.closed == 4

    asyncio.run(run())
