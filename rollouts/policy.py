"""The policy as an agent: renders what others say, samples with the engine, keeps the tokens as they were sampled."""

import numpy as np

from models.tokenizer import Tokenizer
from rollouts import chat
from rollouts.engine import Engine, EngineSession
from rollouts.play import Sample
from rollouts.types import Message, Scenario


class PolicyAgent:
    """Serves customers with the engine's weights, of a certain `version` or, with None, of any; see `Engine.open`."""

    def __init__(self, engine: Engine, tokenizer: Tokenizer, version: int | None = None):
        self._engine, self._tokenizer, self._version = engine, tokenizer, version

    async def open(self, scenario: Scenario, seed: int) -> "PolicySession":
        """Begins a dialogue."""
        return PolicySession(self._engine.open(self._version), self._tokenizer, scenario)


class PolicySession:
    """One dialogue of the policy: one append-only stream of tokens."""

    def __init__(self, session: EngineSession, tokenizer: Tokenizer, scenario: Scenario):
        self._session, self._tokenizer, self._scenario = session, tokenizer, scenario
        self._begun = False

    async def reply(self, message: Message, seed: int) -> Sample:
        """Answers the user's message.

        Raises ValueError if the very first prompt does not fit; a dialogue that outgrows the context later on stops
        with "context".
        """
        if self._begun:
            incoming = chat.encode_reply(self._tokenizer, message)
        else:
            opening = [Message("system", self._scenario.agent_prompt), message]
            incoming = chat.encode_opening(self._tokenizer, opening)
            if len(incoming) >= self._session.room:
                raise ValueError(
                    f"config.model.context_length: the prompt of scenario {self._scenario.id} has {len(incoming)} "
                    f"tokens, expected fewer than {self._session.room}"
                )
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
