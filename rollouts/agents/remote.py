"""An agent behind an OpenAI-compatible endpoint: the same prompt, the same messages, the same rules as the policy."""

from rollouts.endpoints.client import ChatClient
from rollouts.play import Sample
from rollouts.types import Message, Scenario


class RemoteAgent:
    """Serves customers by asking an endpoint.

    Whatever it writes is its turn, thoughts that its server keeps apart included: what breaches the turn format ends
    the dialogue, and so does a turn that was cut off, as for the policy. An answer that does not come raises the
    client's DialogueError, a failure of the endpoint.
    """

    def __init__(self, client: ChatClient):
        self._client = client

    async def open(self, scenario: Scenario, seed: int) -> "RemoteSession":
        """Begins a dialogue."""
        return RemoteSession(self._client, scenario)


class RemoteSession:
    """One dialogue of a remote agent."""

    def __init__(self, client: ChatClient, scenario: Scenario):
        self._client, self._messages = client, [Message("system", scenario.agent_prompt)]

    async def reply(self, message: Message, seed: int) -> Sample:
        """Answers the user's message. Raises DialogueError if the endpoint does not."""
        self._messages.append(message)
        text, cut_off = await self._client.turn(self._messages, seed=seed)
        self._messages.append(Message("assistant", text))
        return Sample(text, stop="length" if cut_off else "end_of_turn")

    def close(self) -> None:
        """Nothing is held."""
