"""How a ledger stands: what the window cost, per dialogue and per resolution, and whether its budgets hold.

Letters: N = dialogues of the window, C = costs.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from cmpo.deployment.books import Books
from cmpo.deployment.events import Spread
from cmpo.deployment.terms import Prices
from cmpo.evaluation.bootstrap import average_columns, find_interval, resample_means
from cmpo.run.alarms import WINDOW, find_alarms

ALARMS = ("multiplier", "mean")
OUTCOMES = ("resolved", "unresolved", "unreported")
RESAMPLES = 1_000  # of the bootstrap: a tenth of a second for a window of 1,000
FEWEST = WINDOW  # dialogues before a mean may be an alarm
FEWEST_RESOLVED = 5  # with fewer, resamples in which nobody was resolved would be too many for an interval


class Standing(NamedTuple):
    """Of the window as it is."""

    means: Mapping[str, Spread]  # of each cost over all N dialogues
    per_resolution: Spread  # money for a resolved dialogue, over those that were reported
    outcomes: Mapping[str, int]  # dialogues by OUTCOMES
    money: Mapping[str, float]  # spent on all N: action, token, escalation
    rating: float  # mean of those that were rated; NaN if none was
    alarms: Mapping[tuple[str, str], str]  # (cost, kind of ALARMS) -> what is wrong


def assess(books: Books, prices: Prices) -> Standing:
    """Assesses the window.

    A dialogue that nobody said was resolved or not is unreported: its costs are in the means and in `money`, but not in
    the cost of a resolution, as nobody knows what it came to.
    """
    accounts, costs = list(books.window.values()), books.tabulate_window()
    tokens = np.array([account.tokens for account in accounts], float)
    escalated = np.array([bool(account.escalated) for account in accounts], float)
    resolved = np.array([math.nan if one.resolved is None else one.resolved for one in accounts], float)
    rated = [account.rating for account in accounts if account.rating is not None]
    parts = {
        "action": costs @ prices.action,
        "token": tokens * prices.token,
        "escalation": escalated * prices.escalation,
    }
    reported = np.where(np.isfinite(resolved), sum(parts.values()), math.nan)

    *means, per_resolution = _estimate(np.column_stack([costs, reported, resolved]))
    means = dict(zip([cost.name for cost in books.costs], means, strict=True))
    count = {
        "resolved": int(np.sum(resolved == 1)),
        "unresolved": int(np.sum(resolved == 0)),
        "unreported": int(np.sum(np.isnan(resolved))),
    }
    if count["resolved"] < FEWEST_RESOLVED:
        per_resolution = Spread(value=per_resolution.value)
    return Standing(
        means,
        per_resolution,
        count,
        {name: float(part.sum()) for name, part in parts.items()},
        float(np.mean(rated)) if rated else math.nan,
        _find_alarms(books, means),
    )


def _estimate(values: np.ndarray) -> list[Spread]:
    """Estimates the means of all columns [N, C + 2] but the last two, and the ratio of these two."""

    def divide_last(means: np.ndarray) -> np.ndarray:
        money, resolved = means[:, -2], means[:, -1]
        ratio = np.divide(money, resolved, out=np.full(len(means), math.nan), where=resolved > 0)
        return np.column_stack([means[:, :-2], ratio])

    if not len(values):
        return [Spread()] * (values.shape[1] - 1)
    drawn = resample_means(values, np.arange(len(values)), resamples=RESAMPLES, seed=0)
    numbers = divide_last(average_columns(values)[None])[0], *find_interval(divide_last(drawn))
    return [
        Spread(**{name: x for name, x in zip(("value", "low", "high"), found, strict=True) if math.isfinite(x)})
        for found in np.transpose(numbers).tolist()
    ]


def _find_alarms(books: Books, means: Mapping[str, Spread]) -> dict[tuple[str, str], str]:
    """Finds the budgets that do not hold: by the controller, and by the window's mean."""
    climbing = find_alarms(list(books.history), books.costs, books.budgets, books.bounds)
    found = {(name, "multiplier"): text for name, text in climbing.items()}
    for cost, budget in zip(books.costs, books.budgets, strict=True):
        mean, low, high = (getattr(means[cost.name], name) for name in ("value", "low", "high"))
        if len(books.window) >= FEWEST and low > budget:
            mean, low, high, budget = map(cost.form.format, (mean, low, high, budget))
            found[cost.name, "mean"] = (
                f"the mean of the last {len(books.window)} dialogues is {mean} ({low} to {high}), above {budget}"
            )
    return found
