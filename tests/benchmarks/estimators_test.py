"""The tables of estimators: whole runs stand beside their estimator, and shares only where they say much."""

import json

import pytest

from benchmarks import estimators
from cmpo.lab.estimators import Agreement


def record(name, objective, **changes):
    said = Agreement(0.5, 0.01, 0.9, 0.87, 3.0, 0.2, 1.4)
    place = {"steps": 20, "dialogues": 4, "estimator": name, "price": 1.0, "objective": objective}
    assert not set(place) & set(Agreement._fields)
    return place | said._asdict() | changes


def write_run(path, credit, normalize, ended):
    run = {"ended": ended, "miss": 0.021, "gain": 0.47, "config": {"credit": credit, "normalize": normalize}}
    path.write_text(json.dumps([run]))
    return path


def test_whole_runs_stand_beside_their_estimator(tmp_path):
    files = [
        write_run(tmp_path / "one.json", "cost_to_go", "center", 0.31),
        write_run(tmp_path / "two.json", "instant", "group", 0.02),
    ]
    names = "cost_to_go, center", "instant, group", "gae, trace 0.95"
    records = [record(name, "mean") for name in names] + [record(name, "sum", cosine=0.9) for name in names]
    records.append(record(names[0], "mean", price=2.0))  # not shown
    lines = estimators.format_estimators(records, estimators.read_runs(files)).splitlines()[2:]
    same = "| 0.50 ± 0.01 | 0.90 | 87 | 3.0 | 0.20 | 1.40 |"
    assert lines == [
        f"| cost_to_go, center {same} 31.0 | 2.1 | 47 |",
        f"| instant, group {same} 2.0 | 2.1 | – |",
        f"| gae, trace 0.95 {same} – | – | – |",
    ]


def test_what_is_infinite_is_null_in_the_file(tmp_path):
    estimators.write(tmp_path / "found.json", {"noise": float("inf"), "cosine": float("nan"), "size": 1.0})
    assert json.loads((tmp_path / "found.json").read_text()) == {"noise": None, "cosine": None, "size": 1.0}


def test_turns_that_were_left_out_are_an_error():
    estimators.check_complete(0)
    with pytest.raises(RuntimeError, match="3 were left out"):
        estimators.check_complete(3)
