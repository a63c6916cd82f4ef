"""Says when a budget cannot be held: its multiplier climbs and the cost does not answer, or it moves the wrong way."""

from collections.abc import Mapping, Sequence
from typing import Any

from cmpo.run.log import read_multiplier
from rollouts.domain import Cost

WINDOW = 20  # steps of phase 2 that a cost has to answer in


def find_alarms(
    records: Sequence[Mapping[str, Any]],
    costs: Sequence[Cost],
    budgets: Sequence[float],
    bounds: Sequence[float],
) -> dict[str, str]:
    """Returns what is wrong with the budget of a cost, by the cost's name; {} where all is well.

    A cost is looked at while its smoothed mean is above the budget. Then three things are wrong: a multiplier at its
    bound, and, where the cost was above the budget in all of the last `WINDOW` steps, one that rose by more than a
    tenth of its bound while the cost lost less than half of its excess, or one that fell though the cost did not. (A
    strong proportional part moves the multiplier with every swing of the cost around the budget. That is no climb.)

    Args:
      records: of phase 2, the newest last; more than `WINDOW` + 1 are not needed. One without multipliers ends the
        search.
      costs: the domain's, C.
      budgets: [C].
      bounds: [C], the most that each multiplier may be; 0: it is not a controller's.
    """
    found = {}
    for cost, budget, bound in zip(costs, budgets, bounds, strict=True):
        history = [_read_point(record, cost) for record in records[-WINDOW - 1 :]]
        if not bound or not history or None in history or history[-1][1] <= budget:
            continue
        (first, began), (last, ended) = history[0], history[-1]
        above = len(history) > WINDOW and min(mean for _, mean in history) > budget
        in_vain = last - first > 0.1 * bound and ended - budget > 0.5 * (began - budget)
        went = f"from {first:.2f} to {last:.2f}, and the mean went from {cost.form.format(began)} to "
        if last >= bound:
            found[cost.name] = f"the multiplier is at its bound, {bound:g}, and the mean is {cost.form.format(ended)}"
        elif above and in_vain:
            found[cost.name] = f"in {WINDOW} steps the multiplier rose {went}{cost.form.format(ended)}"
        elif above and last < first and ended >= began and max(value for value, _ in history) < bound:
            found[cost.name] = (
                f"in {WINDOW} steps above its budget the multiplier fell {went}{cost.form.format(ended)}: "
                "the controller pushes the wrong way"
            )
    return found


def _read_point(record: Mapping[str, Any], cost: Cost) -> tuple[float, float] | None:
    """Reads multiplier and smoothed mean of a cost from a record; None where it lacks one."""
    multiplier, smoothed = read_multiplier(record, cost), record.get(f"{cost.measure}_smoothed")
    return None if multiplier is None or smoothed is None else (multiplier, smoothed)
