"""The policy as an agent: renders what others say, samples with the engine, keeps the tokens as they were sampled."""

from collections.abc import Iterable, Sequence

import numpy as np

from models.tokenizer import Tokenizer
from rollouts import chat
from rollouts.engine.engine import Engine, EngineSession
from rollouts.types import Message, Sample, Task

_LONGEST = 32  # openings that are encoded, the longest by characters: the longest by tokens is among them


class PolicyAgent:
    """Serves customers with the engine's weights, which must be of `version`; None: of any. See `Engine.open`."""

    def __init__(self, engine: Engine, tokenizer: Tokenizer, version: int | None = None):
        self._engine, self._tokenizer, self._version = engine, tokenizer, version

    async def open(self, task: Task, seed: int) -> "PolicySession":
        """Begins a dialogue."""
        return PolicySession(self._engine.open(self._version), self._tokenizer, task)


def check_prompts(tokenizer: Tokenizer, tasks: Iterable[Task], context_length: int) -> None:
    """Raises ValueError, naming the task, if its opening alone leaves no room for a turn in the context."""
    for task in find_longest(tasks):
        size = len(chat.encode_opening(tokenizer, task.told_first))
        if size >= context_length:
            raise ValueError(
                f"config.model.context_length: the opening of task {task.id} has {size} tokens, expected "
                f"fewer than the {context_length} of the context; raise it, dialogues come on top"
            )


def find_longest(tasks: Iterable[Task]) -> list[Task]:
    """Finds the tasks with the longest openings, a few, the longest by characters first."""
    return sorted(tasks, key=lambda task: -sum(len(message.content) for message in task.told_first))[:_LONGEST]


class PolicySession:
    """One dialogue of the policy: one append-only stream of tokens."""

    def __init__(self, session: EngineSession, tokenizer: Tokenizer, task: Task):
        self._session, self._tokenizer, self._task = session, tokenizer, task
        self._begun = False

    async def reply(self, messages: Sequence[Message], seed: int) -> Sample:
        """Answers what came in; stops with "context" if the dialogue does not fit, even at its first turn."""
        if self._begun:
            incoming = chat.encode_reply(self._tokenizer, messages)
        else:
            incoming = chat.encode_opening(self._tokenizer, [*self._task.opening, *messages])
            self._begun = True
        incoming = np.array(incoming, np.int32)
        if len(incoming) >= self._session.room:
            return Sample("", stop="context")
        sampled = await self._session.generate(incoming, seed)
        written = sampled.ids[:-1] if sampled.stop == "end_of_turn" else sampled.ids
        text = self._tokenizer.decode(written)
        return Sample(text, incoming, sampled.ids, sampled.logprobs, sampled.model_logprobs, sampled.stop)

    def close(self) -> None:
        """Ends the stream."""
        self._session.close()
