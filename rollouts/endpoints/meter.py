"""What a run has spent at an endpoint, and the budget for it."""

import json
import os
import pathlib
from typing import NamedTuple

from rollouts.endpoints.settings import Endpoint


class BudgetReached(RuntimeError):
    """A run has used up an endpoint's budget; nothing is wrong with any dialogue."""


class Spent(NamedTuple):
    """Requests sent, failed ones too, and tokens as the server counts them, or estimated if it does not say."""

    calls: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0

    @property
    def tokens(self) -> int:
        """Tokens of prompts and answers."""
        return self.prompt_tokens + self.answer_tokens

    def plus(self, other: "Spent") -> "Spent":
        """Returns the sum of both."""
        return Spent(*(a + b for a, b in zip(self, other, strict=True)))


class Meter:
    """Counts what a process spends at an endpoint, and keeps the counts in `directory`, where they outlive the process.

    Each of the `processes` that share the directory may spend an equal part of what is left when it opens the meter.
    """

    def __init__(
        self,
        name: str,
        endpoint: Endpoint,
        directory: pathlib.Path | None = None,
        *,
        process: int = 0,
        processes: int = 1,
    ):
        self._name, self._endpoint, self._processes = name, endpoint, processes
        self._directory, self._path = directory, directory and directory / f"{name}-{process}.json"
        self._own, self._reserved = Spent(), Spent()
        self._before = Spent()  # by all processes, when this one opened the meter
        self._own_before = Spent()

    def open(self) -> None:
        """Reads what was spent so far, by every process. Raises ValueError, naming the file, if one is damaged."""
        if self._directory:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._own = _read_counts(self._path)
        self._before, self._own_before, self._reserved = self.read_total(), self._own, Spent()

    def read_total(self) -> Spent:
        """Reads what all processes have spent."""
        spent = self._own
        for path in self._directory.glob(f"{self._name}-*.json") if self._directory else ():
            spent = spent.plus(_read_counts(path)) if path != self._path else spent
        return spent

    def price_of(self, spent: Spent) -> float:
        """Returns the price of `spent` in the currency of the endpoint's prices."""
        prompts, written = (
            spent.prompt_tokens * self._endpoint.prompt_price,
            spent.answer_tokens * self._endpoint.answer_price,
        )
        return (prompts + written) / 1_000_000

    def reserve(self, tokens: Spent) -> None:
        """Sets aside what a request may take. Raises BudgetReached if that is more than there is."""
        endpoint, wanted = self._endpoint, self._reserved.plus(tokens)
        for field, limit, measure in (
            ("budget_calls", endpoint.budget_calls, lambda spent: spent.calls),
            ("budget_tokens", endpoint.budget_tokens, lambda spent: spent.tokens),
            ("budget_cost", endpoint.budget_cost, self.price_of),
        ):
            own = measure(self._own) - measure(self._own_before)
            left = (limit - measure(self._before)) / self._processes - own
            if limit and measure(wanted) > left:
                raise BudgetReached(
                    f"config.{self._name}.{field}: of {limit:,} there are {measure(self._before) + own:,} spent and "
                    f"{measure(self._reserved):,} set aside for requests under way; the next needs "
                    f"{measure(tokens):,}. To go on, raise it"
                )
        self._reserved = wanted

    def settle(self, reserved: Spent, spent: Spent) -> None:
        """Ends a request: frees what `reserve` set aside and books what the request took, on disk at once."""
        self._reserved = Spent(*(a - b for a, b in zip(self._reserved, reserved, strict=True)))
        self._own = self._own.plus(spent)
        self._write_counts()

    def _write_counts(self) -> None:
        """Writes the counts in place, at a fixed length, so that the file survives a kill at any moment."""
        if self._path:
            file = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o644)
            try:
                os.pwrite(file, (json.dumps(self._own._asdict()).ljust(127) + "\n").encode(), 0)
            finally:
                os.close(file)


def _read_counts(path: pathlib.Path) -> Spent:
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    if not text:
        return Spent()
    try:
        counts = json.loads(text)
        return Spent(**{name: int(counts[name]) for name in Spent._fields})
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path}: expected the counts of an endpoint; remove it to count anew") from None
