"""Dialogues in the formats of other programs, read back by their own packages where these are installed."""

import json
import subprocess
import sys

import pytest

from cmpo.reports import conversations, run_data
from tests.builders import commands
from tests.builders.evaluations import write_evaluation
from tests.builders.run_pages import NASTY, WORD, write_run

MENDED = tuple(text.replace("\ud800", "\ufffd") for text in NASTY)


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run")


def export(*arguments):
    """Runs the command in a process of its own, as the packages keep what they were told of their environment."""
    return subprocess.run(
        [sys.executable, "-m", "cmpo.report", *arguments], capture_output=True, text=True, timeout=300, check=False
    )


def test_conversations_have_all_that_was_said_and_what_it_was_worth(run):
    found = {batch.key: played for batch, played in conversations.list_conversations(run_data.load_run(run))}
    assert list(found) == ["3", "4", "5"]
    refused, given, nasty, failed = found["4"]
    assert [(said.role, said.text, said.thought) for said in given.messages] == [
        ("user", "Cold soup.", ""),
        ("assistant", "I am sorry.", "Plan."),
        ("user", "And?", ""),
        ("assistant", "A voucher for step 4.", "hm"),
    ]
    assert (given.task, given.number, refused.number) == ("soup", 2, 1) and not given.failure
    assert given.scores == {"outcome": 5.0, "voucher": 1.0, "success": 1.0, "process reward": 0.75}
    assert given.about["labels"]["level"] == 2 and [turn["reward"] for turn in given.about["turns"]] == [0.5, 1.0]
    assert [said.text for said in nasty.messages if said.role == "assistant"] == list(MENDED)
    assert nasty.messages[-1] == ("user", NASTY[0], "")  # its last words
    assert failed.failure == NASTY[0] and failed.scores == {}
    json.dumps([one._asdict() for one in found["4"]], ensure_ascii=False).encode()  # no half character is left


def test_dialogues_of_an_evaluation_are_told_apart_by_seed(tmp_path):
    alone = write_evaluation(tmp_path / "x.json", [4.0, 2.0])
    ((batch, played),) = conversations.list_conversations(run_data.load_source(alone))
    assert batch.key == "evaluation_x" and [one.task for one in played] == ["t0, seed 1000", "t1, seed 1000"]


def test_dialogues_of_a_task_that_comes_again_are_told_apart_by_number(tmp_path):
    alone = write_evaluation(tmp_path / "x.json", [4.0, 2.0, 3.0], tasks=["t0", "t1", "t0"])
    ((_, played),) = conversations.list_conversations(run_data.load_source(alone))
    assert [(one.task, one.number, one.scores["outcome"]) for one in played] == [
        ("t0, seed 1000", 1, 4.0),
        ("t1, seed 1000", 1, 2.0),
        ("t0, seed 1000", 2, 3.0),
    ]


def test_inspect_reads_the_logs(run, tmp_path):
    log = pytest.importorskip("inspect_ai.log", reason="needs inspect_ai: pip install -e '.[inspect]'")
    done = export(f"--workdir={run}", f"--inspect={tmp_path / 'logs'}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1] == f"{tmp_path / 'logs'}: 3 logs"
    paths = sorted((tmp_path / "logs").iterdir())
    assert [path.name for path in paths] == ["step_000003.eval", "step_000004.eval", "step_000005.eval"]
    found = log.read_eval_log(str(paths[1]))
    assert found.status == "success" and found.eval.task == "a run, step 4" and found.eval.model == "cmpo/a run"
    assert found.eval.dataset.samples == 2 and found.eval.config.epochs == 2
    assert (found.results.total_samples, found.results.completed_samples) == (4, 3)
    means = {score.name: score.metrics["mean"].value for score in found.results.scores}
    assert means["outcome"] == pytest.approx(3.0) and means["voucher"] == pytest.approx(1 / 3)
    samples = {(sample.id, sample.epoch): sample for sample in found.samples}
    given = samples["soup", 2]
    assert [message.role for message in given.messages] == ["user", "assistant", "user", "assistant"]
    reasoning, words = given.messages[1].content
    assert (reasoning.reasoning, words.text) == ("Plan.", "I am sorry.")
    assert given.output.completion == "A voucher for step 4." and given.input[0].content == "Cold soup."
    assert {name: score.value for name, score in given.scores.items()}["outcome"] == 5.0
    assert given.metadata["turns"][1]["cost"] == {"voucher": 1.0} and given.error is None
    nasty = samples[NASTY[1], 1]
    assert [message.text for message in nasty.messages if message.role == "assistant"] == list(MENDED)
    assert len(nasty.messages[9].text) == len(WORD)
    assert samples[NASTY[1], 2].error.message == NASTY[0]


def test_trackio_has_the_traces(run, tmp_path, monkeypatch):
    pytest.importorskip("trackio", reason="needs trackio: pip install -e '.[trackio]'")
    for name in ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    done = export(f"--workdir={run}", "--trackio=tests")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "Trackio, project tests: 12 dialogues"
    script = (
        "import json, trackio.sqlite_storage as s; print(json.dumps(s.SQLiteStorage.get_traces('tests', run='a run')))"
    )
    read = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=True)
    traces = json.loads(read.stdout.splitlines()[-1])
    assert len(traces) == 12 and {trace["step"] for trace in traces} == {3, 4, 5}
    (given,) = [
        trace
        for trace in traces
        if trace["step"] == 4 and trace["metadata"]["session_id"] == "4/soup" and trace["metadata"]["number"] == 2
    ]
    assert given["messages"][1] == {"role": "assistant", "content": "I am sorry.", "reasoning_content": "Plan."}
    assert given["metadata"]["scores"]["outcome"] == 5.0 and given["metadata"]["status"] == "ok"
    failed = [trace for trace in traces if trace["metadata"]["status"] == "error"]
    assert len(failed) == 3 and failed[0]["metadata"]["error"] == NASTY[0]


@pytest.mark.parametrize("flag, module", [("inspect", "inspect_ai"), ("trackio", "trackio")])
def test_what_is_not_installed_is_named(run, tmp_path, monkeypatch, flag, module):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, f"{module}.log", None)
    done = commands.run("cmpo.report", f"--workdir={run}", f"--{flag}={tmp_path / 'out'}")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: --{flag}: expected the package {module} (pip install -e '.[{flag}]'):")
