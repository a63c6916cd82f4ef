"""The evaluation by command and by function: what its file says, remote agents, and evaluators only where asked."""

import http.server
import itertools
import json
import subprocess
import sys
import threading

import pytest
from ml_collections import ConfigDict

from cmpo import evaluate
from cmpo.evaluation import conditions, measures
from cmpo.run import files, schema
from cmpo.run.json_lines import to_json_value
from cmpo.run.log import RunLog
from cmpo.training import collecting
from rollouts.domains.fds import generator, turn_format
from rollouts.domains.fds.embedded import app as embedded
from rollouts.domains.fds.scripted import ScriptedAgent
from rollouts.endpoints.client import BudgetReached
from tests.builders import commands
from tests.builders.dialogues import FDS
from tests.builders.run_pages import RunPage
from tests.builders.runs import ROOT, full_disk, tiny

TURN = turn_format.render_reply(turn_format.Reply("hm", "Could you send me a photo of it?", "chat"))
SECRET = "s3cret-key"


class Server:
    """An OpenAI-compatible endpoint on loopback: `answer(messages)` gives the text, or a status."""

    def __init__(self, answer):
        self.requests, server = [], self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.requests.append((dict(self.headers), body))
                found = answer(body["messages"])
                text = json.dumps({"choices": [{"message": {"role": "assistant", "content": found}}]}).encode()
                self.send_response(found if isinstance(found, int) else 200)
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_):
                pass

        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._http.shutdown()
        self._http.server_close()


def remote(answer, **changes):
    with Server(answer) as server:
        config = tiny(**{"agent.url": server.url, "agent.model": "some/model", "agent.retries": 0, **changes})
        return evaluate.play_evaluation(config, collecting.serve_endpoint(config), seeds=1), server.requests, config


def test_a_remote_agent_gets_the_policys_prompt_and_plays_by_its_rules():
    played, requests, _ = remote(lambda messages: TURN)
    assert len(played) == 8 and all(one.dialogue.ok and one.dialogue.turns for one in played)
    prompts = {one.dialogue.task.agent_prompt for one in played}
    for _, body in requests:
        roles = [message["role"] for message in body["messages"]]
        assert roles == ["system", *["user", "assistant"] * len(roles)][: len(roles)] and roles[-1] == "user"
        assert body["messages"][0]["content"] in prompts
        assert all(message["content"] == TURN for message in body["messages"] if message["role"] == "assistant")
        assert (body["model"], body["max_tokens"], "response_format" in body) == ("some/model", 1024, False)
    assert len(requests) == sum(len(one.dialogue.turns) for one in played)
    assert [turn.notes["response"] for turn in played[0].dialogue.turns] == ["Could you send me a photo of it?"] * len(
        played[0].dialogue.turns
    )


@pytest.mark.parametrize("text", ["Hello.", TURN + TURN, TURN[:-5], TURN.replace("chat<", "refund<"), "```" + TURN])
def test_a_remote_agents_bad_format_is_its_own_and_no_failure(text):
    played, _, config = remote(lambda messages: text)
    assert {one.dialogue.end for one in played} == {"malformed"} and all(one.dialogue.ok for one in played)
    summary = evaluate.compose_result(config, "x", played, remote=True)["summary"]
    for name in ("satisfaction", "finish_rate", "process_reward", "communication", "logic"):
        assert (summary[name]["mean"], summary[name]["count"]) == (0.0, 8)


def test_an_endpoint_that_fails_is_in_the_denominator_and_listed():
    def answer(messages):
        return 503 if "tag: late" in messages[0]["content"] or "tag: missing" in messages[0]["content"] else TURN

    played, _, config = remote(answer, **{"train.max_failed_fraction": 0.99})
    failed = sum(not one.dialogue.ok for one in played)
    assert 0 < failed < 8
    found = evaluate.compose_result(config, "x", played, remote=True)
    assert found["failures"]["agent_http_503"]["count"] == failed
    assert "config.agent.url" in found["failures"]["agent_http_503"]["message"]
    assert found["summary"]["failure_rate"]["mean"] == failed / 8 and found["summary"]["finish_rate"]["count"] == 8
    assert found["summary"]["finish_rate"]["mean"] == sum(one.dialogue.success for one in played) / 8
    assert found["summary"]["satisfaction"]["count"] == 8 - failed
    assert f"failed: {failed} agent_http_503; the last: config.agent.url" in evaluate.format_report(found)


def test_an_evaluation_that_was_stopped_asks_nobody_twice_where_it_recorded(tmp_path):
    changes = {"endpoints.record": str(tmp_path)}
    with pytest.raises(BudgetReached, match=r"config\.agent\.budget_calls"):
        remote(lambda messages: TURN, **changes, **{"agent.budget_calls": 10})
    kept = [json.loads(path.read_text())["request"]["endpoint"] for path in tmp_path.glob("*/*.json")].count("agent")
    expected, requests, config = remote(lambda messages: TURN)
    played, rest, _ = remote(lambda messages: TURN, **changes)
    assert evaluate.compose_result(config, "x", played) == evaluate.compose_result(config, "x", expected)
    assert 0 < kept <= 10 and len(rest) == len(requests) - kept


def test_attempts_that_were_played_again_and_how_dialogues_ended_are_said():
    answers = itertools.chain([503], itertools.repeat("Hello."))
    played, _, config = remote(lambda messages: next(answers))
    found = evaluate.compose_result(config, "x", played, remote=True)
    assert (found["failures"], found["ends"], found["replaced"]) == ({}, {"malformed": 8}, {"agent_http_503": 1})
    assert sorted(row["replaced"] for row in found["dialogues"]) == [[]] * 7 + [["agent_http_503"]]
    lines = evaluate.format_report(found).split("\n")
    assert "ended: 8 malformed" in lines and "played again after a failure: 1 agent_http_503" in lines
    assert "again" not in evaluate.format_report(found | {"replaced": {}})


def test_scripted_agents_and_the_evaluators():
    found = {}
    for name in ("never", "always"):
        config = tiny(**{"eval.scenarios": 24})
        played = evaluate.play_evaluation(config, collecting.serve_agent(ScriptedAgent(name)), seeds=1)
        found[name] = measures.summarize_rows(FDS, [measures.describe_dialogue(FDS, *one) for one in played])
    never, always = found["never"], found["always"]
    assert never["voucher_rate"]["mean"] == 0 and always["voucher_rate"]["mean"] > 0.9
    assert always["satisfaction"]["mean"] > never["satisfaction"]["mean"]
    assert never["compensation"]["count"] == 0 and always["compensation"]["count"] > 20
    for name, top in (("communication", 28), ("logic", 12), ("compensation", 6)):
        assert 0 < always[name]["mean"] < top
    assert never["logic"]["mean"] > always["logic"]["mean"]


def test_a_shift_is_of_domains_that_have_one_and_is_recorded():
    config = tiny(**{"eval.scenarios": 2, "eval.evaluators": False})
    evaluate.shift_tasks(config, "noise=capitals")
    played = evaluate.play_evaluation(config, collecting.serve_agent(ScriptedAgent("never")), 1)
    found = evaluate.compose_result(config, "never", played)
    assert found["config"]["data"]["shift"] == "noise=capitals"
    first = [one.dialogue.turns[0].messages[-1].content for one in played]
    assert all(words == words.upper() for words in first)
    plain = tiny(**{"eval.scenarios": 2, "eval.evaluators": False})
    other = evaluate.play_evaluation(plain, collecting.serve_agent(ScriptedAgent("never")), 1)
    (field,) = (
        each
        for each in conditions.find_differences(found, evaluate.compose_result(plain, "never", other))
        if each.field == "data.shift"
    )
    assert str(field) == "data.shift 'noise=capitals' and 'none'"
    with pytest.raises(ValueError, match="config.data.shift: .*expected none, all, or of phrasing"):
        evaluate.shift_tasks(tiny(), "sideways")
    with pytest.raises(ValueError, match="--shift: expected a domain that has shifts, such as fds, got '.*shop'"):
        evaluate.shift_tasks(ConfigDict({"domain": "tests.builders.shop", "pid": {"target": {}}}), "all")


def test_evaluators_are_asked_in_evaluation_only_where_the_config_says_so():
    agent = collecting.serve_agent(ScriptedAgent("never"))
    played = evaluate.play_evaluation(tiny(**{"eval.evaluators": False}), agent, seeds=1)
    assert all(one.evaluations == {} for one in played)
    played = evaluate.play_evaluation(tiny(), agent, seeds=1)
    assert all(set(one.evaluations) == {"communication", "logic"} for one in played)


def test_the_judge_votes_as_often_as_the_config_says():
    with Server(embedded.judge_conversation) as server:
        config = tiny(**{"judge.url": server.url, "judge.votes": 3, "eval.scenarios": 2})
        played = evaluate.play_evaluation(config, collecting.serve_agent(ScriptedAgent("never")), seeds=1)
    turns = sum(len(one.dialogue.turns) for one in played)
    assert turns and len(server.requests) == 3 * (turns + 2 * 2)
    assert {body["response_format"]["type"] for _, body in server.requests} == {"json_schema"}
    assert len({body["seed"] for _, body in server.requests}) == len(server.requests)


def test_no_votes_are_refused():
    with pytest.raises(ValueError, match="config.judge.votes: expected 1 or more, got 0"):
        schema.check_config(tiny(**{"judge.votes": 0}))


def test_the_result_says_with_what_it_was_measured_and_recomputes():
    config = tiny(**{"user.model": "embedded-user"})
    played = evaluate.play_evaluation(config, collecting.serve_agent(ScriptedAgent("generous")), seeds=2)
    found = json.loads(json.dumps(evaluate.compose_result(config, "generous", played, step=3), allow_nan=False))
    assert found["user"] == {"url": "embedded", "model": "embedded-user"}
    assert found["judge"] == {"url": "embedded", "model": "embedded-judge"} and "agent_endpoint" not in found
    assert found["prompts"] == generator.prompt_hashes() and found["step"] == 3
    assert [one["seed"] for one in found["seeds"]] == [1000, 1001]
    assert len({one["scenarios"] for one in found["seeds"]}) == 2
    assert to_json_value(measures.summarize_rows(FDS, found["dialogues"])) == found["summary"]
    assert to_json_value(measures.summarize_groups(FDS, found["dialogues"], "level")) == found["by_level"]
    assert set(found["by_demand"]) <= set(generator.DEMANDS)
    assert len(found["dialogues"]) == sum(found["ends"].values()) == 16
    assert all(row["evaluators"]["logic"]["reason"] for row in found["dialogues"])


def test_a_result_that_finds_no_room_leaves_the_old_one(tmp_path):
    played, _, config = remote(lambda messages: TURN)
    found, out = evaluate.compose_result(config, "x", played), tmp_path / "evaluation_x.json"
    evaluate.write_result(out, found, played)
    before = out.read_bytes()
    with full_disk(), pytest.raises(OSError, match="evaluation_x."):
        evaluate.write_result(out, found | {"agent": "y"}, played)
    assert out.read_bytes() == before and json.loads(before)["agent"] == "x"


def test_whoever_finds_a_result_finds_its_dialogues(tmp_path, monkeypatch):
    played, _, config = remote(lambda messages: TURN)
    found, out, written = evaluate.compose_result(config, "x", played), tmp_path / "evaluation_x.json", []
    replace_file = files.replace_file
    monkeypatch.setattr(files, "replace_file", lambda path, text: written.append(path) or replace_file(path, text))
    assert [evaluate.write_result(out, found, played), out] == written


def test_room_is_made_before_anybody_is_asked(tmp_path):
    files.make_parent_directory(tmp_path / "a" / "b" / "e.json")
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "e.json"):
        with pytest.raises(OSError, match=f"cannot write {path}: "):
            files.make_parent_directory(path)


def command(*arguments):
    line = [sys.executable, "-m", "cmpo.evaluate", f"--config={ROOT}/configs/fds.py:smoke", "--seeds=1", *arguments]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)


def test_the_command_with_a_remote_agent(tmp_path, monkeypatch):
    monkeypatch.setenv("EVALUATE_TEST_KEY", SECRET)
    with RunLog(tmp_path / "new", ()) as log:  # of a run that has just begun
        log.write({"step": 1, "phase": "sft", "loss": 3.0})
    (tmp_path / "new" / "config.json").write_text("{}")
    with Server(lambda messages: TURN) as server:
        where = f"--workdir={tmp_path / 'new'}", "--config.eval.scenarios=2"
        done = command(
            f"--agent_url={server.url}", "--agent_model=some/model", "--agent_api_key_env=EVALUATE_TEST_KEY", *where
        )
        assert done.returncode == 0, done.stderr
        assert {headers["Authorization"] for headers, _ in server.requests} == {f"Bearer {SECRET}"}
    found = json.loads((tmp_path / "new" / "evaluation_some-model.json").read_text())
    assert found["agent"] == "some/model"
    assert found["agent_endpoint"] == {"url": server.url, "model": "some/model"}
    assert SECRET not in done.stdout + json.dumps(found)
    assert evaluate.format_report(found) in done.stdout
    lines = (tmp_path / "new" / "evaluation_some-model.transcripts.jsonl").read_text().splitlines()
    page = RunPage(tmp_path / "new" / "report.html")
    assert page.run["evaluations"]["table"]["rows"][0][0] == "some-model"
    assert [json.loads(line)["task"]["id"] for line in lines] == [row["scenario"] for row in found["dialogues"]]


def test_an_endpoint_without_a_model_is_told_in_one_line():
    done = commands.run("cmpo.evaluate", f"--config={ROOT}/configs/fds.py:smoke", "--agent_url=http://127.0.0.1:9/v1")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "--agent_model: expected the name of the model" in done.stderr
