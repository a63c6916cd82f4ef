"""What endpoints were paid for is asked for once, in every phase, and nothing is asked that need not or cannot work."""

import asyncio
import json
import os
import shutil
import signal

import jax
import pytest

from cmpo import evaluate, main
from cmpo.cli import agents
from cmpo.run import journal, workdir
from cmpo.run.interrupt import Interrupted, Interrupts
from cmpo.run.journal import Page
from cmpo.run.log import read_metrics
from cmpo.training import collecting, preparing, tasks
from cmpo.training.clients import make_clients
from models import hf, qwen2
from models import tokenizer as tokenizers
from rollouts.domains.fds.scripted import ScriptedAgent
from rollouts.endpoints.answers import Answer
from rollouts.endpoints.client import BudgetReached, ChatClient
from rollouts.types import DialogueError
from tests.builders.runs import tiny, transcripts


class Asked:
    """Counts the requests that endpoints answer; once so many were, sends a signal and answers no more."""

    def __init__(self, monkeypatch, stop_after=None):
        self.answered, self.bodies = 0, []
        ask = ChatClient._ask_until_answered

        async def asking(client, body, read):
            if self.answered == stop_after:
                await asyncio.sleep(3600)
            answer = await ask(client, body, read)
            self.answered += 1
            self.bodies.append(json.dumps([client._name, body], sort_keys=True))
            if self.answered == stop_after:
                os.kill(os.getpid(), signal.SIGTERM)
            return answer

        monkeypatch.setattr(ChatClient, "_ask_until_answered", asking)


def demonstrate(config, directory):
    """The first part of a run; its demonstrations as text."""
    directory.mkdir(exist_ok=True)
    source = tasks.open_source(config)
    clients = make_clients(config, directory)
    with Interrupts() as interrupts:
        workdir.claim_workdir(directory, config)
        preparing.prepare_run(config, directory, source, None, clients, lambda: interrupts.received)
    return (directory / "demonstrations.jsonl").read_text()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        asked = Asked(patch)
        return demonstrate(tiny(), tmp_path_factory.mktemp("whole") / "run"), sorted(asked.bodies)


def test_demonstrations_go_on_after_a_signal_and_nothing_that_was_answered_is_asked_again(
    uninterrupted, tmp_path, monkeypatch
):
    text, bodies = uninterrupted
    asked = []
    for stop in (len(bodies) // 3, len(bodies) // 3):
        with monkeypatch.context() as patch:
            asked.append(Asked(patch, stop_after=stop))
            with pytest.raises(Interrupted, match="stopped while dialogues were being played") as stopped:
                demonstrate(tiny(), tmp_path)
        (note,) = stopped.value.__notes__
        assert note.endswith("of 8 demonstrations are kept; the same command goes on from there)")
    asked.append(Asked(monkeypatch))
    assert demonstrate(tiny(), tmp_path) == text
    assert sorted(body for one in asked for body in one.bodies) == bodies
    assert list((tmp_path / "dialogues").iterdir()) == []


def test_budgets_that_stop_demonstrations_twice_make_them_no_dearer(uninterrupted, tmp_path):
    text, bodies = uninterrupted
    frugal = {"user.concurrency": 1}
    for budget in (len(bodies) // 3, 2 * len(bodies) // 3):
        with pytest.raises(BudgetReached, match="of 8 demonstrations are kept"):
            demonstrate(tiny(**frugal, **{"user.budget_calls": budget}), tmp_path)
    assert demonstrate(tiny(**frugal), tmp_path) == text
    assert json.loads((tmp_path / "spent" / "user-0.json").read_text())["calls"] == len(bodies)


def test_a_stop_by_ctrl_c_is_a_line_and_no_traceback(tmp_path, monkeypatch, capsys):
    Asked(monkeypatch, stop_after=5)
    assert main.train(tiny(), tmp_path) is None
    assert "demonstrations are kept; the same command goes on from there)" in capsys.readouterr().out


def test_an_evaluation_goes_on_after_a_signal_and_nothing_that_was_answered_is_asked_again(tmp_path, monkeypatch):
    served_by, seen = collecting.serve_agent(ScriptedAgent("generous")), []

    def play(directory, stop_after=None):
        with monkeypatch.context() as patch, Interrupts() as interrupts:
            seen.append(Asked(patch, stop_after))
            return evaluate.play_evaluation(
                tiny(),
                served_by,
                seeds=2,
                pages=lambda seed: Page(directory / f"seed_{seed}", {}),
                stopping=lambda: interrupts.received,
            )

    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    expected = play(tmp_path / "a")
    count = seen[0].answered
    for stop in (count // 4, count // 2):
        with pytest.raises(Interrupted):
            play(tmp_path / "b", stop)
    assert [repr(one) for one in play(tmp_path / "b")] == [repr(one) for one in expected]
    assert sorted(body for one in seen[1:] for body in one.bodies) == sorted(seen[0].bodies)


def unreachable(patch):
    async def asking(client, body, read):
        raise AssertionError("nobody is to be asked")

    patch.setattr(ChatClient, "_ask_until_answered", asking)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("engine.temperature", 0.0, "more than 0, got 0.0"),
        ("engine.top_p", 0.0, "more than 0 and at most 1, got 0.0"),
        ("engine.rows", 99, "0 to slots, 8, got 99"),
        ("engine.slots", 9, "a multiple of the 2 parts of a process, got 9"),
        ("engine.max_new_tokens", 0, "1 or more, got 0"),
        ("pid.smoothing", 0.0, "more than 0 and at most 1, got 0.0"),
        ("pid.target", 30.0, "0 to 1, got 30.0"),
        ("pid.target", -0.3, "0 to 1, got -0.3"),
        ("pid.initial_lambda", 9.0, "0 <= initial_lambda <= lambda_max, got 9.0"),
        ("mesh.data", 3, "data 3 x fsdp 1 x tensor 1 does not divide 2 devices evenly"),
        ("mesh.tensor", 2, "2 does not divide the model's num_heads 1"),
        ("model.hidden_size", 0, "must be positive, got 0"),
        ("model.vocab_size", 100, "265 or more of a new model, got 100"),
        ("algo.group_size", 1, "2 or more where turns are compared by 'center', got 1"),
        ("algo.name", "trpo", "'gdpo', 'sft'), or package.module, got 'trpo'"),
        ("train.minibatches", 9, "at most the 8 dialogues of a step, got 9"),
        ("train.max_grad_norm", 0.0, "more than 0, got 0.0"),
        ("eval.temperature", -1.0, "0 or more, got -1.0"),
    ],
)
def test_what_cannot_work_is_refused_by_its_field_before_anybody_is_asked(tmp_path, monkeypatch, name, value, message):
    unreachable(monkeypatch)
    with pytest.raises(ValueError, match="config") as refused:
        main.train(tiny(**{name: value}), tmp_path)
    assert message in str(refused.value) and name.partition(".")[0] in str(refused.value)
    assert name.rpartition(".")[2] in str(refused.value) and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("rl_steps", [0, 2])  # of those that demonstrations are played of, or trained on
def test_a_prompt_beyond_the_context_is_named_before_anybody_is_asked(tmp_path, monkeypatch, rl_steps):
    unreachable(monkeypatch)
    short = tiny(**{"model.context_length": 64, "train.rl_steps": rl_steps})
    with pytest.raises(ValueError, match=r"config.model.context_length: the opening of task hard-train-0-\d+ has \d+"):
        main.train(short, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_longer_context_takes_the_demonstrations_that_are_there(tmp_path, monkeypatch):
    short = tiny(**{"model.context_length": 250})
    with pytest.raises(ValueError, match="config.model.context_length: expected room for a turn of at least one of 8"):
        main.train(short, tmp_path)
    made = (tmp_path / "demonstrations.jsonl").read_bytes()
    with pytest.raises(workdir.ConfigConflict, match="sft.dialogues is 8 there, 9 here"):
        main.train(tiny(**{"sft.dialogues": 9}), tmp_path)
    with monkeypatch.context() as patch:
        unreachable(patch)
        long = tiny(**{"model.context_length": 512, "model.vocab_size": 500, "train.rl_steps": 0})
        assert int(main.train(long, tmp_path).step) == 2
    assert (tmp_path / "demonstrations.jsonl").read_bytes() == made
    assert hf.read_config(tmp_path / "model").max_positions == 512
    assert tokenizers.load(tmp_path / "tokenizer").vocab_size == 500


def test_a_demonstration_longer_than_a_row_or_than_the_context_trains(tmp_path, caplog):
    turns = [{"role": "user", "content": "cold " * 40}, {"role": "assistant", "content": TURN}]
    lines = [{"messages": [{"role": "system", "content": "Serve."}, *(turns * count)]} for count in (2, 9, 60)]
    (tmp_path / "demos.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    config = tiny(
        **{"sft.path": str(tmp_path / "demos.jsonl"), "train.row_length": 300, "model.context_length": 900},
        **{"train.rl_steps": 0, "sft.batch_rows": 1, "train.sft_steps": 3},
    )
    assert int(main.train(config, tmp_path / "run").step) == 3
    assert "1 of 3 demonstrations are longer than config.model.context_length, 900 tokens" in caplog.text
    assert all(record["updates_skipped"] == 0 for record in read_metrics(tmp_path / "run"))


TURN = "<think>x</think><response>I am sorry.</response><action>chat</action>"


def test_no_demonstrations_are_played_for_a_model_that_is_there_and_no_phase_1(tmp_path, monkeypatch):
    demonstrate(tiny(), tmp_path / "texts")
    tokenizer = tokenizers.load(tmp_path / "texts" / "tokenizer")
    config = hf.read_config(tmp_path / "texts" / "model")
    hf.save(tmp_path / "hf", config, qwen2.init(config, jax.random.key(0)))
    tokenizer.save(tmp_path / "hf")
    unreachable(monkeypatch)
    start = tiny(f"model={tmp_path / 'hf'}", **{"train.sft_steps": 0, "train.rl_steps": 0})
    main.train(start, tmp_path / "run")
    assert not (tmp_path / "run" / "demonstrations.jsonl").exists()


def test_a_dialogue_that_does_not_fit_does_not_stop_a_run(tmp_path, monkeypatch):
    """One customer of the four begins with more than the context holds."""
    chat = ChatClient.chat

    async def talking(client, messages, *, seed, **options):
        words = await chat(client, messages, seed=seed, **options)
        asked = client._name == "user" and len(messages) == 2 and "level 1" not in messages[0].content
        return words + " cold" * 500 if asked and seed % 2 else words

    monkeypatch.setattr(ChatClient, "chat", talking)
    config = tiny(**{"train.sft_steps": 1, "train.rl_steps": 1, "model.context_length": 512})
    assert int(main.train(config, tmp_path).step) == 2
    rows = [json.loads(line) for line in transcripts(tmp_path)["step_000002.jsonl"].splitlines()]
    ends = [row["end"] for row in rows]
    assert 0 < ends.count("context") < len(ends) == 8
    assert all(not row["turns"] for row in rows if row["end"] == "context")


@pytest.fixture(scope="module")
def phase_1(tmp_path_factory):
    """A run that has phase 1 behind it."""
    directory = tmp_path_factory.mktemp("phase_1") / "run"
    main.train(tiny(**{"train.rl_steps": 0}), directory)
    return directory


def test_a_finished_run_trains_on_with_what_only_that_depends_on_changed_and_longer_but_not_shorter(phase_1, tmp_path):
    run = shutil.copytree(phase_1, tmp_path / "run")
    with pytest.raises(workdir.ConfigConflict, match="sft.learning_rate is"):
        main.train(tiny(**{"sft.learning_rate": 0.5}), run)
    changed = {"pid.initial_lambda": 0.5, "algo.process_weight": 2.0, "engine.temperature": 1.0}
    assert int(main.train(tiny(**changed, **{"train.rl_steps": 1}), run).step) == 3
    assert read_metrics(run)[-1]["lambda"] == 0.5
    longer = tiny(**changed, **{"train.rl_steps": 2, "train.keep_checkpoints": 2, "train.max_failed_fraction": 0.1})
    assert int(main.train(longer, run).step) == 4
    shorter, other = (tiny(**changed | one) for one in ({"train.rl_steps": 1}, {"pid.initial_lambda": 0.1}))
    with pytest.raises(ValueError, match=r"config.train.rl_steps: .* the steps done in .*, 4 in all, got 3"):
        main.train(shorter, run)
    with pytest.raises(workdir.ConfigConflict, match="pid.initial_lambda is 0.5 there, 0.1 here"):
        main.train(other, run)
    assert json.loads((run / "config.json").read_text()) == longer.to_dict()


def test_dialogues_that_other_settings_played_are_not_learnt_from(phase_1, tmp_path, monkeypatch):
    run = shutil.copytree(phase_1, tmp_path / "run")
    add, chat, begun, ended = journal.Page.add, ChatClient.chat, [], []

    async def answering(client, messages, *, seed, **options):
        begun.append(seed)
        if len(begun) in (4, 5, 6, 7, 8):
            await asyncio.sleep(3600)
        return await chat(client, messages, seed=seed, **options)

    def adding(page, number, dialogue):
        add(page, number, dialogue)
        ended.append(number)
        if len(ended) == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(ChatClient, "chat", answering)
    monkeypatch.setattr(journal.Page, "add", adding)
    assert int(main.train(tiny(**{"train.rl_steps": 1}), run).step) == 2 and len(ended) == 3
    assert int(main.train(tiny(**{"train.rl_steps": 1, "engine.temperature": 1.0}), run).step) == 3
    assert len(ended) == 3 + 8


def test_a_workdir_whose_checkpoints_outlived_its_metrics_is_still_that_run(phase_1, tmp_path):
    run = shutil.copytree(phase_1, tmp_path / "run")
    (run / "metrics.jsonl").unlink()
    with pytest.raises(workdir.ConfigConflict, match="model.hidden_size is 16 there, 32 here"):
        main.train(tiny(**{"model.hidden_size": 32}), run)


def test_a_judge_that_was_malformed_is_asked_anew_by_whoever_goes_on(tmp_path, monkeypatch):
    """What a customer had said is not asked for again, neither then nor where a dialogue is replaced."""
    ask, said, broken = ChatClient._ask_until_answered, [], True
    scenarios = tasks.open_source(tiny()).train(0, 3)

    async def asking(client, body, read):
        said.append((client._name, json.dumps(body)))
        teapot = broken and client._name == "judge"
        return Answer("I am a teapot.") if teapot else await ask(client, body, read)

    def play():
        with Page(tmp_path / "page", {}) as page:
            return collecting.collect_dialogues(
                tiny(), collecting.serve_agent(ScriptedAgent("never")), scenarios, repeats=1, seed=0, page=page
            )

    monkeypatch.setattr(ChatClient, "_ask_until_answered", asking)
    with pytest.raises(collecting.RolloutsFailed, match=r"3 of 3 dialogues failed \(3 judge_malformed\)"):
        play()
    assert len(said) == len(set(said)) and {name for name, _ in said} == {"user", "judge"}
    broken, before = False, set(said)
    said.clear()
    assert all(dialogue.ok for dialogue in play())
    assert {name for name, _ in said} == {"judge"} and not before & set(said)


def test_other_settings_play_anew_but_pay_for_nothing_twice(tmp_path, monkeypatch):
    first, second = Page(tmp_path / "page", {"agent": "a"}), Page(tmp_path / "page", {"agent": "b"})
    generous = collecting.serve_agent(ScriptedAgent("generous"))
    source = tasks.open_source(tiny())
    for page in (first, second):
        with monkeypatch.context() as patch, page:
            asked = Asked(patch)
            assert page.numbers == set()
            collecting.collect_dialogues(
                tiny(), generous, source.train(0, 2), repeats=1, seed=0, judged=False, page=page
            )
            assert page.numbers == {0, 1} and (asked.answered > 0) == (page is first)


def test_pages_of_agents_that_only_share_a_name_are_not_each_others():
    config = tiny(**{"agent.model": "m"})
    rates = [agents.load_scripted(config, "oracle", rate).identity for rate in (0.0, 1.0)]
    urls = []
    for port in (1, 2):
        config.agent.url = f"http://127.0.0.1:{port}/v1"
        urls.append(collecting.serve_endpoint(config).identity)
    assert len({*rates, *urls}) == 4


def test_a_setting_that_kept_all_demonstrations_from_being_played_may_be_corrected(
    uninterrupted, tmp_path, monkeypatch
):
    ask = ChatClient._ask_until_answered

    async def refusing(client, body, read):
        raise DialogueError("user_http_404", "no such model")

    monkeypatch.setattr(ChatClient, "_ask_until_answered", refusing)
    with pytest.raises(collecting.RolloutsFailed, match="8 user_http_404"):
        demonstrate(tiny(**{"user.model": "typo"}), tmp_path)
    monkeypatch.setattr(ChatClient, "_ask_until_answered", ask)
    assert demonstrate(tiny(), tmp_path) == uninterrupted[0]


def test_a_run_keeps_to_the_demonstrations_it_began_with(tmp_path, monkeypatch):
    line = {"messages": [{"role": role, "content": text} for role, text in SAID]}
    brought = tmp_path / "demos.jsonl"
    brought.write_text(json.dumps(line) + "\n")
    config = {"sft.path": str(brought), "train.sft_steps": 1, "train.rl_steps": 0, "sft.batch_rows": 1}
    with pytest.raises(FileNotFoundError, match="config.sft.path"):
        main.train(tiny(**config | {"sft.path": str(tmp_path / "none.jsonl")}), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    main.train(tiny(**config), tmp_path / "run")
    brought.unlink()
    assert int(main.train(tiny(**config | {"train.sft_steps": 2}), tmp_path / "run").step) == 2


def test_rules_and_a_model_are_not_the_same_customer_in_one_run(phase_1, tmp_path):
    run = shutil.copytree(phase_1, tmp_path / "run")
    with pytest.raises(workdir.ConfigConflict, match="user.embedded is True there, False here"):
        main.train(tiny(**{"user.url": "http://127.0.0.1:9/v1"}), run)


SAID = [("system", "Serve."), ("user", "Cold!"), ("assistant", TURN)]
