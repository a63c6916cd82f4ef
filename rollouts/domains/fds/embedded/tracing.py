"""Retraces a conversation from its transcript: what happened in each turn of the agent, and in which mood."""

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rollouts.domains.fds.embedded import latent, reading, signals
from rollouts.domains.fds.embedded.case import Case
from rollouts.domains.fds.embedded.latent import Mood
from rollouts.domains.fds.hearing import hear_message


class Step(NamedTuple):
    """One turn of the agent, retraced."""

    text: str
    events: frozenset[str]
    before: Mood
    after: Mood


def trace_turns(case: Case, turns: Sequence[Mapping[str, str]]) -> list[Step]:
    """Returns the agent's turns in a transcript (see `reading.read_transcript`), and the moods around them.

    Where chance had a part, the customer's answer shows what came of it; where there is none yet, the likelier.
    """
    mood, replies, steps = latent.start_mood(case.customer), [], []
    for place, turn in enumerate(turns):
        if turn["role"] != "agent":
            continue
        answer = next((later["text"] for later in turns[place + 1 :] if later["role"] == "customer"), "")
        events = read_turn(turn["text"], tuple(replies), case, turn["voucher"])
        replies.append(turn["text"])
        before, mood = mood, find_outcome(case, mood, events, answer)
        steps.append(Step(turn["text"], events, before, mood))
    return steps


@functools.lru_cache(maxsize=8192)
def read_turn(response: str, earlier: tuple[str, ...], case: Case, issued: str) -> frozenset[str]:
    """See `reading.read_reply`; what customer and judges read again, turn after turn, is read once."""
    return reading.read_reply(response, earlier, case, issued)


def find_outcome(case: Case, mood: Mood, events: frozenset[str], answer: str) -> Mood:
    """Returns the mood after a turn: of those that may follow, the likeliest that the customer's `answer` fits."""
    outcomes = latent.list_outcomes(case.customer, mood, events)
    if len(outcomes) == 1:
        return outcomes[0][1]
    names = (*(item.name for item in case.items), case.merchant)
    reaction = hear_message(answer, names, first=False).signal.reaction if answer else ""

    def rate_fit(outcome: tuple[float, Mood]) -> tuple[bool, float]:
        chance, after = outcome
        listed = signals.list_signals(case.customer, mood, after, events)
        return reaction in {signal.reaction for _, signal in listed}, chance

    return max(outcomes, key=rate_fit)[1]
