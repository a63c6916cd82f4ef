"""From dialogues to rows, tables and differences, by hand; failures are in the denominator and never hidden."""

import dataclasses
import json

import numpy as np
import pytest

from cmpo.evaluation import measures
from cmpo.evaluation.summary import summarize_batch
from rollouts import domains
from rollouts.domains.fds.judge import Evaluation
from rollouts.domains.fds.rubrics import Verdict
from rollouts.domains.fds.scenario import DEMANDS
from tests.builders import dialogues
from tests.builders.dialogues import FDS, turn


def dialogue(*turns, name="s", level=2, demand="feedback_focus", **fields):
    return dialogues.dialogue(*turns, task=dialogues.task(name, level=level, demand=demand), **fields)


GOOD = Evaluation(Verdict({"a": 2.0, "b": 1.0}, "fine"))
LATE = Evaluation(None, "judge_timeout", "config.judge.url timed out")


def test_a_row_by_hand():
    played = dialogue(turn(0.5, ids=range(3)), turn(1.0, action="voucher", ids=range(4)), outcome=4.0)
    row = measures.describe_dialogue(FDS, 7, played, {"logic": GOOD, "communication": LATE})
    assert row["values"] == {
        "satisfaction": 4.0,
        "finish_rate": 1.0,
        "voucher_rate": 1.0,
        "process_reward": 0.75,
        "communication": None,
        "logic": 3.0,
        "compensation": None,
        "turns": 2.0,
        "tokens": 7.0,
        "failure_rate": 0.0,
    }
    assert (row["seed"], row["scenario"], row["level"], row["demand"]) == (7, "s", 2, "feedback_focus")
    assert row["evaluators"] == {
        "logic": {"scores": {"a": 2.0, "b": 1.0}, "reason": "fine"},
        "communication": {"failure": "judge_timeout", "failure_message": "config.judge.url timed out"},
    }
    assert json.loads(json.dumps(row, allow_nan=False)) == row


def test_a_breach_of_the_format_counts_as_unfinished_and_worth_nothing():
    row = measures.describe_dialogue(
        FDS, 7, dialogue(turn(1.0), turn(0.0, action=""), outcome=-10.0, end="malformed"), {}
    )
    assert row["values"] | {"satisfaction": 0.0, "finish_rate": 0.0, "process_reward": 0.5} == row["values"]


def test_a_failed_dialogue_counts_as_failed_and_unfinished_and_as_nothing_else():
    row = measures.describe_dialogue(
        FDS, 7, dialogue(turn(1.0), end="", failure="user_timeout", failure_message="late"), {}
    )
    assert {name: value for name, value in row["values"].items() if value is not None} == {
        "finish_rate": 0.0,
        "failure_rate": 1.0,
    }
    assert (row["failure"], row["failure_message"]) == ("user_timeout", "late")


def rows(*outcomes, seeds=(0, 0, 1, 1), shift=0.0):
    """A row for each outcome; None failed, and the messages are numbered."""
    made = []
    for number, (outcome, seed) in enumerate(zip(outcomes, seeds, strict=True)):
        options = {"failure": "user_timeout", "failure_message": f"late {number}"} if outcome is None else {}
        played = dialogue(turn(), name=f"{seed}-{number}", level=1 + number % 2, outcome=outcome or 0.0, **options)
        made.append(measures.describe_dialogue(FDS, seed, played, {"logic": GOOD if number else LATE}))
    return made


def test_a_summary_by_hand():
    summary = measures.summarize_rows(FDS, rows(2.0, None, 5.0, 4.0))
    satisfaction, finished = summary["satisfaction"], summary["finish_rate"]
    assert (satisfaction["mean"], satisfaction["count"]) == (pytest.approx(11 / 3), 3)
    assert satisfaction["std"] == pytest.approx(2.5 / 2**0.5)  # of 2 and 4.5
    assert (finished["mean"], finished["count"]) == (0.75, 4)  # of all that were played
    assert summary["failure_rate"]["mean"] == 0.25
    assert summary["compensation"]["count"] == 0
    assert measures.average_rows(FDS, rows(2.0, None, 5.0, 4.0))["finish_rate"] == 0.75


def test_groups_and_failures_by_hand():
    played = rows(2.0, None, 5.0, None)
    levels = measures.summarize_groups(FDS, played, "level")
    assert list(levels) == ["1", "2"]  # in order, those that there are
    assert levels["1"]["satisfaction"]["mean"] == 3.5 and levels["2"]["satisfaction"]["count"] == 0
    assert list(measures.summarize_groups(FDS, played, "demand")) == ["feedback_focus"]
    assert measures.count_failures(played) == {
        "user_timeout": {"count": 2, "message": "late 3"},
        "judge_timeout": {"count": 1, "message": "config.judge.url timed out"},
    }


def test_differences_are_taken_scenario_by_scenario():
    ours, theirs = rows(2.0, None, 5.0, 4.0), rows(1.0, 5.0, 4.5, 4.0)
    difference = measures.compare_rows(FDS, ours, theirs[::-1])
    satisfaction = difference["satisfaction"]
    assert (satisfaction["mean"], satisfaction["count"]) == (0.5, 3)  # 1, 0.5 and 0; the failed one has no pair
    assert satisfaction["std"] == pytest.approx(0.75 / 2**0.5)  # of 1 and 0.25
    assert difference["finish_rate"]["mean"] == -0.25
    same = measures.compare_rows(FDS, theirs, theirs)["satisfaction"]
    assert (same["mean"], same["low"], same["high"]) == (0.0, 0.0, 0.0)


def test_pairs_need_the_same_scenarios_and_seeds():
    ours = rows(2.0, 3.0, 5.0, 4.0)
    for others in (ours[1:], [*ours[1:], ours[0] | {"seed": 9}], [*ours[1:], ours[0] | {"scenario": "z"}]):
        with pytest.raises(ValueError, match="same scenarios with the same seeds"):
            measures.compare_rows(FDS, ours, others)


def test_tables_by_hand():
    summary = measures.summarize_rows(FDS, rows(2.0, 2.0, 2.0, 2.0))
    lines = measures.format_table(FDS, "me", summary).splitlines()
    assert lines[0] == "| me | mean | std over seeds | 95 % interval | dialogues |"
    assert "| satisfaction, 1 to 5 | 2.00 | 0.00 | 2.00 to 2.00 | 4 |" in lines
    assert "| finished, % | 100.0 | 0.0 | 100.0 to 100.0 | 4 |" in lines
    assert not any("compensation" in line for line in lines)
    wide = measures.format_breakdown(
        FDS, "level", measures.summarize_groups(FDS, rows(2.0, None, 2.0, None), "level")
    ).splitlines()
    assert wide[0].startswith("| level | satisfaction, 1 to 5 | finished, % |")
    assert wide[2].startswith("| 1 | 2.00 | 100.0 |") and wide[3].startswith("| 2 | – | 0.0 |")


def test_pairs_are_of_one_scenario_whatever_its_name():
    """The authors' two files call their records by the same numbers."""
    ours = rows(2.0, 3.0, 5.0, 4.0)
    others = [row | {"digest": "other"} for row in ours]
    with pytest.raises(ValueError, match="4 and 4 with 0 in common"):
        measures.compare_rows(FDS, ours, others, common=True)
    mixed = [*others[:2], *ours[2:]]
    assert measures.compare_rows(FDS, ours, mixed, common=True)["satisfaction"]["count"] == 2
    older = [{name: value for name, value in row.items() if name != "digest"} for row in ours]
    assert measures.compare_rows(FDS, older, others)["satisfaction"]["count"] == 4


def test_a_scenario_that_comes_again_is_paired_in_the_order_of_the_rows():
    def again(*outcomes):
        played = [dialogue(turn(), name="s", outcome=outcome) for outcome in outcomes]
        return [measures.describe_dialogue(FDS, 1000, one, {}) for one in played]

    ours, theirs = again(5.0, 1.0, 3.0), again(4.0, 3.0, 3.0)
    satisfaction = measures.compare_rows(FDS, ours, theirs)["satisfaction"]
    assert (satisfaction["mean"], satisfaction["count"]) == (pytest.approx(-1 / 3), 3)  # of 1, -2 and 0
    assert satisfaction["low"] == satisfaction["high"] == satisfaction["mean"]  # of one scenario
    with pytest.raises(ValueError, match="got 3 and 2 with 2 in common"):
        measures.compare_rows(FDS, ours, theirs[:2])
    assert measures.compare_rows(FDS, ours, theirs[:2], common=True)["satisfaction"]["mean"] == -0.5


def test_every_measure_is_shown_in_its_unit():
    shown = {name: measures.format_value(FDS.measures[name], 0.5) for name in FDS.measures}
    rates = dict.fromkeys(("finish_rate", "voucher_rate", "failure_rate"), "50.0")
    scores = dict.fromkeys(("satisfaction", "communication", "logic", "compensation", "turns"), "0.50")
    assert shown == {**rates, **scores, "process_reward": "0.500", "tokens": "0.5"}


def test_tables_have_every_level_and_demand():
    assert [list(values) for values in FDS.groups.values()] == [[1, 2, 3, 4, 5], list(DEMANDS)]


def test_vouchers_are_measured_where_only_turns_are_held():
    turns_only = domains.load({"domain": "fds", "pid": {"target": {"turns": 2.8}}})
    assert [cost.name for cost in turns_only.costs] == ["turns"]
    played = dialogue(turn(0.5), turn(1.0, action="voucher"), outcome=4.0)
    played = dataclasses.replace(played, cost=np.array([2.0], np.float32))
    values = measures.describe_dialogue(turns_only, 7, played, {})["values"]
    assert values["voucher_rate"] == 1.0 and values["turns"] == 2.0
    assert summarize_batch(turns_only, [played])["voucher_rate"] == 1.0
