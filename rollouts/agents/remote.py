"""An agent behind an OpenAI-compatible endpoint: the same prompt, the same messages, the same rules as the policy."""

from collections.abc import Sequence

from rollouts.endpoints.client import ChatClient
from rollouts.types import Message, Sample, Task


class RemoteAgent:
    """Serves customers by asking an endpoint.

    Its turn is all that it writes, with the thoughts that its server keeps apart. As for the policy, a turn that
    breaches the format or was cut off ends the dialogue. If no answer comes, the client raises DialogueError, a failure
    of the endpoint.
    """

    def __init__(self, client: ChatClient):
        self._client = client

    async def open(self, task: Task, seed: int) -> "RemoteSession":
        """Begins a dialogue."""
        return RemoteSession(self._client, task)


class RemoteSession:
    """One dialogue of a remote agent."""

    def __init__(self, client: ChatClient, task: Task):
        self._client, self._messages = client, [*task.opening]

    async def reply(self, messages: Sequence[Message], seed: int) -> Sample:
        """Answers what came in. Raises DialogueError if the endpoint does not."""
        self._messages += messages
        text, cut_off = await self._client.ask_for_turn(self._messages, seed=seed)
        self._messages.append(Message("assistant", text))
        return Sample(text, stop="length" if cut_off else "end_of_turn")

    def close(self) -> None:
        """Does nothing: the session holds nothing."""
