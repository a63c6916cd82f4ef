"""An agent's belief about a customer of the embedded gym, from what messages told, and the best it can do by it."""

import functools
import itertools
from typing import NamedTuple

import numpy as np

from rollouts.domains.fds.embedded import latent, planning, population, signals
from rollouts.domains.fds.embedded.graph import MOMENTS, Known, Told, ease_of
from rollouts.domains.fds.embedded.latent import Customer, Mood
from rollouts.domains.fds.embedded.planning import HIDDEN, Problem, Solution
from rollouts.domains.fds.embedded.signals import STANCES, Signal
from rollouts.domains.fds.scenario import DEMANDS


class Belief(NamedTuple):
    """What an agent knows that has read all messages. Make it with `open_belief`."""

    known: Known
    heat: int  # of the opening
    mood: Mood  # follows from replies and answers
    opening: tuple[str, int]  # the stance and the hint that the opening told
    told: Told = Told()
    answers: tuple[tuple[str, int], ...] = (("", 0),) * len(MOMENTS)  # stance and hint at each of graph.MOMENTS
    difficulty: str = "hard"
    split: str = "test"

    @property
    def weights(self) -> np.ndarray:
        """P(hidden | messages), [124] in the order of `planning.HIDDEN`."""
        known = self.known
        weights = population.weigh_hidden(self.heat, known.discloses, known.wants, self.difficulty, self.split)
        weights = weights * planning.OPENING[number_message("opening", *self.opening)]
        for moment, answer in zip(MOMENTS, self.answers, strict=True):
            if getattr(self.told, moment):
                weights = weights * getattr(planning.READ_CHANNELS, moment)[number_message(moment, *answer)]
        if self.told.offer is not None:
            agreed, ease = self.told.offer
            chance = planning.tabulate_agreement(ease)
            weights = weights * (chance if agreed else 1 - chance)
        return weights / weights.sum()

    @property
    def demands(self) -> dict[str, float]:
        """P(demand | messages)."""
        return dict(zip(DEMANDS, self.weights.reshape(len(DEMANDS), -1).sum(1).tolist(), strict=True))

    @property
    def worth(self) -> float:
        """The mean worth of an agreed voucher, in tenths of a point."""
        return float(self.weights @ [worth for _, worth in HIDDEN])

    def update(self, events: frozenset[str], signal: Signal) -> "Belief":
        """Returns the belief after a reply of the agent with `events` and the customer's answer to it.

        Where an answer fits no mood that may follow, as if replies or messages were misread, the nearest is taken.
        """
        before, best = self.mood, None
        for after in self._list_moods(events):
            for temper in ("flares", "silent"):
                who = _make_customer(self.known, temper=temper)
                _, expected = signals.list_signals(who, before, after, events)[0]
                fits = (
                    _merge_glad(expected.reaction) == _merge_glad(signal.reaction),
                    expected.picture == signal.picture,
                )
                score = (*fits, expected.heat == signal.heat)
                if best is None or score > best[0]:
                    best = score, after
        return self.hear_answer(best[1], signal.stance, signal.hint)

    def hear_answer(self, after: Mood, stance: str, hint: int) -> "Belief":
        """Returns the belief after an answer with this stance and hint, where the mood is now `after`."""
        moment = signals.find_moment(self.mood, after)
        if not moment:
            return self._replace(mood=after)
        answers = list(self.answers)
        answers[MOMENTS.index(moment)] = stance, hint
        told = (after.deal == 2, ease_of(self.mood)) if moment == "offer" else True
        return self._replace(mood=after, answers=tuple(answers), told=self.told._replace(**{moment: told}))

    def _list_moods(self, events: frozenset[str]) -> list[Mood]:
        """Lists the moods that may follow a reply."""
        honest = (True, False) if self.known.honest is None else (self.known.honest,)
        moods = {}
        for truth, temper in itertools.product(honest, ("flares", "silent")):
            who = _make_customer(self.known._replace(honest=truth), temper=temper)
            moods |= dict.fromkeys(after for _, after in latent.list_outcomes(who, self.mood, events))
        return list(moods)


def open_belief(signal: Signal, supported: bool | None, *, difficulty: str = "hard", split: str = "test") -> Belief:
    """Returns the belief after an opening; `supported` is what the record says of the complaint."""
    against = supported is False
    known = Known(not against, None if against else True, signal.detail, signal.wants or "steps")
    level = population.levels_of(signal.heat)[0]
    opening = signal.stance, signal.hint
    return Belief(known, signal.heat, population.start_of(level), opening, difficulty=difficulty, split=split)


def best_acts(belief: Belief, price: float) -> frozenset[str]:
    """Returns the best reply for an agent that reads, where a voucher costs `price` points of satisfaction."""
    problem, solution, number, place = _look_up(belief, price)
    return problem.graph.nodes[number].replies[solution.choices[number][place]].events


def best_value(belief: Belief, price: float, ends: tuple[bool, ...] = (False, True)) -> float:
    """Returns the mean of rating less `price` a voucher by the best plan from here; `ends` as in `planning.Problem`."""
    problem, solution, number, place = _look_up(belief, price, ends)
    mass = problem.weigh_told(problem.graph.nodes[number].told)[place]
    lost = population.start_of(population.levels_of(belief.heat)[0]).patience - belief.mood.patience
    # fresh solutions, and those below ample patience, count it themselves
    paid = number == len(problem.graph.nodes) - 1
    return float(solution.values[number][place] / mass) + (0.0 if paid else latent.PATIENCE_WORTH * lost)


def is_planned(belief: Belief) -> bool:
    """Whether a good plan may lead here; if not, values take longer to find."""
    problem = _pose_opening(belief.known, belief.heat, belief.difficulty, belief.split)
    return problem.graph.find_node(belief.mood, belief.told) is not None


def best_known_acts(customer: Customer, mood: Mood, price: float) -> frozenset[str]:
    """Returns the best reply to a customer who is known, in a mood that is known."""
    hidden = HIDDEN.index((customer.demand, customer.worth))
    known, start = _know(customer), latent.start_mood(customer)
    problem, solution = _solve_known(known, customer.level, start, price)
    number = problem.graph.find_mood(mood)
    if number is None:
        problem, solution = _solve_known(known, customer.level, mood, price)
        number = len(problem.graph.nodes) - 1
    return problem.graph.nodes[number].replies[solution.choices[number].reshape(-1)[hidden]].events


@functools.cache
def best_rating(customer: Customer, *, voucher: bool) -> float:
    """Returns the best mean rating of a customer who is known, by a plan that gives a voucher always or never."""
    problem = Problem(
        _know(customer),
        latent.start_mood(customer),
        np.eye(len(HIDDEN))[[HIDDEN.index((customer.demand, customer.worth))]],
        planning.NO_CHANNELS,
        customer.level,
    )
    return problem.solve(0.0, ends=(voucher,)).sum_root()[0]


def number_message(moment: str, stance: str, hint: int) -> int:
    """Returns the place of a message in `planning.OPENING` or `READ_CHANNELS`; one near it, if it never comes."""
    return MESSAGES[moment].get((stance, hint), MESSAGES[moment].get(("", hint), 0))


def _number_messages(moment: str) -> dict[tuple[str, int], int]:
    told = itertools.product(("", *STANCES), range(5))
    stances, hints = signals.STANCE_ODDS[moment], signals.HINTS[moment]
    may_come = np.array([stances[demand] for demand in DEMANDS]).any(0), np.array(hints).any(0)
    if moment == "opening":
        return {message: number for number, message in enumerate(told)}
    possible = [
        message
        for (stance, hint), message in zip(itertools.product(range(5), range(5)), told, strict=True)
        if may_come[0][stance] and may_come[1][hint]
    ]
    return {message: number for number, message in enumerate(possible)}


MESSAGES = {moment: _number_messages(moment) for moment in ("opening", *MOMENTS)}
"""Moment -> (stance, hint) -> place in `planning.OPENING` or `planning.READ_CHANNELS`."""


def _look_up(
    belief: Belief, price: float, ends: tuple[bool, ...] = (False, True)
) -> tuple[Problem, Solution, int, tuple[int, ...]]:
    """Returns a problem with its solution, and the node and the place in its arrays where the belief is."""
    context = belief.known, belief.heat, belief.difficulty, belief.split
    problem = _pose_opening(*context)
    number = problem.graph.find_node(belief.mood, belief.told)
    if number is None:  # the agent went another way than any good plan
        problem = _pose_here(belief)
        return problem, problem.solve(price, ends), len(problem.graph.nodes) - 1, (0, 0, 0, 0)
    place = [number_message("opening", *belief.opening)]
    for moment, answer in zip(MOMENTS, belief.answers, strict=True):
        place.append(number_message(moment, *answer) if getattr(belief.told, moment) else 0)
    return problem, _solve_opening(*context, price, ends), number, tuple(place)


@functools.lru_cache(maxsize=256)
def _solve_opening(
    known: Known, heat: int, difficulty: str, split: str, price: float, ends: tuple[bool, ...]
) -> Solution:
    return _pose_opening(known, heat, difficulty, split).solve(price, ends)


@functools.lru_cache(maxsize=64)
def _pose_opening(known: Known, heat: int, difficulty: str, split: str) -> Problem:
    prior = population.weigh_hidden(heat, known.discloses, known.wants, difficulty, split)
    return planning.pose_problem(known, heat, prior, knows="messages")


@functools.lru_cache(maxsize=1024)
def _pose_here(belief: Belief) -> Problem:
    level = population.levels_of(belief.heat)[0]
    return Problem(belief.known, belief.mood, belief.weights[None], planning.READ_CHANNELS, level, relaxed=False)


@functools.lru_cache(maxsize=512)
def _solve_known(known: Known, level: int, mood: Mood, price: float) -> tuple[Problem, Solution]:
    problem = Problem(known, mood, np.eye(len(HIDDEN)), planning.NO_CHANNELS, level)
    return problem, problem.solve(price)


def _know(customer: Customer) -> Known:
    against = customer.supported is False
    return Known(not against, customer.honest if against else True, customer.discloses, customer.wants)


def _make_customer(known: Known, *, temper: str) -> Customer:
    return Customer(3, DEMANDS[0], known.supported, 0, bool(known.honest), known.discloses, known.wants, temper)


def _merge_glad(reaction: str) -> str:
    return "agreed" if reaction == "agreed_gladly" else reaction
