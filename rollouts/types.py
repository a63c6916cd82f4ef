"""What a dialogue is made of: frozen records that every room shares, without any domain's words.

Letters: N = agent turns of a dialogue, I = token ids that came in before a turn, T = token ids sampled in a turn,
C = costs.
"""

import abc
import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

_NO_IDS = np.zeros(0, np.int32)
_NO_LOGPROBS = np.zeros(0, np.float32)


class DialogueError(Exception):
    """A dialogue could not be played to its end, through no fault of the agent; failures are counted by `cause`."""

    def __init__(self, cause: str, message: str):
        super().__init__(message)
        self.cause = cause


@dataclasses.dataclass(frozen=True)
class Message:
    """One chat message as the OpenAI protocol has it."""

    role: str  # system | user | assistant | tool
    content: str


@dataclasses.dataclass(frozen=True)
class GivenMessage(Message):
    """An assistant's message that the agent did not write, such as a greeting: it is read, and not learnt from."""

    weight: int = 0  # as OpenAI's format for fine-tuning has it


@dataclasses.dataclass(frozen=True)
class CallingMessage(Message):
    """An assistant's message with calls of tools, as an endpoint is told of it."""

    tool_calls: Sequence[Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class ResultMessage(Message):
    """What a tool answered, as an endpoint is told of it."""

    tool_call_id: str


@dataclasses.dataclass(frozen=True)
class Task(abc.ABC):
    """What is to be handled, settled before the first word. A domain's own tasks are subclasses with more fields."""

    id: str

    @property
    @abc.abstractmethod
    def opening(self) -> Sequence[Message]:
        """What the agent is told before anybody speaks."""

    @property
    def told_first(self) -> Sequence[Message]:
        """What must fit in the agent's context: its opening, wherever the episode says that."""
        return self.opening

    @property
    @abc.abstractmethod
    def labels(self) -> Mapping[str, Any]:
        """What tables group tasks by: plain values by name."""

    @property
    @abc.abstractmethod
    def description(self) -> Mapping[str, Any]:
        """What transcripts say of it; ready for JSON, which writes tuples as lists."""

    @property
    def digest(self) -> str:
        """A hash of the whole task: it tells tasks apart that have the same id in different sources."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:16]


class Sample(NamedTuple):
    """What an agent wrote in one turn."""

    text: str
    incoming_ids: np.ndarray = _NO_IDS  # [I] int32
    ids: np.ndarray = _NO_IDS  # [T] int32
    logprobs: np.ndarray = _NO_LOGPROBS  # [T] float32, under the distribution drawn from
    model_logprobs: np.ndarray = _NO_LOGPROBS  # [T] float32, under the model's own
    stop: str = "end_of_turn"  # end_of_turn | length | context


class TokenNotes(NamedTuple):
    """What transcripts keep of the tokens that were sampled in a turn."""

    texts: Sequence[str]  # T, see `models.tokenizer.Tokenizer.spell`
    ratios: np.ndarray | None = None  # [T] float32: probability after the step's update, by that when it was drawn
    advantages: np.ndarray | None = None  # [T] float32, with which they were learnt; None: each has the turn's credit


@dataclasses.dataclass(frozen=True)
class Turn:
    """One turn: what came in, what the agent wrote, and what it was worth."""

    messages: tuple[Message, ...]  # what came in before this turn
    text: str  # the agent's whole output
    incoming_ids: np.ndarray  # [I] int32: tokens others wrote before this turn, template included
    ids: np.ndarray  # [T] int32: tokens exactly as sampled, stop token included; [0] if no policy sampled them
    logprobs: np.ndarray  # [T] float32: their log-probabilities under the distribution that they were drawn from
    model_logprobs: np.ndarray  # [T] float32: under the model's own, at temperature 1 and over the whole vocabulary
    cost: np.ndarray  # [C] float32
    process_reward: float = 0.0  # R_P
    credit: float | None = None  # what the algorithm made of it; None where nothing was learnt from it
    token_notes: TokenNotes | None = None  # where the transcript is to keep the tokens
    # What the domain says of the turn, ready for JSON.
    notes: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Dialogue:
    """A played task."""

    task: Task
    index: int  # number of this dialogue among the task's
    turns: tuple[Turn, ...]  # N
    outcome: float  # R_O
    end: str  # how it ended, by the domain's names, or "context": it did not fit in the agent's
    cost: np.ndarray  # [C] float32: what the turns cost together, see `rollouts.domain.Cost`
    success: bool = False  # did it come to a proper end?
    last_words: str = ""  # the last message, which nobody answered
    failure: str = ""  # the cause, if an endpoint failed: then nothing here is data
    failure_message: str = ""
    replaced: tuple[str, ...] = ()  # causes of the attempts that failed before this one

    @property
    def ok(self) -> bool:
        """Whether the dialogue may be learnt from and counted."""
        return not self.failure
