"""A whole run on tau2-bench: it trains, resumes to the bit, and is evaluated."""

import asyncio
import json
import os
import signal

import pytest

from cmpo import main
from cmpo.run import journal
from cmpo.run.log import read_metrics
from configs import tau2
from rollouts.domains.tau2.rules_user import RulesUser
from tests.builders import commands
from tests.builders.run_pages import RunPage
from tests.builders.runs import assert_same_run


def tiny(**changes):
    """A step of phase 1 and two of phase 2 with a model that knows nothing; users have little patience with it."""
    config = tau2.get_config("smoke")
    config.update_from_flattened_dict(
        {
            "model.vocab_size": 300,
            "model.hidden_size": 16,
            "model.intermediate_size": 16,
            "model.num_layers": 1,
            "model.num_heads": 1,
            "model.context_length": 4096,
            "engine.max_new_tokens": 8,
            "sft.dialogues": 4,
            "train.sft_steps": 1,
            "train.checkpoint_every": 1,
            "train.row_length": 4096,
            "eval.scenarios": 3,
        }
        | changes
    )
    return config


@pytest.fixture(scope="module")
def whole(package, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    return workdir, main.train(tiny(), workdir)


def test_a_run_measures_what_the_domain_has(whole):
    workdir, _ = whole
    last = read_metrics(workdir)[-1]
    assert last["dialogues_failed"] == {} and last["dialogues_ok"] == 8
    assert {"solved", "transfer_rate", "write_mean", "tool_error_mean", "refund_mean", "message_mean"} <= last.keys()
    assert last["message_mean"] > 0 and last["solved"] == 0.0 and last["logprob_gap_max"] < 1e-3
    panels = RunPage(workdir / "report.html").panels()
    assert {"Tasks solved (share)", "Messages of the agent to the user, a dialogue"} <= panels.keys()


def test_stopped_amid_the_dialogues_of_phase_2_and_resumed_it_is_the_same_run(whole, tmp_path, monkeypatch):
    """Of the second step, after 4 demonstrations and 8 dialogues of the first, three dialogues get to an end."""
    add, speak, begun, ended = journal.Page.add, RulesUser.speak, {}, []

    def interrupting(page, number, dialogue):
        add(page, number, dialogue)
        ended.append(number)
        if len(ended) == 4 + 8 + 3:
            os.kill(os.getpid(), signal.SIGTERM)

    async def answering(user, heard, act):
        if begun.setdefault(id(user), (len(begun), user))[0] >= 4 + 8 + 3:
            await asyncio.sleep(3600)
        return await speak(user, heard, act)

    with monkeypatch.context() as patch:
        patch.setattr(journal.Page, "add", interrupting)
        patch.setattr(RulesUser, "speak", answering)
        assert int(main.train(tiny(), tmp_path).step) == 2
    monkeypatch.setattr(journal.Page, "add", lambda page, number, dialogue: ended.append(number))
    assert_same_run(tmp_path, main.train(tiny(), tmp_path), *whole, lines=3)
    assert sorted(ended[12:]) == list(range(8))


LONG = r"config.model.context_length: the opening of task \[.*\] has \d+ tokens, .* the 4096 "


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.train": ""}, "config.data.train: expected splits to train on, got none"),
        ({"data.train": "", "train.rl_steps": 0}, "config.data.train: expected splits to train on, got none"),
        (
            {"data.prompt": "full"},
            LONG,
        ),
        (
            {"data.prompt": "full", "data.user": "solo", "data.train": "train", "sft.path": "given.jsonl"},
            LONG,
        ),
    ],
)
def test_what_cannot_be_trained_is_refused_before_demonstrations_are_played(package, tmp_path, changes, message):
    given = tmp_path / "given.jsonl"
    says = [{"role": role, "content": "Hi."} for role in ("system", "user", "assistant")]
    given.write_text(json.dumps({"messages": says}) + "\n")
    if "sft.path" in changes:
        changes = changes | {"sft.path": str(given)}
    with pytest.raises(ValueError, match=message):
        main.train(tiny(**changes), tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


def test_agents_are_evaluated(package, tmp_path):
    asked = ["--config=configs/tau2.py", "--config.eval.scenarios=6", f"--out={tmp_path}/found.json"]
    done = commands.run("cmpo.evaluate", *asked, "--agent=by_the_book")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["summary"]["solved"]["mean"] == found["summary"]["finish_rate"]["mean"] == 1.0
    assert 1 < found["summary"]["message_mean"]["mean"] < 20
    assert "| solved, % |" in done.stdout
