"""Scenes: a person talks about one task with several agents side by side, and says the same words to all of them."""

import asyncio
import dataclasses
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from absl import logging

from rollouts import play
from rollouts.agents.person import PersonAsUser, Verdicts
from rollouts.domain import Domain, Effect, Episode, Episodes, total_cost
from rollouts.types import Dialogue, Sample, Task

Event = Mapping[str, Any]
"""What a page is told, ready for JSON. `kind` is told | said | turn | ready | end, and `agent` whose dialogue it is in.

told    `text`: who the person is
said    `text`: what the person said
turn    the agent's turn `number`, from 0: `said`, `thought`, `badges` (text and tone), `remark` of the judge, `raw`
        (the whole text, if nothing was said), `spent` (name and amount of each cost so far), `judged`: false while the
        judge is at work. It replaces an earlier event of the same number
ready   the agent has answered, and the person's words are waited for
end     `badge` (text and tone), `worth`: what the dialogue was worth and cost, `failure`: why it came to no end
"""

_PULSE = 5.0  # seconds without an event after which a reader is sent a sign


@dataclasses.dataclass(frozen=True)
class PageTable:
    """What the page offers. All of it is open, and stays so while the page is served."""

    domain: Domain
    tasks: Sequence[Task] = ()  # to choose from; none: there are no scenes
    agents: Mapping[str, play.Agent] = dataclasses.field(default_factory=dict)  # to choose from, by name
    make_episodes: Callable[[play.Chat, play.Chat | None], Episodes] | None = None  # of a user and a judge
    judge: play.Chat | None = None  # None: nobody judges
    show_worth: Callable[[Dialogue], str] = lambda dialogue: ""  # of a dialogue that did not fail
    budgets: Mapping[str, float] = dataclasses.field(default_factory=dict)  # by the cost's name
    title: str = ""  # what is served, e.g. the run and its step
    customer_view: bool = False  # whether the server's models answer with what a customer hears, not with whole turns


class Scene:
    """One person's dialogues with agents of a table about one task; they begin when it is made."""

    def __init__(self, table: PageTable, task: Task, names: Sequence[str], *, seed: int):
        self.events: list[Event] = []
        self.readers = 0  # who follow the events
        self.touched = time.monotonic()  # when the person last did something, or was last there
        self._news, self._closed = asyncio.Event(), False
        self._sides = {name: _Side(table, name, task, seed, self._add_event) for name in names}

    @property
    def over(self) -> bool:
        """Whether all dialogues have ended."""
        return all(side.over for side in self._sides.values())

    def find_listeners(self, names: Sequence[str] | None = None) -> list[str]:
        """Returns the agents that the next words are for: those of `names` (None: all) that go on.

        None at all if one of them has not answered yet.
        """
        going_on = [name for name in self._sides if not self._sides[name].over and name in (names or self._sides)]
        return going_on if all(self._sides[name].waits for name in going_on) else []

    def say(self, words: str, names: Sequence[str]) -> None:
        """Says words to agents that wait for them."""
        self.touched = time.monotonic()
        for name in names:
            self._sides[name].say(words)

    async def follow_events(self, first: int, seconds: float) -> AsyncIterator[Event | None]:
        """Yields the events from number `first` on, until all dialogues have ended or `seconds` are over.

        Where nothing happens for a while, it yields None, so that a reader who is gone is noticed.
        """
        until = time.monotonic() + seconds
        self.readers += 1
        try:
            while True:
                news = self._news
                while first < len(self.events):
                    yield self.events[first]
                    first += 1
                left = until - time.monotonic()
                if self.over or self._closed or left <= 0:
                    return
                try:
                    await asyncio.wait_for(news.wait(), min(left, _PULSE))
                except TimeoutError:
                    yield None
        finally:
            self.readers -= 1
            self.touched = time.monotonic()

    def close(self) -> None:
        """Ends what still goes on; the agents' sessions are closed."""
        self._closed = True
        for side in self._sides.values():
            side.close()
        self._wake_readers()

    def _add_event(self, event: Event) -> None:
        if event["kind"] == "told" and event in self.events:  # every dialogue begins with telling the same
            return
        self.events.append(event)
        self._wake_readers()

    def _wake_readers(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()


class Scenes:
    """The scenes of a table, by ids that nobody guesses.

    A scene is let go when nobody has followed it for `absence` seconds, at the age of `age` seconds, and, if there
    would be more than `most`, when it is the one that was not touched for the longest.
    """

    def __init__(self, table: PageTable, *, most: int = 32, absence: float = 60.0, age: float = 7200.0):
        self._table, self._most, self._absence, self._age = table, most, absence, age
        self._open: dict[str, Scene] = {}

    def begin(self, task: Task, names: Sequence[str]) -> str:
        """Begins a scene and returns its id."""
        while len(self._open) >= self._most:
            self.end(
                min(self._open, key=lambda scene_id: (self._open[scene_id].readers > 0, self._open[scene_id].touched))
            )
        scene_id = secrets.token_urlsafe(16)
        self._open[scene_id] = Scene(self._table, task, names, seed=secrets.randbelow(2**31))
        self._look_after(scene_id, time.monotonic())
        return scene_id

    def find(self, scene_id: str) -> Scene | None:
        """Returns the scene with this id; None if there is none, or it was let go."""
        return self._open.get(scene_id)

    def end(self, scene_id: str) -> None:
        """Lets a scene go, if it is there."""
        if scene := self._open.pop(scene_id, None):
            scene.close()

    def _look_after(self, scene_id: str, begun: float) -> None:
        """Lets a scene go once its time is over; looks again when that may next be so."""
        if (scene := self.find(scene_id)) is None:
            return
        now = time.monotonic()
        left = min(begun + self._age, now + self._absence if scene.readers else scene.touched + self._absence) - now
        if left <= 0:
            self.end(scene_id)
        else:
            asyncio.get_running_loop().call_later(left, self._look_after, scene_id, begun)


class _Side:
    """One agent's dialogue of a scene."""

    def __init__(self, table: PageTable, name: str, task: Task, seed: int, tell: Callable[[Event], None]):
        self._table, self._name, self._tell = table, name, tell
        self._effects: list[Effect] = []  # of each turn
        self._notes: list[Mapping[str, Any]] = []  # of each turn, with what the judge has said so far
        self._turns: list[dict[str, Any]] = []  # as they were last shown
        self._heard: asyncio.Future[str] | None = None  # the person's next words, while the dialogue waits for them
        self._playing = asyncio.create_task(self._play_dialogue(task, seed))

    @property
    def waits(self) -> bool:
        """Whether the person's words are waited for."""
        return self._heard is not None and not self.over

    @property
    def over(self) -> bool:
        """Whether the dialogue has ended."""
        return self._playing.done()

    def say(self, words: str) -> None:
        """Says words that are waited for."""
        self._add_event("said", text=words)
        heard, self._heard = self._heard, None
        heard.set_result(words)

    def close(self) -> None:
        """Ends the dialogue, if it still goes on."""
        self._playing.cancel()

    async def _play_dialogue(self, task: Task, seed: int) -> None:
        try:
            agent, episodes = self._table.agents[self._name], self._make_episodes()
            self._show_end(await play.play_dialogue(agent, episodes, task, index=0, seed=seed))
        except Exception as error:  # the person is told; the other dialogues go on
            logging.exception("a dialogue of the page with %s failed", self._name)
            self._show_failure(f"{type(error).__name__}: {error}")

    def _make_episodes(self) -> Episodes:
        """Makes episodes with the person as the user; whatever agent and judge do in them is shown."""
        table = self._table
        user = PersonAsUser(tell=lambda told: self._tell({"kind": "told", "text": told}), hear=_hear, read=self._read)
        episodes = table.make_episodes(user, table.judge and Verdicts(table.judge, self._show_verdict))

        def begin_watched(*of, **how) -> _WatchedEpisode:
            return _WatchedEpisode(episodes.begin(*of, **how), self._show_effect)

        return episodes._replace(begin=begin_watched)

    async def _read(self) -> str:
        self._heard = asyncio.get_running_loop().create_future()
        self._add_event("ready")
        return await self._heard

    def _add_event(self, kind: str, **fields) -> None:
        self._tell({"kind": kind, "agent": self._name, **fields})

    def _show_effect(self, sample: Sample, effect: Effect) -> None:
        """Shows a turn of the agent as soon as it is written."""
        self._effects.append(effect)
        self._notes.append(effect.notes)
        costs = self._table.domain.costs
        spent = zip(costs, total_cost(costs, self._effects).tolist(), strict=True)
        self._turns.append(
            {
                "number": len(self._turns),
                "raw": sample.text,
                "spent": [(cost.name, amount) for cost, amount in spent],
                "judged": self._table.judge is None or effect.over,
            }
        )
        self._show_turn(len(self._turns) - 1)

    def _show_turn(self, number: int, **fields) -> None:
        """Shows a turn by its notes, with `fields` in place of what they say, if it is not shown so already."""
        before, shown = self._turns[number], self._table.domain.show_turn(self._notes[number])
        turn = before | shown._asdict() | ({"raw": ""} if shown.said else {}) | fields
        if turn != before:
            self._turns[number] = turn
            self._add_event("turn", **turn)

    def _show_verdict(self, number: int, answer: str) -> None:
        """Shows what the judge answered, as it is where it cannot be read."""
        domain = self._table.domain
        if added := domain.note_verdict(answer):
            self._notes[number] = {**self._notes[number], **added}
            self._show_turn(number, judged=True)
        else:
            self._show_turn(number, remark=domain.show_verdict(answer))

    def _show_end(self, dialogue: Dialogue) -> None:
        if dialogue.ok:
            self._notes = [turn.notes for turn in dialogue.turns]  # with what the judge's answers come to together
        for number in range(len(self._turns)):
            self._show_turn(number, judged=True)
        if dialogue.ok:
            badge, worth = self._table.domain.show_end(dialogue.end, dialogue.outcome), self._table.show_worth(dialogue)
            self._add_event("end", badge=badge, worth=worth, failure="")
        else:
            self._show_failure(f"{dialogue.failure}: {dialogue.failure_message}")

    def _show_failure(self, failure: str) -> None:
        self._add_event("end", badge=("failed", "bad"), worth="", failure=failure)


class _WatchedEpisode:
    """An episode that shows each turn of the agent to `watch` as soon as it is taken."""

    def __init__(self, inner: Episode, watch: Callable[[Sample, Effect], None]):
        self._inner, self._watch = inner, watch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def act(self, sample: Sample) -> Effect:
        effect = self._inner.act(sample)
        self._watch(sample, effect)
        return effect


async def _hear(words: str, answered: int) -> None:
    """Does nothing: the page shows the agent's turn as soon as it is written."""
