"""How often an endpoint is asked: a sliding window for rates, and a circuit breaker for each replica."""

import collections
import dataclasses


@dataclasses.dataclass
class Taken:
    """An amount that was taken from a window."""

    time: float
    amount: float


class Window:
    """Lets at most `limit` pass in any `seconds`; 0: no limit. Times are seconds of one clock that never goes back."""

    def __init__(self, limit: float, seconds: float = 60.0):
        self._limit, self._seconds = limit, seconds
        self._taken: collections.deque[Taken] = collections.deque()
        self._sum = 0.0

    def seconds_until(self, amount: float, now: float) -> float:
        """Returns the seconds until `amount` may pass. An amount above the limit passes through an empty window."""
        if not self._limit:
            return 0.0
        while self._taken and self._taken[0].time <= now - self._seconds:
            self._sum -= self._taken.popleft().amount
        excess = self._sum + min(amount, self._limit) - self._limit
        for taken in self._taken:
            if excess <= 0:
                break
            excess -= taken.amount
            if excess <= 0:
                return taken.time + self._seconds - now
        return 0.0

    def take(self, amount: float, now: float) -> Taken:
        """Lets `amount` pass; call `seconds_until` first."""
        taken = Taken(now, 0.0)
        if self._limit:
            self._taken.append(taken)
            self.correct_amount(taken, amount)
        return taken

    def correct_amount(self, taken: Taken, amount: float) -> None:
        """Corrects what was taken, once that is known; does nothing if the window has moved on."""
        if self._taken and taken.time >= self._taken[0].time:
            self._sum += amount - taken.amount
            taken.amount = amount


class Breaker:
    """The circuit to one replica: opens after `failures` in a row, and closes when a probe succeeds.

    A failure counts if its request began after the last success, so that requests that hang at the same time as others
    succeed are not failures in a row.
    """

    def __init__(self, failures: int, rest: float):
        self._limit, self._rest = failures, rest
        self._failures, self._last_success = 0, 0.0
        self._due: float | None = None  # when an open circuit may be probed
        self.opened_at = 0.0  # when the circuit opened last
        self.error, self.failed_at = "", 0.0  # what failed last, and when

    @property
    def closed(self) -> bool:
        """Whether requests may pass."""
        return self._due is None

    def seconds_to_probe(self, now: float) -> float:
        """Returns the seconds until an open circuit may be probed."""
        return max(0.0, (self._due or now) - now)

    def note_success(self, now: float) -> None:
        """Notes that a request was answered."""
        self._failures, self._last_success, self._due = 0, now, None

    def note_failure(self, began: float, now: float, error: str) -> None:
        """Notes that a request that began at `began` was not answered."""
        self.error, self.failed_at = error, now
        if began >= self._last_success:
            self._failures += 1
        if self._failures >= self._limit:
            if self.closed:
                self.opened_at = now
            self._due = now + self._rest

    def note_probe(self, alive: bool, now: float) -> None:
        """Notes a probe of an open circuit: if `alive`, requests may pass, and the next failure opens it again."""
        self._due = None if alive else now + self._rest
        self._failures = self._limit - 1
