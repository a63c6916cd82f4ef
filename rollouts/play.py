"""Plays tasks into dialogues. A dialogue reads like sequential code; only the engine and the clients batch."""

import asyncio
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

import numpy as np

from rollouts.domain import Episode, Episodes, total_cost
from rollouts.seeds import fold
from rollouts.types import Dialogue, DialogueError, Message, Sample, Task, Turn

UNUSABLE = tuple(f"judge_{cause}" for cause in ("malformed", "truncated", "refused", "filtered"))
"""Failures of a judge that did answer: the same request would get the same answer."""


class Session(Protocol):
    """One dialogue's side of an agent."""

    async def reply(self, messages: Sequence[Message], seed: int) -> Sample:
        """Answers what came in."""

    def close(self) -> None:
        """Releases what the session holds; no `reply` follows."""


class Chat(Protocol):
    """Plays the user or the judge: an endpoint's client, or a person."""

    async def chat(self, messages: Sequence[Message], *, seed: int, response_format: Mapping | None = None) -> str:
        """Answers a conversation; judges answer in `response_format`. Raises DialogueError if there is no answer."""


class Agent(Protocol):
    """What is trained or measured: the policy, a script, an endpoint."""

    async def open(self, task: Task, seed: int) -> Session:
        """Begins a dialogue."""


async def play_all(
    agent: Agent,
    episodes: Episodes,
    tasks: Sequence[Task],
    *,
    repeats: int,
    seed: int,
    first: int = 0,
    replacements: int = 0,
    kept: Mapping[int, Dialogue] = MappingProxyType({}),
    failed: Mapping[int, Sequence[str]] = MappingProxyType({}),
    done: Callable[[int, Dialogue], None] = lambda number, dialogue: None,
) -> list[Dialogue]:
    """Plays every task `repeats` times; dialogue i is repeat ``i % repeats`` of task ``i // repeats``.

    `first` is the number of the first dialogue among all that are played with `seed`, here and elsewhere. Dialogues in
    `kept`, by number, are not played again. `done` is called with number and dialogue when one of the others ends.

    A dialogue whose endpoint failed is played again from its beginning, with the same seed, up to `replacements`
    times, so the result is the one that an endpoint without failures would have given. Only a judge whose verdict was
    unusable gets another seed, because the same one would give the same verdict; causes from earlier calls, by number,
    are in `failed`. The last attempt is returned, with `failure` set if it failed too.
    """

    async def play_one(index: int) -> Dialogue:
        if (number := first + index) in kept:
            return kept[number]
        causes: tuple[str, ...] = ()
        while True:
            malformed = sum(cause in UNUSABLE for cause in (*failed.get(number, ()), *causes))
            dialogue = await play_dialogue(
                agent,
                episodes,
                tasks[index // repeats],
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

    dialogues = [asyncio.create_task(play_one(index)) for index in range(len(tasks) * repeats)]
    try:
        return await asyncio.gather(*dialogues)
    finally:
        for dialogue in dialogues:  # all are done, unless the run cannot go on
            dialogue.cancel()
        await asyncio.gather(*dialogues, return_exceptions=True)


async def play_dialogue(
    agent: Agent, episodes: Episodes, task: Task, *, index: int, seed: int, judge_seed: int | None = None
) -> Dialogue:
    """Plays one dialogue. All randomness follows from `seed`, the judge's from `judge_seed` if it is given."""
    turns: list[Turn] = []
    episode = episodes.begin(task, seed=seed, judge_seed=seed if judge_seed is None else judge_seed)
    session = await agent.open(task, fold(seed, "agent"))

    def build_dialogue(outcome: float, **fields) -> Dialogue:
        total = total_cost(episodes.costs, turns)
        return Dialogue(task, index, tuple(turns), outcome, episode.end, total, last_words=episode.last_words, **fields)

    try:
        try:
            messages = await episode.open()
            while messages:
                sample = await session.reply(messages, fold(seed, "turn", len(turns)))
                if sample.stop == "context":
                    episode.cut()
                    break
                effect = episode.act(sample)
                if np.shape(effect.cost) != (len(episodes.costs),):
                    names = [cost.name for cost in episodes.costs]
                    raise ValueError(
                        f"{_class_name(episode)}.act: expected a cost for each of {names}, got {effect.cost}"
                    )
                written = sample._asdict()
                del written["stop"]
                turns.append(Turn(tuple(messages), **written, cost=effect.cost, notes=effect.notes))
                messages = () if effect.over else await episode.respond()
        finally:
            session.close()  # makes room while the judge is still at work
        closing = await episode.close()
    except DialogueError as error:
        return build_dialogue(0.0, failure=error.cause, failure_message=str(error))
    finally:
        await episode.cancel()
    if not len(turns) == len(closing.rewards) == len(closing.notes):
        found = f"{len(closing.rewards)} and {len(closing.notes)}"
        raise ValueError(f"{_class_name(episode)}.close: expected rewards and notes of {len(turns)} turns, got {found}")
    if not math.isfinite(closing.outcome):
        raise ValueError(f"{_class_name(episode)}.close: expected a finite outcome, got {closing.outcome}")
    worth = zip(turns, closing.rewards, closing.notes, strict=True)
    turns = [
        dataclasses.replace(turn, process_reward=reward, notes={**turn.notes, **notes}) for turn, reward, notes in worth
    ]
    return build_dialogue(closing.outcome, success=closing.success)


def _class_name(episode: Episode) -> str:
    return type(episode).__name__
