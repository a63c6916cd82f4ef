"""One dialogue as the agent meets it: the user, the tools, and what becomes of the world."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from rollouts.domain import Closing, Cost, Effect, Episode
from rollouts.domains.tau2 import costs, turn_format
from rollouts.domains.tau2.package import Package
from rollouts.domains.tau2.scoring import Scorer
from rollouts.domains.tau2.tasks import Tau2Task
from rollouts.domains.tau2.users import User
from rollouts.domains.tau2.world import PROPER, Action, DialogueOver, Result, World, find_stop
from rollouts.types import DialogueError, Message, Sample

GREETING = "Hi! How can I help you today?"
"""With which the official agent begins; nobody samples it."""


class Rules(NamedTuple):
    """What holds for all dialogues of a run."""

    max_steps: int
    max_errors: int
    max_turns: int  # of the agent


class Service(Episode):
    """A dialogue of an agent with a user; without one, of an agent with tools. It has a `world` once it is open."""

    def __init__(
        self,
        package: Package,
        scorer: Scorer,
        task: Tau2Task,
        user: User | None,
        rules: Rules,
        constrained: Sequence[Cost],
    ):
        self._package, self._scorer, self._task, self._user = package, scorer, task, user
        self._rules, self._constrained = rules, constrained
        self.world: World | None = None
        self._turns, self._cut = 0, ""
        self._output = turn_format.AgentOutput("", None, [], False)
        self._results: Sequence[Result] = ()

    @property
    def end(self) -> str:
        """See Episode."""
        return self._cut or (self.world.end if self.world else "")

    async def open(self) -> Sequence[Message]:
        """See Episode."""
        task, rules = self._task, self._rules
        self.world = world = World(
            self._package,
            task.domain,
            task.source,
            solo=task.solo,
            max_steps=rules.max_steps,
            max_errors=rules.max_errors,
        )
        if task.solo:
            return [Message("system", task.told)]
        if not world.messages:
            world.greet(GREETING)
        before = [shown for message in world.messages if (shown := show_message(message))]
        last = world.messages[-1]
        if last.role == "assistant" and not last.tool_calls:
            heard = await self._hear_user(last.content)
            return [*before, *heard] if heard else []
        if last.role == "assistant" or (last.role == "user" and last.tool_calls):
            raise DialogueError("world_error", f"task {task.id}: a history that ends with a call is not supported")
        return before

    def act(self, sample: Sample) -> Effect:
        """See Episode. Calls of tools are answered at once."""
        world, self._results = self.world, ()
        self._output = output = turn_format.read_output(sample.text, self._task.tools)
        self._turns += 1
        counted = dict.fromkeys((cost.name for cost in costs.COSTS), 0.0) | {"tool_error": float(output.malformed)}
        if self._task.solo and (not output.calls or any(call.name == "done" for call in output.calls)):
            world.add_message("assistant", output.content or "", stops="agent_stop" if output.calls else "agent_error")
        elif output.calls:
            world.add_message("assistant", output.content, output.calls)
            before = costs.read_refunds(self._task.domain, world.environment, output.calls)
            self._results = world.answer_calls()
            after = costs.read_refunds(self._task.domain, world.environment, output.calls)
            counted |= costs.count_calls(world.environment, output.calls, self._results)
            counted["refund"] = max(0.0, after - before)
        else:
            world.add_message("assistant", output.content)
            counted["message"] = 1.0
        if not world.end and self._turns == self._rules.max_turns:
            world.end = "max_turns"
        cost = np.array([counted[cost.name] for cost in self._constrained], np.float32)
        return Effect(cost, note_turn(sample.text, output, self._results, counted), over=bool(world.end))

    def cut(self) -> None:
        """See Episode."""
        self._cut = self._cut or "context"

    async def respond(self) -> Sequence[Message]:
        """See Episode."""
        if self._results:
            return [Message("tool", result.content) for result in self._results]
        return await self._hear_user(self._output.content)

    async def close(self) -> Closing:
        """See Episode."""
        world = self.world
        try:
            outcome = 0.0 if self._cut else self._scorer.score_dialogue(self._task.source, world)
        except Exception as error:  # the package's own assertions
            raise DialogueError("world_error", f"{type(error).__name__}: {error}") from error
        proper = not self._cut and world.end in PROPER
        return Closing(outcome, proper, [0.0] * self._turns, [{}] * self._turns)

    async def _hear_user(self, content: str) -> list[Message]:
        """Lets the user answer; returns what the agent hears of it, nothing if the dialogue is over."""
        world = self.world
        try:
            words = await self._user.speak(turn_format.hear(content), self._use_tools)
            world.add_message("user", words, stops="user_stop" if find_stop(words) else "")
            world.check()
        except DialogueOver:
            self.last_words = world.messages[-1].content or ""
            return []
        return [Message("user", turn_format.hear(words))]

    def _use_tools(self, calls: Sequence[Action]) -> Sequence[Result]:
        """Lets the user use tools. Raises DialogueOver where that was the last step."""
        self.world.add_message("user", None, calls)
        results = self.world.answer_calls()
        self.world.check()
        return results


def show_message(message: Any) -> Message | None:
    """Shows the agent a message from before the dialogue; None for what the user did alone."""
    calls = getattr(message, "tool_calls", None) or []
    if message.role == "assistant":
        asked = [Action(call.name, call.arguments) for call in calls]
        return Message("assistant", turn_format.write_calls(asked, message.content or ""))
    if message.role == "user":
        return None if calls else Message("user", message.content)
    return Message("tool", message.content) if message.requestor == "assistant" else None


def note_turn(
    text: str, output: turn_format.AgentOutput, results: Sequence[Result], counted: dict[str, float]
) -> dict[str, Any]:
    """Notes a turn for transcripts and tables."""
    answered = zip(output.calls, results, strict=True) if results else ((call, None) for call in output.calls)
    calls = [
        {"name": call.name, "arguments": json.dumps(call.arguments), **(result._asdict() if result else {})}
        for call, result in answered
    ]
    return {
        "text": text,
        "think": output.thought,
        "said": "" if output.calls else output.content,
        "calls": calls,
        "malformed": output.malformed,
        "costs": counted,
    }
