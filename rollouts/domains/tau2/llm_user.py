"""An LLM as the user, told what the official user simulator is told, and asked as that asks it."""

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from rollouts.domains.tau2.package import Package
from rollouts.domains.tau2.users import Act
from rollouts.domains.tau2.world import Action
from rollouts.endpoints.client import ChatClient
from rollouts.seeds import fold
from rollouts.types import CallingMessage, Message, ResultMessage


class LlmUser:
    """The user of one dialogue, as a `users.User`: to the endpoint, the user is the assistant."""

    def __init__(self, package: Package, domain: str, source: Any, client: ChatClient, seed: int):
        self._client, self._seed, self._asked = client, seed, 0
        self._tools = find_user_tools(package, domain)
        told = package.users.UserSimulator(
            tools=[*self._tools] or None, instructions=str(source.user_scenario)
        ).system_prompt
        start = source.initial_state
        history = (start and start.message_history) or []
        if history and history[-1].role == "assistant":
            history = history[:-1]  # it is said to the user next
        self._messages = [Message("system", told), *_flip_roles(history)]

    async def speak(self, heard: str, act: Act) -> str:
        """See `users.User`. Raises DialogueError if the endpoint does not answer."""
        self._messages.append(Message("user", heard))
        while True:
            self._asked += 1
            seed = fold(self._seed, self._asked)
            words, calls = await self._client.ask_with_tools(self._messages, self._tools, seed=seed)
            if not calls:
                self._messages.append(Message("assistant", words))
                return words
            named = [call._replace(id=f"call_{self._asked}_{number}") for number, call in enumerate(calls)]
            self._messages.append(CallingMessage("assistant", words, [call.to_object() for call in named]))
            results = act([Action(call.name, json.loads(call.arguments)) for call in calls])
            self._messages += [
                ResultMessage("tool", result.content, call.id) for call, result in zip(named, results, strict=True)
            ]


@functools.cache
def find_user_tools(package: Package, domain: str) -> Sequence[Mapping[str, Any]]:
    """Returns the tools that the users of a domain have, in the OpenAI protocol."""
    environment = package.registry.get_env_constructor(domain)()
    return tuple(tool.openai_schema for tool in environment.get_user_tools()) if environment.user_tools else ()


def _flip_roles(history: Sequence[Any]) -> list[Message]:
    """Returns what the user said and heard before the dialogue, with the roles that it has for the endpoint."""
    flipped: list[Message] = []
    for message in history:
        calls = getattr(message, "tool_calls", None) or []
        if message.role == "tool" and message.requestor == "user":
            flipped.append(ResultMessage("tool", message.content or "", message.id))
        elif message.role == "assistant" and not calls:
            flipped.append(Message("user", message.content))
        elif message.role == "user" and not calls:
            flipped.append(Message("assistant", message.content))
        elif message.role == "user":
            asked = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": json.dumps(call.arguments)},
                }
                for call in calls
            ]
            flipped.append(CallingMessage("assistant", message.content or "", asked))
    return flipped
