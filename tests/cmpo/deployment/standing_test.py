"""How the window stands: intervals that cover what they should, and alarms only where the budget is excluded."""

import numpy as np
import pytest

from cmpo.deployment import standing
from tests.builders.ledgers import CHAT, VOUCHER, ledger, serve


def assess(path, given, *, resolved=(), **options):
    """A window of dialogues: whether each got a voucher, and what was said of it."""
    with ledger(path, **options) as books:
        for number, voucher in enumerate(given):
            said = {"resolved": resolved[number]} if number < len(resolved) else {}
            serve(books, VOUCHER if voucher else CHAT, **said)
        return books.assess()


def test_a_resolution_that_always_costs_the_same_has_no_spread(tmp_path):
    found = assess(tmp_path / "log", [True] * 6, resolved=[True] * 6).per_resolution
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)


def test_the_interval_of_a_resolution_is_that_of_the_ratio(tmp_path):
    rng = np.random.default_rng(1)
    given, resolved = rng.random(60) < 0.4, rng.random(60) < 0.6
    # A budget is no matter here: what a voucher costs, 3, and the tokens, 10 a dialogue, are.
    found = assess(tmp_path / "log", given, resolved=resolved.tolist(), window=60, prices="action:3,token:0.1")
    money = 3.0 * given + 1.0
    drawn = rng.integers(60, size=(20_000, 60))
    ratios = money[drawn].sum(1) / resolved[drawn].sum(1)
    assert found.per_resolution.value == pytest.approx(money.sum() / resolved.sum())
    assert [found.per_resolution.low, found.per_resolution.high] == pytest.approx(
        np.percentile(ratios, [2.5, 97.5]).tolist(), rel=0.05
    )
    mean = found.means["voucher"]
    rates = np.percentile(given[drawn].mean(1), [2.5, 97.5])
    assert mean.value == pytest.approx(given.mean()) and [mean.low, mean.high] == pytest.approx(
        rates.tolist(), abs=0.02
    )


def test_unreported_dialogues_have_no_part_in_the_cost_of_a_resolution(tmp_path):
    found = assess(tmp_path / "log", [True] * 4 + [False] * 4, resolved=[True, False, True, False])
    assert found.per_resolution.value == 2.0 and found.money["action"] == 4.0
    assert found.outcomes == {"resolved": 2, "unresolved": 2, "unreported": 4}
    assert assess(tmp_path / "other", [True] * 4, resolved=[False] * 4).per_resolution.value is None


def test_few_resolutions_have_no_interval(tmp_path):
    for resolved, known in ((standing.FEWEST_RESOLVED - 1, False), (standing.FEWEST_RESOLVED, True)):
        said = [True] * resolved + [False] * 10
        found = assess(tmp_path / str(resolved), [True] * len(said), resolved=said).per_resolution
        assert found.value == len(said) / resolved and (found.low is not None) == known


@pytest.mark.parametrize(
    ("vouchers", "dialogues", "alarm"),
    [
        (14, 20, True),  # 0.7 ± 0.2
        (9, 20, False),  # 0.45 ± 0.22
        (6, 20, False),
        (19, 19, False),  # too few to tell
    ],
)
def test_a_mean_is_an_alarm_where_its_interval_excludes_the_budget(tmp_path, vouchers, dialogues, alarm):
    found = assess(tmp_path / "log", [True] * vouchers + [False] * (dialogues - vouchers), window=200)
    assert list(found.alarms) == ([("voucher", "mean")] if alarm else [])
    assert all(text.startswith("the mean of the last 20 dialogues is 70% (50% to ") for text in found.alarms.values())
