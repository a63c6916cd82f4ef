"""A second domain through the whole loop: nothing but its own module and a config knows of it."""

import json

import numpy as np
import pytest

from cmpo import evaluate, main
from cmpo.cli import agents
from cmpo.evaluation import results
from cmpo.reports import run_page
from cmpo.run.log import read_metrics
from cmpo.training import collecting
from models import tokenizer as tokenizers
from rollouts import domains
from rollouts.domain import Closing, Effect
from rollouts.engine import grammar
from tests.builders import commands, shop
from tests.builders.run_pages import RunPage
from tests.builders.runs import tiny, transcripts


def settings():
    config = tiny(
        **{
            "domain": "tests.builders.shop",
            "model.hidden_size": 32,
            "model.intermediate_size": 64,
            "model.num_heads": 2,
            "model.vocab_size": 300,
            "engine.max_new_tokens": 12,
            "sft.dialogues": 24,
            "sft.learning_rate": 2e-2,
            "train.sft_steps": 24,
            "train.rl_steps": 3,
            "train.row_length": 512,
            "train.checkpoint_every": 9,
            "eval.evaluators": False,
        }
    )
    with config.ignore_type():
        config.pid.target = {"refund": 0.5, "turns": 3.0}
        config.pid.initial_lambda = {"refund": 0.4, "turns": 0.2}
    return config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("shop")
    return workdir, main.train(settings(), workdir)


def test_its_costs_and_measures_are_in_the_metrics_the_curves_and_the_page(run):
    workdir, state = run
    records = [record for record in read_metrics(workdir) if record["phase"] == "rl"]
    assert len(records) == 3 and records[0]["lambda"] == pytest.approx({"refund": 0.4, "turns": 0.2})
    keys = {"content", "refund_mean", "refund_mean_smoothed", "turns_mean", "turns_mean_smoothed", "finish_rate"}
    assert keys <= set(records[0]) and "satisfaction" not in records[0] and "voucher_rate" not in records[0]
    assert max(record["finish_rate"] for record in records) > 0  # the policy has learnt to write turns
    page = RunPage(workdir / "report.html")
    assert {"Refund, euros", "Content (0 to 1)", "Turns", "Multiplier of refunds"} <= page.panels().keys()
    assert page.run["budgets"][0] == "refunds 0.50" and page.run["costs"] == ["refund", "turns"]
    assert {line for group in page.groups(page.run["batches"][0]["key"]) for line in group["lines"]} >= {"worth: 4"}
    assert "oucher" not in page.parsed.scripts["data"]


def test_what_a_dialogue_cost_is_the_sum_over_its_turns(run):
    workdir, _ = run
    said = [json.loads(line) for text in transcripts(workdir).values() for line in text.splitlines()]
    for dialogue in said:
        for name in ("refund", "turns"):
            assert dialogue["cost"][name] == sum(turn["cost"][name] for turn in dialogue["turns"])
        assert dialogue["cost"]["turns"] == len(dialogue["turns"]) and dialogue["task"]["worth"] in (2, 4)
    records = [record for record in read_metrics(workdir) if record["phase"] == "rl"]
    by_step = [said[8 * step : 8 * step + 8] for step in range(3)]
    for record, dialogues in zip(records, by_step, strict=True):
        assert record["refund_mean"] == pytest.approx(np.mean([one["cost"]["refund"] for one in dialogues]))


def test_it_is_evaluated_by_its_own_measures_and_labels(run, tmp_path):
    workdir, state = run
    served_by, step = agents.load_policy(settings(), workdir)
    played = evaluate.play_evaluation(settings(), served_by, seeds=1)
    found = evaluate.compose_result(settings(), "policy", played, step=step)
    evaluate.write_result(tmp_path / "evaluation_policy.json", found, played)
    assert list(found["summary"]) == list(shop.Shop.measures) and set(found["by_worth"]) == {"2", "4"}
    assert "| refunds, euros |" in evaluate.format_report(found)
    assert results.read_result(tmp_path / "evaluation_policy.json")["summary"]["refund_mean"]["count"] == 8


def test_its_page_is_written_with_an_evaluation_beside_it(run):
    workdir, _ = run
    served_by, step = agents.load_policy(settings(), workdir)
    config = settings()
    config.eval.evaluators = True  # nobody judges in the shop: nobody is asked
    played = evaluate.play_evaluation(config, served_by, seeds=1)
    found = evaluate.compose_result(config, "policy", played, step=step)
    evaluate.write_result(workdir / "evaluation_policy.json", found, played)
    page = RunPage(run_page.write_report(workdir))
    assert page.run["evaluations"]["table"]["rows"][0][0] == "policy"
    assert len(page.groups("evaluation_policy")) == 8


def broken(monkeypatch, **changes):
    for name, value in changes.items():
        monkeypatch.setattr(shop.Shop, name, value)
    return settings()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": "contentment"}, "expected the objective among the scores .'content',., got 'contentment'"),
        (
            {"costs": (shop.COSTS[0]._replace(total="mean"),)},
            "expected the total of 'refund' to be any or sum, got 'mean'",
        ),
    ],
)
def test_a_domain_that_cannot_work_is_refused_before_anything_is_played(monkeypatch, tmp_path, changes, message):
    with pytest.raises(ValueError, match=f"config.domain: tests.builders.shop: {message}"):
        main.train(broken(monkeypatch, **changes), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_single_budget_for_several_costs_is_refused(tmp_path):
    config = settings()
    with config.ignore_type():
        config.pid.target = 0.5
    with pytest.raises(
        ValueError, match=r"config.pid.target: expected a budget for each of \['refund', 'turns'\], by name"
    ):
        main.train(config, tmp_path)


@pytest.mark.parametrize(
    ("method", "returns", "message"),
    [
        (
            "act",
            Effect(np.zeros(1), {}, over=True),
            "Complaining.act: expected a cost for each of .'refund', 'turns'., got",
        ),
        (
            "close",
            Closing(0.0, True, [0.0] * 9, [{}] * 9),
            "Complaining.close: expected rewards and notes of 2 turns, got 9",
        ),
    ],
)
def test_an_episode_that_miscounts_is_named(monkeypatch, method, returns, message):
    async def later(self):
        return returns

    monkeypatch.setattr(shop.Complaining, method, later if method == "close" else lambda self, sample: returns)
    config = settings()
    with pytest.raises(ValueError, match=message):
        collecting.collect_dialogues(
            config, collecting.serve_agent(shop.Clerk()), shop.Shop().train(0, 1), repeats=1, seed=0
        )


def test_text_that_free_text_may_hold_cannot_end_it():
    tokenizer = tokenizers.train_tokenizer(["I am sorry.#0"], 300)
    with pytest.raises(ValueError, match="expected what follows free text to begin with a '<', got '#0'"):
        grammar.write_grammar(tokenizer, 300, [grammar.Literal(("<say>",)), grammar.FREE, grammar.Literal(("#0",))])


@pytest.mark.parametrize(
    ("name", "message"),
    [("shop", "expected one of .*'fds'.*, or package.module, got 'shop'"), ("no.such", "no module 'no'")],
)
def test_a_domain_that_is_none_is_refused(name, message):
    with pytest.raises(ValueError, match=f"config.domain: {message}"):
        domains.load({"domain": name})


def test_a_person_types_plain_text_where_a_domain_says_nothing_else():
    domain = shop.make(())
    assert domain.read_typed("agent", " Here.#1 ", ["No.#0"]) == "Here.#1" and domain.read_typed("user", " ") == ""
    assert (domain.show_help("agent"), domain.show_verdict("fine")) == ("", "fine")
    assert (domain.endings(), domain.note_verdict("fine")) == ((), {})
    turn = domain.read_turn("I am sorry.#2")
    assert (turn.cost.tolist(), domain.show_turn(turn.notes).said, turn.over) == ([2.0, 1.0], "I am sorry.#2", False)
    record = {"content": 0.5, "refund_mean": 1.0, "turns_mean": 2.0}
    assert domain.show_worth(record) == "content 0.5, refund_mean 1, turns_mean 2"


def test_a_person_plays_where_there_are_a_user_and_a_judge():
    done = commands.run("cmpo.play", "--config=configs/fds.py", "--config.domain=tests.builders.shop")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: config.domain: expected one with a user and a judge to play with, found no judge\n"
