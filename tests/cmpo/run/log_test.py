"""The run's log: what is written, what a restart forgets, and the numbers of a batch against hand-worked ones."""

import dataclasses
import json
import math
import os
import pathlib
import struct
import tempfile

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from tensorboardX.proto import event_pb2

from cmpo.evaluation.summary import summarize_batch
from cmpo.run.json_lines import read_lines, read_torn_lines, write_lines
from cmpo.run.log import RunLog, read_metrics
from cmpo.run.progress import show_progress
from cmpo.run.recorder import score_records
from rollouts.types import TokenNotes
from tests.builders.dialogues import COSTS, FDS, dialogue, turn
from tests.builders.runs import full_disk


def lines(path):
    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


def events(folder):
    """All events below a folder, in the order written; the crc fields of the record format are skipped."""
    for path in sorted(folder.iterdir(), key=lambda path: path.name.split(".")[-1]):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event = event_pb2.Event()
            event.ParseFromString(data[12 : 12 + length])
            data = data[16 + length :]
            yield event


def scalars(folder):
    return {(value.tag, event.step): value.simple_value for event in events(folder) for value in event.summary.value}


def test_record_becomes_valid_json(tmp_path):
    with RunLog(tmp_path / "new" / "run", COSTS) as log:
        log.write({"step": np.int64(1), "phase": "rl", "loss": math.nan, "kl": np.float32(0.5), "lambda": np.ones(1)})
        log.write({"step": 2, "phase": "rl", "seconds": {"sample": math.inf, "update": np.float64(2)}})
    assert lines(tmp_path / "new" / "run" / "metrics.jsonl") == [
        {"step": 1, "phase": "rl", "loss": None, "kl": 0.5, "lambda": [1.0]},
        {"step": 2, "phase": "rl", "seconds": {"sample": None, "update": 2.0}},
    ]


def test_each_line_is_on_disk_at_once(tmp_path):
    with RunLog(tmp_path, COSTS) as log:
        log.write({"step": 1, "phase": "sft", "loss": 2.0})
        assert len(lines(tmp_path / "metrics.jsonl")) == 1


def test_tensorboard_gets_the_finite_numbers(tmp_path):
    with RunLog(tmp_path, COSTS) as log:
        log.write({"step": 3, "phase": "rl", "loss": 0.25, "kl": math.nan, "seconds": {"sample": 1.5, "update": None}})
        log.write({"step": 3, "phase": "eval", "loss": 4.0})
    assert scalars(tmp_path / "tensorboard") == {
        ("rl/loss", 3): 0.25,
        ("rl/seconds/sample", 3): 1.5,
        ("eval/loss", 3): 4.0,
    }


def test_resume_forgets_what_came_after_the_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 1.7e9)  # a restart within the same second
    history = [(1, "sft"), (2, "rl"), (3, "rl"), (3, "eval"), (4, "rl"), (4, "eval")]
    with RunLog(tmp_path, COSTS) as log:
        for step, phase in history:
            log.write({"step": step, "phase": phase, "loss": 0.1 * step})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "phase": "rl", "lo')
    with RunLog(tmp_path, COSTS) as log:
        log.resume(3)
        kept = [{"step": step, "phase": phase, "loss": 0.1 * step} for step, phase in history[:4]]
        assert lines(tmp_path / "metrics.jsonl") == kept
        log.write({"step": 4, "phase": "rl", "loss": 9.0})
        assert lines(tmp_path / "metrics.jsonl") == [*kept, {"step": 4, "phase": "rl", "loss": 9.0}]
    (start,) = [event for event in events(tmp_path / "tensorboard") if event.session_log.status]
    assert (start.step, start.session_log.status) == (4, event_pb2.SessionLog.START)
    curves = scalars(tmp_path / "tensorboard")
    assert curves[("sft/loss", 1)] == pytest.approx(0.1) and curves[("rl/loss", 4)] == 9.0
    assert not list(tmp_path.glob("*.partial"))


def test_resume_forgets_the_transcripts_of_later_steps(tmp_path):
    log = RunLog(tmp_path, COSTS)
    for step in (9, 10, 11):
        log.write_transcripts(step, [dialogue(turn())])
    log.resume(10)
    assert sorted(path.name for path in (tmp_path / "transcripts").iterdir()) == [
        "step_000009.jsonl",
        "step_000010.jsonl",
    ]


def test_score_by_hand():
    empty = [{"phase": "sft"}, {"phase": "rl", "satisfaction": None, "voucher_rate": None}]  # every dialogue failed
    assert score_records(FDS, empty, budgets=[0.3], prices=[5.0]) == -math.inf
    records = [*empty, {"satisfaction": 2.0, "voucher_rate": 0.5}, {"satisfaction": 3.0, "voucher_rate": 0.3}]
    assert score_records(FDS, records, budgets=[0.3], prices=[5.0]) == pytest.approx(2.5 - 5 * 0.1)  # means 2.5 and 0.4
    assert (
        score_records(FDS, records, budgets=[0.5], prices=[5.0])
        == score_records(FDS, records, budgets=[0.3], prices=[0.0])
        == 2.5
    )


def test_a_full_disk_is_named_and_leaves_the_old_transcripts(tmp_path):
    log = RunLog(tmp_path, COSTS)
    path = log.write_transcripts(7, [dialogue(turn())])
    before = path.read_bytes()
    with full_disk(), pytest.raises(OSError, match="cannot write .*/step_000007.jsonl: File too large"):
        log.write_transcripts(7, [dialogue(turn(said="x" * 9000))])
    with full_disk(), pytest.raises(OSError, match="cannot write .*/metrics.jsonl: File too large"):
        log.write({"step": 1, "phase": "rl", "long": "x" * 9000})
    assert path.read_bytes() == before and read_metrics(tmp_path) == []


def test_resume_of_a_run_without_lines(tmp_path):
    with RunLog(tmp_path, COSTS) as log:
        log.resume(0)
    assert list(tmp_path.iterdir()) == []


def test_no_line_ends_but_at_its_newline(tmp_path):
    """Python's own splitlines would end one at each of these."""
    odd = "a\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029b"
    rows = [{"step": 1, "said": odd}, {"step": 2}]
    write_lines(tmp_path / "own.jsonl", rows)
    (tmp_path / "others.jsonl").write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n\n")
    assert read_lines(tmp_path / "own.jsonl") == read_lines(tmp_path / "others.jsonl") == rows


def test_only_a_line_that_is_being_written_may_be_torn(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"step": 1}\n{"st')
    assert read_lines(tmp_path / "x.jsonl", torn=True) == [{"step": 1}]
    with pytest.raises(ValueError, match=r"x\.jsonl:2: expected a JSON object, got JSONDecodeError"):
        read_lines(tmp_path / "x.jsonl")


@pytest.mark.parametrize("line", ["[]", "7", "null", '{"a": NaN}', '{"a": 1, "a": 2}'])
def test_a_last_line_that_is_json_but_no_object_is_damaged_and_not_torn(tmp_path, line):
    (tmp_path / "x.jsonl").write_text(f'{{"step": 1}}\n{line}\n')
    with pytest.raises(ValueError, match=r"x\.jsonl:2: expected a JSON object"):
        read_torn_lines(tmp_path / "x.jsonl")


@hypothesis.given(st.data())
def test_of_a_file_that_is_cut_anywhere_all_whole_lines_are_read(data):
    rows = [{"said": "one"}, {"said": "\u2028 \ud800 ü", "n": [1, {}]}, {"step": 3}]
    whole = "".join(json.dumps(row) + "\n" for row in rows).encode()
    cut = whole[: data.draw(st.integers(0, len(whole)))]
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "x.jsonl")
        path.write_bytes(cut)
        found, wrong = read_torn_lines(path)
    ends = [len(line) for line in whole.splitlines(keepends=True)]
    complete = sum(len(cut) >= sum(ends[: n + 1]) - 1 for n in range(3))  # the last newline may be missing
    assert found == rows[:complete]
    half = len(cut) - sum(ends[:complete]) > 0
    assert (wrong is not None) == half and (not half or f"x.jsonl:{complete + 1}: " in str(wrong))


def test_a_broken_line_in_the_middle_is_reported(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl:2: expected a JSON object"):
        read_metrics(tmp_path)
    with pytest.raises(ValueError, match=r"metrics\.jsonl:2: expected a JSON object"):
        read_torn_lines(tmp_path / "metrics.jsonl")


def test_an_interrupted_rewrite_leaves_the_old_file(tmp_path, monkeypatch):
    log = RunLog(tmp_path, COSTS)
    path = log.write_transcripts(7, [dialogue(turn())])
    before = path.read_bytes()

    def crash(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        log.write_transcripts(7, [])
    assert path.read_bytes() == before


def test_transcripts_hold_everything_but_ids_and_prompt(tmp_path):
    malformed = turn(action="", think="", response="", text="<oops", ids=range(3))
    played = dialogue(turn(0.75, action="voucher", ids=range(2)), malformed, end="malformed", last_words="Bye.")
    failed = dialogue(outcome=0.0, end="", failure="user_timeout", failure_message="too slow")
    path = RunLog(tmp_path, COSTS).write_transcripts(12, [played, failed])
    assert path == tmp_path / "transcripts" / "step_000012.jsonl"
    first, second = lines(path)
    assert "SECRET PROMPT" not in path.read_text() and "ids" not in path.read_text()
    turns = first.pop("turns")
    assert first == {
        "task": {
            "id": "hard-train-0",
            "persona": {
                "level": 2,
                "communication_style": "terse",
                "information_disclosure": "reserved",
                "problem_solving": "demands results at once",
                "emotional_style": "irritable",
            },
            "demand": "refund_priority",
            "order": {
                "items": [{"name": "Cola", "quantity": 1, "price": 250}],
                "merchant": "Golden Wok",
                "ordered": "18:05",
                "delivered": "19:23",
                "complaint": "late delivery",
                "tag": "late delivery",
                "record": {
                    "kind": "late_minutes",
                    "supports": True,
                    "numbers": [48],
                    "text": "delivered 48 minutes late",
                },
                "courier": "Soon.",
                "signals": [["rider", "Soon."]],
            },
            "worth": 12,
            "honest": True,
            "shift": "none",
        },
        "labels": {"level": 2, "demand": "refund_priority", "complaint": "late delivery"},
        "index": 0,
        "end": "malformed",
        "outcome": 0.0,
        "success": False,
        "cost": {"voucher": 1.0},
        "failure": "",
        "failure_message": "",
        "last_words": "Bye.",
    }
    assert turns[0] == {
        "messages": [{"role": "user", "content": "Where is it?"}],
        "think": "hm",
        "response": "Sorry.",
        "action": "voucher",
        "scores": {"persona": 1.0, "rules": 0.5},
        "reason": "fine",
        "process_reward": 0.75,
        "credit": None,
        "cost": {"voucher": 1.0},
        "tokens": 2,
        "mean_logprob": -0.5,
    }
    assert turns[1]["text"] == "<oops"
    assert (second["failure"], second["failure_message"], second["turns"]) == ("user_timeout", "too slow", [])


def test_a_turn_nobody_sampled_has_no_logprob(tmp_path):
    (row,) = lines(RunLog(tmp_path, COSTS).write_transcripts(0, [dialogue(turn())]))
    assert row["turns"][0]["mean_logprob"] is None


def test_tokens_are_kept_where_they_were_noted(tmp_path):
    noted = TokenNotes(["So", "rry"], np.array([1.23456, 1.0]), np.array([-0.5, 0.25]))
    full = dataclasses.replace(turn(ids=range(2), logprobs=[-0.123, -2.0]), token_notes=noted)
    few = dataclasses.replace(turn(ids=range(1)), token_notes=TokenNotes(["So"]))
    (row,) = lines(RunLog(tmp_path, COSTS).write_transcripts(0, [dialogue(full, few, turn())]))
    kept = [{name: value for name, value in one.items() if name.startswith("token_")} for one in row["turns"]]
    assert kept == [
        {
            "token_texts": ["So", "rry"],
            "token_logprobs": [-0.12, -2.0],
            "token_ratios": [1.235, 1.0],
            "token_advantages": [-0.5, 0.25],
        },
        {"token_texts": ["So"], "token_logprobs": [-0.5]},
        {},
    ]


def test_rollout_record_by_hand():
    batch = [
        dialogue(turn(1.0, ids=range(4)), turn(0.5, action="voucher", ids=range(6)), outcome=5.0),
        dialogue(turn(0.75, ids=range(3)), outcome=2.0),
        dialogue(turn(0.25, ids=range(2)), outcome=-10.0, end="malformed", replaced=("judge_timeout", "user_timeout")),
        dialogue(turn(0.0, ids=range(1)), turn(0.0), turn(0.0), outcome=1.0, end="quit"),
        # Excluded, save for the tokens it cost: it would have changed every mean.
        dialogue(turn(1.0, action="voucher", ids=range(10)), outcome=5.0, failure="judge_timeout"),
        dialogue(failure="user_http_500"),
        dialogue(failure="judge_timeout", replaced=("judge_timeout",)),
    ]
    assert summarize_batch(FDS, batch) == {
        "satisfaction": 2.0,  # (5 + 2 + 0 + 1) / 4
        "process_reward": 0.4375,  # (0.75 + 0.75 + 0.25 + 0) / 4, of each dialogue the mean over its turns
        "finish_rate": 0.5,
        "voucher_rate": 0.25,
        "turns_mean": 1.75,
        "ends": {"rated": 2, "malformed": 1, "quit": 1},
        "dialogues_ok": 4,
        "dialogues_failed": {"judge_timeout": 2, "user_http_500": 1},
        "dialogues_replaced": {"judge_timeout": 2, "user_timeout": 1},
        "new_tokens": 26,
    }


def test_rollout_record_where_all_failed():
    record = summarize_batch(FDS, [dialogue(turn(1.0), outcome=5.0, failure="user_timeout")])
    means = ("satisfaction", "process_reward", "finish_rate", "voucher_rate", "turns_mean")
    assert all(math.isnan(record[key]) for key in means)
    assert (record["dialogues_ok"], record["dialogues_failed"]) == (0, {"user_timeout": 1})


SHOWN = {"satisfaction": "satisfaction {:.2f}", "voucher_rate": "voucher {:.0%}", "lambda": "lambda {:.2f}"}
SHOWN |= {"finish_rate": "finished {:.0%}"}


def test_progress_is_quiet_without_a_terminal(capsys):
    with show_progress(25, 5, "rl", every=10, shown=SHOWN) as bar:
        for step in range(6, 26):
            bar.update({"satisfaction": step / 10, "voucher_rate": 0.305, "lambda": None, "finish_rate": 1.0})
    tenth, twentieth, last = capsys.readouterr().err.splitlines()
    assert tenth.startswith("rl: 10/25 [") and twentieth.startswith("rl: 20/25 [") and last.startswith("rl: 25/25 [")
    assert tenth.endswith("satisfaction 1.00, voucher 30%, finished 100%]")
