"""The whole loop, small: what a run leaves and what it refuses, and who asks for its policy."""

import json
import socket
import subprocess
import sys
import threading
import time

import chex
import jax
import numpy as np
import pytest
import uvicorn
from ml_collections import ConfigDict
from pyarrow import parquet

from cmpo import evaluate, main
from cmpo.cli import agents, command
from cmpo.run import schema
from cmpo.run.checkpoint import Checkpoints
from cmpo.run.log import read_metrics
from cmpo.training import build, collecting
from cmpo.training.learner import Learner
from models import tokenizer as tokenizers
from rollouts.domains.fds.embedded.app import app
from tests.builders import commands
from tests.builders.run_pages import RunPage
from tests.builders.runs import ROOT, mesh_maker, tiny, transcripts

RELEASED = ROOT.parent / "shared" / "data" / "fds" / "hard" / "train.parquet"


def test_a_run_leaves_what_the_design_names(whole_run):
    workdir, state = whole_run
    assert int(state.step) == 4 and int(state.cursor) == 4
    assert json.loads((workdir / "config.json").read_text()) == tiny().to_dict()
    records = read_metrics(workdir)
    assert [(record["step"], record["phase"]) for record in records] == [(1, "sft"), (2, "sft"), (3, "rl"), (4, "rl")]
    keys = """satisfaction process_reward finish_rate voucher_rate voucher_rate_smoothed lambda loss kl entropy
    clip_fraction grad_norm logprob_gap_max dialogues_ok dialogues_failed turns_mean
    new_tokens tokens_per_second spent seconds"""
    assert set(keys.split()) <= set(records[-1])
    assert list(transcripts(workdir)) == ["step_000003.jsonl", "step_000004.jsonl"]
    assert len(transcripts(workdir)["step_000003.jsonl"].splitlines()) == 2 * 4
    assert (workdir / "report.html").exists() and list((workdir / "tensorboard").iterdir())


def test_a_step_of_phase_1_says_how_long_it_took_and_how_many_tokens_a_second_that_is(whole_run):
    workdir, _ = whole_run
    records = [record for record in read_metrics(workdir) if record["phase"] == "sft"]
    took = [record["seconds"]["update"] for record in records]
    began, ended = ((workdir / name).stat().st_mtime for name in ("config.json", "metrics.jsonl"))
    assert min(took) > 0 and sum(took) < ended - began + 1
    for record, seconds in zip(records, took, strict=True):
        tokens = record["tokens_per_second"] * seconds
        assert tokens == pytest.approx(round(tokens)) and 0 < tokens <= 2 * tiny().train.row_length


def test_the_trainer_sees_the_log_probabilities_that_were_sampled(whole_run):
    workdir, _ = whole_run
    gaps = [record["logprob_gap_max"] for record in read_metrics(workdir) if record["phase"] == "rl"]
    assert len(gaps) == 2 and 0 < max(gaps) < 1e-4


def test_a_batch_may_be_gone_through_in_parts_and_more_than_once(tmp_path):
    state = main.train(
        tiny(**{"train.sft_steps": 0, "train.minibatches": 2, "train.epochs": 2, "train.learning_rate": 0.1}), tmp_path
    )
    counts = [leaf for leaf in jax.tree.leaves(state.policy.opt_state) if leaf.shape == ()]
    assert counts and {int(count) for count in counts} == {2 * 2 * 2}
    records = [record for record in read_metrics(tmp_path) if record["phase"] == "rl"]
    assert max(record["logprob_gap_max"] for record in records) < 1e-4  # before the first of them
    assert min(record["ratio_max"] for record in records) > 1.001  # after it, the policy is another


def test_beginnings_that_a_group_shares_are_computed_once_and_every_turn_is_as_likely(tmp_path, monkeypatch):
    prepare_parts, found = Learner.prepare_parts, {}

    def both_ways(self, dialogues, rewards, state):
        for share in (False, True):
            self.config.train.share_prefix = share
            (part,) = prepare_parts(self, dialogues, rewards, state)
            mask, turns, logprobs = map(np.asarray, (part.rows.mask, part.rows.turns, part.signals.reference))
            by_turn = [np.bincount(turns[mask], weights=x[mask]) for x in (mask, logprobs)]
            found[share] = int(np.sum(part.rows.segment_ids > 0)), np.stack(by_turn)
        return [part]

    monkeypatch.setattr(Learner, "prepare_parts", both_ways)
    main.train(tiny(**{"train.sft_steps": 0, "train.rl_steps": 1}), tmp_path)
    (apart, expected), (together, by_turn) = found[False], found[True]
    assert together < 0.5 * apart  # four dialogues of one turn each, most of which is the prompt
    np.testing.assert_allclose(by_turn, expected, rtol=1e-5)
    assert np.count_nonzero(expected[1]) == 2 * 4


def test_two_costs_have_a_multiplier_each_and_are_told_apart(tmp_path):
    """Every dialogue is one malformed turn: no voucher, and three times the turns that the budget has."""
    config = tiny(**{"train.sft_steps": 0, "pid.initial_lambda": 0.5})
    with config.ignore_type():
        config.pid.target = ConfigDict({"voucher": 0.3, "turns": 0.25})
        config.pid.ki = ConfigDict({"voucher": 0.1, "turns": 0.2})
    state = main.train(config, tmp_path)
    first, second = read_metrics(tmp_path)
    assert first["lambda"] == {"voucher": 0.5, "turns": 0.5}
    assert second["lambda"]["voucher"] < 0.5 < second["lambda"]["turns"] and state.memory.lambdas.shape == (2,)
    assert (second["voucher_rate"], second["turns_mean"]) == (0.0, 1.0)
    assert second["turns_mean_smoothed"] > 0.25 and second["voucher_rate_smoothed"] < 0.3
    said = json.loads(transcripts(tmp_path)["step_000002.jsonl"].splitlines()[0])
    assert said["cost"] == said["turns"][0]["cost"] == {"voucher": 0.0, "turns": 1.0}
    page = RunPage(tmp_path / "report.html")
    assert page.run["budgets"] == ["vouchers 30 %", "turns 0.2"] and "lambda, turns" in page.run["latest"]["head"]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({"voucher": 0.3, "refund": 1.0}, r"config.pid.target: expected some of \('voucher', 'turns'\), got 'refund'"),
        ({"voucher": 30.0, "turns": 2.8}, "config.pid.target.voucher: expected 0 to 1, of dialogues, got 30.0"),
        ({"voucher": -0.3}, "config.pid.target.voucher: expected 0 or more, got -0.3"),
    ],
)
def test_budgets_that_cannot_be_are_refused(tmp_path, target, message):
    config = tiny()
    with config.ignore_type():
        config.pid.target = ConfigDict(target)
    with pytest.raises(ValueError, match=message):
        main.train(config, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["epochs", "minibatches", "importance_cap"])
def test_no_updates_on_a_batch_are_refused(name):
    with pytest.raises(ValueError, match=rf"config.train.{name}: expected 1 or more, got 0(\.0)?$"):
        schema.check_config(tiny(**{f"train.{name}": 0}))


def test_the_reference_is_the_end_of_phase_1_and_stays(whole_run):
    workdir, state = whole_run
    with Checkpoints(workdir, keep=4) as checkpoints:
        after_sft = checkpoints._manager.restore(2)["policy"]["params"]
    chex.assert_trees_all_equal(state.reference, after_sft)
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), state.policy.params, state.reference)
    assert any(jax.tree.leaves(changed))


def test_an_endpoint_over_http_gives_the_transcripts_of_the_one_in_process_and_so_does_a_replay(
    whole_run, tmp_path, monkeypatch
):
    workdir, state = whole_run
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
    chex.assert_trees_all_equal(remote.policy.params, state.policy.params)
    kept = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(kept) > 100 and not any(b"sk-test" in content for content in kept)

    replayed = main.train(tiny(**asked, **{"endpoints.replay": str(record)}), tmp_path / "replay")  # nobody is there
    assert transcripts(tmp_path / "replay") == transcripts(workdir)
    chex.assert_trees_all_equal(replayed, state)


@pytest.mark.skipif(not RELEASED.exists(), reason=f"the authors' data is not at {RELEASED}")
def test_the_released_prompts_and_personas_train(tmp_path, monkeypatch):
    """On eight devices."""
    monkeypatch.setattr(build, "make_mesh", mesh_maker(8))
    some = tmp_path / "some.parquet"
    parquet.write_table(parquet.read_table(RELEASED).slice(0, 400), some)
    changes = {
        "data.path": str(some),
        "data.dir": str(tmp_path / "data"),
        "model.vocab_size": 1200,
    }
    state = main.train(tiny(**changes), tmp_path / "run")
    assert int(state.step) == 4
    dialogue = json.loads(transcripts(tmp_path / "run")["step_000004.jsonl"].splitlines()[0])
    assert dialogue["task"]["id"].startswith("train-")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config=configs/fds.py:smok"], "error: ValueError: unknown variant 'smok'; expected one of ['model=…'"),
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
    done = commands.run("cmpo.main", *arguments, f"--workdir={tmp_path / 'run'}")
    assert done.returncode != 0 and message in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_bad_input_from_a_shell_is_one_line_too():
    line = [sys.executable, "-m", "cmpo.main", "--config=configs/fds.py:smoke", "--config.user.url=ftp://x"]
    done = subprocess.run([*line, "--workdir=x"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.startswith("error: config.user.url") and done.stderr.count("\n") == 1


def test_evaluate_policy_and_start(whole_run):
    workdir, state = whole_run
    for start, params in ((False, state.policy.params), (True, state.reference)):
        served_by, step = agents.load_policy(tiny(), workdir, start=start)
        assert step == 4
        played = evaluate.play_evaluation(tiny(), served_by, seeds=2)
        assert [one.seed for one in played] == [1000] * 8 + [1001] * 8
        assert all(one.dialogue.ok for one in played)
        again, _ = agents.load_policy(tiny(), workdir, start=start)
        texts = [
            [turn.text for one in some for turn in one.dialogue.turns]
            for some in (played[:8], evaluate.play_evaluation(tiny(), again, seeds=1))
        ]
        assert texts[0] == texts[1]
        assert tokenizers.load(workdir / "tokenizer").vocab_size == params["embed"]["embedding"].shape[0]


def test_evaluate_needs_a_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="--workdir"):
        agents.load_policy(tiny(), tmp_path)


@pytest.mark.parametrize("chosen", [None, "/elsewhere"])
def test_compiled_programs_are_kept_where_the_environment_says(chosen, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    try:
        jax.config.update("jax_compilation_cache_dir", chosen)
        command.keep_programs()
        assert jax.config.jax_compilation_cache_dir == (chosen or str(tmp_path / "cmpo"))
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


def test_devices_wait_for_each_other_unless_the_environment_says_how_long():
    limit = "--xla_cpu_collective_call_terminate_timeout_seconds"
    for flags, expected in (
        ("", f"{limit}=900"),
        ("--xla_a=1", f"--xla_a=1 {limit}=900"),
        (f"{limit}=5", f"{limit}=5"),
    ):
        environment = {"XLA_FLAGS": flags}
        command.be_patient(environment)
        assert environment["XLA_FLAGS"] == expected


def test_an_agent_that_has_no_turn_demonstrates_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(collecting, "collect_dialogues", lambda *arguments, **options: [])
    with pytest.raises(ValueError, match="config.sft.dialogues: expected demonstrations, but the agent had no turn"):
        main.train(tiny(), tmp_path)
