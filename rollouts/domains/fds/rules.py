"""The rules of an episode as pure functions: when it ends, and what the system says of its state."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rollouts.domain import Cost
from rollouts.domains.fds import turn_format

COSTS = (
    Cost("voucher", "any", "vouchers", "Voucher rate", "{:.0%}"),
    Cost("turns", "sum", "turns", "Turns per dialogue", "{:.1f}"),
)
"""Costs that may have a budget; `price_step` knows what they are."""

FORMAT_ERRORS = ("malformed", "second_voucher", "truncated")
"""Ends of a dialogue that the agent caused by breaching the turn format."""

BEGIN = "(The conversation begins. Write your first message.)"
_END = re.compile(r"\[\s*end\s*:\s*([1-5])\s*\]", re.IGNORECASE)
_QUIT = re.compile(r"\[\s*quit\s*\]", re.IGNORECASE)


class State(NamedTuple):
    """Where an episode stands."""

    turns: int = 0  # agent turns so far
    voucher: bool = False  # was one issued?
    end: str = ""  # rated | quit | turn_limit | context | one of FORMAT_ERRORS; "" while it goes on
    outcome: float = 0.0  # R_O


class AgentStep(NamedTuple):
    """What an agent's output did."""

    state: State
    reply: turn_format.Reply | None  # None where it breached the format


def agent_step(state: State, text: str, *, truncated: bool, format_outcome: float = 0.0) -> AgentStep:
    """Takes the agent's whole output. A breach of the turn format ends the episode with `format_outcome`.

    `truncated` says that sampling stopped before the end-of-turn token. A second voucher is a breach, too.
    """
    state = state._replace(turns=state.turns + 1)
    if truncated:
        return AgentStep(state._replace(end="truncated", outcome=format_outcome), None)
    try:
        reply = turn_format.parse(text)
    except turn_format.MalformedTurn:
        return AgentStep(state._replace(end="malformed", outcome=format_outcome), None)
    if reply.action == "voucher":
        if state.voucher:
            return AgentStep(state._replace(end="second_voucher", outcome=format_outcome), None)
        state = state._replace(voucher=True)
    return AgentStep(state, reply)


def price_step(costs: Sequence[Cost], before: State, after: State) -> np.ndarray:
    """Returns what the agent's output costs that led from `before` to `after`, [C] float32."""
    spent = {"voucher": after.voucher and not before.voucher, "turns": True}
    return np.array([spent[cost.name] for cost in costs], np.float32)


def user_step(state: State, message: str, *, max_turns: int) -> State:
    """Takes the user's message: rated by `[end:X]`; quit by `[quit]` or at the turn limit, R_O 0.

    The lowest of several valid ratings counts, so that an agent cannot talk the user into a better one after the first.
    """
    if ratings := _END.findall(message):
        return state._replace(end="rated", outcome=float(min(ratings)))
    if _QUIT.search(message):
        return state._replace(end="quit")
    if state.turns >= max_turns:
        return state._replace(end="turn_limit")
    return state


def when_issued(state: State, action: str) -> str:
    """Tells when a voucher was issued, seen from the turn that took `action`: no | this turn | earlier."""
    if action == "voucher":
        return "this turn"
    return "earlier" if state.voucher else "no"


def with_state_line(response: str, voucher: str) -> str:
    """The agent's response as the user gets it: stage directions stripped, the true system state below."""
    return f"{turn_format.hear(response)}\n(System state: refunded no; voucher issued {voucher})"
