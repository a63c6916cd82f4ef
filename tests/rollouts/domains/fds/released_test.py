"""The authors' released records, where they are at hand, and made-up rows of their shape."""

import copy
import io
import pathlib
import re
import statistics
import tempfile

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmpo import card
from cmpo.training import collecting
from models import tokenizer as tokenizers
from rollouts import chat
from rollouts.domains.fds import generator, released, rubrics
from rollouts.domains.fds.embedded import case as cases
from rollouts.domains.fds.embedded import latent
from rollouts.domains.fds.rubrics import PRINCIPLES
from rollouts.domains.fds.scenario import DEMANDS, Item, Record
from rollouts.domains.fds.scripted import ScriptedAgent
from rollouts.domains.fds.shift import NO_SHIFT
from rollouts.types import Message
from tests.builders import almost
from tests.builders.runs import ROOT, tiny

DATA = ROOT.parent / "shared/data/fds"
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
LEVEL = (*DETAILS, "user_profile", "category_info")
TRAITS = (*DETAILS, "user_profile", "user_profile", "inferredAttributes")
REMOVED = object()


def changed(path, value):
    """A copy of ROW with the value at `path` replaced, or removed."""
    row = copy.deepcopy(ROW)
    place = row
    for key in path[:-1]:
        place = place[key]
    if value is REMOVED:
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
    assert (scenario.order.supported, scenario.order.record) == (None, Record("silent", None, (), ""))
    assert scenario.order.complaint == scenario.order.tag == "food temperature"
    assert scenario.order.items == (Item("Soup", 1, 0), Item("B", 2, 0))
    assert (scenario.order.ordered, scenario.order.delivered, scenario.order.courier) == ("", "", "")
    assert scenario.honest and scenario.shift == NO_SHIFT
    assert scenario.order.signals == (
        ("instantMessageMap", "User: hi"),
        ("foodInfo", "Soup*1,B*2"),
        ("rcTag", "false"),
        ("merchantName", "WISTER"),
    )


def test_what_a_voucher_is_worth_is_drawn_by_the_records_id_from_the_gyms_table():
    """The records do not say it; see `from_record`."""
    scenarios = [released.from_record(changed((*DETAILS, "index"), number)) for number in range(400)]
    worths = [scenario.worth for scenario in scenarios]
    again = [released.from_record(changed((*DETAILS, "index"), number)).worth for number in range(400)]
    expected = sum(worth * odds for worth, odds in enumerate(latent.WORTH[2, "compensation_flexible"]))
    assert worths == again and len(set(worths)) > 10
    assert statistics.mean(worths) == pytest.approx(expected, abs=1)


def test_traits_in_foreign_words_mean_something_by_a_hash_of_the_words():
    found = set()
    for number in range(40):
        path = (*DETAILS, "user_profile", "user_profile", "behavioralPatterns", "informationDisclosure")
        scenario = released.from_record(changed(path, f"words {number}"))
        customer = generator.find_customer(scenario)
        assert customer == generator.find_customer(scenario) and customer.demand in DEMANDS
        assert cases.read_case(generator.user_prompt(scenario)).customer == customer
        found.add(customer.discloses)
    assert found == {True, False}


@pytest.mark.parametrize(
    "text, items",
    [
        ("Soup*1", [("Soup", 1)]),
        ("Mangolian Beef *1,Sushi, 4 Pieces*12", [("Mangolian Beef", 1), ("Sushi, 4 Pieces", 12)]),
        ("Soup", [("Soup", 1)]),
        ("Soup*1,Rice", [("Soup*1,Rice", 1)]),
        ("A;\nB*2", [("A, B", 2)]),
        (" ", [("order", 1)]),
    ],
)
def test_items_are_read_and_come_back_from_the_prompt(text, items):
    scenario = released.from_record(changed((*DETAILS, "system_signal", "foodInfo"), text))
    assert [(item.name, item.quantity) for item in scenario.order.items] == items
    assert cases.read_case(generator.user_prompt(scenario)).items == scenario.order.items


@pytest.mark.parametrize(
    "path, value, message",
    [
        (("prompt",), REMOVED, "prompt.0.content: expected 'prompt' to be there, got {'extra_info'"),
        (("prompt",), [], "prompt.0.content: expected '0' to be there, got []"),
        (("prompt", 0, "content"), None, "prompt.0.content: expected str, got None"),
        (("prompt", 0, "role"), "user", "prompt.0.role: expected 'system', got 'user'"),
        (("prompt", 0, "role"), REMOVED, "prompt.0.role: expected 'role' to be there, got {'content'"),
        (("prompt", 0, "content"), " \n", "prompt.0.content: expected text, got ' \\n'"),
        (("prompt",), ROW["prompt"] * 2, "prompt: expected one message, got 2"),
        (("prompt",), "You serve.", "prompt.0.content: expected '0' to be there, got 'You serve.'"),
        ((*DETAILS, "core_demand"), REMOVED, "core_demand.core_need_type: expected 'core_demand' to be there"),
        (
            (*DETAILS, "system_signal", "merchantNameMap"),
            REMOVED,
            "merchantNameMap.en: expected 'merchantNameMap' to be",
        ),
        ((*DETAILS, "system_signal"), "none", "faqType: expected 'faqType' to be there, got 'none'"),
        ((*DETAILS, "system_signal", "foodInfo"), None, "system_signal.foodInfo: expected str, got None"),
        ((*DETAILS, "system_signal", "rcTag"), False, "system_signal.rcTag: expected str, got False"),
        ((*DETAILS, "batch_id"), 1.0, "batch_id: expected str | int, got 1.0"),
        ((*DETAILS, "core_demand", "core_need_type"), 5, "core_need_type: expected 1 to 4, got 5"),
        ((*DETAILS, "core_demand", "core_need_type"), 0, "core_need_type: expected 1 to 4, got 0"),
        ((*DETAILS, "core_demand", "core_need_type"), 2.7, "core_need_type: expected str | int, got 2.7"),
        ((*DETAILS, "core_demand", "core_need_type"), True, "core_need_type: expected str | int, got True"),
        ((*DETAILS, "core_demand", "core_need_type"), float("inf"), "core_need_type: expected str | int, got inf"),
        ((*LEVEL, "category_key"), 6, "category_key: expected 1 to 5, got 6"),
        ((*LEVEL, "category_key"), "high", "category_key: expected 1 to 5, got 'high'"),
        ((*LEVEL, "category_key"), "٣", "category_key: expected 1 to 5, got '٣'"),
        (
            (*TRAITS, "impliedPersonalityTraits"),
            "impatient",
            "impliedPersonalityTraits: expected list, got 'impatient'",
        ),
        ((*TRAITS, "impliedPersonalityTraits"), ["a", None], "impliedPersonalityTraits.1: expected str, got None"),
        ((*DETAILS, "system_signal", "faqType"), "Rude courier", "faqType: expected one of ['Food not fresh"),
        ((*DETAILS, "system_signal", "faqType"), [], "faqType: expected str, got []"),
    ],
)
def test_a_wrong_row_is_refused(path, value, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        released.from_record(changed(path, value))


def strings_of(scenario):
    """Every field of a scenario that ought to be text."""
    persona = [text for name, text in vars(scenario.persona).items() if name != "level"]
    order = scenario.order
    signals = [text for pair in order.signals for text in pair]
    items = [item.name for item in order.items]
    return [scenario.id, scenario.demand, scenario.agent_prompt, order.merchant, *items, *persona, *signals]


@given(almost.trees(ROW) | almost.trees({"prompt": ROW["prompt"], "extra_info": None}))
def test_whatever_a_row_holds_it_is_a_whole_scenario_or_refused_by_the_field(row):
    try:
        scenario = released.from_record(row)
    except ValueError as error:
        path, _, message = str(error).partition(": ")
        assert (
            path.split(".")[0] in ("prompt", "extra_info") and message.startswith("expected ") and ", got " in message
        )
    else:
        assert all(isinstance(text, str) for text in strings_of(scenario))
        assert 1 <= scenario.persona.level <= 5 and scenario.order.complaint in generator.COMPLAINTS
        assert generator.user_prompt(scenario) and rubrics.PROCESS.write_prompt(scenario)


ORIGINAL = io.BytesIO()
pyarrow.parquet.write_table(pyarrow.Table.from_pylist([ROW, changed((*DETAILS, "index"), 18)]), ORIGINAL)


@given(st.binary(max_size=60) | almost.texts([ORIGINAL.getvalue().decode("latin-1")], ["\0", "\xff", "\x01", "PAR1"]))
def test_a_damaged_file_is_read_whole_or_refused_by_its_name(content):
    content = content if isinstance(content, bytes) else content.encode("latin-1", "replace")
    with tempfile.NamedTemporaryFile(dir="/dev/shm" if pathlib.Path("/dev/shm").is_dir() else None) as file:
        file.write(content)
        file.flush()
        try:
            found = list(released.read_records(file.name))
        except ValueError as error:
            assert str(error).startswith("config.data.path: ") and file.name in str(error)
        else:
            assert all(isinstance(text, str) for scenario in found for text in strings_of(scenario))


def table(tmp_path, *rows):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), tmp_path / "x.parquet")
    return str(tmp_path / "x.parquet")


def test_two_records_of_one_identity_are_refused(tmp_path):
    others = [changed((*DETAILS, "index"), number) for number in range(300)]
    path = table(tmp_path, *others, changed((*DETAILS, "index"), 7))
    with pytest.raises(ValueError, match=rf"config.data.path: row 300 of '{path}' .*got those of row 7, 'train-4-7'"):
        list(released.read_records(path))
    path = table(tmp_path, changed((*DETAILS, "split"), "a-4"), changed((*DETAILS, "split"), "a"))
    assert [scenario.id for scenario in released.read_records(path)] == ["a-4-4-17", "a-4-17"]


def test_a_user_who_speaks_first_is_no_system_prompt_and_is_named_by_row(tmp_path):
    user = changed(("prompt", 0, "role"), "user")
    path = table(tmp_path, ROW, user)
    with pytest.raises(
        ValueError, match=f"row 1 of '{path}' is not an FDS record: prompt.0.role: expected 'system', got"
    ):
        list(released.read_records(path))


def test_columns_and_fields_that_come_twice_are_refused(tmp_path):
    found, path = pyarrow.Table.from_pylist([ROW]), str(tmp_path / "x.parquet")
    pyarrow.parquet.write_table(found.append_column("prompt", found["prompt"]), path)
    with pytest.raises(ValueError, match=rf"config.data.path: '{path}' has the columns \['prompt'\] more than once"):
        list(released.read_records(path))
    twice = pyarrow.StructArray.from_arrays([pyarrow.array(["system"])] * 2, names=["role", "role"])
    prompts = pyarrow.ListArray.from_arrays([0, 1], twice)
    pyarrow.parquet.write_table(found.set_column(found.column_names.index("prompt"), "prompt", prompts), path)
    with pytest.raises(ValueError, match=f"config.data.path: '{path}' is not a parquet file, or a damaged one: .*dup"):
        list(released.read_records(path))


def test_rows_are_read_in_their_order(tmp_path):
    read = list(released.read_records(str(write(tmp_path / "x.parquet", 600))))
    assert [scenario.id for scenario in read] == [f"train-4-{number}" for number in range(600)]
    assert read[310].order.items == read[10].order.items == (Item("Café 10", 1, 0),)


@pytest.fixture(scope="module", params=["hard", "normal"])
def records(request):
    """A difficulty and all its released records."""
    return request.param, list(released.read_records(str(DATA / request.param / "train.parquet")))


TABLE = {  # the method's: records by level; and different orders, as it is about 1,690 in both files
    "hard": ((720, 2400, 1920, 1920, 720), 1680),
    "normal": ((696, 696, 2378, 2204, 1450), 1673),
}


@needs_data
def test_all_released_records_load_with_the_methods_counts(records):
    difficulty, scenarios = records
    found = card.count_scenarios(scenarios)
    levels, orders = TABLE[difficulty]
    assert tuple(found.count_level(level) for level in range(1, 6)) == levels and found.records == sum(levels)
    assert len({scenario.id for scenario in scenarios}) == found.records
    assert (len(found.personas), len(found.orders)) == (43, orders)
    assert set(found.complaints) == {"food temperature", "taste below expectations", "not fresh or undercooked"}
    for demand, weights in generator.DEMAND_WEIGHTS.items():
        for level, weight in enumerate(weights, start=1):
            assert found.find_share(demand, level) == pytest.approx(weight, abs=0.025)
    lengths = [len(scenario.agent_prompt) for scenario in scenarios]
    assert statistics.mean(lengths) == pytest.approx(3480, abs=5) and max(lengths) <= 4549


@needs_data
def test_a_tenth_of_the_released_orders_is_held_out_with_about_the_same_mix(records):
    _, scenarios = records
    parts = {"train": [], "test": []}
    for scenario in scenarios:
        parts[generator.split_of(scenario.order)].append(scenario)
    train, test, both = map(card.count_scenarios, (*parts.values(), scenarios))
    assert test.records / both.records == pytest.approx(0.1, abs=0.01) and not train.orders & test.orders
    for level in range(1, 6):
        assert test.count_level(level) / test.records == pytest.approx(both.count_level(level) / both.records, abs=0.04)


@needs_data
def test_released_records_render_and_play_a_turn(records):
    """One in 32 here; benchmarks/records.py does them all."""
    _, scenarios = records
    chosen = scenarios[5::32]
    agents = collecting.serve_agent(ScriptedAgent("generous"))
    dialogues = collecting.collect_dialogues(tiny(**{"episode.max_turns": 1}), agents, chosen, repeats=1, seed=0)
    tokenizer = tokenizers.train_tokenizer((scenario.agent_prompt for scenario in chosen), 600)
    for scenario, dialogue in zip(chosen, dialogues, strict=True):
        assert dialogue.task == scenario and dialogue.ok and len(dialogue.turns) == 1
        (turn,) = dialogue.turns
        assert set(turn.notes["scores"]) == set(PRINCIPLES) and turn.messages[-1].content and turn.notes["response"]
        opening = [Message("system", scenario.agent_prompt), Message("user", turn.messages[-1].content)]
        text = tokenizer.decode(chat.encode_opening(tokenizer, opening))
        assert f"<|im_start|>system\n{scenario.agent_prompt}<|im_end|>" in text
        for prompt in (generator.user_prompt(scenario), rubrics.PROCESS.write_prompt(scenario)):
            case = cases.read_case(prompt)
            assert case.customer == generator.find_customer(scenario) and case.customer.supported is None
            assert case.items == scenario.order.items and case.merchant == scenario.order.merchant
