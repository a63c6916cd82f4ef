"""Plays scenarios into dialogues. A dialogue reads like sequential code; only the engine and the clients batch."""

import asyncio
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, Protocol

import numpy as np

from rollouts import chat
from rollouts.domains.fds import generator, judge, rubrics, rules
from rollouts.seeds import fold
from rollouts.types import PRINCIPLES, Dialogue, DialogueError, Message, Scenario, Turn

UNUSABLE = tuple(f"{rubrics.PROCESS.name}_{cause}" for cause in ("malformed", "truncated", "refused", "filtered"))
"""Failures of a judge that did answer: the same request would be answered the same."""

_NO_IDS = np.zeros(0, np.int32)
_NO_LOGPROBS = np.zeros(0, np.float32)


class Sample(NamedTuple):
    """What an agent wrote in one turn."""

    text: str
    incoming_ids: np.ndarray = _NO_IDS  # [I] int32
    ids: np.ndarray = _NO_IDS  # [T] int32
    logprobs: np.ndarray = _NO_LOGPROBS  # [T] float32, under the distribution drawn from
    model_logprobs: np.ndarray = _NO_LOGPROBS  # [T] float32, under the model's own
    stop: str = "end_of_turn"  # end_of_turn | length | context


class Session(Protocol):
    """One dialogue's side of an agent."""

    async def reply(self, message: Message, seed: int) -> Sample:
        """Answers the user's message."""

    def close(self) -> None:
        """Gives back what the session holds; no `reply` follows."""


class Chat(Protocol):
    """Whoever plays the user or the judge: an endpoint's client, or a person."""

    async def chat(self, messages: Sequence[Message], *, seed: int, response_format: Mapping | None = None) -> str:
        """Answers a conversation, a judge in `response_format`. Raises DialogueError if there is no answer."""


class Agent(Protocol):
    """Whoever serves the customers: the policy, a script, an endpoint."""

    async def open(self, scenario: Scenario, seed: int) -> Session:
        """Begins a dialogue."""


@dataclasses.dataclass(frozen=True)
class Table:
    """Everybody and everything a dialogue needs besides its agent."""

    user: Chat
    judge: Chat | None  # None: turns are not scored
    max_turns: int = 15
    farewell: bool = False  # may the agent answer once more after the user's rating?
    format_outcome: float = 0.0  # R_O of a dialogue that ends in a format error
    judge_weights: Mapping[str, float] = dataclasses.field(default_factory=lambda: dict.fromkeys(PRINCIPLES, 1.0))
    votes: int = 1  # answers of the judge that are averaged for a verdict


async def play_all(
    agent: Agent,
    table: Table,
    scenarios: Sequence[Scenario],
    *,
    repeats: int,
    seed: int,
    first: int = 0,
    replacements: int = 0,
    kept: Mapping[int, Dialogue] = MappingProxyType({}),
    failed: Mapping[int, Sequence[str]] = MappingProxyType({}),
    done: Callable[[int, Dialogue], None] = lambda number, dialogue: None,
) -> list[Dialogue]:
    """Plays every scenario `repeats` times; dialogue i is repeat ``i % repeats`` of scenario ``i // repeats``.

    `first` is the number of the first dialogue among all that are played with `seed`, here and elsewhere. Those that
    are `kept`, by number, are not played again. `done` is called with number and dialogue as each of the others ends.

    A dialogue whose endpoint failed is played again from its beginning, with the same seed, up to `replacements`
    times: what comes of it is what an endpoint that answered would have given. Only a judge whose verdict was malformed
    or cut off gets other seeds, as the same would give the same verdict; causes of earlier calls, by number, are in
    `failed`. The last attempt comes back, with `failure` set if it failed too.
    """

    async def one(index: int) -> Dialogue:
        if (number := first + index) in kept:
            return kept[number]
        causes: tuple[str, ...] = ()
        while True:
            malformed = sum(cause in UNUSABLE for cause in (*failed.get(number, ()), *causes))
            dialogue = await play(
                agent,
                table,
                scenarios[index // repeats],
                index=index % repeats,
                seed=fold(seed, number),
                judge_seed=fold(seed, number, "malformed", malformed) if malformed else None,
            )
            if dialogue.ok or len(causes) == replacements:
                break
            causes += (dialogue.failure,)
        dialogue = dataclasses.replace(dialogue, replaced=causes)
        done(number, dialogue)
        return dialogue

    dialogues = [asyncio.create_task(one(index)) for index in range(len(scenarios) * repeats)]
    try:
        return await asyncio.gather(*dialogues)
    finally:
        for dialogue in dialogues:  # all done, unless the run cannot go on
            dialogue.cancel()
        await asyncio.gather(*dialogues, return_exceptions=True)


async def play(
    agent: Agent, table: Table, scenario: Scenario, *, index: int, seed: int, judge_seed: int | None = None
) -> Dialogue:
    """Plays one dialogue. All randomness follows from `seed`, the judge's from `judge_seed` where there is one."""
    turns, verdicts, last_words = [], [], ""
    judge_seed = seed if judge_seed is None else judge_seed
    state = rules.State()
    session = await agent.open(scenario, fold(seed, "agent"))
    try:
        try:
            prompt = rubrics.PROCESS.prompt(scenario)
            to_user = [Message("system", generator.user_prompt(scenario)), Message("user", rules.BEGIN)]
            said: list[judge.Said] = []
            words = await table.user.chat(to_user, seed=fold(seed, "user", 0))
            while True:
                message = Message("user", rules.without_marks(words))
                sample = await session.reply(message, fold(seed, "turn", state.turns))
                if sample.stop == "context":
                    if not state.end:  # a rating stands, with or without a farewell
                        state = state._replace(end="context", outcome=0.0)
                    break
                already_over, before = state.end, state
                state, reply, cost = rules.agent_step(
                    state, sample.text, truncated=sample.stop == "length", format_outcome=table.format_outcome
                )
                turns.append(_turn(message.content, sample, reply, cost))
                if reply is None:
                    break
                voucher = rules.issued(before, reply.action)
                heard = chat.clean_response(reply.response)  # the judge reads what the customer reads
                earlier = rules.issued(before, "chat")
                said += [judge.Said("customer", message.content, earlier), judge.Said("agent", heard, voucher)]
                if table.judge is not None:
                    request, randomness = judge.messages(prompt, said), fold(judge_seed, "judge", len(turns))
                    asked = judge.ask(table.judge, rubrics.PROCESS, request, seed=randomness, votes=table.votes)
                    verdicts.append(asyncio.create_task(asked))
                if already_over:
                    break
                to_user += [
                    Message("assistant", words),
                    Message("user", rules.with_state_line(reply.response, voucher)),
                ]
                words = await table.user.chat(to_user, seed=fold(seed, "user", state.turns))
                state = rules.user_step(state, words, max_turns=table.max_turns)
                last_words = words if state.end else ""
                if state.end and not (table.farewell and state.end == "rated"):
                    break
        finally:
            session.close()  # makes room while the judge is still at work
        answers = await asyncio.gather(*verdicts)
    except DialogueError as error:
        return Dialogue(
            scenario, index, tuple(turns), 0.0, state.end, last_words, failure=error.cause, failure_message=str(error)
        )
    finally:
        for verdict in verdicts:  # all done, unless something failed
            verdict.cancel()
        await asyncio.gather(*verdicts, return_exceptions=True)
    judged = [
        dataclasses.replace(
            turn, scores=answer.scores, reason=answer.reason, process_reward=answer.reward(table.judge_weights)
        )
        for turn, answer in zip(turns, answers, strict=False)
    ]
    return Dialogue(scenario, index, (*judged, *turns[len(judged) :]), state.outcome, state.end, last_words)


def _turn(user: str, sample: Sample, reply, cost: np.ndarray) -> Turn:
    think, response, action = reply or ("", "", "")
    return Turn(
        user=user,
        text=sample.text,
        think=think,
        response=response,
        action=action,
        incoming_ids=sample.incoming_ids,
        ids=sample.ids,
        logprobs=sample.logprobs,
        model_logprobs=sample.model_logprobs,
        cost=cost,
        scores={},
        process_reward=0.0,
    )
