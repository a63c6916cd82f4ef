"""One dialogue as the agent meets it: the simulated customer, the system's line of state, and the judge beside them."""

import asyncio
import dataclasses
import functools
from collections.abc import Mapping, Sequence

from rollouts.domain import Closing, Cost, Effect, Episode, Episodes
from rollouts.domains.fds import faults, generator, judge, rubrics, rules, turn_format
from rollouts.domains.fds.rubrics import PRINCIPLES
from rollouts.domains.fds.scenario import Scenario
from rollouts.play import Chat
from rollouts.seeds import fold
from rollouts.types import Message, Sample


@dataclasses.dataclass(frozen=True)
class Table:
    """Everybody and everything a dialogue needs besides its agent."""

    user: Chat
    judge: Chat | None  # None: turns are not scored
    max_turns: int = 15
    farewell: bool = False  # may the agent answer once more after the user's rating?
    format_outcome: float = 0.0  # R_O of a dialogue that ends in a format error
    judge_weights: Mapping[str, float] = dataclasses.field(default_factory=lambda: dict.fromkeys(PRINCIPLES, 1.0))
    votes: int = 1  # how many answers of the judge are averaged for a verdict
    costs: tuple[Cost, ...] = rules.COSTS[:1]

    @property
    def episodes(self) -> Episodes:
        """Dialogues at this table."""
        return Episodes(functools.partial(CustomerEpisode, self), self.costs)


class CustomerEpisode(Episode):
    """A customer complains, and rates the dialogue in the end. See `rollouts.domain.Episode`."""

    def __init__(self, table: Table, task: Scenario, *, seed: int, judge_seed: int):
        self._table, self._task, self._seed, self._judge_seed = table, task, seed, judge_seed
        self._prompt = rubrics.PROCESS.write_prompt(task)
        self._to_user = [Message("system", generator.user_prompt(task)), Message("user", rules.BEGIN)]
        self._said: list[judge.Utterance] = []
        self._replies: list[tuple[str, str]] = []  # response and action of each turn; "" where it breached the format
        self._verdicts: list[asyncio.Task[rubrics.Verdict]] = []
        self._state = rules.State()
        self._words = self._told = ""

    @property
    def end(self) -> str:
        """See Episode."""
        return self._state.end

    async def open(self) -> list[Message]:
        """See Episode."""
        return await self._hear_customer()

    async def _hear_customer(self) -> list[Message]:
        """Asks the customer for the next words and returns them as the agent gets them."""
        seed = fold(self._seed, "user")  # the embedded customer draws every turn anew, by its number
        self._words = await self._table.user.chat(self._to_user, seed=seed)
        return [Message("user", turn_format.hear(self._words))]

    def act(self, sample: Sample) -> Effect:
        """See Episode. Starts judging the turn if it is well-formed."""
        table, before = self._table, self._state
        (self._state, reply), effect = take_turn(
            table.costs,
            before,
            sample.text,
            truncated=sample.stop == "length",
            format_outcome=table.format_outcome,
        )
        self._replies.append(("", "") if reply is None else (reply.response, reply.action))
        if reply is None:
            return effect
        voucher, earlier = rules.when_issued(before, reply.action), rules.when_issued(before, "chat")
        heard = turn_format.hear(reply.response)  # the judge reads what the customer reads
        words = turn_format.hear(self._words)
        self._said += [judge.Utterance("customer", words, earlier), judge.Utterance("agent", heard, voucher)]
        if table.judge is not None:
            request, seed = (
                judge.write_request(self._prompt, self._said),
                fold(self._judge_seed, "judge", self._state.turns),
            )
            asked = judge.ask_judge(table.judge, rubrics.PROCESS, request, seed=seed, votes=table.votes)
            self._verdicts.append(asyncio.create_task(asked))
        self._told = rules.with_state_line(reply.response, voucher)
        return effect

    def cut(self) -> None:
        """See Episode. A rating stands, with or without a farewell."""
        if not self._state.end:
            self._state = self._state._replace(end="context", outcome=0.0)

    async def respond(self) -> list[Message]:
        """See Episode."""
        self._to_user += [Message("assistant", self._words), Message("user", self._told)]
        messages = await self._hear_customer()
        self._state = rules.user_step(self._state, self._words, max_turns=self._table.max_turns)
        if not self._state.end:
            return messages
        self.last_words = self._words
        return messages if self._table.farewell and self._state.end == "rated" else []

    async def close(self) -> Closing:
        """See Episode."""
        verdicts = await asyncio.gather(*self._verdicts)
        rewards = [verdict.compute_reward(self._table.judge_weights) for verdict in verdicts]
        judged = [{"scores": verdict.scores, "reason": verdict.reason} for verdict in verdicts]
        unjudged = self._state.turns - len(verdicts)
        read = faults.read_events(self._task, self._replies)
        notes = [
            {"events": sorted(events), **verdict}
            for events, verdict in zip(read, [*judged, *[{}] * unjudged], strict=True)
        ]
        return Closing(self._state.outcome, self._state.end == "rated", [*rewards, *[0.0] * unjudged], notes)

    async def cancel(self) -> None:
        """See Episode."""
        for verdict in self._verdicts:
            verdict.cancel()
        await asyncio.gather(*self._verdicts, return_exceptions=True)


def take_turn(
    costs: Sequence[Cost], before: rules.State, text: str, *, truncated: bool, format_outcome: float = 0.0
) -> tuple[rules.AgentStep, Effect]:
    """Takes the agent's whole output after the state `before`; see `rules.agent_step`."""
    step = rules.agent_step(before, text, truncated=truncated, format_outcome=format_outcome)
    cost = rules.price_step(costs, before, step.state)
    unjudged = {"scores": {}, "reason": ""}
    if step.reply is None:  # the parts are empty, so the whole text is shown instead
        shown = {"think": "", "response": "", "action": "", "text": text}
        return step, Effect(cost, shown | unjudged, over=True)
    return step, Effect(cost, step.reply._asdict() | unjudged, over=bool(before.end))
