"""Retraces a conversation from its transcript: what happened in each turn of the agent, and in which mood."""

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rollouts.domains.fds.embedded import latent, reading, signals, writing
from rollouts.domains.fds.embedded.case import Case
from rollouts.domains.fds.embedded.latent import Mood
from rollouts.domains.fds.words import bank

_LETTERS = 3  # long pieces of words by which a message in noisy words is told from another


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
    """Returns the mood after a turn: of those that may follow, the one that the customer's `answer` fits best."""
    outcomes = latent.list_outcomes(case.customer, mood, events)
    if len(outcomes) == 1:
        return outcomes[0][1]

    def rate_fit(outcome: tuple[float, Mood]) -> tuple[float, float]:
        chance, after = outcome
        listed = signals.list_signals(case.customer, mood, after, events)
        reactions = {signal.reaction for _, signal in listed}
        return max(_compare_words(answer, reaction, case) for reaction in reactions), chance

    return max(outcomes, key=rate_fit)[1]


def _compare_words(answer: str, reaction: str, case: Case) -> float:
    """Returns how much of a phrasing of `reaction` is in an answer, 0..1; 2 where the words are the bank's."""
    names = (case.merchant, *(item.name for item in case.items))
    try:
        if writing.read_message(answer, names).reaction == reaction:
            return 2.0
    except ValueError:  # noise, or words of another endpoint
        pass
    found = _cut_pieces(answer)
    return max((len(found & pieces) / len(pieces) for pieces in _list_phrasings(reaction)), default=0.0)


@functools.cache
def _list_phrasings(reaction: str) -> tuple[frozenset[str], ...]:
    templates = (template for template in bank.load_bank("reactions") if template.section[0] == reaction)
    return tuple(filter(None, (_cut_pieces(text) for template in templates for text in template.texts)))


def _cut_pieces(text: str) -> frozenset[str]:
    letters = f" {' '.join(text.lower().split())} "
    return frozenset(letters[place : place + _LETTERS] for place in range(len(letters) - _LETTERS + 1))
