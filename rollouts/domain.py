"""The seam between the loop and what dialogues are about.

The loop knows tasks, episodes and costs; only the domain knows what is in them (`rollouts.domains`). An episode is the
domain's side of one dialogue: it speaks for everybody but the agent, and says what the dialogue was worth.

Letters: N = agent turns of a dialogue, C = costs.
"""

import abc
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np

from models.tokenizer import Tokenizer
from rollouts.engine.grammar import Grammar
from rollouts.sections import Section
from rollouts.types import Dialogue, Message, Sample, Task, Turn


class Cost(NamedTuple):
    """Something that a dialogue may cost, and that a budget may hold."""

    name: str  # budgets, metrics and tables are named after it
    total: str  # how a dialogue's turns add up: any (1 if one of them cost something) | sum
    heading: str  # in tables
    panel: str  # over its curve
    form: str  # of its mean over dialogues, for `str.format`

    @property
    def measure(self) -> str:
        """The name of its mean over dialogues: a rate if `total` is any, else a mean."""
        return f"{self.name}_rate" if self.total == "any" else f"{self.name}_mean"


class Effect(NamedTuple):
    """What the agent's output did."""

    cost: np.ndarray  # [C] float32
    notes: Mapping[str, Any]  # of the turn, see `rollouts.types.Turn`
    over: bool  # is the dialogue over? Then nobody answers


class Closing(NamedTuple):
    """What a dialogue was worth."""

    outcome: float  # R_O
    success: bool
    rewards: Sequence[float]  # R_P of each turn, N
    notes: Sequence[Mapping[str, Any]]  # of each turn, N, added to those of its effect


class Episode(abc.ABC):
    """A domain's side of one dialogue. An endpoint's failure is raised as DialogueError, and never scored."""

    end: str = ""  # see `rollouts.types.Dialogue`; "" while it goes on
    last_words: str = ""

    @abc.abstractmethod
    async def open(self) -> Sequence[Message]:
        """Returns the first messages to the agent, after the task's opening."""

    @abc.abstractmethod
    def act(self, sample: Sample) -> Effect:
        """Takes what the agent wrote."""

    def cut(self) -> None:
        """Ends the dialogue because it no longer fits in the agent's context."""
        self.end = self.end or "context"

    @abc.abstractmethod
    async def respond(self) -> Sequence[Message]:
        """Returns the messages that come back to the agent; none if the dialogue is over."""

    @abc.abstractmethod
    async def close(self) -> Closing:
        """Waits for what runs beside the dialogue, such as its judge, and returns what the dialogue was worth."""

    async def cancel(self) -> None:
        """Cancels what still runs beside the dialogue; after `close` that is nothing."""
        return


class Episodes(NamedTuple):
    """How episodes of a domain begin, and what they may cost."""

    begin: Callable[..., Episode]  # (task, *, seed, judge_seed)
    costs: tuple[Cost, ...]


def total_cost(costs: Sequence[Cost], turns: Iterable[Turn | Effect]) -> np.ndarray:
    """Returns what turns, or their effects, cost together, [C] float32."""
    turns = list(turns)
    return add_costs(costs, np.array([turn.cost for turn in turns], np.float32).reshape(len(turns), len(costs)))


def add_costs(costs: Sequence[Cost], by_turn: np.ndarray) -> np.ndarray:
    """Adds up what each turn cost, [N, C]; returns [C], of the same dtype."""
    total = np.where([cost.total == "any" for cost in costs], by_turn.any(0), by_turn.sum(0))
    return total.astype(by_turn.dtype)


def choose_costs(costs: Sequence[Cost], constrained: Iterable[str]) -> tuple[Cost, ...]:
    """Chooses the costs of these names, by default the first. Raises ValueError for an unknown name."""
    names = set(constrained) or {costs[0].name}
    if unknown := names - {cost.name for cost in costs}:
        raise ValueError(
            f"config.pid.target: expected some of {tuple(cost.name for cost in costs)}, got {sorted(unknown)[0]!r}"
        )
    return tuple(cost for cost in costs if cost.name in names)


class Measure(NamedTuple):
    """How a number is shown in tables."""

    heading: str
    scale: float
    digits: int


EVERYWHERE = {
    "finish_rate": Measure("finished, %", 100, 1),
    "process_reward": Measure("process reward, 0 to 1", 1, 3),
    "turns": Measure("turns", 1, 2),
    "tokens": Measure("tokens sampled", 1, 1),
    "failure_rate": Measure("failed, %", 100, 1),
}
"""Measures that the dialogues of every domain have."""


class Bound(NamedTuple):
    """The best that any agent can do: a line from point to point, and level behind the last one."""

    title: str  # over its picture
    cost: Cost  # one whose `total` is any
    objective: str  # the measure that is bounded
    panel: str  # that measure in words
    rates: np.ndarray  # [K] float, the mean of the cost, from 0 up
    best: np.ndarray  # [K] float, the highest mean of the objective at each of `rates`
    label: str = "frontier"  # of the line, in a legend

    def best_at(self, rate: float) -> float:
        """Returns the highest mean of the objective where the mean of the cost is at most `rate`."""
        return float(np.interp(rate, self.rates, self.best))

    def measure_gain_share(self, rate: float, objective: float) -> float:
        """Returns the gain of an agent over the best one that costs nothing, divided by the most possible at its rate.

        1 for the best possible; 0 for an agent no better than the best that costs nothing; NaN where no gain is
        possible, as at a rate of 0.
        """
        free, best = self.best_at(0.0), self.best_at(rate)
        return (objective - free) / (best - free) if best > free else float("nan")


class Shown(NamedTuple):
    """A turn of the agent as a page shows it, in plain text."""

    said: str  # what others heard; "" if nothing
    thought: str = ""
    badges: Sequence[tuple[str, str]] = ()  # text, and tone: good | fair | bad | cost | plain
    remark: str = ""  # of the judge


class TurnFormat(Protocol):
    """How the agent writes a turn."""

    def parse(self, text: str) -> Any:
        """Takes a turn apart. Raises ValueError, quoting `text`, if it breaches the format."""

    def hear(self, text: str) -> str:
        """Strips from what others wrote what only the agent or the system may write."""

    def grammar(self, tokenizer: Tokenizer, vocab_size: int) -> Grammar | None:
        """Returns the format as a grammar over tokens; None if it has none."""


class TaskSource(Protocol):
    """Deals tasks; its only state is a cursor."""

    def train(self, cursor: int, count: int) -> Sequence[Task]:
        """Returns tasks number cursor .. cursor + count - 1 of the training stream."""

    def held_out(self, count: int, seed: int) -> Sequence[Task]:
        """Returns `count` tasks, none of which `train` ever returns."""


class Domain(abc.ABC):
    """What a run needs to know about its world. Methods that are not abstract have defaults for a small domain."""

    costs: tuple[Cost, ...] = ()
    turn_format: TurnFormat
    settings: type[Section] | None = None  # the sections of the config that are the domain's own
    endpoints: tuple[str, ...] = ()  # the config's sections of endpoints that its episodes ask, the judge's among them
    scripted: tuple[str, ...] = ()  # names of agents that need no model
    breaches: tuple[str, ...] = ()  # ends of a dialogue that the agent caused by breaching its turn format
    objective: str  # the measure that is highest for the best checkpoint
    panel: str = ""  # over its curve; "": the measure's name
    scores: Mapping[str, Callable[[Dialogue], float]]  # the domain's own measures of a dialogue that did not fail
    measures: Mapping[str, Measure]  # of a dialogue, in the order of tables
    groups: Mapping[str, Sequence] = MappingProxyType({})  # label by which tables are broken down -> its values
    shift: str = ""  # the config's field that shifts held-out tasks away from those of training; "": there is none
    patterns: Mapping[str, str] = MappingProxyType({})  # what to look for in the agent's words -> regular expression
    faults: tuple[str, ...] = ()  # names of what `find_faults` finds

    def prepare_tasks(self, data: Mapping[str, Any]) -> Any:
        """Makes sure that the data of config.data is on disk; `open_tasks` gets what this returns.

        One process does this for all. Raises FileNotFoundError or ValueError, naming the field.
        """
        return None

    @abc.abstractmethod
    def open_tasks(self, data: Mapping[str, Any], seed: int, prepared: Any) -> TaskSource:
        """Returns the source that config.data names. Raises ValueError, naming the field."""

    @abc.abstractmethod
    def episodes(self, config: Mapping[str, Any], chats: Mapping[str, Any]) -> Episodes:
        """Says how dialogues begin. `chats` has a `Chat` for each of `endpoints`; None for the judge: nobody judges."""

    @abc.abstractmethod
    def scripted_agent(self, config: Mapping[str, Any], name: str, budget: float | None = None) -> Any:
        """Returns the `rollouts.play.Agent` of a name in `scripted`; "" is the one that writes demonstrations.

        `budget` is what it may spend of the first cost, for agents that keep to a budget.
        """

    async def evaluate(
        self, config: Mapping[str, Any], judge: Any, dialogue: Dialogue, *, seed: int
    ) -> Mapping[str, Any]:
        """Asks `judge` to evaluate a dialogue that did not fail; returns an evaluation for each measure."""
        return {}

    def decline_action(self, text: str, seed: int) -> str:
        """Returns an output in place of `text` that does not take the action which costs something, but turns it down.

        It is in words that the agent was trained to say. Raises ValueError if the domain has none.
        """
        raise ValueError(f"{type(self).__name__} has no words that turn an action down (decline_action)")

    def find_bound(self, config: Mapping[str, Any]) -> Bound | None:
        """Finds the best that any agent can do in an evaluation with this config; None where it is not known."""
        return None

    def embedded(self) -> Any:
        """Returns the ASGI app that answers for endpoints whose URL is "embedded"; None if there is none."""
        return None

    def show_task(self, description: Mapping[str, Any]) -> Sequence[str]:
        """Shows a task as lines of plain text, from its description in a transcript."""
        return [f"{name}: {value}" for name, value in description.items()]

    def show_end(self, end: str, outcome: float) -> tuple[str, str]:
        """Shows how a dialogue ended, as a badge: text and tone."""
        return f"{end.replace('_', ' ')} {outcome:g}", "bad" if end in self.breaches else "plain"

    def show_turn(self, notes: Mapping[str, Any]) -> Shown:
        """Shows a turn of the agent, from its notes in a transcript."""
        return Shown(str(notes.get("text", "")))

    def find_faults(
        self, description: Mapping[str, Any], turns: Sequence[Mapping[str, Any]]
    ) -> Sequence[Sequence[str]]:
        """Finds what is wrong with each of the agent's `turns`, N, from their notes in a transcript.

        Returns names among `faults` for each turn. It is for what no pattern can tell, such as a wrong fact.
        """
        return [()] * len(turns)

    def view_output(self, text: str) -> tuple[str, Mapping[str, Any]]:
        """What a customer sees of the agent's output, and what it did: fields by name, ready for JSON."""
        return text, {}

    def judge_scores(self, notes: Mapping[str, Any]) -> Mapping[str, float]:
        """Returns the judge's scores of a turn by principle, from the turn's notes; {} where it was not judged."""
        return {}

    def read_turn(self, text: str, before: Sequence[str] = (), *, truncated: bool = False) -> Effect:
        """Says what an output does by its words alone: for conversations without an episode, and for the ledger.

        It is what `Episode.act` says of it. A cost that only an episode can tell is NaN.

        Args:
          text: the output, any text.
          before: the agent's outputs before it in the dialogue.
          truncated: whether sampling stopped before its end.
        """
        return Effect(np.full(len(self.costs), np.nan, np.float32), {"text": text}, over=False)

    def show_help(self, role: str) -> str:
        """What a person who plays the "user" or the "agent" is told beside what that side is always told."""
        return ""

    def read_typed(self, role: str, line: str, before: Sequence[str] = ()) -> str:
        """What a person in `role` says with a typed line, after an agent's outputs `before`; "" if that is nothing.

        Raises ValueError, which tells the person what is wrong with the line.
        """
        return line.strip()

    def endings(self) -> Sequence[tuple[str, str]]:
        """Returns the ways in which a person who is the user ends a dialogue: a label, and the line that does it."""
        return ()

    def show_verdict(self, answer: str) -> str:
        """The judge's answer about a turn, for a person."""
        return answer

    def note_verdict(self, answer: str) -> Mapping[str, Any]:
        """Returns the notes of a turn that the judge's answer about it makes; {} if it cannot be read."""
        return {}

    def show_worth(self, record: Mapping[str, Any]) -> str:
        """What a dialogue was worth and cost, from the record of a batch of one."""
        names = (self.objective, *(cost.measure for cost in self.costs))
        return ", ".join(f"{name} {record[name]:g}" for name in names)

    def prompts(self) -> Mapping[str, str]:
        """Returns a hash of each text that others are told, by name: what a result was measured with."""
        return {}

    def digest(self, tasks: Sequence[Task]) -> str:
        """Returns a hash of tasks and of what others are told of them."""
        return hashlib.sha256(repr(list(tasks)).encode()).hexdigest()
