"""The whole loop, small: it trains, resumes to the bit, refuses what it should, and loses nothing."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import chex
import jax
import pytest
import uvicorn

from cmpo import evaluate, main, metrics, rollout, setup
from cmpo.checkpoint import Checkpoints
from models import tokenizer as tokenizers
from rollouts.client import BudgetReached
from rollouts.embedded.app import app
from tests.runs import ROOT, tiny

RELEASED = ROOT.parent / "shared" / "data" / "fds" / "hard" / "train.parquet"


def transcripts(workdir):
    return {path.name: path.read_text() for path in sorted((workdir / "transcripts").iterdir())}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run."""
    workdir = tmp_path_factory.mktemp("whole")
    return workdir, main.train(tiny(), workdir)


def test_a_run_leaves_what_the_design_names(whole):
    workdir, state = whole
    assert int(state.step) == 4 and int(state.cursor) == 4
    assert json.loads((workdir / "config.json").read_text()) == tiny().to_dict()
    records = metrics.read(workdir)
    assert [(record["step"], record["phase"]) for record in records] == [(1, "sft"), (2, "sft"), (3, "rl"), (4, "rl")]
    keys = """satisfaction process_reward finish_rate voucher_rate voucher_rate_smoothed lambda loss kl entropy
    clip_fraction grad_norm logprob_gap_max dialogues_ok dialogues_failed turns_mean
    new_tokens tokens_per_second spent seconds"""
    assert set(keys.split()) <= set(records[-1])
    assert list(transcripts(workdir)) == ["step_000003.jsonl", "step_000004.jsonl"]
    assert len(transcripts(workdir)["step_000003.jsonl"].splitlines()) == 2 * 4
    assert (workdir / "report.html").exists() and list((workdir / "tensorboard").iterdir())


def test_the_trainer_sees_the_log_probabilities_that_were_sampled(whole):
    workdir, _ = whole
    gaps = [record["logprob_gap_max"] for record in metrics.read(workdir) if record["phase"] == "rl"]
    assert len(gaps) == 2 and 0 < max(gaps) < 1e-4


def test_the_reference_is_the_end_of_phase_1_and_stays(whole):
    workdir, state = whole
    with Checkpoints(workdir, keep=4) as checkpoints:
        after_sft = checkpoints._manager.restore(2)["params"]
    chex.assert_trees_all_equal(state.reference, after_sft)
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), state.params, state.reference)
    assert any(jax.tree.leaves(changed))


@pytest.mark.parametrize("at", [1, 3])
def test_interrupted_and_resumed_equals_uninterrupted(whole, tmp_path, monkeypatch, at):
    before, state = whole
    step = main.Trainer.sft_step if at <= 2 else main.Trainer.rl_step

    def interrupted(self, now):
        if int(now.step) == at - 1:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, now)

    with monkeypatch.context() as patch:
        patch.setattr(main.Trainer, step.__name__, interrupted)
        assert int(main.train(tiny(), tmp_path).step) == at
    assert [record["step"] for record in metrics.read(tmp_path)] == list(range(1, at + 1))
    resumed = main.train(tiny(), tmp_path)
    chex.assert_trees_all_equal(resumed, state)
    assert transcripts(tmp_path) == transcripts(before)
    assert [record["step"] for record in metrics.read(tmp_path)] == [1, 2, 3, 4]


def test_a_finished_run_says_so_and_changes_nothing(whole, capsys):
    workdir, state = whole
    before = (workdir / "metrics.jsonl").read_bytes()
    chex.assert_trees_all_equal(main.train(tiny(), workdir), state)
    assert "all 4 steps are done" in capsys.readouterr().out
    assert (workdir / "metrics.jsonl").read_bytes() == before


def test_another_config_is_refused(whole):
    workdir, _ = whole
    before = (workdir / "config.json").read_bytes()
    with pytest.raises(setup.ConfigConflict, match=r"another config \(pid.target is 0.3 there, 0.5 here\)"):
        main.train(tiny(**{"pid.target": 0.5}), workdir)
    assert (workdir / "config.json").read_bytes() == before


def test_an_endpoint_over_http_gives_the_transcripts_of_the_one_in_process_and_so_does_a_replay(
    whole, tmp_path, monkeypatch
):
    workdir, state = whole
    monkeypatch.setenv("MAIN_TEST_KEY", "sk-test-0123456789abcdef")
    record = tmp_path / "record"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        url = f"http://127.0.0.1:{port}/v1"
        asked = {"user.url": url, "judge.url": url, "user.api_key_env": "MAIN_TEST_KEY"}
        remote = main.train(tiny(**asked, **{"endpoints.record": str(record)}), tmp_path / "run")
    finally:
        server.should_exit = True
        thread.join()
    assert transcripts(tmp_path / "run") == transcripts(workdir)
    chex.assert_trees_all_equal(remote.params, state.params)
    kept = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(kept) > 100 and not any(b"sk-test" in content for content in kept)

    replayed = main.train(tiny(**asked, **{"endpoints.replay": str(record)}), tmp_path / "replay")  # nobody is there
    assert transcripts(tmp_path / "replay") == transcripts(workdir)
    chex.assert_trees_all_equal(replayed, state)


def test_an_unreachable_endpoint_stops_the_run_and_is_named(tmp_path):
    config = tiny(**{"user.url": "http://127.0.0.1:9/v1", "user.retries": 0})
    with pytest.raises(
        rollout.RolloutsFailed, match=r"8 of 8 dialogues failed \(8 user_unreachable\).*config.user.url"
    ):
        main.train(config, tmp_path)
    assert not (tmp_path / "demonstrations.jsonl").exists() and not (tmp_path / "metrics.jsonl").exists()


def test_a_budget_that_is_reached_stops_the_run_saves_and_may_be_raised(whole, tmp_path):
    before, _ = whole
    workdir = tmp_path / "run"
    shutil.copytree(before, workdir)
    shutil.rmtree(workdir / "checkpoints" / "4")
    calls = metrics.read(before)[2]["spent"]["user_calls"]  # at the end of step 3
    (workdir / "spent" / "user-0.json").write_text(json.dumps({"calls": calls, "prompt_tokens": 0, "answer_tokens": 0}))
    with pytest.raises(BudgetReached, match=r"config.user.budget_calls: of \d+ .*\. 3 of 4 steps are done and saved"):
        main.train(tiny(**{"user.budget_calls": calls + 3}), workdir)
    assert [record["step"] for record in metrics.read(workdir)] == [1, 2, 3]
    assert json.loads((workdir / "spent" / "user-0.json").read_text())["calls"] == calls + 3
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["1", "2", "3"]
    raised = tiny(**{"user.budget_calls": calls + 100})
    setup.claim(workdir, raised)
    assert json.loads((workdir / "config.json").read_text()) == raised.to_dict()


def test_a_prompt_beyond_the_context_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"config.model.context_length: the prompt of scenario hard-train-0-\d+ has"):
        main.train(tiny(**{"model.context_length": 64, "train.sft_steps": 0}), tmp_path)


@pytest.mark.skipif(not RELEASED.exists(), reason=f"the authors' data is not at {RELEASED}")
def test_the_released_prompts_and_personas_train(tmp_path):
    state = main.train(tiny(**{"data.path": str(RELEASED), "model.vocab_size": 1200}), tmp_path)
    assert int(state.step) == 4
    dialogue = json.loads(transcripts(tmp_path)["step_000004.jsonl"].splitlines()[0])
    assert dialogue["scenario"]["id"].startswith("train-")


def run(*arguments):
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config=configs/fds.py:smok"], "error: ValueError: unknown variant 'smok'; expected one of ['smoke'"),
        (["--config=configs/none.py"], "No such file or directory: 'configs/none.py'"),
        (
            ["--config=configs/fds.py:smoke", "--config.pid.targett=0.2"],
            "error: --config: no such field: 'targett' Did you",
        ),
        (
            ["--config=configs/fds.py:smoke", "--config.data.path=none.parquet"],
            "error: config.data.path: expected a parquet",
        ),
        (
            ["--config=configs/fds.py:smoke", "--config.user.url=ftp://x"],
            "error: config.user.url: expected 'embedded' or http",
        ),
    ],
)
def test_bad_input_on_the_command_line(tmp_path, arguments, message):
    done = run("cmpo.main", *arguments, f"--workdir={tmp_path / 'run'}")
    assert done.returncode != 0 and message in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_evaluate_policy_and_start(whole):
    workdir, state = whole
    for start, params in ((False, state.params), (True, state.reference)):
        agents, step = evaluate.load_policy(tiny(), workdir, start=start)
        assert step == 4
        records = evaluate.evaluate(tiny(), agents, seeds=2)
        assert [record["seed"] for record in records] == [1000, 1001]
        assert all(record["dialogues_ok"] == 8 for record in records)
        again, _ = evaluate.load_policy(tiny(), workdir, start=start)
        assert evaluate.evaluate(tiny(), again, seeds=1)[0]["new_tokens"] == records[0]["new_tokens"]
        assert tokenizers.load(workdir / "tokenizer").vocab_size == params["embed"]["embedding"].shape[0]


def test_evaluate_scripted_agents_by_the_table():
    config = tiny(**{"eval.scenarios": 64})
    never, always = (
        evaluate.evaluate(config, rollout.scripted_agents(name), seeds=1)[0] for name in ("never", "always")
    )
    assert never["voucher_rate"] == 0 and always["voucher_rate"] > 0.9
    assert always["satisfaction"] > never["satisfaction"]


def test_summary_by_hand():
    record = dict.fromkeys(evaluate.MEASURES, 0.0)
    summary = evaluate.summarize([{**record, "satisfaction": 2.0}, {**record, "satisfaction": 4.0}])
    assert summary["satisfaction"] == {"mean": 3.0, "std": pytest.approx(2**0.5)}  # sqrt(((-1)^2 + 1^2) / (2 - 1))
    assert evaluate.summarize([record])["satisfaction"]["std"] == 0.0
    assert "| satisfaction | 3.000 | 1.414 |" in evaluate.table("x", summary, 2)


def test_evaluate_needs_a_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="--workdir"):
        evaluate.load_policy(tiny(), tmp_path)
