"""Grids of runs, and the command that makes them."""

import dataclasses
import json
import math
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cmpo.lab import grids
from cmpo.lab.learning import History
from cmpo.lab.plan import LabConfig
from rollouts.domain import Bound
from rollouts.domains.fds import rules
from tests.builders import commands

TINY = "steps=2 rests=1 scenarios=2 dialogues=2 max_turns=3 hidden=8"
LINE = Bound("", rules.COSTS[0], "satisfaction", "", np.array([0.0, 0.5]), np.array([2.0, 3.0]))


def test_every_value_goes_with_every_other():
    grid = grids.read_grid("target=0.15,0.3 credit=instant,dialogue seeds=20 press=true")
    assert grid.seeds == 20 and len(grid.configs) == 4
    assert grid.configs["target=0.15 credit=dialogue press=true"] == LabConfig(
        target=0.15, credit="dialogue", press=True
    )
    assert grids.read_grid("") == grids.Grid({"default": LabConfig()}, 1)


@pytest.mark.parametrize(
    "text, message",
    [
        ("tarjet=1", "unknown key 'tarjet'; expected KEY=VALUE,… of target, kp, .*seeds"),
        ("target", "target: expected KEY=VALUE,VALUE, got 'target'"),
        ("target=0.1,", "target: expected KEY=VALUE,VALUE, got 'target=0.1,'"),
        ("target=a", "target: expected a number, got 'a'"),
        ("steps=2.5", "steps: expected a whole number, got '2.5'"),
        ("press=1", "press: expected true or false, got '1'"),
        ("target=0.1 target=0.2", "target: expected once"),
        ("target=0.1,0.10", "target: expected values that differ"),
        ("target=0.1,0.1000000001", "target: expected values that differ"),
        ("seeds=2,3", r"seeds: expected one number of seeds, 1 or more, got \[2, 3\]"),
        ("seeds=0", r"seeds: expected one number of seeds, 1 or more, got \[0\]"),
        ("credit=instant,never", "credit: expected one of .*got 'never'"),
        ("target=0.5,2", "target: expected a finite number from 0.0 to 1.0, got 2.0"),
    ],
)
def test_refuses_a_grid_that_cannot_be_made(text, message):
    with pytest.raises(ValueError, match=f"^--grid: {message}"):
        grids.read_grid(text)


def train_fake(config, seed, start):
    """A run in which nothing is computed: its numbers say by which settings, seed and start it was made."""
    steps = jnp.arange(config.steps + config.rests)
    told = (config.target + 10 * seed + 100 * (config.credit == "instant") + steps, config.kp + 0 * steps)
    return History(*told, *[start + 0 * steps] * (len(History._fields) - 3), policy=start)


def test_runs_of_a_grid_are_those_of_their_settings_and_seeds():
    """In chunks, the last of which is filled up; two programs, for what compiles."""
    grid = grids.read_grid("target=0.1,0.9 credit=instant,cost_to_go kp=1,2 steps=3 rests=1 seeds=3")
    programs = []
    with (
        mock.patch.object(grids, "CHUNK", 5),
        mock.patch.object(grids, "make_start", lambda config: jnp.float32(config.hidden)),
        mock.patch.object(grids, "train", lambda *given: programs.append(given) or train_fake(*given)),
    ):
        found = grids.run_grid(grid)
    assert list(found) == list(grid.configs) and len(found) == 8 and len(programs) == 2
    for name, config in grid.configs.items():
        alone = [train_fake(config, seed, jnp.float32(config.hidden)) for seed in range(3)]
        expected = jax.tree.map(lambda *x: np.stack(x), *alone)
        for one, other in zip(jax.tree.leaves(found[name]), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-6, err_msg=name)


def make_history(rates, lambdas, satisfaction):
    """Two seeds of five steps and two rests."""
    whole = {name: jnp.zeros((2, 7)) for name in History._fields}
    whole |= {"voucher_rate": np.array(rates), "lambdas": np.array(lambdas), "satisfaction": np.array(satisfaction)}
    return History(**whole)


def test_findings_by_hand():
    config = LabConfig(target=0.3, steps=5, rests=2)
    rates = [[9, 9, 9, 9, 0.4, 0.30, 0.32], [9, 9, 9, 9, 0.2, 0.25, 0.25]]
    lambdas = [[9, 9, 9, 9, 1.0, 5, 5], [9, 9, 9, 9, 2.0, 5, 5]]
    history = make_history(rates, lambdas, [[9] * 5 + [2.0, 3.0], [9] * 5 + [2.0, 2.0]])
    found = grids.summarize_runs("one", config, history, LINE)
    assert found.rate == pytest.approx(0.3) and found.rate_deviation == pytest.approx(0.1)
    assert found.ended == pytest.approx(0.28) and found.lambdas == pytest.approx(1.5)
    assert found.miss == pytest.approx((0.01 + 0.05) / 2) and found.near == 0.5
    assert found.satisfaction == pytest.approx(2.25)
    assert found.gain == pytest.approx(0.25 / 0.56)  # 2.56 is to be had at 28 %
    table = grids.format_findings([found])
    assert "| one | 30 | 30.0 ± 10.0 | 28.0 | 3.0 | 50 | 1.50 | 2.250 |" in table
    without = grids.summarize_runs("one", dataclasses.replace(config, steps=7, rests=0), history, LINE)
    assert math.isnan(without.ended) and without.rate == pytest.approx((0.32 + 0.25) / 2)


def test_the_command_prints_a_table_and_writes_the_curves_as_json(tmp_path):
    """A run whose parameters grow beyond float32 has no numbers that JSON does not know."""
    out = tmp_path / "deep" / "lab.json"
    done = commands.run("cmpo.lab", f"--grid={TINY} learning_rate=0.02,3e38 seeds=2", f"--out={out}")
    assert done.returncode == 0, done.stderr
    assert "| steps=2" in done.stdout and str(out) in done.stdout
    written = json.loads(out.read_text(), parse_constant=pytest.fail)
    assert [one["config"]["learning_rate"] for one in written] == [0.02, 3e38] and written[0]["seeds"] == 2
    assert written[0]["config"]["hidden"] == 8 and set(written[0]["curves"]) == set(History._fields) - {"policy"}
    assert len(written[0]["curves"]["lambdas"]["mean"]) == 3
    assert written[0]["curves"]["lambdas"]["mean"][0] == 1.0
    assert None in written[1]["curves"]["kl"]["mean"]


def test_the_command_refuses_a_misspelt_grid_before_it_computes(tmp_path):
    with mock.patch("cmpo.lab.grids.run_grid", side_effect=AssertionError):
        done = commands.run("cmpo.lab", "--grid=tarjet=0.2", f"--out={tmp_path / 'lab.json'}")
        assert done.returncode == 1 and done.stderr.startswith("error: --grid: unknown key 'tarjet'")
    assert not (tmp_path / "lab.json").exists()
    assert "--grid" in commands.run("cmpo.lab").stderr
