"""Free conversations of a person with an agent: no task has to come to an end, and nobody judges."""

import dataclasses
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Literal, Protocol

import httpx
import pydantic

from rollouts.agents.person import mend_text
from rollouts.domain import Domain
from rollouts.endpoints import streaming
from rollouts.endpoints.parts import PartReader, Piece
from rollouts.play import Agent, Session
from rollouts.seeds import fold
from rollouts.types import DialogueError, Message, Task


@dataclasses.dataclass(frozen=True)
class ChatTask(Task):
    """A task of which an agent knows a system text, and nobody anything else."""

    system: str

    @property
    def opening(self) -> Sequence[Message]:
        """See Task."""
        return (Message("system", self.system),) if self.system else ()

    @property
    def labels(self) -> Mapping[str, Any]:
        """See Task."""
        return {}

    @property
    def description(self) -> Mapping[str, Any]:
        """See Task."""
        return {"id": self.id, "system": self.system}


class Spending:
    """What conversations cost.

    `totals` says of each cost how the turns of a conversation add up, see `rollouts.domain.Cost`; `budgets` what it may
    be in the mean over conversations, where that is known.
    """

    def __init__(self, totals: Mapping[str, str], budgets: Mapping[str, float]):
        self._totals, self._budgets = totals, budgets
        self._conversations: list[dict[str, float]] = []
        self._tokens, self._begun = 0, False

    def begin_conversation(self) -> None:
        """Lets the next turn be the first of a conversation."""
        self._begun = False

    def add_turn(self, spent: Mapping[str, float], tokens: int) -> None:
        """Adds what a turn cost, and the tokens that were sampled for it."""
        if not self._begun:
            self._conversations.append(dict.fromkeys(self._totals, 0.0))
            self._begun = True
        now = self._conversations[-1]
        for name, amount in spent.items():
            now[name] = max(now[name], amount) if self._totals[name] == "any" else now[name] + amount
        self._tokens += tokens

    def describe(self) -> str:
        """Describes what was spent: now, in the mean, and of what budget."""
        count, told = len(self._conversations), []
        for name, amount in (self._conversations[-1] if count else {}).items():
            mean = sum(conversation[name] for conversation in self._conversations) / count
            budget = f", budget {self._budgets[name]:g}" if name in self._budgets else ""
            told.append(f"{name} {amount:g} (mean of {count}: {mean:.2f}{budget})")
        return ", ".join([*told, *([f"{self._tokens:,} tokens"] if self._tokens else [])])


class Partner(Protocol):
    """An agent that a person talks to."""

    spending: Spending

    async def begin(self, system: str | None) -> None:
        """Begins a conversation with a system text; None: the one that the partner was made with.

        Raises ValueError if the agent takes no other.
        """

    def answer(self, words: str) -> AsyncIterator[Piece]:
        """Yields the answer to `words` piece by piece.

        Raises DialogueError if there is none: the conversation goes on without these words. ValueError: it is nothing.
        """


class AgentHere:
    """An agent in this process, which is open. It hears what it would hear of a user of its domain.

    One that is `scripted` follows the task, and no system text.
    """

    def __init__(
        self, domain: Domain, agent: Agent, task: Task, spending: Spending, *, seed: int, scripted: bool = False
    ):
        self._domain, self._agent, self._task, self._seed, self._scripted = domain, agent, task, seed, scripted
        self.spending = spending
        self._session: Session | None = None
        self._conversations = self._turns = 0

    async def begin(self, system: str | None) -> None:
        """See Partner."""
        if self._scripted and system is not None:
            raise ValueError("a scripted agent follows its task, and no system text")
        self.close()
        self._conversations, self._turns = self._conversations + 1, 0
        task = self._task if system is None else ChatTask("chat", system)
        self._session = await self._agent.open(task, fold(self._seed, "agent", self._conversations))
        self.spending.begin_conversation()

    async def answer(self, words: str) -> AsyncIterator[Piece]:
        """See Partner."""
        heard = self._domain.turn_format.hear(self._domain.read_typed("user", words))
        if not heard:
            raise ValueError("the agent would hear nothing of this")
        seed = fold(self._seed, "turn", self._conversations, self._turns)
        sample = await self._session.reply([Message("user", heard)], seed)
        if sample.stop == "context":
            raise DialogueError(
                "context", "the conversation no longer fits in the agent's context; /new begins another"
            )
        self._turns += 1
        effect = self._domain.read_turn(sample.text, truncated=sample.stop == "length")
        shown = self._domain.show_turn(effect.notes)
        amounts = zip(self._domain.costs, effect.cost.tolist(), strict=True)
        spent = {cost.name: amount for cost, amount in amounts if not math.isnan(amount)}
        self.spending.add_turn(spent, len(sample.ids))
        if shown.thought:
            yield Piece("think", shown.thought)
        yield Piece("agent", shown.said or sample.text)
        if shown.badges:
            yield Piece("action", ", ".join(text for text, _ in shown.badges))

    def close(self) -> None:
        """Ends the conversation."""
        if self._session:
            self._session.close()
        self._session = None


class Opening(pydantic.BaseModel):
    """What an agent is told first in a task that a server of ours offers."""

    opening: str


class Offer(pydantic.BaseModel):
    """What a server of ours says of itself at /page/about; a server without such a page offers nothing."""

    title: str = ""
    costs: Mapping[str, Literal["any", "sum"]] = {}
    budgets: Mapping[str, float] = {}
    tasks: Sequence[Opening] = ()
    customer_view: bool = False
    reads_turns: bool = False


class AgentAtUrl:
    """A model of an OpenAI-compatible server. One of ours takes turns apart, which says what they cost."""

    def __init__(self, http: httpx.AsyncClient, model: str, system: str, offer: Offer):
        self._http, self._model, self._system, self._offer = http, model, system, offer
        self.spending = Spending(offer.costs, offer.budgets)
        self._messages: list[dict[str, str]] = []

    async def begin(self, system: str | None) -> None:
        """See Partner."""
        told = self._system if system is None else system
        self._messages = [{"role": "system", "content": told}] if told else []
        self.spending.begin_conversation()

    async def answer(self, words: str) -> AsyncIterator[Piece]:
        """See Partner."""
        messages = [*self._messages, {"role": "user", "content": words}]
        reader, text, action, tokens, finish = PartReader(), "", "", 0, ""
        async for delta in streaming.stream_answer(self._http, {"model": self._model, "messages": messages}):
            if delta.reasoning:
                yield Piece("think", delta.reasoning)
            for piece in reader.feed(delta.content):
                yield piece
            text, action, finish = text + delta.content, delta.action or action, delta.finish or finish
            tokens = delta.answer_tokens or tokens
        for piece in reader.finish():
            yield piece
        if action:
            yield Piece("action", action)
        if finish == "length":
            yield Piece("note", "the answer was cut off")
        text = mend_text(text)  # halves of a pair may come in two pieces
        self._messages = [*messages, {"role": "assistant", "content": text}]
        self.spending.add_turn(await self._read_costs(text, action), tokens)

    async def _read_costs(self, text: str, action: str) -> Mapping[str, float]:
        """Reads what a turn cost, as far as the server says it."""
        costs = self._offer.costs
        if not self._offer.reads_turns or not text:
            return {action: 1.0} if action in costs else {}
        try:
            url = self._http.base_url.copy_with(path="/page/turns")
            turn = await streaming.ask_object(self._http, "POST", url, json={"text": text})
            return {name: float(amount) for name, amount in turn["spent"] if name in costs}
        except (DialogueError, KeyError, TypeError, ValueError):
            return {}
