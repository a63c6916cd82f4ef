"""Budgets that cannot be held are named, and those that are only on their way are not."""

import pytest

from cmpo.run.alarms import WINDOW, find_alarms
from rollouts.domains.fds import rules

ONE, BOTH = rules.COSTS[:1], rules.COSTS


def climbing(cost, *, rise=0.1, steps=WINDOW + 1):
    """A multiplier that rises by `rise` at every step, and the smoothed cost, a function of the step."""
    return [{"lambda": rise * step, "voucher_rate_smoothed": cost(step)} for step in range(steps)]


def falling(cost, *, start=2.0, steps=WINDOW + 1):
    """A multiplier that falls by 0.1 at every step, from `start` or its bound of 5."""
    return [{"lambda": min(start - 0.1 * step, 5.0), "voucher_rate_smoothed": cost(step)} for step in range(steps)]


@pytest.mark.parametrize(
    ("records", "wrong"),
    [
        (climbing(lambda step: 0.6), True),
        (climbing(lambda step: 0.6 - 0.01 * step), False),  # it has lost 0.2 of 0.3: it answers
        (climbing(lambda step: 0.6 - 0.005 * step), True),  # 0.1 of 0.3
        (climbing(lambda step: 0.2), False),  # below the budget
        (climbing(lambda step: 0.29 if step == 9 else 0.6), False),  # it was met on the way
        (climbing(lambda step: 0.1 + 0.02 * step), False),  # the proportional part answers a swing from below
        (climbing(lambda step: 0.6, steps=WINDOW), False),  # too early to tell
        (climbing(lambda step: 0.6, rise=0.01), False),  # it has hardly moved
        (falling(lambda step: 0.4 + 0.01 * step), True),  # the wrong way: the cost is above, and rises
        (falling(lambda step: 0.6 - 0.01 * step), False),  # the proportional part, as the cost comes down
        (falling(lambda step: 0.29 if step == 9 else 0.4 + 0.01 * step), False),  # it was met on the way
        (falling(lambda step: 0.4 + 0.01 * step, start=6.0), False),  # it comes down from its bound
        (falling(lambda step: 0.4 + 0.01 * step, steps=WINDOW), False),  # too early to tell
        ([{"lambda": 5.0, "voucher_rate_smoothed": 0.31}], True),  # at its bound
        ([{"lambda": 5.0, "voucher_rate_smoothed": 0.29}], False),
        ([{"lambda": 0.0}], False),  # of a method without a controller
        ([], False),
    ],
)
def test_a_multiplier_that_climbs_in_vain_or_falls_wrongly_or_is_at_its_bound_is_an_alarm(records, wrong):
    assert bool(find_alarms(records, ONE, [0.3], [5.0])) == wrong


def test_each_cost_is_looked_at_by_its_own_budget_and_bound():
    records = [{"lambda": {"voucher": 5.0, "turns": 9.0}, "voucher_rate_smoothed": 0.9, "turns_mean_smoothed": 3.0}]
    found = find_alarms(records, BOTH, [0.3, 2.8], [5.0, 10.0])
    assert found == {"voucher": "the multiplier is at its bound, 5, and the mean is 90%"}
    assert find_alarms(records, BOTH, [0.3, 2.8], [0.0, 9.0]).keys() == {"turns"}
