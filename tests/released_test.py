"""The authors' released records, where they are at hand, and made-up rows of their shape."""

import collections
import copy
import pathlib

import pyarrow.parquet
import pytest

from rollouts import fds, released, rubrics
from rollouts.embedded import reading

DATA = pathlib.Path(__file__).parents[2] / "shared/data/fds"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"the released FDS records are not at {DATA}")

ROW = {
    "prompt": [{"role": "system", "content": "You serve customers."}],
    "extra_info": {
        "interaction_kwargs": {
            "split": "train",
            "batch_id": 4,
            "index": 17,
            "user_profile": {
                "category_info": {"category_key": "2"},
                "user_profile": {
                    "behavioralPatterns": {
                        "communicationStyle": "terse",
                        "informationDisclosure": "little",
                        "problemSolvingApproach": "stubborn",
                    },
                    "inferredAttributes": {"impliedPersonalityTraits": ["impatient", "blunt"]},
                },
            },
            "core_demand": {"core_need_type": 3},
            "system_signal": {
                "faqType": "Food temperature issue",
                "foodInfo": "Soup*1,B*2",
                "instantMessageMap": "User: hi",
                "rcTag": "false",
                "merchantNameMap": {"en": "WISTER"},
            },
        }
    },
}
DETAILS = ("extra_info", "interaction_kwargs")


def changed(path, value):
    """A copy of ROW with the value at `path` replaced, or removed where `value` is None."""
    row = copy.deepcopy(ROW)
    place = row
    for key in path[:-1]:
        place = place[key]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return row


def test_a_row_becomes_a_scenario():
    scenario = released.from_record(ROW)
    assert scenario.id == "train-4-17"
    assert scenario.agent_prompt == "You serve customers."
    assert scenario.demand == "compensation_flexible"
    assert scenario.persona.level == 2
    assert scenario.persona.emotional_style == "impatient; blunt"
    assert (scenario.persona.communication_style, scenario.persona.problem_solving) == ("terse", "stubborn")
    assert scenario.persona.information_disclosure == "little"
    assert (scenario.order.supported, scenario.order.record) == (None, "")
    assert scenario.order.complaint == "food temperature"
    assert scenario.order.signals == (
        ("instantMessageMap", "User: hi"),
        ("foodInfo", "Soup*1,B*2"),
        ("rcTag", "false"),
        ("merchantName", "WISTER"),
    )


@pytest.mark.parametrize(
    "path, value, error",
    [
        (("prompt",), None, KeyError),
        ((*DETAILS, "core_demand"), None, KeyError),
        ((*DETAILS, "system_signal", "merchantNameMap"), None, KeyError),
        ((*DETAILS, "system_signal"), "none", TypeError),
        ((*DETAILS, "core_demand", "core_need_type"), 5, ValueError),
        ((*DETAILS, "core_demand", "core_need_type"), 0, ValueError),
        ((*DETAILS, "user_profile", "category_info", "category_key"), 6, ValueError),
        ((*DETAILS, "user_profile", "category_info", "category_key"), "high", ValueError),
        ((*DETAILS, "system_signal", "faqType"), "Rude courier", ValueError),
    ],
)
def test_a_wrong_row_is_refused(path, value, error):
    with pytest.raises(error):
        released.from_record(changed(path, value))


@needs_data
@pytest.mark.parametrize(
    "difficulty, levels", [("hard", (720, 2400, 1920, 1920, 720)), ("normal", (696, 696, 2378, 2204, 1450))]
)
def test_all_released_records_load_with_the_methods_counts(difficulty, levels):
    columns = ["prompt", "extra_info"]
    rows = pyarrow.parquet.read_table(DATA / difficulty / "train.parquet", columns=columns).to_pylist()
    scenarios = [released.from_record(row) for row in rows]
    counts = collections.Counter(scenario.persona.level for scenario in scenarios)
    assert tuple(counts[level] for level in range(1, 6)) == levels
    assert len({scenario.id for scenario in scenarios}) == len(rows)
    assert {scenario.order.complaint for scenario in scenarios} == set(released._COMPLAINTS.values())
    for level in (1, 3, 5):  # the records' demands follow the table that the generator deals by
        demands = collections.Counter(scenario.demand for scenario in scenarios if scenario.persona.level == level)
        for demand, weights in fds.DEMAND_WEIGHTS.items():
            assert demands[demand] / counts[level] == pytest.approx(weights[level - 1], abs=0.05)
    for scenario in scenarios[::50]:  # and the embedded endpoint can play them
        for prompt in (fds.user_prompt(scenario), rubrics.PROCESS.prompt(scenario)):
            case = reading.read_case(prompt)
            assert case.customer == (scenario.persona.level, scenario.demand, None)
            assert all(case.items) and case.merchant == scenario.order.merchant
