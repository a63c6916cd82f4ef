"""Budgets and prices from flags: by hand, in any order, and refused by name."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmpo.deployment import terms
from cmpo.run.schema import PidSettings
from rollouts.domains.fds import rules
from tests.builders.ledgers import SETTINGS

BOTH = rules.COSTS
NUMBERS = st.dictionaries(
    st.text(st.characters(codec="ascii", exclude_characters=":,"), min_size=1).filter(
        lambda name: name == name.strip()
    ),
    st.floats(0, 1e300),
    min_size=1,
)


def test_budgets_and_prices_by_hand():
    assert terms.read_budgets("voucher:0.30") == {"voucher": 0.3}
    assert terms.read_budgets(" turns : 2.8 , voucher:0") == {"turns": 2.8, "voucher": 0.0}
    prices = terms.read_prices("action:1.5,token:0.0001,escalation:5,turns:0.25", BOTH)
    assert (prices.action.tolist(), prices.token, prices.escalation) == ([1.5, 0.25], 0.0001, 5.0)
    assert prices.name_prices(BOTH) == {"voucher": 1.5, "turns": 0.25, "token": 0.0001, "escalation": 5.0}
    assert terms.read_prices("voucher:2", BOTH).action.tolist() == [2.0, 0.0]


@given(NUMBERS)
def test_what_is_written_is_read(numbers):
    assert terms.read_budgets(",".join(f"{name}:{value!r}" for name, value in numbers.items())) == numbers


@given(st.text())
def test_any_text_is_read_or_refused_by_the_flags_name(text):
    try:
        found = terms.read_budgets(text)
    except ValueError as error:
        assert str(error).startswith("--budget: expected ")
    else:
        assert found and all(name and 0 <= value < np.inf for name, value in found.items())


@pytest.mark.parametrize(
    "text", ["", "voucher", "voucher:", ":1", "voucher:x", "voucher:-1", "voucher:nan", "a:1,", "a:inf"]
)
def test_what_is_no_list_of_numbers_is_refused(text):
    with pytest.raises(ValueError, match=r"^--budget: expected NAME:NUMBER,… with numbers of 0 or more, got "):
        terms.read_budgets(text)


def test_a_name_twice_and_a_price_of_nothing_are_refused():
    with pytest.raises(ValueError, match="--budget: expected each name once, got 'voucher' twice"):
        terms.read_budgets("voucher:1,voucher:1")
    told = "--prices: expected prices of some of action, voucher, turns, token, escalation, got 'refund'"
    with pytest.raises(ValueError, match=told):
        terms.read_prices("refund:1", BOTH)


def test_the_domain_has_the_costs_that_have_a_budget():
    names = lambda budgets: [cost.name for cost in terms.load_domain({}, budgets).costs]  # noqa: E731
    assert names({"turns": 2.8, "voucher": 0.3}) == ["voucher", "turns"] and names({"turns": 2.8}) == ["turns"]
    with pytest.raises(ValueError, match=r"^--budget: expected some of \('voucher', 'turns'\), got 'refund'"):
        terms.load_domain({"domain": "fds"}, {"refund": 1.0})


def test_the_controller_is_the_runs_with_other_budgets():
    settings = SETTINGS | {"target": 0.9, "kp": {"voucher": 2.0, "turns": 3.0}}
    gains, first = terms.make_controller(settings, BOTH, {"voucher": 0.3, "turns": 2.8})
    assert (gains.target.tolist(), gains.kp.tolist(), gains.ki.tolist()) == ([0.3, 2.8], [2.0, 3.0], [0.25, 0.25])
    assert gains.form == "incremental" and np.all(first == 0)
    gains, _ = terms.make_controller(PidSettings().model_dump(), BOTH[:1], {"voucher": 0.2})  # no run at all
    assert (gains.target.tolist(), gains.kp) == ([0.2], 0.5)
    gains, _ = terms.make_controller(settings, BOTH[:1], {"voucher": 0.3})  # a run with more costs than are held here
    assert (gains.target.tolist(), gains.kp.tolist()) == ([0.3], [2.0])
    with pytest.raises(ValueError, match="--budget.voucher: expected 0 to 1, of dialogues, got 1.3"):
        terms.make_controller(settings, BOTH[:1], {"voucher": 1.3})
    with pytest.raises(ValueError, match=r"--budget: expected a number for each of \['voucher', 'turns'\]"):
        terms.make_controller(settings, BOTH, {"voucher": 0.3})
