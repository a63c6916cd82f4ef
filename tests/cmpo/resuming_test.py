"""Runs that stop: they resume to the bit, say why they stopped, and lose nothing."""

import asyncio
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import chex
import numpy as np
import pytest
from ml_collections import ConfigDict

from cmpo import main
from cmpo.cli import agents
from cmpo.run import journal, lock
from cmpo.run import workdir as workdirs
from cmpo.run.checkpoint import Checkpoints
from cmpo.run.log import read_metrics
from cmpo.training import collecting
from rollouts.endpoints.client import BudgetReached, ChatClient
from rollouts.types import DialogueError
from tests.builders.runs import ROOT, assert_same_run, tiny


def test_budgets_may_be_chosen_until_phase_2_begins_and_whoever_serves_the_policy_need_not_know_them(tmp_path):
    config = tiny(**{"train.rl_steps": 1})
    with config.ignore_type():
        config.pid.target = ConfigDict({"voucher": 0.3, "turns": 2.0})
    main.train(tiny(**{"train.rl_steps": 0}), tmp_path)
    assert main.train(config, tmp_path).memory.lambdas.shape == (2,)
    for known in (tiny(), workdirs.load_config(tmp_path)):
        assert agents.load_policy(known, tmp_path)[1] == 3
    with pytest.raises(workdirs.ConfigConflict, match="pid.target is None there, 0.3 here"):
        main.train(tiny(), tmp_path)


def test_a_run_from_before_there_were_domains_goes_on_and_has_its_page(whole_run, tmp_path):
    shutil.copytree(whole_run[0], tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    del config["domain"]
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    for path in (tmp_path / "run" / "transcripts").iterdir():
        path.write_text(path.read_text().replace('"task"', '"scenario"'))
    state = main.train(tiny(), tmp_path / "run")
    chex.assert_trees_all_equal(state, whole_run[1])


def test_interrupted_between_steps_and_resumed_equals_uninterrupted(whole_run, tmp_path, monkeypatch):
    step = main.Trainer.sft_step

    def interrupted(self, now):
        os.kill(os.getpid(), signal.SIGINT)
        return step(self, now)

    with monkeypatch.context() as patch:
        patch.setattr(main.Trainer, "sft_step", interrupted)
        assert int(main.train(tiny(), tmp_path).step) == 1
    assert [record["step"] for record in read_metrics(tmp_path)] == [1]
    resumed = main.train(tiny(), tmp_path)
    assert_same_run(tmp_path, resumed, *whole_run)


def test_stopped_amid_dialogues_by_a_signal_then_by_an_endpoint_keeps_those_that_ended(
    whole_run, tmp_path, monkeypatch
):
    """No checkpoint of phase 2 but those that the stops make, in its second step."""
    add, chat, begun, ended, failing = journal.Page.add, ChatClient.chat, [], [], []

    async def answering(client, messages, *, seed):
        """Of the second step, after 8 demonstrations and 8 dialogues of the first, three dialogues get to an end."""
        if client._name == "user" and len(messages) == 2:
            begun.append(seed)
            if len(begun) > 8 + 8 + 3:
                await asyncio.sleep(3600)
        return await chat(client, messages, seed=seed)

    def interrupting(page, number, dialogue):
        add(page, number, dialogue)
        ended.append(number)
        if len(ended) == 8 + 8 + 3:
            os.kill(os.getpid(), signal.SIGTERM)

    async def unanswered(client, messages, *, seed):
        failing.append(seed)
        raise DialogueError("user_http_503", "config.user.url answered 503: overloaded")

    config = tiny(**LATE)
    with monkeypatch.context() as patch:
        patch.setattr(journal.Page, "add", interrupting)
        patch.setattr(ChatClient, "chat", answering)
        state = main.train(config, tmp_path)
    assert int(state.step) == 3 and int(state.cursor) == 2 and len(ended) == 8 + 8 + 3
    with monkeypatch.context() as patch:
        patch.setattr(ChatClient, "chat", unanswered)
        last_words = r"5 of 8 dialogues failed \(5 user_http_503\); the last: .* answered 503: overloaded"
        with pytest.raises(collecting.RolloutsFailed, match=last_words) as stopped:
            main.train(config, tmp_path)
    assert stopped.value.__notes__ == ["(3 of 4 steps are saved; the same command goes on from there)"]
    assert len(failing) == 2 * 5 and len(set(failing)) == 5  # each was played again, once
    monkeypatch.setattr(journal.Page, "add", lambda page, number, dialogue: ended.append(number))
    assert_same_run(tmp_path, main.train(config, tmp_path), *whole_run)
    assert sorted(ended[16:]) == list(range(8))
    assert list((tmp_path / "dialogues").iterdir()) == []


def test_killed_at_random_and_resumed_equals_uninterrupted(whole_run, tmp_path):
    """SIGKILL, with no checkpoint of phase 2 before its end; the process holds the workdir as long as it lives."""
    moments, command = random.Random(7), [sys.executable, "-c", KILLED, tmp_path / "run"]
    cache = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "1000"}  # read it, but leave nothing there half written
    for lines in (moments.randint(1, 2), moments.randint(2, 3), None):
        process = subprocess.Popen(command, cwd=ROOT, env=os.environ | cache, stderr=subprocess.PIPE, text=True)
        try:
            while lines and process.poll() is None and not underway(tmp_path / "run", process.pid, lines):
                time.sleep(0.01)
            time.sleep(moments.random() if lines else 0)
            process.send_signal(signal.SIGSTOP if lines else signal.SIGCONT)
            if lines and process.poll() is None:
                with pytest.raises(lock.WorkdirInUse, match=f"is in use by process {process.pid} "):
                    main.train(tiny(**LATE), tmp_path / "run")
                process.kill()
            _, errors = process.communicate(timeout=240)
            assert process.returncode in (0, -signal.SIGKILL), errors
        finally:
            process.kill()
    resumed = main.train(tiny(**LATE), tmp_path / "run")  # is done: restores the end
    assert_same_run(tmp_path / "run", resumed, *whole_run)


LATE = {"train.checkpoint_every": 9}


KILLED = """
import pathlib, sys
from tests import conftest
from tests.builders import runs
from tests.cmpo import resuming_test
from cmpo import main
main.train(runs.tiny(**resuming_test.LATE), pathlib.Path(sys.argv[1]))
"""


def underway(workdir, pid, lines):
    """Whether the process is in charge of the run and so many steps are booked."""
    held, booked = workdir / "lock", workdir / "metrics.jsonl"
    return booked.exists() and f"process {pid} " in held.read_text() and booked.read_text().count("\n") >= lines


def test_updates_that_are_never_finite_stop_the_run_and_leave_the_model(tmp_path):
    steps = {"train.sft_steps": 0, "train.rl_steps": 9, "train.max_skipped": 2}
    config = tiny(**steps, **{"algo.outcome_weight": 1e39})  # beyond float32
    with pytest.raises(FloatingPointError, match="the updates of 2 steps in a row, up to 2, were skipped"):
        main.train(config, tmp_path)
    records = read_metrics(tmp_path)
    assert [record["updates_skipped"] for record in records] == [1, 1] and records[0]["loss"] is None
    with Checkpoints(tmp_path) as checkpoints:
        saved = checkpoints._manager.restore(2)
    chex.assert_trees_all_equal(saved["policy"]["params"], saved["reference"])
    assert saved["memory"]["smoothed_cost"] == np.float32(0.3) and saved["skipped"] == 2 and saved["cursor"] == 4


def test_a_finished_run_says_so_and_changes_nothing(whole_run, capsys):
    workdir, state = whole_run
    before = (workdir / "metrics.jsonl").read_bytes()
    chex.assert_trees_all_equal(main.train(tiny(), workdir), state)
    assert "all 4 steps are done" in capsys.readouterr().out
    assert (workdir / "metrics.jsonl").read_bytes() == before


def test_another_config_is_refused(whole_run):
    workdir, _ = whole_run
    before = (workdir / "config.json").read_bytes()
    with pytest.raises(workdirs.ConfigConflict, match=r"another config \(pid.target is 0.3 there, 0.5 here\)"):
        main.train(tiny(**{"pid.target": 0.5}), workdir)
    assert (workdir / "config.json").read_bytes() == before


def test_an_unreachable_endpoint_stops_the_run_and_is_named(tmp_path):
    config = tiny(**{"user.url": "http://127.0.0.1:9/v1", "user.retries": 0})
    with pytest.raises(
        collecting.RolloutsFailed, match=r"8 of 8 dialogues failed \(8 user_unreachable\).*config.user.url"
    ):
        main.train(config, tmp_path)
    assert not (tmp_path / "demonstrations.jsonl").exists() and not (tmp_path / "metrics.jsonl").exists()


def test_a_budget_that_is_reached_stops_the_run_saves_and_may_be_raised(whole_run, tmp_path):
    before, _ = whole_run
    workdir = tmp_path / "run"
    shutil.copytree(before, workdir)
    shutil.rmtree(workdir / "checkpoints" / "4")
    calls = read_metrics(before)[2]["spent"]["user_calls"]  # at the end of step 3
    (workdir / "spent" / "user-0.json").write_text(json.dumps({"calls": calls, "prompt_tokens": 0, "answer_tokens": 0}))
    with pytest.raises(BudgetReached, match=r"config.user.budget_calls: of \d+ .*raise it\n\(3 of 4 steps are saved"):
        main.train(tiny(**{"user.budget_calls": calls + 3}), workdir)
    assert [record["step"] for record in read_metrics(workdir)] == [1, 2, 3]
    assert json.loads((workdir / "spent" / "user-0.json").read_text())["calls"] == calls + 3
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["1", "2", "3"]
    raised = tiny(**{"user.budget_calls": calls + 100})
    workdirs.claim_workdir(workdir, raised)
    assert json.loads((workdir / "config.json").read_text()) == raised.to_dict()
