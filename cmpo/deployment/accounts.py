"""What one dialogue was given, as pure functions of its events.

Only one of the answers to a turn was really given: the one that the conversation goes on with. Until it goes on, any
may be, and each cost is the highest among them, so that a budget holds whichever it is.

Letters: C = costs.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from cmpo.deployment.events import Answered, Reported
from rollouts.domain import Cost, add_costs

Amounts = tuple[float, ...]  # [C]

CHOICES = 128
"""Answers to a turn that are told apart. If it goes on with an older one, the worst of all counts."""


@dataclasses.dataclass(frozen=True)
class Account:
    """A dialogue so far."""

    total: Amounts  # what it was given
    left: Amounts  # by turns that the client went back behind: what they gave stays given
    given: Amounts  # by turns that the conversation has gone on from
    worst: Amounts  # by the latest turn: the highest of each cost among its answers
    answers: Mapping[str, Amounts] = dataclasses.field(default_factory=dict)  # of the latest turn, by hash
    turn: int = -1  # the latest
    tokens: int = 0  # all that were sampled, for answers that were not taken too
    resolved: bool | None = None
    escalated: bool | None = None
    rating: float | None = None


def open_account(costs: Sequence[Cost]) -> Account:
    """Returns the account of a dialogue before its first answer."""
    nothing = (0.0,) * len(costs)
    return Account(nothing, nothing, nothing, nothing)


def take_answer(costs: Sequence[Cost], account: Account, answered: Answered) -> Account:
    """Takes an answer into account.

    One to the turn after the latest settles which answer to the latest was given. One to the same turn is another
    choice. One to any other turn means that the client went elsewhere: all that it was given before stays given.
    """
    cost = tuple(answered.cost.get(kind.name, 0.0) for kind in costs)
    nothing = (0.0,) * len(costs)
    left, given, worst, answers = account.left, account.given, account.worst, account.answers
    if answered.turn == account.turn + 1:
        taken = answers.get(answered.after, worst)
        given, worst, answers = _add(costs, given, taken), nothing, {}
    elif answered.turn != account.turn:
        left, given, worst, answers = account.total, nothing, nothing, {}
    worst = tuple(map(max, worst, cost))
    return dataclasses.replace(
        account,
        total=tuple(np.add(left, _add(costs, given, worst)).tolist()),
        left=left,
        given=given,
        worst=worst,
        answers=dict(list((answers | {answered.answer: cost}).items())[-CHOICES:]),
        turn=answered.turn,
        tokens=account.tokens + answered.tokens,
    )


def take_report(account: Account, reported: Reported) -> Account:
    """Takes down what a client says; the latest counts."""
    said = {name: getattr(reported, name) for name in ("resolved", "escalated", "rating")}
    return dataclasses.replace(account, **{name: value for name, value in said.items() if value is not None})


def _add(costs: Sequence[Cost], *turns: Amounts) -> Amounts:
    return tuple(add_costs(costs, np.array(turns)).tolist())
