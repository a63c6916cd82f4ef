"""Weights & Biases: what it gets, that a run stays one run there, and what is said before anything is paid."""

import json
import os
import struct
import subprocess
import sys
import types

import pytest

from cmpo import main
from cmpo.run.log import RunLog
from cmpo.run.tracking import Tracking
from tests.builders import commands
from tests.builders.dialogues import COSTS
from tests.builders.runs import ROOT, tiny


class FakeRun:
    def __init__(self, options):
        self.options, self.logged, self.ended = options, [], None

    def log(self, numbers, step):
        self.logged.append((step, numbers))

    def finish(self, exit_code):
        self.ended = exit_code


@pytest.fixture
def runs(monkeypatch):
    """A stand-in for the package, and the runs that were opened in it."""

    class Error(Exception):
        pass

    opened = []
    fake = types.ModuleType("wandb")
    fake.errors = types.SimpleNamespace(Error=Error)
    fake.Settings = lambda **settings: settings
    fake.init = lambda **options: opened.append(FakeRun(options)) or opened[-1]
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return opened


def test_it_gets_what_tensorboard_gets(runs, tmp_path):
    with Tracking() as tracking, RunLog(tmp_path, COSTS, tracking) as log:
        tracking.open("shop", tmp_path, {"train": {"seed": 1}})
        log.write({"step": 3, "phase": "rl", "loss": 0.25, "kl": float("nan"), "seconds": {"sample": 1.5}, "ends": {}})
    (run,) = runs
    assert run.logged == [(3, {"rl/loss": 0.25, "rl/seconds/sample": 1.5})] and run.ended == 0
    assert run.options["project"] == "shop" and run.options["name"] == tmp_path.name
    assert run.options["config"] == {"train": {"seed": 1}} and run.options["dir"] == str(tmp_path)
    assert run.options["settings"] == {"console": "off"}


def test_a_run_that_goes_on_is_the_same_there_and_another_is_not(runs, tmp_path):
    for name in ("a", "a", "b"):
        with Tracking() as tracking:
            tracking.open("shop", tmp_path / name, {})
    first, again, other = (run.options for run in runs)
    assert first["id"] == again["id"] != other["id"] and again["resume"] == "allow" and again["allow_val_change"]


def test_a_run_that_fails_is_said_to_have_failed(runs, tmp_path):
    with pytest.raises(OSError), Tracking() as tracking:
        tracking.open("shop", tmp_path, {})
        raise OSError
    assert runs[0].ended == 1


def test_none_is_opened_where_none_is_asked_for(runs, tmp_path):
    with Tracking() as tracking:
        tracking.open("", tmp_path, {})
        tracking.write({"rl/loss": 1.0}, 1)
    assert runs == [] and list(tmp_path.iterdir()) == []


def test_what_it_refuses_is_an_error_of_the_field(runs, tmp_path, monkeypatch):
    def refuse(**_):
        raise sys.modules["wandb"].errors.Error("No API key configured.")

    monkeypatch.setattr(sys.modules["wandb"], "init", refuse)
    with pytest.raises(
        ValueError, match=r"config\.log\.wandb: .* 'shop': No API key configured\.; with WANDB_MODE=offline"
    ):
        Tracking().open("shop", tmp_path, {})


@pytest.mark.parametrize("options", [[], ["--dry_run"]])
def test_without_the_package_nothing_is_played(tmp_path, monkeypatch, options):
    monkeypatch.setitem(sys.modules, "wandb", None)
    done = commands.run(
        "cmpo.main", "--config=configs/fds.py:smoke", f"--workdir={tmp_path}", "--config.log.wandb=shop", *options
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: config.log.wandb: expected the package wandb (pip install -e '.[wandb]'), or")
    assert {path.name for path in tmp_path.iterdir()} <= {"config.json", "lock"}


def test_a_training_writes_each_step_and_goes_on_in_the_same_run(runs, tmp_path):
    for steps in (1, 2):
        main.train(tiny(**{"train.rl_steps": steps, "log.wandb": "shop"}), tmp_path)
    first, second = runs
    assert [step for step, _ in first.logged] == [1, 2, 3] and [step for step, _ in second.logged] == [4]
    assert "sft/loss" in first.logged[0][1] and "rl/lambda" in second.logged[0][1]
    assert first.options["id"] == second.options["id"] and first.ended == second.ended == 0
    assert first.options["config"]["train"]["rl_steps"] == 1


_SCRIPT = """
import json, pathlib, sys
from cmpo.run.log import RunLog
from cmpo.run.tracking import Tracking
from tests.builders.dialogues import COSTS

workdir = pathlib.Path(sys.argv[1])
with Tracking() as tracking, RunLog(workdir, COSTS, tracking) as log:
    tracking.open("shop", workdir, {"judge": {"timeout": float("inf")}, "train": {"seed": 0}})
    for step in map(int, sys.argv[2:]):
        log.write({"step": step, "phase": "rl", "loss": step / 4, "seconds": {"sample": 1.5}})
"""


def read_records(path):
    """The records of a .wandb file: a header of 7 bytes, and then LevelDB's log format."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, part = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:  # no header is split over blocks
            place += 32768 - place % 32768
            continue
        _, size, kind = struct.unpack_from("<IHB", data, place)
        part += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(part)
            part = b""


def test_the_package_keeps_it_without_a_key_or_a_network(tmp_path):
    pytest.importorskip("wandb", reason="needs wandb: pip install -e '.[wandb]'")
    offline = {name: value for name, value in os.environ.items() if name != "WANDB_API_KEY"} | {
        "WANDB_MODE": "offline",
        "PYTHONPATH": str(ROOT),
    }
    for steps in ("123", "345"):  # after a crash, step 3 is done again
        subprocess.run([sys.executable, "-c", _SCRIPT, str(tmp_path), *steps], env=offline, timeout=300, check=True)
    first, second = sorted((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    histories, ids = [], set()
    for path in (first, second):
        records = list(read_records(path))
        ids |= {(record.run.run_id, record.run.project) for record in records if record.HasField("run")}
        histories.append(
            [
                {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
                for record in records
                if record.HasField("history")
            ]
        )
    assert ids == {((tmp_path / "wandb" / "id").read_text(), "shop")}
    assert [[line["_step"] for line in lines] for lines in histories] == [[1, 2, 3], [3, 4, 5]]
    assert histories[0][1]["rl/loss"] == 0.5 and histories[0][1]["rl/seconds/sample"] == 1.5
