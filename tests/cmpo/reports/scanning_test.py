"""What scanners find in the agent's words, and where they say it is."""

from types import SimpleNamespace

import pytest

from cmpo.reports import describing, run_page, scanning
from cmpo.run.log import RunLog
from tests.builders.dialogues import COSTS, FDS, dialogue, task, turn
from tests.builders.run_pages import STEPS, RunPage, write_run


def groups(*dialogues):
    """One group of dialogues, each given as what the agent says, with the faults of each turn after a bar."""
    return [{"dialogues": [{"turns": [describe(*said.split("|")) for said in replies]} for replies in dialogues]}]


def describe(said, *faults):
    return {"said": said, "raw": "", "faults": list(faults)}


def test_patterns_are_found_whatever_their_case_with_their_places():
    scanners = scanning.make_scanners({"money": "refund|money back"}, "--scan")
    batch = groups(["No.", "A REFUND."], ["Money back?", "refund"], ["Sorry."])
    (places,) = scanning.scan_groups(scanners, [*groups(["No."]), *batch])
    assert places == [[2, 1, 2], [2, 2, 1], [2, 2, 2]] and scanning.count_dialogues(places) == 2


def test_a_copy_is_of_an_earlier_turn_of_the_same_dialogue():
    found = scanning.scan_groups([scanning.COPIES], groups(["a", "b", "a", "a"], ["b", "", ""]))
    assert found == [[[1, 1, 3], [1, 1, 4]]]


def test_faults_are_found_where_the_domain_finds_them():
    found = scanning.scan_groups(scanning.make_fault_scanners(["lie", "rude"]), groups(["a", "b|lie"], ["c|rude|lie"]))
    assert found == [[[1, 1, 2], [1, 2, 1]], [[1, 2, 1]]]


def test_a_run_has_the_scanners_of_the_user_the_domain_and_all(monkeypatch):
    monkeypatch.setattr(type(FDS), "patterns", {"vow": "I vow"})
    monkeypatch.setattr(type(FDS), "faults", ("lie",))
    names = [scanner.name for scanner in describing.list_scanners(SimpleNamespace(domain=FDS), ["a|b"])]
    assert names == ["a|b", "lie", "vow", "copy of an earlier turn"]
    monkeypatch.setattr(type(FDS), "patterns", {"promise": "("})
    with pytest.raises(ValueError, match="the domain's patterns: expected a regular expression"):
        describing.list_scanners(SimpleNamespace(domain=FDS), [])


def test_the_page_has_counts_by_step_and_a_curve(tmp_path):
    folder = write_run(tmp_path / "run")
    page = RunPage(run_page.write_report(folder, scans=["a voucher for step [45]", "<script>"]))
    (voucher, script), copies = page.run["scans"][:2], page.run["scans"][-1]
    assert voucher["counts"] == {"4": [1, 1], "5": [1, 1]} and voucher["links"]["4"] == [[1, 2, 2]]
    assert script["counts"]["3"] == [1, 2] and copies["counts"] == {}
    assert page.column("scans.a voucher for step [45]") == {3: 0.0, 4: 0.25, 5: 0.25}
    assert len(STEPS) == 3 and "Dialogues with what the scanners look for" in page.panels()


def test_the_domain_finds_a_promise_and_a_wrong_fact_in_a_run(tmp_path):
    folder = write_run(tmp_path / "run")
    said = turn(response="Your refund will arrive tomorrow.", events=["promise"]), turn(events=["listen"])
    wrong = turn(response="You ordered sushi.", events=["wrong_fact"]), turn(action="")
    played = [dialogue(*said, task=task("a")), dialogue(*wrong, task=task("b"))]
    RunLog(folder, COSTS).write_transcripts(4, played)
    page = RunPage(run_page.write_report(folder))
    scans = {scan["name"]: scan for scan in page.run["scans"]}
    assert scans["promise that cannot be kept"]["links"]["4"] == [[1, 1, 1]]
    assert scans["wrong fact"]["links"]["4"] == [[2, 1, 1]] and scans["admission of fault"]["links"] == {}
    assert page.column("scans.wrong fact")[4] == 0.5
    turns = [one["turns"] for group in page.groups("4") for one in group["dialogues"]]
    assert [[each["faults"] for each in of_dialogue] for of_dialogue in turns] == [
        [["promise that cannot be kept"], []],
        [["wrong fact"], []],
    ]


def test_only_the_first_places_of_a_batch_are_links():
    many = groups(*[["x"]] * 99)
    (described,) = scanning.describe_findings(
        scanners := scanning.make_scanners({"x": "x"}, ""), {"7": scanning.scan_groups(scanners, many)}
    )
    assert described["counts"] == {"7": [99, 99]} and len(described["links"]["7"]) < 99
