"""The card of a dataset: counts worked out by hand, the page, the picture and the command."""

import math

import pytest

from cmpo import card
from rollouts.domains.fds.scenario import Item, Order, Persona, Record, Scenario
from tests.builders import commands
from tests.rollouts.domains.fds.released_test import write


def scenario(name, level, demand, complaint="food temperature", supported=True, items="Soup"):
    facts = {"items": (Item(items, 1, 900),), "merchant": "M", "ordered": "", "delivered": "", "courier": ""}
    signals = (("items", items), ("tag", complaint))
    order = Order(
        **facts, complaint=complaint, tag=complaint, record=Record("other", supported, (), "r"), signals=signals
    )
    return Scenario(name, Persona(level, "a", "b", "c", "d"), demand, order, "x" * level, worth=10, honest=True)


TRAIN = [
    scenario("1", 1, "refund_insistence"),
    scenario("2", 1, "refund_insistence"),
    scenario("3", 1, "feedback_focus", supported=None),
    scenario("4", 2, "refund_priority", "late delivery", supported=False),
]
TEST = [scenario("5", 1, "refund_insistence", items="Rice")]


def test_counts():
    found = card.count_scenarios(TRAIN)
    assert (found.records, len(found.scenarios), len(found.orders), len(found.personas)) == (4, 3, 2, 2)
    assert [found.count_level(level) for level in range(1, 6)] == [3, 1, 0, 0, 0]
    assert found.find_share("refund_insistence", 1) == 2 / 3 and found.find_share("refund_priority", 1) == 0
    assert math.isnan(found.find_share("refund_priority", 5))
    assert found.complaints == {"food temperature": 3, "late delivery": 1}
    assert found.support == {True: 2, None: 1, False: 1}


def test_lengths():
    lengths = card.measure_lengths(TRAIN)
    assert lengths["agent's prompt"] == [1, 1, 1, 2]
    assert set(map(len, lengths.values())) == {4} and all(map(all, lengths.values()))


@pytest.mark.parametrize(
    "line",
    [
        "| records | 4 | 1 | 5 |",
        "| different scenarios | 3 | 1 | 4 |",
        "| different orders | 2 | 1 | 3 |",
        "Orders that both splits have: 0.",
        "| 1 highly uncooperative | 3 (75.0%) | 1 (100.0%) | 4 (80.0%) |",
        "| 2 uncooperative | 31.2% | 30.5% |",  # 40 of 128, 78 of 256
        "| refund_insistence | 75.0% (70%) | 0.0% (60%) | nan% (40%) | nan% (40%) | nan% (50%) |",
        "| food temperature | 3 (75.0%) | 1 (100.0%) | 4 (80.0%) |",
        "| contradicts it | 1 (25.0%) | 0 (0.0%) | 1 (20.0%) |",
        "| agent's prompt | 1 | 1 | 2 |",
    ],
)
def test_the_page_says_so(line):
    assert line in card.format_card("t", {"train": TRAIN, "test": TEST}, "hard").splitlines()


def test_an_order_in_both_splits_shows():
    assert "Orders that both splits have: 1." in card.format_card("t", {"train": TRAIN, "test": TRAIN[:1]}, "hard")


def test_the_picture_shows_the_shares():
    levels, demands, complaints, texts = card.draw_card("t", {"train": TRAIN, "test": TEST}, "normal").axes
    assert [bar.get_height() for bar in levels.patches] == [0.75, 0.25, 0, 0, 0, 1, 0, 0, 0, 0]
    assert list(levels.lines[0].get_ydata()) == [count / 128 for count in (12, 12, 41, 38, 25)]
    assert demands.patches[0].get_height() == 0.75 and demands.lines[0].get_ydata()[0] == 0.7
    assert [bar.get_width() for bar in complaints.patches] == [0.2, 0.8]
    assert len(texts.get_legend().get_texts()) == 4


def test_the_command_prints_and_draws(tmp_path):
    path = write(tmp_path / "x.parquet", 60)
    arguments = [f"--config.data.path={path}", f"--config.data.dir={tmp_path}", f"--png={tmp_path / 'card.png'}"]
    ended = commands.run("cmpo.card", "--config=configs/fds.py", *arguments)
    assert "| compensation_flexible | nan% (10%) | 100.0% (15%) |" in ended.stdout, ended.stderr
    assert (tmp_path / "card.png").read_bytes().startswith(b"\x89PNG") and not ended.stderr
