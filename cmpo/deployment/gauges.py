"""A ledger as Prometheus reads it."""

import math
from collections.abc import Iterator, Mapping

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from cmpo.deployment.books import Books
from cmpo.deployment.events import Spread
from cmpo.deployment.standing import ALARMS, Standing

_ENDS = {"": "", "_low": ", lower end of its 95 % interval", "_high": ", upper end of its 95 % interval"}


def write_families(books: Books, standing: Standing) -> Iterator[Metric]:
    """Yields every metric. Counters count since the log began; a number that there is none of is NaN."""
    names = [cost.name for cost in books.costs]
    yield CounterMetricFamily("cmpo_dialogues", "Dialogues that ended.", value=books.ended)
    yield _label(
        CounterMetricFamily,
        "cmpo_declined",
        "Answers replaced because of a budget.",
        "cost",
        {name: books.declined[name] for name in names},
    )
    yield GaugeMetricFamily("cmpo_open_dialogues", "Dialogues under way.", value=len(books.under_way))
    window = "Dialogues of the window, by what the client said of them."
    yield _label(GaugeMetricFamily, "cmpo_window_dialogues", window, "outcome", standing.outcomes)
    money = "Money spent on all dialogues of the window."
    yield _label(GaugeMetricFamily, "cmpo_window_money", money, "source", standing.money)
    yield GaugeMetricFamily("cmpo_rating", "Mean rating of the window's dialogues.", value=standing.rating)
    budgets, multipliers = (dict(zip(names, x, strict=True)) for x in (books.budgets, books.multipliers()))
    yield _label(GaugeMetricFamily, "cmpo_budget", "The most that the mean cost may be.", "cost", budgets)
    price = "The controller's price of a unit of the cost."
    yield _label(GaugeMetricFamily, "cmpo_multiplier", price, "cost", multipliers)
    for end, says in _ENDS.items():
        means = {name: _pick(standing.means[name], end) for name in names}
        help_text = f"Mean cost of the window's dialogues{says}."
        yield _label(GaugeMetricFamily, f"cmpo_cost_rate{end}", help_text, "cost", means)
    for end, says in _ENDS.items():
        help_text = f"Money for a resolved dialogue of those reported{says}."
        value = _pick(standing.per_resolution, end)
        yield GaugeMetricFamily(f"cmpo_cost_per_resolution{end}", help_text, value=value)
    alarm = GaugeMetricFamily("cmpo_alarm", "1 where the window cannot hold a budget.", labels=("cost", "kind"))
    for name in names:
        for kind in ALARMS:
            alarm.add_metric((name, kind), float((name, kind) in standing.alarms))
    yield alarm


def _label(family: type[Metric], name: str, says: str, label: str, values: Mapping[str, float]) -> Metric:
    metric = family(name, says, labels=(label,))
    for key, value in values.items():
        metric.add_metric((key,), value)
    return metric


def _pick(spread: Spread, end: str) -> float:
    value = getattr(spread, end.removeprefix("_") or "value")
    return math.nan if value is None else value
