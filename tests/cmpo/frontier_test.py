"""Measures beside the frontier, by hand, and the command that draws it."""

import json
import math

import numpy as np
import pytest

from cmpo import frontier
from rollouts.domain import Bound
from rollouts.domains.fds import rules
from rollouts.domains.fds.embedded import oracle
from tests.builders import commands
from tests.builders.evaluations import evaluation

LINE = Bound("", rules.COSTS[0], "satisfaction", "", np.array([0.0, 0.2, 0.6]), np.array([2.0, 3.0, 3.4]))


def test_the_share_of_the_gain_by_hand():
    assert LINE.measure_gain_share(0.1, 2.25) == pytest.approx(0.5)  # 2.5 is to be had there
    assert LINE.measure_gain_share(0.9, 2.7) == pytest.approx(0.5)  # level behind the last point
    assert LINE.measure_gain_share(0.4, 1.4) == pytest.approx(-0.5)  # (1.4 - 2) / (3.2 - 2)
    assert math.isnan(LINE.measure_gain_share(0.0, 2.0))


def test_hypervolume_by_hand():
    assert frontier.measure_hypervolume([(0.25, 3.0)]) == pytest.approx(0.75 * 2.0)
    two = [(0.5, 4.0), (0.25, 3.0)]
    assert frontier.measure_hypervolume(two) == pytest.approx(0.25 * 2.0 + 0.5 * 3.0)
    dominated = [(0.75, 3.5), (0.5, 2.0), (0.3, 3.0)]
    assert frontier.measure_hypervolume(two + dominated) == frontier.measure_hypervolume(two)
    assert frontier.measure_hypervolume([(1.0, 5.0), (0.2, 0.9)]) == 0.0
    assert frontier.measure_hypervolume([]) == 0.0
    # trapezoids of heights 1..2 over 0.2 and 2..2.4 over 0.4, and 2.4 over the rest
    assert frontier.measure_bound_hypervolume(LINE) == pytest.approx(0.2 * 1.5 + 0.4 * 2.2 + 0.4 * 2.4)


def test_many_agents_on_the_frontier_fill_its_hypervolume():
    points = [(rate, LINE.best_at(rate)) for rate in np.linspace(0, 1, 2001)]
    filled = frontier.measure_hypervolume(points)
    assert filled < frontier.measure_bound_hypervolume(LINE)
    assert filled == pytest.approx(frontier.measure_bound_hypervolume(LINE), abs=1e-3)


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_the_command_draws_every_agent(tmp_path, ending):
    for name, rate, satisfaction in (("never", 0.0, 2.43), ("policy", 0.316, 2.915)):
        (tmp_path / f"{name}.json").write_text(json.dumps(evaluation(name, rate, satisfaction)))
    out = tmp_path / f"frontier.{ending}"
    done = commands.run("cmpo.frontier", tmp_path / "never.json", f"CMPO={tmp_path / 'policy.json'}", f"--out={out}")
    assert done.returncode == 0
    best = oracle.compute_frontier("hard").satisfaction_at(0.316)
    assert f"| CMPO | 31.6% | 2.915 | {best:.3f} | {best - 2.915:.3f} |" in done.stdout
    assert "| never | 0.0% |" in done.stdout
    if ending == "svg":
        text = out.read_text()
        assert text.lstrip().startswith("<?xml") and all(f">{name}<" in text for name in ("never", "CMPO"))
    else:
        assert out.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{}", "found no sound agent"),
        (json.dumps(evaluation("x", 0.1, 2.0, **{"user.url": "http://127.0.0.1:1/v1"})), "the embedded user"),
        (json.dumps(evaluation("x", 0.1, 2.0, **{"data.path": "train.parquet"})), "scenarios of the generator"),
        (json.dumps(evaluation("x", None, None)), "a dialogue that did not fail"),
        (json.dumps(evaluation("x", 0.1, 2.0, **{"episode.max_turns": 6})), "config.episode.max_turns of 9 or more"),
        (json.dumps(evaluation("x", 0.1, 2.0, **{"data.difficulty": "normal"})), "--difficulty=hard"),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path, content, reason):
    path = tmp_path / "e.json"
    path.write_text(content)
    done = commands.run("cmpo.frontier", path)
    assert done.returncode == 1 and reason in done.stderr


def test_a_missing_file_is_one_line(tmp_path):
    for name in (str(tmp_path / "lr=3e-4" / "none.json"), f"CMPO={tmp_path / 'none.json'}"):
        told = f"error: {name}: expected PATH or NAME=PATH, found no such file\n"
        assert commands.run("cmpo.frontier", name) == (1, "", told)


def test_a_path_may_have_an_equals_sign_in_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / "runs" / "lr=3e-4" / "e.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(evaluation("me", 0.0, 2.43)))
    for argument, name in (
        ("runs/lr=3e-4/e.json", "me"),
        ("CMPO=runs/lr=3e-4/e.json", "CMPO"),
        ("lr=3e-4=runs/lr=3e-4/e.json", "lr=3e-4"),
        ("=runs/lr=3e-4/e.json", "me"),
        ("~/runs/lr=3e-4/e.json", "me"),
        ("a/b=~/runs/lr=3e-4/e.json", "a/b"),
    ):
        done = commands.run("cmpo.frontier", argument, folder=tmp_path)
        assert done.returncode == 0 and f"| {name} | 0.0% | 2.430 |" in done.stdout
    (tmp_path / "a=b.json").write_text(json.dumps(evaluation("whole", 0.0, 2.43)))
    (tmp_path / "b.json").write_text(json.dumps(evaluation("part", 0.0, 2.43)))
    done = commands.run("cmpo.frontier", "a=b.json", "c=b.json", folder=tmp_path)  # a file as a whole is a path
    assert done.returncode == 0 and "| whole |" in done.stdout and "| c |" in done.stdout


def test_two_of_one_name_are_told_apart_or_refused(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.json").write_text(json.dumps(evaluation("policy", 0.0, 2.43)))
    a, b = str(tmp_path / "a.json"), str(tmp_path / "b.json")
    refused = commands.run("cmpo.frontier", a, b)
    told = f"error: {b}: another evaluation is called 'policy'; give each a name"
    assert refused.returncode == 1 and refused.stderr.startswith(told)
    assert commands.run("cmpo.frontier", a, f"second={b}").returncode == 0
