"""The state of a ledger, which follows from its events.

Letters: C = costs.
"""

from collections import Counter, OrderedDict, deque
from collections.abc import Sequence

import jax
import numpy as np

from cmpo import pid
from cmpo.deployment.accounts import Account, open_account, take_answer, take_report
from cmpo.deployment.events import Answered, BatchClosed, Ended, Event, Reported, Started
from cmpo.run.alarms import WINDOW
from rollouts.domain import Cost

_TOLERANCE = 1e-6  # of a sum of float32; and 0.29 of 100 is 28.999999999999996

_move_controller = jax.jit(pid.update)


class Books:
    """Dialogues under way, the window of the latest that ended, and the controller that watches it.

    A dialogue enters the window when it ends, and leaves it when `window` others have ended since. What happens to it
    in between, a report or another turn, changes it where it stands. A twentieth of the window is a batch: when so many
    dialogues have ended, the controller moves by their mean costs, and what happens to them later does not move it
    again. So the window is as long as the history that `cmpo.run.alarms` looks at.

    Attributes:
      under_way: accounts by dialogue, in the order of their first answer.
      window: those that ended, the latest last.
      batch: dialogues in a batch.
      ended: dialogues that ever ended.
      declined: answers that were replaced, by the name of the cost.
      controller: its state.
      history: its latest moves, as `cmpo.run.alarms` reads them.
    """

    def __init__(
        self, costs: Sequence[Cost], *, gains: pid.PIDGains, initial_lambda: float | np.ndarray = 0.0, window: int
    ):
        if window < WINDOW:
            raise ValueError(f"--window: expected at least {WINDOW} dialogues, got {window}")
        self.costs, self.gains = tuple(costs), gains
        self.budgets, self.bounds = (
            np.broadcast_to(np.asarray(number, float), len(costs)) for number in (gains.target, gains.lambda_max)
        )
        self.size, self.batch = window, window // WINDOW
        self.under_way: OrderedDict[str, Account] = OrderedDict()
        self.window: OrderedDict[str, Account] = OrderedDict()
        self.ended, self.declined = 0, Counter()
        # Compiled now, not while a customer waits: a cost that is not known moves nothing.
        unknown = np.full(len(costs), np.nan, np.float32)
        self.controller = _move_controller(gains, pid.init(gains, initial_lambda), unknown)
        self.history: deque[dict] = deque(maxlen=WINDOW + 1)

    @property
    def batches(self) -> int:
        """How often the controller has moved."""
        return self.ended // self.batch

    def find(self, dialogue: str) -> Account | None:
        """Returns a dialogue's account; None if it has none, or left the window."""
        return self.under_way.get(dialogue) or self.window.get(dialogue)

    def apply(self, event: Event) -> None:
        """Takes an event into account. What is said of a dialogue that is not known is left alone."""
        match event:
            case Answered(dialogue=dialogue):
                account = self.find(dialogue) or open_account(self.costs)
                self._put(dialogue, take_answer(self.costs, account, event))
                self.declined.update(event.declined)
            case Reported(dialogue=dialogue):
                if account := self.find(dialogue):
                    self._put(dialogue, take_report(account, event))
            case Ended(dialogue=dialogue):
                if dialogue in self.under_way:
                    self._end(dialogue)
            case Started() | BatchClosed():
                pass

    def _put(self, dialogue: str, account: Account) -> None:
        (self.window if dialogue in self.window else self.under_way)[dialogue] = account

    def _end(self, dialogue: str) -> None:
        self.window[dialogue] = self.under_way.pop(dialogue)
        if len(self.window) > self.size:
            self.window.popitem(last=False)
        self.ended += 1
        if self.ended % self.batch == 0:
            cost = self.mean_batch().astype(np.float32)
            self.controller = _move_controller(self.gains, self.controller, cost)
            self.history.append(self._describe_controller())

    def mean_batch(self) -> np.ndarray:
        """Returns what the dialogues of the latest batch cost in the mean, [C]."""
        return self.tabulate_window()[-self.batch :].mean(0)

    def multipliers(self) -> list[float]:
        """Returns the multipliers in force, [C]."""
        return np.asarray(self.controller.lambdas).tolist()

    def tabulate_window(self) -> np.ndarray:
        """Returns what each dialogue of the window was given, [N, C]."""
        return self._tabulate(self.window)

    def find_excess(self, answered: Answered) -> list[str]:
        """Returns the names of the costs that this answer would bring above the budget.

        All that dialogues under way and those of the window were given may be at most the budget times the number of
        dialogues in the window, where a window that holds less than a batch counts as one. Those under way have no
        share in that number, so the window keeps to the budget in whatever order they end.
        """
        before = self.find(answered.dialogue) or open_account(self.costs)
        after = take_answer(self.costs, before, answered)
        more = np.subtract(after.total, before.total)
        spent = self._tabulate(self.window).sum(0) + self._tabulate(self.under_way).sum(0)
        most = self.budgets * max(len(self.window), self.batch)
        beyond = (more > 0) & (spent + more > most * (1 + _TOLERANCE))
        return [cost.name for cost, is_beyond in zip(self.costs, beyond, strict=True) if is_beyond]

    def _tabulate(self, accounts: OrderedDict[str, Account]) -> np.ndarray:
        return np.array([account.total for account in accounts.values()]).reshape(len(accounts), len(self.costs))

    def _describe_controller(self) -> dict:
        names, smoothed = self.costs, np.asarray(self.controller.smoothed_cost).tolist()
        return {
            "lambda": {cost.name: value for cost, value in zip(names, self.multipliers(), strict=True)},
            **{f"{cost.measure}_smoothed": value for cost, value in zip(names, smoothed, strict=True)},
        }
