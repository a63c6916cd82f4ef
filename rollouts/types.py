"""What a dialogue is made of: frozen records that every room shares.

Letters: N = agent turns of a dialogue, I = token ids that came in before a turn, T = token ids sampled in a turn.
"""

import dataclasses
import hashlib

import numpy as np

DEMANDS = ("refund_insistence", "refund_priority", "compensation_flexible", "feedback_focus")
"""The four extrinsic demand modes, in the order of the released data's `core_need_type` 1..4."""

LEVELS = ("highly uncooperative", "uncooperative", "generally cooperative", "cooperative", "highly cooperative")
"""The five cooperation levels; level n is LEVELS[n - 1]."""

PRINCIPLES = ("persona", "stage", "quality", "rules")
"""What the process judge scores every turn on, each 0, 0.5 or 1."""

COSTS = ("voucher",)
"""The constrained costs; a turn's cost vector has one entry for each."""

FORMAT_ERRORS = ("malformed", "second_voucher", "truncated")
"""Ends of a dialogue that are the agent's own breach of the turn format."""


class DialogueError(Exception):
    """A dialogue could not be played to its end through no fault of the agent; `cause` is what it is counted by."""

    def __init__(self, cause: str, message: str):
        super().__init__(message)
        self.cause = cause


@dataclasses.dataclass(frozen=True)
class Message:
    """One chat message as the OpenAI protocol has it."""

    role: str  # system | user | assistant
    content: str


@dataclasses.dataclass(frozen=True)
class Persona:
    """Intrinsic traits: stable, whatever the order."""

    level: int  # cooperation, 1 (highly uncooperative) .. 5 (highly cooperative)
    communication_style: str
    information_disclosure: str
    problem_solving: str
    emotional_style: str


@dataclasses.dataclass(frozen=True)
class Order:
    """The order in dispute."""

    items: str  # "Beef Burger*1, Cola*2"
    merchant: str
    complaint: str  # a key of `rollouts.domains.fds.generator.COMPLAINTS`
    supported: bool | None  # does the platform's record support the complaint? None: it is silent
    record: str  # what the platform's record says, one sentence; "" if it is silent
    signals: tuple[tuple[str, str], ...]  # (name, value) pairs as the agent sees them


@dataclasses.dataclass(frozen=True)
class Scenario:
    """Everything that is settled before the first word: who complains, about what, wanting what."""

    id: str
    persona: Persona
    demand: str  # one of DEMANDS
    order: Order
    agent_prompt: str  # the agent's system prompt

    @property
    def digest(self) -> str:
        """A hash of all of it: what tells scenarios apart whose sources gave them the same id."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class Turn:
    """One turn: what the user said, what the agent answered, and what it was worth."""

    user: str  # the user's message before this turn
    text: str  # the agent's whole output
    think: str
    response: str  # the only part the user sees
    action: str  # chat | voucher; "" where the output was malformed
    incoming_ids: np.ndarray  # [I] int32: tokens others wrote before this turn, template included
    ids: np.ndarray  # [T] int32: tokens exactly as sampled, stop token included; [0] if no policy sampled them
    logprobs: np.ndarray  # [T] float32: their log-probabilities under the distribution that they were drawn from
    model_logprobs: np.ndarray  # [T] float32: under the model's own, at temperature 1 and over the whole vocabulary
    cost: np.ndarray  # [len(COSTS)] float32, 1 where this turn took the costly action
    scores: dict[str, float]  # the judge's score by principle; {} if it was not asked
    process_reward: float  # weighted mean of the scores, 0..1; 0 for a malformed turn
    reason: str = ""  # the judge's reason


@dataclasses.dataclass(frozen=True)
class Dialogue:
    """A played scenario."""

    scenario: Scenario
    index: int  # which of the scenario's dialogues this is
    turns: tuple[Turn, ...]  # N
    outcome: float  # the user's satisfaction 1..5; 0 where it was forfeited
    end: str  # rated | quit | turn_limit | context | one of FORMAT_ERRORS
    last_words: str = ""  # the user's closing message
    failure: str = ""  # the cause, if an endpoint failed: then nothing here is data
    failure_message: str = ""
    replaced: tuple[str, ...] = ()  # causes of the attempts that failed before this one, which took their place

    @property
    def ok(self) -> bool:
        """Whether the dialogue may be learnt from and counted."""
        return not self.failure

    @property
    def finished(self) -> bool:
        """Whether it came to a proper end: rated by the user, every turn well-formed."""
        return self.ok and self.end == "rated"

    @property
    def cost(self) -> np.ndarray:
        """[len(COSTS)] float32: 1 where any turn took the costly action."""
        return np.max([np.zeros(len(COSTS), np.float32), *(turn.cost for turn in self.turns)], axis=0)
