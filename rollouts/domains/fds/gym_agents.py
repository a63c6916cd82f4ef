"""Scripted agents that know the rules of the embedded gym: two that play as well as can be, and the demonstrator.

All act through messages alone. They know the mood that each of their replies leads to by the rules, and tell by the
customer's answer which of several it was.
"""

import random
from collections.abc import Collection, Sequence
from typing import Literal

from rollouts.domains.fds import generator
from rollouts.domains.fds.embedded import belief as beliefs
from rollouts.domains.fds.embedded import latent
from rollouts.domains.fds.embedded.belief import Belief
from rollouts.domains.fds.embedded.latent import Mood
from rollouts.domains.fds.hearing import Heard
from rollouts.domains.fds.scenario import DEMANDS, Scenario
from rollouts.domains.fds.scripted import ScriptedSession

Prices = Sequence[tuple[float, float]]
"""(chance, price): what a voucher costs to an agent in points of satisfaction, drawn once a dialogue."""

DEMONSTRATED_PRICES = (0.3, 0.6, 0.9, 1.2, 1.5, 1.8, 2.1)
"""Prices of the demonstrator, all as likely: from a voucher for most to one for few."""

PROBES = 0.5
"""Share of the demonstrator's dialogues in which it asks what would be welcome."""

ERRORS = 0.15
"""Share of the demonstrator's turns with a small error."""


_WISHES = dict(zip(DEMANDS, ("only refund", "refund", "open", "report"), strict=True))


class OracleAgent:
    """Serves as well as can be done by who knows the customer; for `prices` see `oracle.price_for`."""

    def __init__(self, prices: Prices):
        self._prices = prices

    async def open(self, scenario: Scenario, seed: int) -> "OracleSession":
        """Begins a dialogue."""
        rng = random.Random(seed)
        return OracleSession(_draw_price(self._prices, rng), scenario, rng)


class ReaderAgent:
    """Serves as well as can be done by who reads the messages; `difficulty`, `split`: who calls, see the generator."""

    def __init__(self, prices: Prices, difficulty: str = "hard", split: Literal["train", "test"] = "test"):
        self._prices, self._mix = prices, (difficulty, split)

    async def open(self, scenario: Scenario, seed: int) -> "ReaderSession":
        """Begins a dialogue."""
        rng = random.Random(seed)
        return ReaderSession(_draw_price(self._prices, rng), self._mix, scenario, rng)


class VariedAgent:
    """Demonstrates: serves well by what it reads, at another price in each dialogue, with small errors and no lies.

    Args:
      difficulty: who calls, as for `generator.deal_scenarios`.
      prices: drawn from, all alike.
      errors: share of the turns with an error.
    """

    def __init__(self, difficulty: str = "hard", prices: Sequence[float] = DEMONSTRATED_PRICES, errors: float = ERRORS):
        self._mix, self._errors = (difficulty, "train"), errors
        self._prices = [(1.0, price) for price in prices]

    async def open(self, scenario: Scenario, seed: int) -> "VariedSession":
        """Begins a dialogue."""
        rng = random.Random(seed)
        return VariedSession(_draw_price(self._prices, rng), self._mix, self._errors, scenario, rng)


class OracleSession(ScriptedSession):
    """One dialogue by who knows the customer."""

    def __init__(self, price: float, scenario: Scenario, rng: random.Random):
        super().__init__(scenario, rng)
        self._price = price
        self._customer = generator.find_customer(scenario)
        self._mood = latent.start_mood(self._customer)
        self._events: frozenset[str] = frozenset()

    @property
    def _complaint(self) -> str:
        return self._order.complaint

    @property
    def _supported(self) -> bool | None:
        return self._order.supported

    def _plan_acts(self, heard: Heard) -> Collection[str]:
        if self._events:
            outcomes = latent.list_outcomes(self._customer, self._mood, self._events)
            agreed = heard.signal.reaction in ("agreed", "agreed_gladly")
            self._mood = outcomes[0 if agreed else -1][1]
        if latent.find_end(self._customer, self._mood):
            self._events = frozenset({"close"})  # who goes on is not a customer of the gym
        else:
            self._events = beliefs.best_known_acts(self._customer, self._mood, self._price)
        return _name_acts(self._events)


class ReaderSession(ScriptedSession):
    """One dialogue by who believes what the messages tell."""

    def __init__(self, price: float, mix: tuple[str, str], scenario: Scenario, rng: random.Random):
        super().__init__(scenario, rng)
        self._price, self._mix = price, mix
        self._belief: Belief | None = None
        self._events: frozenset[str] = frozenset()

    def _plan_acts(self, heard: Heard) -> Collection[str]:
        difficulty, split = self._mix
        if self._belief is None:
            self._belief = beliefs.open_belief(heard.signal, self._supported, difficulty=difficulty, split=split)
        else:
            self._belief = self._belief.update(self._events, heard.signal)
        over = self._belief.mood.over or not self._belief.mood.patience
        self._events = frozenset({"close"}) if over else self._choose_events(self._belief)
        return _name_acts(self._events)

    def _choose_events(self, belief: Belief) -> frozenset[str]:
        return beliefs.best_acts(belief, self._price)


class VariedSession(ReaderSession):
    """One dialogue of the demonstrator."""

    def __init__(self, price: float, mix: tuple[str, str], errors: float, scenario: Scenario, rng: random.Random):
        super().__init__(price, mix, scenario, rng)
        self._errors, self._probes = errors, rng.random() < PROBES

    def _describe_belief(self) -> str:
        belief = self._belief
        mood, wish = belief.mood, max(belief.demands, key=belief.demands.get)
        done = [name for name, there in _list_done(mood).items() if there]
        return (
            f" {belief.known.wants.capitalize()}, anger {mood.anger}, {_WISHES[wish]}, worth {belief.worth / 10:.1f}."
            f" Done: {', '.join(done) or 'nothing'}."
        )

    def _choose_events(self, belief: Belief) -> frozenset[str]:
        best = super()._choose_events(belief)
        if self._probes and not belief.mood.probed and belief.mood.heard and belief.mood.deal < 2:
            if best & {"offer", "close"}:
                best = best - {"offer", "close"} | {"probe"}
        elif "probe" in best and not self._probes:
            best = best - {"probe"} | {self._choose_end(belief)}
        return self._err(best, belief) if self._rng.random() < self._errors else best

    def _choose_end(self, belief: Belief) -> str:
        """Returns the better of offering a voucher and closing without."""
        with_voucher, without = (beliefs.best_value(belief, self._price, (gives,)) for gives in (True, False))
        return "offer" if with_voucher > without else "close"

    def _err(self, best: frozenset[str], belief: Belief) -> frozenset[str]:
        """Returns acts near the best: one left out, one too many, or one too early. A voucher stays as agreed."""
        if "voucher" in best:
            return best
        choices = [best - {act} for act in best if len(best) > 1]
        choices += [best | {act} for act in ("limit", "note", "steps", "explain_true") if act not in best]
        if belief.mood.evidence < 2:
            choices += [best - {"ask", "probe"} | {act} for act in ("offer", "close")]
        return self._rng.choice(sorted(choices, key=sorted))


def _list_done(mood: Mood) -> dict[str, bool]:
    """Lists what a conversation may have brought so far, and whether it has, in the words of the agent's thoughts."""
    return {
        "heard": mood.heard == 1,
        "heard twice": mood.heard == 2,
        "asked": mood.evidence == 1,
        "photo": mood.evidence == 2,
        "told": mood.facts > 0,
        "limit": mood.limits > 0,
        "noted": mood.noted > 0,
        "steps": mood.stepped > 0,
        "probed": mood.probed > 0,
        "offered": mood.deal == 1,
        "agreed": mood.deal == 2,
        "refused": mood.deal == 3,
    }


def _draw_price(prices: Prices, rng: random.Random) -> float:
    return rng.choices([price for _, price in prices], weights=[chance for chance, _ in prices])[0]


def _name_acts(events: frozenset[str]) -> list[str]:
    return sorted("explain" if event == "explain_true" else event for event in events)
