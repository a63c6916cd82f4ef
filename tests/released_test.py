"""The authors' released records, where they are at hand, and made-up rows of their shape."""

import copy
import pathlib
import statistics

import pyarrow
import pyarrow.parquet
import pytest

from cmpo import card, rollout
from models import tokenizer as tokenizers
from rollouts import chat, fds, released, rubrics
from rollouts.embedded import reading
from rollouts.types import PRINCIPLES, Message
from tests.runs import tiny

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


def write(path, count):
    """Writes a parquet file of `count` rows, two for each order, far apart; returns its path."""
    rows = [changed((*DETAILS, "index"), number) for number in range(count)]
    for number, row in enumerate(rows):
        row["extra_info"]["interaction_kwargs"]["system_signal"]["foodInfo"] = f"Café {number % -(-count // 2)}*1"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


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


def test_rows_are_read_in_their_order(tmp_path):
    read = list(released.read(str(write(tmp_path / "x.parquet", 600))))
    assert [scenario.id for scenario in read] == [f"train-4-{number}" for number in range(600)]
    assert read[310].order.items == read[10].order.items == "Café 10*1"


@pytest.fixture(scope="module", params=["hard", "normal"])
def records(request):
    """A difficulty and all its released records."""
    return request.param, list(released.read(str(DATA / request.param / "train.parquet")))


TABLE = {  # the method's: records by level; and different orders, as it is about 1,690 in both files
    "hard": ((720, 2400, 1920, 1920, 720), 1680),
    "normal": ((696, 696, 2378, 2204, 1450), 1673),
}


@needs_data
def test_all_released_records_load_with_the_methods_counts(records):
    difficulty, scenarios = records
    found = card.card(scenarios)
    levels, orders = TABLE[difficulty]
    assert tuple(found.level(level) for level in range(1, 6)) == levels and found.records == sum(levels)
    assert len({scenario.id for scenario in scenarios}) == found.records
    assert (len(found.personas), len(found.orders)) == (43, orders)
    assert set(found.complaints) == {"food temperature", "taste below expectations", "not fresh or undercooked"}
    for demand, weights in fds.DEMAND_WEIGHTS.items():
        for level, weight in enumerate(weights, start=1):
            assert found.share(demand, level) == pytest.approx(weight, abs=0.025)
    lengths = [len(scenario.agent_prompt) for scenario in scenarios]
    assert statistics.mean(lengths) == pytest.approx(3480, abs=5) and max(lengths) <= 4549


@needs_data
def test_a_tenth_of_the_released_orders_is_held_out_with_about_the_same_mix(records):
    _, scenarios = records
    parts = {"train": [], "test": []}
    for scenario in scenarios:
        parts[fds.split_of(scenario.order)].append(scenario)
    train, test, both = map(card.card, (*parts.values(), scenarios))
    assert test.records / both.records == pytest.approx(0.1, abs=0.01) and not train.orders & test.orders
    for level in range(1, 6):
        assert test.level(level) / test.records == pytest.approx(both.level(level) / both.records, abs=0.04)


@needs_data
def test_released_records_render_and_play_a_turn(records):
    """One in 32 here; benchmarks/records.py does them all."""
    _, scenarios = records
    chosen = scenarios[5::32]
    agents = rollout.scripted_agents("generous")
    dialogues = rollout.collect(tiny(**{"episode.max_turns": 1}), agents, chosen, repeats=1, seed=0)
    tokenizer = tokenizers.train((scenario.agent_prompt for scenario in chosen), 600)
    for scenario, dialogue in zip(chosen, dialogues, strict=True):
        assert dialogue.scenario == scenario and dialogue.ok and len(dialogue.turns) == 1
        (turn,) = dialogue.turns
        assert set(turn.scores) == set(PRINCIPLES) and turn.user and turn.response
        opening = [Message("system", scenario.agent_prompt), Message("user", turn.user)]
        text = tokenizer.decode(chat.encode_opening(tokenizer, opening))
        assert f"<|im_start|>system\n{scenario.agent_prompt}<|im_end|>" in text
        for prompt in (fds.user_prompt(scenario), rubrics.PROCESS.prompt(scenario)):
            case = reading.read_case(prompt)
            assert case.customer == (scenario.persona.level, scenario.demand, None)
            assert all(case.items) and case.merchant == scenario.order.merchant
