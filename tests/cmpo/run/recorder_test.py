"""What a run leaves step by step: what a checkpoint is worth, and what is booked and taken up again."""

import json
import math

import chex
import jax
import jax.numpy as jnp
import pytest

from cmpo.run import recorder
from cmpo.run.alarms import WINDOW
from cmpo.run.json_lines import write_lines
from cmpo.run.log import read_metrics
from cmpo.run.recorder import Recorder
from cmpo.training import build
from models import qwen2
from tests.builders.runs import tiny

MODEL = qwen2.Qwen2Config(vocab_size=32, hidden_size=8, intermediate_size=8, num_layers=1, num_heads=1, num_kv_heads=1)
BOOKED = (  # step, satisfaction, voucher rate
    (1, None, None),
    (2, 3.0, 0.9),
    (3, 1.0, 0.1),
    (4, 3.0, 0.7),
    (5, 2.5, 0.2),
    (6, 4.0, 0.3),
)


@pytest.fixture
def booked(tmp_path):
    rows = [{"step": step, "satisfaction": x, "voucher_rate": rate} for step, x, rate in BOOKED]
    write_lines(tmp_path / "metrics.jsonl", rows)
    return tmp_path


def test_a_checkpoint_is_worth_the_steps_since_the_one_before_less_the_price_of_what_is_beyond_the_budget(booked):
    config = tiny(**{"train.checkpoint_every": 2, "pid.target": 0.3, "pid.lambda_max": 5.0})
    score = recorder.make_checkpoint_score(config, booked)
    assert score(4) == pytest.approx(2.0 - 5.0 * (0.4 - 0.3))  # of steps 3 and 4
    assert score(6) == pytest.approx(3.25)  # below the budget
    assert score(2) == pytest.approx(3.0 - 5.0 * (0.9 - 0.3))  # phase 1 does not count
    assert score(1) == -math.inf
    config.pid.lambda_max = 2.0
    score = recorder.make_checkpoint_score(config, booked)
    assert score(4) == pytest.approx(2.0 - 2.0 * (0.4 - 0.3))


def test_without_a_controller_vouchers_have_no_price(booked):
    score = recorder.make_checkpoint_score(tiny(**{"train.checkpoint_every": 2, "pid.enabled": False}), booked)
    assert score(4) == pytest.approx(2.0)


def state(step):
    config = tiny()
    return build.make_first_state(config, qwen2.init(MODEL, jax.random.key(0)))._replace(step=jnp.int32(step))


def test_what_was_booked_after_the_checkpoint_is_forgotten_and_the_best_and_the_newest_stay(tmp_path, capsys):
    config = tiny(**{"train.checkpoint_every": 1, "train.keep_checkpoints": 1})
    with Recorder(config, tmp_path) as kept:
        assert int(kept.resume(lambda step: state(0), lambda: state(0)).step) == 0
        for step, satisfaction in ((1, 5.0), (2, 1.0), (3, 2.0)):
            kept.write_step(step, {"phase": "rl", "satisfaction": satisfaction, "voucher_rate": 0.0}, [])
            kept.save(state(step))
        kept.write_step(4, {"phase": "rl", "satisfaction": 0.0, "voucher_rate": 0.0}, [])
        kept.wait()
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["1", "3"]
    assert not (tmp_path / "transcripts").exists()  # nobody spoke
    shown = capsys.readouterr().err
    assert f"{tmp_path.name}: 4/4" in shown and "satisfaction 0.00" in shown  # of 2 + 2 steps
    with Recorder(config, tmp_path) as kept:
        resumed = kept.resume(lambda step: state(0), lambda: pytest.fail("there is a checkpoint"))
        chex.assert_trees_all_equal(resumed, state(3))
        assert [record["step"] for record in read_metrics(tmp_path)] == [1, 2, 3]
        kept.write_step(4, {"phase": "rl"}, [])
    assert "4/4" in capsys.readouterr().err  # counted on from 3
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [1, 2, 3, 4]


def test_the_journal_forgets_what_a_checkpoint_holds_and_nothing_else(tmp_path, monkeypatch):
    config, forgotten = tiny(), []
    with Recorder(config, tmp_path) as kept:
        kept.resume(lambda step: state(0), lambda: state(0))
        monkeypatch.setattr(kept.journal, "remove_pages", forgotten.append)
        for step in (1, 2):
            kept.write_step(step, {"phase": "sft"}, [])
            kept.save(state(step))
        kept.wait()
    assert forgotten == [-1, 1, 2]  # each time the newest that is whole on disk


def test_an_alarm_is_said_once_and_booked_at_every_step_and_a_restart_knows_what_came_before(tmp_path, caplog):
    """Vouchers stay at 60 % whatever they are charged: known after as many steps as a cost has to answer in."""

    def climb(kept, first, last):
        for step in range(first, last):
            kept.write_step(step + 1, {"phase": "rl", "lambda": 0.1 * step, "voucher_rate_smoothed": 0.6}, [])

    with Recorder(tiny(), tmp_path) as kept:
        kept.resume(lambda step: state(0), lambda: state(0))
        climb(kept, 0, WINDOW)
        kept.save(state(WINDOW))
        kept.wait()
    assert not any(record["alarms"] for record in read_metrics(tmp_path))
    with Recorder(tiny(), tmp_path) as kept, caplog.at_level("WARNING"):
        kept.resume(lambda step: state(0), lambda: pytest.fail("there is a checkpoint"))
        climb(kept, WINDOW, WINDOW + 3)
    assert [set(record["alarms"]) for record in read_metrics(tmp_path)[WINDOW:]] == [{"voucher"}] * 3
    assert caplog.text.count("the budget of voucher may be out of reach") == 1
