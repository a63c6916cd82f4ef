"""tau2-bench for tests: traces of calls that both sides make one after the other, and the official loop beside ours."""

import asyncio
import json
import random

from rollouts.domain import Episodes
from rollouts.domains.tau2 import turn_format
from rollouts.domains.tau2.episode import Rules, Service
from rollouts.domains.tau2.scoring import Scorer
from rollouts.domains.tau2.world import Action, Result
from rollouts.play import play_dialogue
from rollouts.types import Sample

RULES = Rules(max_steps=100, max_errors=10, max_turns=60)


class Trace:
    """Both sides of a dialogue that is known beforehand; the agent says `told` at the end, and the user stops."""

    def __init__(self, actions, told=()):
        self.left = [(action.requestor, Action(action.name, dict(action.arguments))) for action in actions]
        self.told = " ".join(told) or "Goodbye."

    async def open(self, task, seed):
        self.solo = task.solo
        return self

    async def reply(self, messages, seed):
        if self.left and (self.solo or self.left[0][0] == "assistant"):
            return Sample(turn_format.write_calls([self.left.pop(0)[1]]))
        if self.solo:
            return Sample(turn_format.write_calls([Action("done", {})]))
        return Sample("Please go on." if self.left else self.told)

    def close(self):
        pass

    async def speak(self, heard, act):
        if heard == self.told:
            return "###STOP###"
        while self.left and self.left[0][0] == "user":
            act([self.left.pop(0)[1]])
        return "Done."


class Saying:
    """An agent that says one thing after the other; it keeps what it hears."""

    def __init__(self, *said):
        self.said, self.heard = list(said), []

    async def open(self, task, seed):
        return self

    async def reply(self, messages, seed):
        self.heard.append([(message.role, message.content) for message in messages])
        return Sample(self.said.pop(0) if self.said else "And now?")

    def close(self):
        pass


class Answering:
    """A user who answers with one thing after the other, and keeps what they hear."""

    def __init__(self, *said):
        self.said, self.heard = list(said), []

    async def speak(self, heard, act):
        self.heard.append(heard)
        return self.said.pop(0) if self.said else "###STOP###"


async def play(package, task, agent, user, *, scorer=None, rules=RULES, costs=(), seed=0):
    """Plays a task; returns the dialogue and its episode."""
    kept = []

    def begin(task, *, seed, judge_seed):
        kept.append(Service(package, scorer or Scorer(package, task.domain), task, user, rules, costs))
        return kept[0]

    dialogue = await play_dialogue(agent, Episodes(begin, tuple(costs)), task, index=0, seed=seed)
    return dialogue, kept[0]


def talk(package, task, agent, user, **options):
    """Plays a task; returns the dialogue and its episode."""
    return asyncio.run(play(package, task, agent, user, **options))


def gold_trace(task):
    """What the task wants, as a trace."""
    criteria = task.source.evaluation_criteria
    return Trace(criteria.actions or [], criteria.communicate_info or [])


def mutated_trace(task, seed, others):
    """What the task wants, with something left out, doubled, swapped, changed, or taken from another task."""
    choose = random.Random(seed)
    criteria = task.source.evaluation_criteria
    actions = [action.model_copy(deep=True) for action in criteria.actions or []]
    told = list(criteria.communicate_info or [])
    for _ in range(choose.randint(1, 3)):
        kind = choose.choice(["drop", "double", "swap", "change", "foreign", "silent"])
        place = choose.randrange(len(actions)) if actions else 0
        if kind == "foreign":
            foreign = choose.choice(others).source.evaluation_criteria.actions or []
            actions[place:place] = [action.model_copy(deep=True) for action in foreign[:1]]
        elif kind == "silent":
            told = told[:-1]
        elif actions and kind == "drop":
            del actions[place]
        elif actions and kind == "double":
            actions.insert(place, actions[place].model_copy(deep=True))
        elif actions and kind == "swap":
            choose.shuffle(actions)
        elif actions and actions[place].arguments:
            name = choose.choice(sorted(actions[place].arguments))
            value = actions[place].arguments[name]
            actions[place].arguments[name] = value + 1 if isinstance(value, int | float) else f"{value}x"
    return Trace(actions, told)


def official_reward(task, world):
    """The official evaluator's reward of a dialogue that ended."""
    from tau2.data_model.simulation import SimulationRun
    from tau2.evaluator.evaluator import EvaluationType, evaluate_simulation

    times = {"start_time": "2026-01-01T00:00:00", "end_time": "2026-01-01T00:00:00", "duration": 0.0}
    run = SimulationRun(id="1", task_id=task.id, termination_reason=world.end, messages=list(world.messages), **times)
    return evaluate_simulation(run, task.source, EvaluationType.ALL, task.solo, task.domain).reward


def plain(messages):
    """Messages of the package as plain values, without times and ids."""
    found = []
    for message in messages:
        calls = getattr(message, "tool_calls", None) or []
        asked = [(call.name, json.dumps(call.arguments, sort_keys=True), call.requestor) for call in calls]
        found.append((message.role, message.content or None, asked))
    return found


def run_officially(package, task, session, user, *, seed=0, max_steps=100):
    """Runs a scripted session and a user of ours in the official orchestrator; returns its SimulationRun."""
    from tau2.agent.base import LocalAgent
    from tau2.orchestrator.orchestrator import Orchestrator
    from tau2.user.base import BaseUser, UserState

    class OfficialAgent(LocalAgent):
        def get_init_state(self, message_history=None):
            return list(message_history or [])

        def generate_next_message(self, message, state):
            heard = getattr(message, "tool_messages", None) or [message]
            if state:  # the greeting is part of what opens the dialogue
                heard, state = [*state, *heard], []
            text = session._work.send("\n".join(one.content for one in heard))
            output = turn_format.read_output(text, task.tools)
            calls = [package.messages.ToolCall(id="c", name=name, arguments=given) for name, given in output.calls]
            said = package.messages.AssistantMessage(role="assistant", content=output.content, tool_calls=calls or None)
            return said, state

        def set_seed(self, seed):
            pass

    class OfficialUser(BaseUser):
        def get_init_state(self, message_history=None):
            return UserState(system_messages=[], messages=[])

        def generate_next_message(self, message, state):
            if message.role == "assistant":
                self.using = user.respond(turn_format.hear(message.content))
                results = None
            else:
                answered = getattr(message, "tool_messages", None) or [message]
                results = [Result(one.content, one.error) for one in answered]
            try:
                calls = self.using.send(results)
            except StopIteration as done:
                return package.messages.UserMessage(role="user", content=done.value), state
            asked = [
                package.messages.ToolCall(id="u", name=name, arguments=given, requestor="user") for name, given in calls
            ]
            return package.messages.UserMessage(role="user", content=None, tool_calls=asked), state

        def is_stop(self, message):
            raise NotImplementedError

        def set_seed(self, seed):
            pass

    environment = package.registry.get_env_constructor(task.domain)()
    agent = OfficialAgent(tools=environment.get_tools(), domain_policy="")
    orchestrator = Orchestrator(
        task.domain, agent, OfficialUser(), environment, task.source, max_steps=max_steps, seed=seed
    )
    return orchestrator.run()
