"""The command that talks to an agent: a run's policy in this process, a server over HTTP, and what a person types."""

import asyncio
import itertools
import json
import re

import pytest

from cmpo import chat as command
from cmpo.cli import agents
from cmpo.run.workdir import load_config
from cmpo.training import collecting
from configs import fds
from models import tokenizer
from rollouts.agents.conversation import ChatTask
from rollouts.seeds import fold
from rollouts.types import Message
from tests.builders import commands
from tests.builders.engines import CONFIG, engine_of
from tests.builders.pages import serve_page
from tests.builders.runs import tiny


def talk(opening, *lines):
    """Returns what is shown: the title, and what follows each line that is read."""
    shown, left = [], iter(lines)

    def read(prompt):
        line = next(left, EOFError())
        if isinstance(line, BaseException):
            raise line
        shown.append(f"{prompt}{line}\n")
        return line

    async def run():
        async with opening as (partner, title):
            await command.chat(partner, read, shown.append)
            return title

    title = asyncio.run(run())
    return title, "".join(shown)


def test_the_policy_says_what_it_says_in_a_dialogue():
    config, told = fds.get_config(), "You are kind."
    words = tokenizer.train_tokenizer([f"{told} Hello! And? user assistant system. " * 9], CONFIG.vocab_size)
    policy = agents.Named("policy", collecting.serve_policy(engine_of(), words), 7)
    lines = ("Hello!", "And?", "/new", "Hello!", "/system", "Hello!")
    title, shown = talk(command.open_agent(config, policy, "here", told, 0), *lines)
    assert title.startswith("here, step 7: policy. About a system text of your own. ")
    answers = re.findall(r"agent> (.*?)\naction> format error\nspent> ([^\n]*)\n", shown, re.DOTALL)

    async def ask(told, *seeds):
        async with policy.opened.open() as agent:
            session = await agent.open(ChatTask("chat", told), 0)
            pairs = zip(("Hello!", "And?"), seeds, strict=False)
            return [
                await session.reply([Message("user", text)], fold(config.eval.seed, "turn", *at)) for text, at in pairs
            ]

    expected = [*asyncio.run(ask(told, (1, 0), (1, 1))), *asyncio.run(ask(told, (2, 0))), *asyncio.run(ask("", (3, 0)))]
    assert [text for text, _ in answers] == [sample.text for sample in expected]
    tokens = itertools.accumulate(len(sample.ids) for sample in expected)
    assert [spent for _, spent in answers] == [
        f"voucher 0 (mean of {conversation}: 0.00, budget 0.3), {count} tokens"
        for conversation, count in zip((1, 1, 2, 3), tokens, strict=True)
    ]


def test_a_scripted_agent_follows_its_task():
    config = fds.get_config()
    scripted = agents.Named("always", agents.load_scripted(config, "always"))
    lines = ("It was awful!", "[Sent Picture: it]", "[end:4]", "I take the voucher.")
    commands = ("/system Be kind.", "/nonsense", "/help", "/quit", "unheard")
    title, shown = talk(command.open_agent(config, scripted, "here", None, 0), *lines, *commands)
    # No step: no training made it.
    assert title.startswith("here: always. About food temperature (tag: not fresh or undercooked): ")
    assert shown.count("think> ") == 3 and "think> Bad taste, record: ride of 12 minutes in a heat bag, " in shown
    assert "action> voucher\nspent> voucher 1 (mean of 1: 1.00, budget 0.3)\n" in shown
    assert "you> [end:4]\nerror> the agent would hear nothing of this\n" in shown
    assert "you> /system Be kind.\nerror> a scripted agent follows its task" in shown
    assert "you> /nonsense\nnote> no such command: /nonsense; " in shown and command.HELP in shown
    assert shown.endswith("you> /quit\n")
    with pytest.raises(ValueError, match="--system: expected none"):
        talk(command.open_agent(config, scripted, "here", "Be kind.", 0))


@pytest.mark.parametrize("leaves", [EOFError(), KeyboardInterrupt()], ids=["EOF", "interrupt"])
def test_a_server(leaves):
    with serve_page() as (url, _, models):
        title, shown = talk(
            command.open_url(url, None, None, 2, ""),
            "Hi",
            "a voucher \ud800",
            "",
            "refuse",
            "/new",
            "Hi",
            "/system",
            "Hi",
            "/new",
            "Hi",
            leaves,
        )
        assert title == f"policy at {url}/v1/ (a run, step 7). It sends thoughts along, as far as there are any."
        parts = "think> Plan: Hi.\nagent> I hear: Hi\naction> chat\nspent> voucher 0 (mean of 1: 0.00, budget 0.3), "
        assert shown.startswith(f"you> Hi\n{parts}") and shown.endswith("\n")
        assert "I hear: a voucher \ufffd\naction> voucher\nspent> voucher 1 (mean of 1: 1.00, budget 0.3), " in shown
        assert "error> " in shown and "answered 400: 'messages': too long <b>for me</b>" in shown
        assert "spent> voucher 0 (mean of 2: 0.50, budget 0.3)" in shown
        systems = [body["messages"][0] for body in models.asked]
        assert all(message["content"].startswith("You are a service agent") for message in systems[:4])
        # /system alone: none, and it stays so.
        assert systems[4:] == [{"role": "user", "content": "Hi"}] * 2
        _, shown = talk(command.open_url(f"{url}/v1", "plain", "Be kind.", 0, ""), "<script>")
        assert "agent> <script>\n" in shown
        assert models.asked[-1]["messages"][0] == {"role": "system", "content": "Be kind."}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--workdir, --url: expected one of them"),
        (["--workdir=x", "--url=http://127.0.0.1:9"], "--workdir, --url: expected one of them"),
        (["--workdir=none"], "--workdir: expected a run with a config.json, found none in 'none'"),
        (["--url=nowhere"], "--url: expected http(s)://HOST:PORT/v1, got 'nowhere'"),
        (["--url=http://127.0.0.1:9"], "--url: http://127.0.0.1:9/v1/ cannot be reached: "),
        (["--config=configs/fds.py", "--url=http://127.0.0.1:9"], "--config: expected none"),
        (["--scenario=-1"], "flag --scenario=-1: -1 is not"),
    ],
)
def test_what_cannot_work_is_said_in_one_line(arguments, message):
    ended = commands.run("cmpo.chat", *arguments)
    assert ended.returncode == 1 and ended.stderr.startswith(f"error: {message}") and ended.stderr.count("\n") == 1


def test_the_command(monkeypatch):
    with serve_page(api_key="a-key") as (url, _, _):
        lines = iter(["Hi \x1b[2J", EOFError()])

        def read(prompt):
            line = next(lines)
            if isinstance(line, BaseException):
                raise line
            return line

        monkeypatch.setattr("builtins.input", read)
        assert "answered 401: " in commands.run("cmpo.chat", f"--url={url}").stderr
        monkeypatch.setenv("CHAT_TEST_KEY", "a-key")
        ended = commands.run("cmpo.chat", f"--url={url}", "--agent_api_key_env=CHAT_TEST_KEY", "--model=plain")
    assert (ended.returncode, ended.stderr) == (0, "") and "plain at http" in ended.stdout
    assert "agent> Hi \u241b[2J\n" in ended.stdout and "\x1b" not in ended.stdout  # shown, and not obeyed


def test_a_runs_config_comes_from_its_directory(tmp_path):
    with pytest.raises(FileNotFoundError, match="--workdir: expected a run"):
        load_config(tmp_path)
    path, saved = tmp_path / "config.json", tiny(**{"engine.slots": 5}).to_dict()
    path.write_text(json.dumps(saved))
    config = load_config(tmp_path)
    assert config.to_dict() == saved and config.is_locked
    older = {name: value for name, value in saved.items() if name != "domain"} | {"eval": {"seed": 7}}
    path.write_text(json.dumps(older))
    assert load_config(tmp_path).eval.seed == 7 and load_config(tmp_path).eval.temperature == 0.3
    assert load_config(tmp_path).domain == "fds"
    for field, value, told in (
        ("engine", {"slots": 0}, "config.engine.slots: expected 1 or more, got 0"),
        ("engine", 3, "config.engine: expected a section of settings, got 3"),
        ("pid", 3, "config.pid: expected a section of settings, got 3"),
        ("domain", "none", "config.domain: expected one of"),
        ("judge", {"votes": "x"}, "config.judge.votes: expected an integer, got 'x'"),
    ):
        path.write_text(json.dumps(saved | {field: value}))
        with pytest.raises(ValueError, match=re.escape(told)):
            load_config(tmp_path)
    path.write_text("{")
    with pytest.raises(ValueError, match=re.escape(f"{path}: expected a JSON object")):
        load_config(tmp_path)
