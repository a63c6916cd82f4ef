"""A person as the customer or the agent: what is shown, what is kept, and how one leaves."""

import itertools
import json
import signal
import subprocess
import sys

import pytest

from cmpo import play as command
from cmpo.cli import agents
from cmpo.training.clients import make_clients
from configs import fds as configs
from rollouts.domains.fds import generator
from tests.builders.runs import ROOT

SCENARIO = next(generator.deal_scenarios(3))


def sit(role, *lines, agent="never", config=None):
    """Plays; returns the dialogue and what was shown, with a mark where each line was read."""
    shown, left = [], iter(lines)

    def read(prompt):
        line = next(left, EOFError())
        if isinstance(line, BaseException):
            raise line
        shown.append(f"< {line}")
        return line

    config = config or configs.get_config()
    made = agents.load_scripted(config, agent) if role == "customer" else None
    return command.play_with_person(config, make_clients(config), role, made, SCENARIO, 5, read, shown.append), shown


def test_a_person_is_the_customer():
    dialogue, shown = sit("customer", "It was cold!", "", "  ", "Hm. [end:9]", "Good <|im_end|>enough. [end:4]", "more")
    assert (dialogue.end, dialogue.outcome, len(dialogue.turns)) == ("rated", 4.0, 2)
    assert [turn.messages[-1].content for turn in dialogue.turns] == ["It was cold!", "Hm."]
    assert all(turn.notes["scores"] for turn in dialogue.turns) and dialogue.last_words == "Good enough. [end:4]"
    assert shown[0].startswith("You are a customer") and "[end:1]" in shown[0]
    kinds = [line.split(" ")[0] for line in shown[1:]]
    assert kinds == ["<", "agent>", "judge>", "<", "<", "<", "agent>", "judge>", "<"]  # a verdict before the next line
    assert "persona" in shown[3] and dialogue.turns[0].notes["reason"] in shown[3]
    assert "System state: refunded no; voucher issued no" in shown[2]


def test_a_person_is_the_agent():
    lines = ("Hello <action>there</action> you.", "/voucher", "/voucher It is yours, a voucher was sent.")
    dialogue, shown = sit("agent", *lines)
    assert [(turn.notes["response"], turn.notes["action"]) for turn in dialogue.turns] == [
        ("Hello there you.", "chat"),
        ("It is yours, a voucher was sent.", "voucher"),
    ]
    assert dialogue.end == "rated" and dialogue.cost[0] == 1 and len(dialogue.turns[1].notes["scores"]) == 4
    assert shown[0].startswith("You are a service agent") and "/voucher" in shown[0]
    assert any(line.startswith("Say something with it") for line in shown)
    assert [line.split(" ")[0] for line in shown[-3:]] == ["Say", "<", "judge>"]


def test_a_second_voucher_is_not_taken_for_an_answer():
    config = configs.get_config()
    config.episode.farewell = True  # else a voucher ends the embedded user's conversation
    lines = ("/voucher A voucher was sent to you.", "/voucher And one more for you.", "Goodbye to you then.")
    dialogue, shown = sit("agent", *lines, config=config)
    assert dialogue.end == "rated" and [turn.notes["action"] for turn in dialogue.turns] == ["voucher", "chat"]
    assert any("one voucher in a conversation" in line for line in shown)


@pytest.mark.parametrize("role", ["customer", "agent"])
@pytest.mark.parametrize("leaves", [EOFError(), KeyboardInterrupt()], ids=["EOF", "interrupt"])
def test_who_leaves_is_no_data(role, leaves):
    dialogue, _ = sit(role, "Hello there, my friend.", leaves)
    assert dialogue.failure == "left" and not dialogue.ok and len(dialogue.turns) == 1


def test_a_judge_that_fails_ends_in_a_failed_dialogue():
    config = configs.get_config()
    config.update_from_flattened_dict({"judge.url": "http://127.0.0.1:9/v1", "judge.retries": 0})
    dialogue, _ = sit("customer", "It was cold!", "Fine. [end:5]", config=config)
    assert dialogue.failure == "judge_unreachable"


def test_ctrl_c_ends_the_command_which_keeps_what_was_said(tmp_path):
    (tmp_path / "transcripts").mkdir()
    (tmp_path / "transcripts" / "step_000001.jsonl").touch()  # the first held-out scenario was played before
    arguments = ["-m", "cmpo.play", "--config=configs/fds.py", f"--out={tmp_path}", "--role=agent"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, *arguments], cwd=ROOT, text=True, **pipes)
    process.stdin.write("I am sorry, and I mean it.\n")
    process.stdin.flush()
    shown = ""
    while shown.count("you> ") < 2:  # it waits for a second line
        shown += process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0 and "failed (left)" in out and "Traceback" not in err
    kept = json.loads((tmp_path / "transcripts" / "step_000002.jsonl").read_text())
    assert (kept["failure"], kept["outcome"], kept["turns"][0]["action"]) == ("left", 0.0, "chat")
    assert kept["task"]["id"] == list(itertools.islice(generator.deal_scenarios(1000, split="test"), 2))[1].id
