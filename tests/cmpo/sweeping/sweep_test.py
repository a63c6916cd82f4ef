"""Sweeps: what is planned, what is shared, what is done once, and what is said of those that fail."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from cmpo import sweep
from cmpo.run import lock, schema
from cmpo.sweeping import plan, table
from cmpo.sweeping.runner import RESULT, Runner, divide_cpus
from cmpo.training import build
from configs import ablations
from rollouts import domains
from tests.builders import commands
from tests.builders.dialogues import FDS
from tests.builders.evaluations import evaluation
from tests.builders.runs import ROOT

STUB = (sys.executable, str(ROOT / "tests" / "builders" / "sweep_stub.py"))
GRID = ablations.get_config("smoke")


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def runner(workdir, jobs=2):
    for seed, rate in enumerate((0.25, 0.5)):  # what the stub's evaluations are
        (workdir / f"result_{seed}.json").write_text(json.dumps(evaluation("policy", rate, 3.0)))
    return Runner(workdir, jobs=jobs, evaluation_seeds=2, python=STUB)


def calls(workdir):
    return (workdir / "calls").read_text().splitlines()


def test_runs_of_one_seed_share_phase_1_unless_they_change_it():
    runs = {run.name: run for run in plan.plan_runs(GRID, 2)}
    assert len(runs) == 2 * len(GRID.order) and next(iter(runs)) == "sft_0"
    first, second = runs["cmpo_0"].start, runs["cmpo_1"].start
    assert first != second
    assert {name: run.start for name, run in runs.items() if run.start not in (first, second)}.keys() == {
        "no_sft_0",
        "no_sft_1",
    }
    assert {name for name, run in runs.items() if run.start == first} == {
        f"{name}_0" for name in GRID.order if name != "no_sft"
    }


def test_a_search_of_learning_rates_gives_each_method_its_own_times_the_same_and_shares_phase_1_but_for_sft():
    runs = {run.label: run for run in plan.plan_runs(ablations.get_config("rates,smoke"), 1)}
    assert len(runs) == 3 * len(ablations.METHODS) and runs["ppo_slow"].source == "configs/fds.py:algo=ppo,smoke"
    found = {name: [runs[name + pace].config for pace in ("_slow", "", "_fast")] for name in ablations.METHODS}
    rates = {name: [config.train.learning_rate for config in three] for name, three in found.items() if name != "sft"}
    np.testing.assert_allclose(rates.pop("ppo"), [2.78e-5, 2.5e-4 / 3, 2.5e-4])
    assert set(map(tuple, rates.values())) == {(8.33e-5, 2.5e-4, 7.5e-4)}
    assert [config.sft.learning_rate for config in found["sft"]] == [1e-3, 3e-3, 9e-3]
    large = plan.plan_runs(ablations.get_config("rates,model=qwen2.5-0.5b"), 1, ["cmpo_slow", "cmpo_fast"])
    assert [run.config.train.learning_rate for run in large] == [3.33e-7, 3e-6]  # of 1e-6
    starts = {name: run.start for name, run in runs.items()}
    assert len(set(starts.values())) == 3 and starts["ppo_fast"] == starts["cmpo"] != starts["sft_fast"]


def test_the_grid_of_budgets_has_one_start_for_all_runs_of_a_seed():
    runs = {run.label: run for run in plan.plan_runs(ablations.get_config("budgets,smoke"), 1)}
    assert len({run.start for run in runs.values()}) == 1
    budgets = [run.config.pid.target for run in runs.values() if run.config.pid.enabled]
    assert budgets == [0.15, 0.3, 0.5, 0.3, 0.3]
    assert [run.config.pid.initial_lambda for run in runs.values() if not run.config.pid.enabled] == [
        *(0.3, 0.6, 0.9, 1.3, 2.0),
        0.0,
    ]
    assert [name for name, run in runs.items() if run.config.algo.credit == "dialogue"] == ["dialogue"]
    assert {run.config.train.rl_steps for run in runs.values()} == {4}
    with pytest.raises(ValueError, match="rates and budgets"):
        ablations.get_config("budgets,rates")


def test_what_a_run_changes_is_in_its_config_and_on_its_command_line():
    (run,) = plan.plan_runs(GRID, 1, ["budget_15"])
    assert (run.config.pid.target, run.config.algo.name, run.config.train.rl_steps) == (0.15, "cmpo", 4)
    assert plan.list_arguments(run, pathlib.Path("w")) == [
        "--config=configs/fds.py:algo=cmpo,smoke",
        "--workdir=w",
        "--config.pid.target=0.15",
        "--config.train.seed=0",
    ]


def test_every_run_of_the_grid_can_begin():
    for run in (*plan.plan_runs(ablations.get_config(), 1), *plan.plan_runs(ablations.get_config("budgets"), 1)):
        schema.check_config(run.config)
        build.load_algorithm(run.config, domains.load(run.config))


@pytest.mark.parametrize(
    ("changes", "only", "message"),
    [
        ((), ["nobody"], "--only: expected some of .*, got 'nobody'"),
        (("pid.targets=0.1",), [], "cmpo: expected FIELD=VALUE with a field of the config, got 'pid.targets=0.1'"),
    ],
)
def test_a_name_that_is_not_there_is_refused(changes, only, message):
    grid = {"base": "configs/fds.py", "order": ("cmpo",), "runs": {"cmpo": {"variant": "", "changes": changes}}}
    with pytest.raises(ValueError, match=message):
        plan.plan_runs(grid, 1, only)


def test_a_start_is_made_once_and_copied_and_a_failed_run_stops_nothing(tmp_path):
    runs = plan.plan_runs(GRID, 1, ["proportional_only", "cmpo", "grpo"])
    with runner(tmp_path) as made:
        failed = made.run_all(runs)
    assert failed == {"proportional_only_0": "will not do"}
    start = runs[0].start[:16]
    assert sorted(calls(tmp_path)) == sorted(
        [
            *[f"cmpo.main starts/{start} 0"] * 2,  # by what fails, and by the next
            *(f"{module} runs/{name}_0 " for name in ("cmpo", "grpo") for module in ("cmpo.main", "cmpo.evaluate")),
            "cmpo.main runs/proportional_only_0 ",
        ]
    )
    phases = [json.loads(line)["phase"] for line in (tmp_path / "runs/cmpo_0/metrics.jsonl").read_text().splitlines()]
    assert phases == ["sft", "rl"]  # that of the start came along
    with runner(tmp_path) as again:
        assert again.run_all(runs[1:]) == {}
    assert len(calls(tmp_path)) == 7  # nothing is done twice


def stop_amid(workdir):
    """Presses Ctrl-C once two runs are under way beside their start."""
    while not (workdir / "calls").exists() or len(calls(workdir)) < 3:
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGINT)


def test_stopped_amid_its_runs_it_goes_on(tmp_path):
    runs = plan.plan_runs(GRID, 1, ["cmpo", "grpo", "capo"])
    (tmp_path / "wait").touch()
    with runner(tmp_path, jobs=2) as made:
        threading.Thread(target=stop_amid, args=[tmp_path]).start()
        with pytest.raises(KeyboardInterrupt):
            made.run_all(runs)
    (tmp_path / "wait").unlink()
    with runner(tmp_path) as again:
        assert again.run_all(runs) == {}
    assert all((tmp_path / "runs" / run.name / RESULT).exists() for run in runs)


def test_cpus_are_divided_among_jobs(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2, 3, 5, 7}, raising=False)
    assert divide_cpus(1) == [{0, 2, 3, 5, 7}]
    assert divide_cpus(2) == [{0, 3, 7}, {2, 5}]
    assert divide_cpus(6) == [set()] * 6
    monkeypatch.delattr(os, "sched_getaffinity")
    assert divide_cpus(2) == [set(), set()]


@pytest.mark.skipif(len(divide_cpus(2)[1]) == 0, reason="two CPUs or more")
def test_what_runs_at_a_time_has_cpus_of_its_own(tmp_path):
    runs, seen = plan.plan_runs(GRID, 1, ["cmpo", "grpo"]), []
    (tmp_path / "wait").touch()

    def look():
        end = time.monotonic() + 300
        while time.monotonic() < end and seen not in (divide_cpus(2), divide_cpus(2)[::-1]):
            time.sleep(0.05)
            with contextlib.suppress(ProcessLookupError):  # the start has just ended
                seen[:] = [os.sched_getaffinity(child.pid) for child in list(made._children)]
        (tmp_path / "wait").unlink()

    with runner(tmp_path, jobs=2) as made:
        looking = threading.Thread(target=look)
        looking.start()
        assert made.run_all(runs) == {}
        looking.join()
    assert len(seen) == 2 and not seen[0] & seen[1]


SWEEP = """
import pathlib, sys
from tests.cmpo.sweeping import sweep_test
with sweep_test.runner(pathlib.Path(sys.argv[1])) as made:
    made.run_all(sweep_test.plan.plan_runs(sweep_test.GRID, 1, ["cmpo"]))
"""


def test_what_a_killed_sweep_left_under_way_is_waited_for(tmp_path, capsys):
    """The stub waits in its run; the sweep that started it is gone. Nothing is begun before it has ended."""
    (tmp_path / "wait").touch()
    killed = subprocess.Popen([sys.executable, "-c", SWEEP, tmp_path])
    while not (tmp_path / "calls").exists() or len(calls(tmp_path)) < 2:
        assert killed.poll() is None
        time.sleep(0.05)
    killed.kill()
    killed.wait()
    runs = plan.plan_runs(GRID, 1, ["cmpo"])
    with runner(tmp_path) as made:
        under_way = made._pool.submit(made.run_all, runs)
        time.sleep(0.3)
        assert not under_way.done() and len(calls(tmp_path)) == 2
        (tmp_path / "wait").unlink()
        assert under_way.result(60) == {} and made.is_done(runs[0])
    assert f"waiting for process {killed.pid} on " in capsys.readouterr().out


def test_a_sweep_that_waits_can_be_stopped(tmp_path):
    with lock.hold_lock(tmp_path), pytest.raises(KeyboardInterrupt):
        threading.Timer(0.3, os.kill, [os.getpid(), signal.SIGINT]).start()
        with runner(tmp_path) as made:
            made.run_all(plan.plan_runs(GRID, 1, ["cmpo"]))


def test_the_table_has_a_line_for_each_run_of_the_grid_and_its_deviation_over_training_seeds(tmp_path):
    runs = plan.plan_runs(GRID, 2, ["cmpo", "proportional_only"])
    with runner(tmp_path) as made:
        text = sweep.write_table(tmp_path, runs, made, made.run_all(runs))
    lines = json.loads((tmp_path / "sweep.json").read_text())
    # Rates of 25 and 50 %: 37.5 in the mean, 17.7 apart with n - 1.
    assert "| cmpo | 2 | 3.00 ± 0.00 |" in text and "37.5 ± 17.7" in text
    bound = FDS.bound_agents("hard")
    free = bound.best_at(0)
    gains = [(3.0 - free) / (bound.best_at(rate) - free) for rate in (0.25, 0.5)]
    assert lines[0]["mean"]["gain_share"] == pytest.approx(sum(gains) / 2) and "share of the gain, % |" in text
    assert "proportional_only_1 failed: will not do" in text and text + "\n" == (tmp_path / "sweep.md").read_text()
    assert [(line["label"], line["runs"]) for line in lines] == [("cmpo", 2), ("proportional_only", 0)]
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert "about 0 minutes" not in sweep.describe_work(runs, made)
    assert "2 of 4 runs are to do: 8 steps of phase 2" in sweep.describe_work(runs, made)


def test_curves_of_several_multipliers_are_those_of_the_first():
    figure = table.draw_lines(FDS, {"a": [{"step": 1, "lambda": {"voucher": 0.5, "turns": 2.0}}]})
    assert figure.axes[-1].lines[0].get_ydata()[0] == 0.5


def test_what_there_is_to_do_is_said_before_anything_is_done(tmp_path):
    said = commands.run(
        "cmpo.sweep", "--config=configs/ablations.py:smoke", f"--workdir={tmp_path / 'w'}", "--list", "--only=cmpo,ppo"
    )
    assert "2 of 2 runs are to do: 8 steps of phase 2, and 8 of phase 1 for 1 starts that are shared" in said.stdout
    said = commands.run(
        "cmpo.sweep", "--config=configs/ablations.py", f"--workdir={tmp_path / 'w'}", "--print_commands", "--only=ppo"
    )
    (line,) = said.stdout.splitlines()
    assert " -m cmpo.main --config=configs/fds.py:algo=ppo --workdir=" in line and " && " in line
    assert not (tmp_path / "w").exists()
