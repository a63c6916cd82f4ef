"""The command that measures an agent on tau2-bench: its bad input, and its table by hand."""

import json

import pytest

from cmpo import tau2
from rollouts.domains.tau2.official import Played
from tests.builders import commands
from tests.builders.servers import served_of, serving
from tests.faults.server import Server


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected one of --workdir=DIR, --hf=DIR and --agent_url=URL"),
        (["--workdir={0}", "--hf={0}"], "expected one of --workdir=DIR, --hf=DIR and --agent_url=URL"),
        (
            ["--hf={0}", "--domains=retail,hotel"],
            "--domains: expected some of telecom, retail, airline, mock, got 'hotel'",
        ),
        (["--hf={0}"], "--user_url: expected the base URL of an LLM that plays the user, got none"),
        (["--hf={0}", "--user_url=http://127.0.0.1:9/v1"], "--out: expected a directory for the results, got none"),
        (["--hf={0}", "--trials=0"], "--trials"),
        (["--hf={0}", "--domains="], "--domains: expected some of telecom, retail, airline, mock, got none"),
        (["--hf={0}", "--domains=mock,retail,mock"], "--domains: expected each domain once, got 'mock' again"),
        (["--hf={0}", "--temperature=nan"], "--temperature: expected a finite number, got nan"),
        (["--hf={0}", "--temperature=inf"], "--temperature: expected a finite number, got inf"),
        (
            ["--workdir={0}/typo", "--user_url=http://127.0.0.1:9/v1"],
            "--workdir: expected a run with a config.json, found none in",
        ),
        (
            ["--hf={0}", "--out={0}", "--user_url=http://127.0.0.1:9/v1", "--user_api_key_env=NOT_SET"],
            "--user_api_key_env: the environment variable NOT_SET is not set",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anybody_is_asked(tmp_path, arguments, message):
    done = commands.run("cmpo.tau2", *(argument.format(tmp_path) for argument in arguments))
    assert done.returncode == 1 and message in done.stderr and done.stderr.count("\n") == 1
    assert not [*tmp_path.iterdir()]


def test_a_server_says_which_model_it_has():
    with serving(served_of(name="policy")) as url:
        assert tau2.find_listed_model(f"{url}/v1", "--user_url") == "policy"
        tau2.ask_model(f"{url}/v1", "policy", "--user_url")
        with pytest.raises(ValueError, match="--user_url: .*: expected an answer of the model 'other': status 404"):
            tau2.ask_model(f"{url}/v1", "other", "--user_url")
    for wrong in ("http://127.0.0.1:9/v1", "nonsense", f"{url}/v1"):
        with pytest.raises(ValueError, match="--user_url: .*: expected a server that lists its models"):
            tau2.find_listed_model(wrong, "--user_url")
        with pytest.raises(ValueError, match="--user_url: .*: expected an answer of the model 'policy'"):
            tau2.ask_model(wrong, "policy", "--user_url")


@pytest.mark.parametrize("fault", ["refuse", "reset", "storm", "error", "html", "truncated", "schema", "told"])
def test_a_server_that_answers_with_no_completion_is_refused(fault):
    with Server(lambda number, body: fault) as server:
        with pytest.raises(ValueError, match=f"--agent_url: {server.url}: expected an answer of the model 'm'"):
            tau2.ask_model(server.url, "m", "--agent_url")
        assert len(server.log) == 1


def test_one_token_is_asked_for_with_the_key_and_a_model_that_wants_more_is_there():
    async def answer(content):
        said = "unsupported: max_tokens" if json.loads(content)["model"] == "thinker" else "no such model"
        return 400, said.encode()

    with Server(answer=answer) as server:
        tau2.ask_model(server.url, "thinker", "--agent_url", "secret")
        with pytest.raises(ValueError, match="status 400: no such model"):
            tau2.ask_model(server.url, "other", "--agent_url")
    first, second = server.log
    assert first.body["max_tokens"] == 1 and first.headers["authorization"] == "Bearer secret"
    assert "authorization" not in second.headers


def test_what_was_written_before_is_replaced_when_all_is_there_and_not_before(tmp_path):
    (tmp_path / "mock.json").write_text("old")
    with pytest.raises(RuntimeError), tau2.open_folder(tmp_path) as folder:
        (folder / "mock.json").write_text("half")
        raise RuntimeError
    assert (tmp_path / "mock.json").read_text() == "old" and (folder / "mock.json").read_text() == "half"
    with tau2.open_folder(tmp_path) as other:
        (other / "mock.json").write_text("new")
        assert (tmp_path / "mock.json").read_text() == "old"
    assert (tmp_path / "mock.json").read_text() == "new" and not other.exists()
    for file in (tmp_path / "mock.json", tmp_path / "mock.json" / "below"):
        with pytest.raises(ValueError, match=f"--out: {file}: expected a directory to write to"):
            tau2.open_folder(file).__enter__()


def test_the_table_by_hand():
    """Two tasks, two trials: one is solved once, the other never, and one dialogue was not finished."""
    played = [
        Played("a", 0, 1.0, "user_stop", True, True, 1.0),
        Played("a", 1, 0.0, "max_steps", False, True, 0.5),
        Played("b", 0, 0.0, "user_stop", None, False, None),
        Played("b", 1, 0.0, "agent_error", None, None, None, "it died"),
    ]
    found = tau2.summarize(played, {"a": 1.0, "b": 0.0, "c": 0.0}, 2)
    assert (found["tasks"], found["dialogues"], found["idle"]) == (2, 4, 0.5)
    assert found["pass"] == {"pass^1": 0.25, "pass^2": 0.0}
    assert [found["scores"][name]["mean"] for name in ("pass^1", "communication", "databases", "actions")] == [
        0.25,
        0.5,
        pytest.approx(2 / 3),
        0.75,
    ]
    assert found["unfinished"] == ["b, trial 1"]
    assert found["ends"] == {"agent_error": 1, "max_steps": 1, "user_stop": 2}
    assert found["scores"]["pass^1"]["low"] == 0.0 and found["scores"]["pass^1"]["high"] == 0.5
    rows = tau2.format_table({"mock": found}, 2).splitlines()
    head = ["domain", "tasks", "Pass^1", "95 %", "Pass^2", "communication", "databases", "actions", "doing nothing"]
    assert rows[0] == f"| {' | '.join([*head, 'not finished'])} |"
    assert rows[2] == "| mock | 2 | 25.0 | 0.0–50.0 | 0.0 | 50.0 | 66.7 | 75.0 | 50.0 | 1 |"
    assert rows[3] == "| mean |  | 25.0 |  |  |  |  |  | 50.0 |  |"
