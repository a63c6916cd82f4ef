"""The command that measures an agent on tau2-bench, with the benchmark's package: what it asks and what it keeps."""

import json

import pytest

from tests.builders import commands
from tests.faults.server import Server, completion

DEAD = "http://127.0.0.1:9/v1"
USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
NAMED = {"id": "1", "object": "chat.completion", "created": 1, "model": "m"}  # or the client fails at its prices


@pytest.fixture
def out(package, tmp_path):
    """A directory with results that an earlier command paid for."""
    (tmp_path / "mock.json").write_text("paid")
    return tmp_path


def play(out, agent, user, *arguments):
    """Plays a task of the domain `mock`, or what the arguments say."""
    servers = [f"--agent_url={agent}", "--agent_model=a", f"--user_url={user}", "--user_model=u"]
    return commands.run("cmpo.tau2", *servers, f"--out={out}", "--domains=mock", "--tasks=1", "--trials=1", *arguments)


def server_of(*refused, status=503):
    """A server whose model ends the dialogue; requests of these numbers it refuses with a status."""
    count = iter(range(10**6))

    async def answer(content):
        if next(count) in refused:
            return status, b'{"error": {"message": "it is warming up", "type": "x"}}'
        return 200, json.dumps(json.loads(completion("###STOP###", usage=USAGE)) | NAMED).encode()

    return Server(answer=answer)


def assert_refused(done, out, message):
    assert done.returncode == 1 and message in done.stderr and done.stderr.count("\n") == 1
    assert [path.name for path in out.iterdir()] == ["mock.json"] and (out / "mock.json").read_text() == "paid"


@pytest.mark.parametrize(
    ("domains", "split", "message"),
    [
        ("mock", "nope", "--split: expected one of base, the splits of mock, got 'nope'"),
        (
            "telecom,retail,mock",
            "small",
            "--split: expected one of base, test, train, the splits of retail, got 'small'",
        ),
        (
            "telecom",
            "extra",
            "--split: expected one of base, full, small, test, train, the splits of telecom, got 'extra'",
        ),
        (
            "airline",
            "train+test",
            "--split: expected one of base, test, train, the splits of airline, got 'train+test'",
        ),
        ("mock", "", "--split: expected one of base, the splits of mock, got ''"),
    ],
)
def test_a_split_that_one_of_the_domains_lacks_is_refused_before_anybody_is_asked(out, domains, split, message):
    with server_of() as server:
        done = play(out, server.url, server.url, f"--domains={domains}", f"--split={split}")
    assert_refused(done, out, message)
    assert not server.log


@pytest.mark.parametrize(("dead", "asked"), [("agent", 1), ("user", 0)])
def test_a_server_that_does_not_answer_is_found_before_anything_is_played(out, dead, asked):
    with server_of() as server:
        done = play(out, *(DEAD if role == dead else server.url for role in ("agent", "user")))
    assert_refused(done, out, f"--{dead}_url: {DEAD}: expected an answer of the model {dead[0]!r}")
    assert len(server.log) == asked


def test_a_file_is_no_directory_for_results(out):
    with server_of() as server:
        done = play(out / "mock.json", server.url, server.url)
    assert_refused(done, out, f"--out: {out / 'mock.json'}: expected a directory to write to")
    assert not server.log


def test_a_server_that_is_busy_for_some_requests_is_asked_again(out):
    """After the first request, of the command, four are refused: as often as the client asks without tenacity."""
    with server_of() as agent, server_of(1, 2, 3, 4) as user:
        done = play(out, agent.url, user.url)
    assert done.returncode == 0 and not done.stderr
    (domain,) = json.loads((out / "tau2.json").read_text())["domains"].values()
    assert domain["dialogues"] == 1 and not domain["unfinished"] and domain["ends"] == {"user_stop": 1}
    assert {path.name for path in out.iterdir()} >= {"mock.json", "mock.log", "tau2.md"}
    assert json.loads((out / "mock.json").read_text())["simulations"] and not [*out.glob("playing_*")]


def test_where_no_dialogue_was_finished_the_command_fails_and_earlier_results_stay(out):
    with server_of() as agent, server_of(*range(1, 99), status=400) as user:
        done = play(out, agent.url, user.url)
    (folder,) = out.glob("playing_*")
    assert done.returncode == 1 and done.stdout == (folder / "tau2.md").read_text()
    assert f"client finished no dialogue, so that every score is 0; it says why in {folder / 'mock.log'}" in done.stderr
    assert json.loads((folder / "tau2.json").read_text())["domains"]["mock"]["unfinished"] == ["create_task_1, trial 0"]
    assert "it is warming up" in (folder / "mock.log").read_text()
    assert (out / "mock.json").read_text() == "paid" and not (out / "tau2.json").exists()
