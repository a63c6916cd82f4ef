"""A person as the user of an agent, and the judge's verdicts as they arrive: at a keyboard or on a page."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from rollouts.play import Chat
from rollouts.tool_calls import ToolCall
from rollouts.types import Message


def mend_text(text: str) -> str:
    """Returns what a person typed with a sign for each half of a surrogate pair, which no endpoint could be sent."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class PersonAsUser:
    """A person as the user, in place of an endpoint.

    `tell` gets what the user is told of who they are; `hear` gets each answer of the agent, and how many there are by
    then; `read` waits for what the person says, or raises DialogueError if they left.
    """

    def __init__(
        self,
        *,
        tell: Callable[[str], None],
        hear: Callable[[str, int], Awaitable[None]],
        read: Callable[[], Awaitable[str]],
    ):
        self._tell, self._hear, self._read = tell, hear, read

    async def chat(self, messages: Sequence[Message], *, seed: int, response_format: Mapping | None = None) -> str:
        """Shows the person the last of `messages` and returns what they say to it."""
        answered = sum(message.role == "assistant" for message in messages)  # the user's own words so far
        if answered:
            await self._hear(messages[-1].content, answered)
        else:
            self._tell(messages[0].content)
        return await self._read()

    async def ask_with_tools(
        self, messages: Sequence[Message], tools: Sequence[Mapping], *, seed: int
    ) -> tuple[str, list[ToolCall]]:
        """Shows and returns as `chat` does: a person has no tools here."""
        return await self.chat(messages, seed=seed), []


class Verdicts:
    """A judge whose answers are shown as they arrive; `show` gets the turn's number, from 0, and the answer about it.

    An answer that cannot be read is shown too, and its reader asks again.
    """

    def __init__(self, judge: Chat, show: Callable[[int, str], None]):
        self._judge, self._show = judge, show
        self._asked: dict[str, int] = {}  # the conversation up to the turn that is judged -> the turn's number
        self._ended, self._under_way = asyncio.Condition(), 0

    async def chat(self, messages: Sequence[Message], *, seed: int, response_format: Mapping | None = None) -> str:
        """Returns the judge's answer, and shows it."""
        turn = self._asked.setdefault(messages[1].content, len(self._asked))
        self._under_way += 1
        try:
            answer = await self._judge.chat(messages, seed=seed, response_format=response_format)
            self._show(turn, answer)
        finally:
            self._under_way -= 1
            async with self._ended:
                self._ended.notify_all()
        return answer

    async def wait_for_turns(self, turns: int) -> None:
        """Waits until the judge was asked about so many turns of the agent, and has answered or failed each time."""
        async with self._ended:
            await self._ended.wait_for(lambda: len(self._asked) >= turns and not self._under_way)
