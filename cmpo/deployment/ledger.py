"""The deployment ledger: holds what a served policy gives against its budgets; see docs/serving.md.

gains, first = terms.make_controller(config.pid, domain.costs, budgets)
with Ledger(domain, path, gains=gains, initial_lambda=first, prices=prices, say=print) as ledger:
    ...  # a `rollouts.serving.overseer.Overseer`
"""

import hashlib
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from prometheus_client import Metric

from cmpo.deployment.books import Books
from cmpo.deployment.event_log import EventLog
from cmpo.deployment.events import Answered, BatchClosed, Ended, Event, Reported, Started, keep_costs
from cmpo.deployment.gauges import write_families
from cmpo.deployment.standing import Standing, assess
from cmpo.deployment.terms import Prices
from cmpo.pid import PIDGains
from rollouts.domain import Domain
from rollouts.seeds import fold

WINDOW = 1_000
OPEN = 10_000
"""Dialogues under way. If there are more, the oldest counts as ended."""


class Ledger:
    """A `rollouts.serving.overseer.Overseer`. A context manager: on leaving, all dialogues under way end.

    It goes on with the log at `path`: its state is what follows from the log's events under the present settings. The
    dialogues that were under way when an earlier server died end at once, because its streams died with it.
    """

    def __init__(
        self,
        domain: Domain,
        path: pathlib.Path,
        *,
        gains: PIDGains,
        initial_lambda: float | np.ndarray = 0.0,
        prices: Prices,
        say: Callable[[str], None],
        window: int = WINDOW,
        enforce: bool = False,
        clock: Callable[[], float] = time.time,
    ):
        """Opens the log and reads it.

        Args:
          domain: says what an output costs; its costs are those that have a budget.
          path: the log.
          gains: of the controller; its targets are the budgets.
          initial_lambda: the multipliers that it begins with.
          prices: for the cost of a resolution.
          say: is told what a person at the server should know: alarms as they begin, and a damaged log.
          window: dialogues that a budget is held over.
          enforce: turn costly actions down that would bring the window above the budget.
          clock: seconds since 1970.

        Raises:
          ValueError: the domain cannot price or turn down an output, the window is too small, or the log is another's.
          OSError: the log cannot be written, or another process does.
        """
        self._domain, self._prices, self._say, self._clock = domain, prices, say, clock
        self.enforces = enforce
        if np.isnan(domain.read_turn("").cost).any():
            raise ValueError(f"--budget: {type(domain).__name__} does not say what an output costs (read_turn)")
        if enforce:
            try:
                domain.decline_action("", 0)
            except ValueError as error:
                raise ValueError(f"--enforce: {error}") from None
        self._books = Books(domain.costs, gains=gains, initial_lambda=initial_lambda, window=window)
        self._assessed: Standing | None = None
        self._alarms: set[tuple[str, str]] = set()
        self._log = EventLog(path, say)
        try:
            self._replay_log(path)
            self._begin()
        except BaseException:
            self._log.close()
            raise

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *_) -> None:
        try:
            self._end_all()
        finally:
            self._log.close()

    def review(self, dialogue: str, text: str, *, before: Sequence[str], tokens: int) -> str:
        """See `Overseer`."""
        if self._books.find(dialogue) is None and len(self._books.under_way) >= OPEN:
            self.end(next(iter(self._books.under_way)))
        answered = self._describe_answer(dialogue, text, before, tokens)
        if self.enforces and answered.cost and (excess := self._books.find_excess(answered)):
            other = self._domain.decline_action(text, fold(0, dialogue, len(before)))
            replaced = self._describe_answer(dialogue, other, before, tokens)
            declined = [name for name in excess if replaced.cost.get(name, 0.0) < answered.cost[name]]
            if declined:  # no words avoid a cost that every turn has
                text, answered = other, replaced.model_copy(update={"declined": declined})
        self._book(answered)
        return text

    def report(
        self, dialogue: str, *, resolved: bool | None = None, escalated: bool | None = None, rating: float | None = None
    ) -> None:
        """See `Overseer`."""
        if self._books.find(dialogue) is None:
            raise KeyError(dialogue)
        said = {"resolved": resolved, "escalated": escalated, "rating": rating}
        self._book(Reported(time=self._clock(), dialogue=dialogue, **said))

    def end(self, dialogue: str) -> None:
        """See `Overseer`."""
        if dialogue not in self._books.under_way:
            return
        moved = self._books.batches
        self._book(Ended(time=self._clock(), dialogue=dialogue))
        if self._books.batches > moved:
            self._log.append(self._describe_batch())
            self._warn()

    def collect(self) -> Iterator[Metric]:
        """See `Overseer`."""
        return write_families(self._books, self.assess())

    def assess(self) -> Standing:
        """Returns how the window stands now."""
        if self._assessed is None:
            self._assessed = assess(self._books, self._prices)
        return self._assessed

    def _replay_log(self, path: pathlib.Path) -> None:
        names = [cost.name for cost in self._books.costs]
        for event in self._log.read_events():
            if isinstance(event, Started) and event.costs != names:
                raise ValueError(f"--ledger: expected a log of the costs {names}, got {event.costs} in {path}")
            self._books.apply(event)

    def _begin(self) -> None:
        costs = self._books.costs
        budgets = {cost.name: float(budget) for cost, budget in zip(costs, self._books.budgets, strict=True)}
        self._book(
            Started(
                time=self._clock(),
                costs=list(budgets),
                budgets=budgets,
                window=self._books.size,
                prices=self._prices.name_prices(costs),
                enforce=self.enforces,
            )
        )
        self._end_all()
        self._warn()

    def _end_all(self) -> None:
        for dialogue in list(self._books.under_way):
            self.end(dialogue)

    def _book(self, event: Event) -> None:
        """Writes an event down, and only then takes it into account."""
        self._log.append(event)
        self._books.apply(event)
        self._assessed = None

    def _warn(self) -> None:
        """Says which alarms have begun."""
        alarms = self.assess().alarms
        for (name, kind), text in alarms.items():
            if (name, kind) not in self._alarms:
                self._say(f"the budget of {name} may be out of reach: {text}")
        self._alarms = set(alarms)

    def _describe_answer(self, dialogue: str, text: str, before: Sequence[str], tokens: int) -> Answered:
        return Answered(
            time=self._clock(),
            dialogue=dialogue,
            turn=len(before),
            after=_hash_text(before[-1]) if before else "",
            answer=_hash_text(text),
            cost=keep_costs([cost.name for cost in self._books.costs], self._domain.read_turn(text, before).cost),
            tokens=tokens,
        )

    def _describe_batch(self) -> BatchClosed:
        books, standing = self._books, self.assess()
        names = [cost.name for cost in books.costs]
        return BatchClosed(
            time=self._clock(),
            number=books.batches,
            costs=dict(zip(names, books.mean_batch().tolist(), strict=True)),
            multipliers=dict(zip(names, books.multipliers(), strict=True)),
            window=dict(standing.means),
            per_resolution=standing.per_resolution,
            outcomes=dict(standing.outcomes),
            declined={name: books.declined[name] for name in names},
            alarms=list(standing.alarms.values()),
        )


def _hash_text(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
