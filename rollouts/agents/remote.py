"""An agent behind an OpenAI-compatible endpoint: the same prompt, the same messages, the same rules as the policy."""

from collections.abc import Sequence

from rollouts.endpoints.client import ChatClient
from rollouts.types import Message, Sample, Task


class RemoteAgent:
    """Serves customers by asking an endpoint.

    Whatever it writes is its turn, thoughts that its server keeps apart included: what breaches the turn format ends
    the dialogue, and so does a turn that was cut off, as for the policy. An answer that does not come raises the
    client's DialogueError, a failure of the endpoint.
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
        """Nothing is held."""
