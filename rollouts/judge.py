"""The process judge: what it is asked, and the strict reading of what it answers."""

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rollouts import fds
from rollouts.types import PRINCIPLES, DialogueError, Message, Scenario

ALLOWED = (0.0, 0.5, 1.0)


class Verdict(NamedTuple):
    """The judge's view of one turn."""

    scores: dict[str, float]  # principle -> 0, 0.5 or 1
    reason: str

    def reward(self, weights: Mapping[str, float]) -> float:
        """The process reward R_P: the mean of the scores, weighted by principle; 0..1."""
        return sum(weights[name] * self.scores[name] for name in PRINCIPLES) / sum(weights[name] for name in PRINCIPLES)


class Said(NamedTuple):
    """One utterance as the judge reads it."""

    role: str  # customer | agent
    text: str
    voucher: str = "no"  # whether the system issued a voucher by then: no | this turn | earlier


def judge_prompt(scenario: Scenario) -> str:
    """The judge's system prompt."""
    values = {**fds.persona_values(scenario.persona), **fds.order_values(scenario.order), "demand": scenario.demand}
    return fds.prompt("judge", **values)


def messages(prompt: str, conversation: Sequence[Said]) -> list[Message]:
    """Asks for a verdict on the last turn of `conversation`. JSON keeps an agent from posing as somebody else."""
    transcript = json.dumps([said._asdict() for said in conversation], ensure_ascii=False)
    return [Message("system", prompt), Message("user", transcript)]


def parse(answer: str) -> Verdict:
    """Reads a verdict. Raises DialogueError("judge_malformed") unless every principle has its allowed score."""
    try:
        found = json.loads(answer)
        scores = {name: found[name] for name in PRINCIPLES}
    except (ValueError, KeyError, TypeError, RecursionError):
        raise DialogueError(
            "judge_malformed", f"expected a JSON object with {PRINCIPLES}, got {answer[:200]!r}"
        ) from None
    for name, score in scores.items():
        if isinstance(score, bool) or score not in ALLOWED:
            raise DialogueError("judge_malformed", f"expected {name} to be one of {ALLOWED}, got {score!r}")
    reason = str(found.get("reason", "")).encode(errors="replace").decode()  # half a surrogate pair could not be kept
    return Verdict({name: float(score) for name, score in scores.items()}, reason)
