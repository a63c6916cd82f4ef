"""Reading the case from a prompt: whatever an order holds comes back, and a missing line is named."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollouts.domains.fds import generator
from rollouts.domains.fds.embedded import case as cases
from rollouts.domains.fds.scenario import DEMANDS, Item, Order, Persona, Record, Scenario
from rollouts.domains.fds.shift import parse_shift

SCENARIO = next(generator.deal_scenarios(1))
PROMPT = generator.user_prompt(SCENARIO)
WORDS = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=12)
NAMES = st.lists(WORDS, min_size=1, max_size=4).map(" ".join).map(lambda name: name.replace(";", ","))
CLOCKS = st.one_of(st.just(""), st.times().map(lambda time: f"{time:%H:%M}"))
ITEMS = st.builds(Item, NAMES, st.integers(0, 999999), st.integers(0, 99999999))
RECORDS = st.one_of(
    st.builds(lambda supports: Record("silent", supports, (), ""), st.sampled_from((True, False, None))),
    st.builds(
        lambda number, supports: Record("food_held", supports, (number,), f"courier held the food {number} minutes"),
        st.integers(0, 999),
        st.sampled_from((True, False, None)),
    ),
)
ORDERS = st.builds(
    Order,
    items=st.lists(ITEMS, min_size=1, max_size=4).map(tuple),
    merchant=NAMES,
    ordered=CLOCKS,
    delivered=CLOCKS,
    complaint=st.sampled_from(tuple(generator.COMPLAINTS)),
    tag=st.sampled_from(tuple(generator.COMPLAINTS)),
    record=RECORDS,
    courier=NAMES,
    signals=st.just((("a", "b"),)),
)
SCENARIOS = st.builds(
    Scenario,
    id=st.just("x"),
    persona=st.builds(Persona, st.integers(1, 5), NAMES, NAMES, NAMES, NAMES),
    demand=st.sampled_from(DEMANDS),
    order=ORDERS,
    agent_prompt=st.just(""),
    worth=st.integers(0, 30),
    honest=st.booleans(),
    shift=st.sampled_from([parse_shift(text) for text in ("none", "phrasing", "noise", "noise=capitals")]),
)


@given(SCENARIOS)
def test_whatever_a_scenario_holds_comes_back_from_its_prompt(scenario):
    case, order = cases.read_case(generator.user_prompt(scenario)), scenario.order
    assert case.customer == generator.find_customer(scenario)
    assert (case.items, case.merchant, case.courier) == (order.items, order.merchant, order.courier)
    assert (case.ordered, case.delivered) == (order.ordered, order.delivered)
    assert (case.complaint, case.tag, case.record) == (order.complaint, order.tag, order.record)
    assert (case.communication_style, case.shift) == (scenario.persona.communication_style, scenario.shift)


LINES = [
    "Cooperation", "Communication style", "Emotional style", "Details", "Solution", "Anger", "Way of writing", "Demand",
    "Claim", "Items", "Merchant", "Ordered", "Delivered", "Courier wrote", "Complaint", "Tag of the platform",
    "Platform record", "Record and complaint",
]  # fmt: skip


@pytest.mark.parametrize("name", LINES)
def test_a_line_that_is_missing_is_named(name):
    prompt = re.sub(rf"^{name}: .*\n", "", PROMPT, flags=re.MULTILINE)
    assert prompt != PROMPT
    with pytest.raises(cases.UnreadablePrompt, match=rf"expected a line '{name}: …' matching .* in the system prompt"):
        cases.read_case(prompt)


@pytest.mark.parametrize(
    "line, other, message",
    [
        (r"A voucher would.*", "A voucher would add a lot.", "expected a line 'A voucher would add about … points"),
        (r"Items: .*", "Items: Cola", "expected a line 'Items: 1 x NAME at 12.50; 2 x NAME', got 'Cola'"),
        (r"Ordered: .*", "Ordered: noon", "expected a line 'Ordered: …' matching"),
        (r"Claim: .*", "Claim: maybe", "expected a line 'Claim: …' matching 'true|false or exaggerated'"),
        (r"Way of writing: .*", "Way of writing: in rhyme", "way of writing: expected 'ordinary', or"),
    ],
)
def test_a_line_that_says_something_else_is_named(line, other, message):
    with pytest.raises(cases.UnreadablePrompt, match=re.escape(message).replace(r"\|", "|")):
        cases.read_case(re.sub(rf"^{line}$", other, PROMPT, flags=re.MULTILINE))


def test_the_secrets_are_told_in_words():
    worth = f"{SCENARIO.worth / 10:.1f}"
    assert f"\nA voucher would add about {worth} points to your rating.\n" in PROMPT
    assert f"\nClaim: {'true' if SCENARIO.honest else 'false or exaggerated'}\n" in PROMPT
