"""The world of one dialogue: databases that tools read and change, everybody's messages, and how it all ends.

It is the official orchestrator without its threads and its copies: the same messages, the same counts of steps and
errors, the same ends.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from rollouts.domains.tau2.package import Package
from rollouts.domains.tau2.sums import refuse_sum
from rollouts.types import DialogueError

STOPS = ("###STOP###", "###TRANSFER###", "###OUT-OF-SCOPE###")
"""What a user writes to end the dialogue."""
PROPER = ("user_stop", "agent_stop")
"""Ends after which a dialogue is scored; after any other its reward is 0."""


class Action(NamedTuple):
    """A call of a tool."""

    name: str
    arguments: dict[str, Any]


class Result(NamedTuple):
    """What a tool answered."""

    content: str
    error: bool


class DialogueOver(Exception):
    """The dialogue came to its end while somebody was at work; `World.end` says how."""


class World:
    """One dialogue's world.

    Attributes:
      environment: the package's own.
      messages: everybody's, as the package has them, those before the dialogue included.
      end: how it ended, by the package's names; "" while it goes on.
    """

    def __init__(self, package: Package, domain: str, source: Any, *, solo: bool, max_steps: int, max_errors: int):
        """Sets the world up for a task. Raises DialogueError if the package cannot."""
        self._messages, self._max_steps, self._max_errors = package.messages, max_steps, max_errors
        self._steps = -1 if solo else 0  # the first message of an agent without a user is no step
        self._errors = self._calls = 0
        self.end = ""
        start = source.initial_state
        history = (start and start.message_history) or []
        self.messages: list[Any] = [message.model_copy(deep=True) for message in history]
        self.environment = self._run_package(package.registry.get_env_constructor(domain), solo_mode=solo)
        self._run_package(
            self.environment.set_state,
            initialization_data=start and start.initialization_data,
            initialization_actions=start and start.initialization_actions,
            message_history=self.messages,
        )

    def add_message(self, role: str, content: str | None, calls: Sequence[Action] = (), *, stops: str = "") -> None:
        """Adds what the `assistant` or the `user` said, a step of the dialogue; `stops` is the end that it makes."""
        requested = [self._make_call(role, call) for call in calls]
        kind = self._messages.AssistantMessage if role == "assistant" else self._messages.UserMessage
        self.messages.append(kind(role=role, content=content, tool_calls=requested or None))
        self.end = stops
        self._count_step(goes_on=bool(calls))

    def greet(self, content: str) -> None:
        """Adds the greeting with which the official agent begins. It is no step."""
        self.messages.append(self._messages.AssistantMessage(role="assistant", content=content))

    def answer_calls(self) -> list[Result]:
        """Runs the calls of the last message, one step; returns what the tools answered.

        Raises DialogueError if the world itself fails: what a tool refuses is a result.
        """
        results = []
        for call in self.messages[-1].tool_calls:
            refused = refuse_sum(call.name, call.arguments)
            answer = self._refuse(call, refused) if refused else self._run_package(self.environment.get_response, call)
            self._errors += answer.error
            results.append(answer)
        self.messages += results
        self._count_step(goes_on=False)
        return [Result(result.content or "", result.error) for result in results]

    def check(self) -> None:
        """Raises DialogueOver if the dialogue has come to its end."""
        if self.end:
            raise DialogueOver

    def _count_step(self, *, goes_on: bool) -> None:
        """Counts a step; limits hold unless it `goes_on` with tools that have yet to answer, as the official ones do.

        A stop in the last step that is allowed comes too late.
        """
        self._steps += 1
        self._run_package(self.environment.sync_tools)
        if goes_on:
            return
        if self._steps >= self._max_steps:
            self.end = "max_steps"
        if self._errors >= self._max_errors:
            self.end = "too_many_errors"

    def _make_call(self, role: str, call: Action) -> Any:
        self._calls += 1
        made = {"id": f"call_{self._calls}", "name": call.name, "arguments": call.arguments, "requestor": role}
        return self._messages.ToolCall(**made)

    def _refuse(self, call: Any, reason: str) -> Any:
        """Answers a call as the package does one that fails."""
        told = {"id": call.id, "content": f"Error: {reason}", "requestor": call.requestor}
        return self._messages.ToolMessage(role="tool", error=True, **told)

    def _run_package(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        try:
            return function(*args, **options)
        except Exception as error:  # whatever the package raises is no fault of the agent
            raise DialogueError("world_error", f"{type(error).__name__}: {error}") from error


def find_stop(content: str) -> bool:
    """Whether what a user wrote ends the dialogue."""
    return any(mark in content for mark in STOPS)
