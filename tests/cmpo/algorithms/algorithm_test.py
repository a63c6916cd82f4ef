"""The seam to what is learnt: a method that only its own module knows, through the whole loop."""

import json
import shutil

import chex
import jax.numpy as jnp
import numpy as np
import pytest

from cmpo import evaluate, main
from cmpo.cli import agents
from cmpo.evaluation import results
from cmpo.reports import run_page
from cmpo.run.interrupt import Interrupted
from cmpo.run.log import read_metrics
from configs import common
from rollouts.sections import flatten_config
from tests.builders import baseline, shop
from tests.builders.runs import tiny, transcripts

TOY = {"algo.name": "tests.builders.baseline", "train.rl_steps": 3, "train.checkpoint_every": 1, "train.epochs": 2}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"algo.name": "ppp"}, r"config.algo.name: expected one of \('cmpo', .*\), or package.module, got 'ppp'"),
        ({"algo.name": "no.such"}, "config.algo.name: no module 'no', which 'no.such' needs"),
        ({"algo.name": "models.rope"}, "config.algo.name: expected a function make in models.rope, found none"),
        ({"algo.name": "sft"}, "config.train.rl_steps: expected 0 where config.algo.name is 'sft'"),
        ({"algo.group_size": 1}, "config.algo.group_size: expected 2 or more"),
    ],
)
def test_an_algorithm_that_cannot_work_is_refused_before_anything_is_played(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        main.train(tiny(**changes), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("toy")
    return workdir, main.train(tiny(**TOY), workdir)


def test_what_an_algorithm_trains_and_remembers_is_in_the_metrics_and_moves(toy):
    workdir, state = toy
    records = [record for record in read_metrics(workdir) if record["phase"] == "rl"]
    assert [record["batches"] for record in records] == [1, 2, 3] == list(range(1, int(state.memory) + 1))
    assert all(record["head_grad_norm"] > 0 and record["lambda"] == 0 for record in records)
    errors = [record["value_error"] for record in records]
    assert errors[-1] < errors[0]  # the baseline has learnt something
    assert (workdir / "report.html").exists()


def test_a_run_of_it_resumes_to_the_bit(toy, tmp_path):
    workdir, state = toy
    run = tmp_path / "run"
    shutil.copytree(workdir, run)
    shutil.rmtree(run / "checkpoints" / "5")
    chex.assert_trees_all_equal(main.train(tiny(**TOY), run), state)
    assert transcripts(run) == transcripts(workdir)


def test_what_it_has_trained_is_served_whatever_the_config_learns_by(toy):
    workdir, _ = toy
    served_by, step = agents.load_policy(tiny(), workdir)
    played = evaluate.play_evaluation(tiny(), served_by, seeds=1)
    assert step == 5 and all(one.dialogue.ok for one in played)


def test_the_method_may_be_chosen_until_phase_2_begins(tmp_path):
    main.train(tiny(**{"train.rl_steps": 0}), tmp_path)
    state = main.train(tiny(**{"algo.name": "ppo", "algo.gae": "turn", "train.rl_steps": 1}), tmp_path)
    (record,) = [record for record in read_metrics(tmp_path) if record["phase"] == "rl"]
    assert int(state.step) == 3 and record["value_loss"] > 0 and state.head.params.keys() == {"value_head"}


def test_tokens_that_are_learnt_with_advantages_of_their_own_say_so(tmp_path):
    changes = {
        "algo.name": "ppo",
        "algo.gae": "token",
        "algo.gae_trace": 0.9,
        "train.sft_steps": 0,
        "train.rl_steps": 2,
    }
    main.train(tiny(**changes, **{"train.tokens_every": 2, "train.one_step_off": True}), tmp_path)
    first, second = (list(map(json.loads, text.splitlines())) for text in transcripts(tmp_path).values())
    assert not any("token_texts" in turn for dialogue in first for turn in dialogue["turns"])
    turns = [turn for dialogue in second for turn in dialogue["turns"] if dialogue["turns"]]
    own = [turn["token_advantages"] for turn in turns if len(turn["token_texts"]) > 2]
    assert own and all(len(set(values)) > 1 for values in own)
    moved = np.log(np.concatenate([turn["token_ratios"] for turn in turns]))
    assert np.isfinite(moved).all() and np.abs(moved).max() > 0.002  # since the dialogue was played, there were updates


def test_where_nothing_costs_anything_there_is_no_multiplier(tmp_path, monkeypatch):
    act = shop.Complaining.act
    monkeypatch.setattr(shop.Complaining, "act", lambda *given: act(*given)._replace(cost=np.zeros(0, np.float32)))
    monkeypatch.setattr(shop.Shop, "costs", ())
    monkeypatch.setattr(shop, "COSTS", ())
    config = tiny(**{"domain": "tests.builders.shop", "train.sft_steps": 0, "train.rl_steps": 1})
    state = main.train(config, tmp_path)
    (record,) = read_metrics(tmp_path)
    assert record["lambda"] is None and state.memory == () and record["content"] is not None


def test_stopped_in_its_first_step_a_run_without_phase_1_goes_on(tmp_path, monkeypatch):
    """Nothing was learnt yet: there is no checkpoint, and what was played is in the journal."""
    config = tiny(**{"train.sft_steps": 0, "train.rl_steps": 1})
    with monkeypatch.context() as patch:

        def stop(trainer, state):
            raise Interrupted("stopped")

        patch.setattr(main.Trainer, "rl_step", stop)
        main.train(config, tmp_path)
    assert not list((tmp_path / "checkpoints").iterdir())
    assert int(main.train(config, tmp_path).step) == 1


def test_cmpo_remembers_spreads_and_costs_that_are_pending_over_a_restart(tmp_path):
    changes = {"algo.normalize": "scaled", "pid.every": 3, "train.sft_steps": 0}
    first, second = (main.train(tiny(**changes | {"train.rl_steps": steps}), tmp_path).memory for steps in (1, 2))
    assert first.spreads.weight == pytest.approx(0.1) and second.spreads.weight == pytest.approx(0.19)
    assert first.controller.pending_batches.tolist() == [1] and second.controller.pending_batches.tolist() == [2]
    assert second.controller.lambdas == first.controller.lambdas == tiny().pid.initial_lambda


@pytest.mark.parametrize(
    ("name", "broken", "message"),
    [
        ("move", lambda *_, **__: None, r"Baseline.move: expected a memory like that of Baseline.memory, .*, got None"),
        ("move", lambda *_, **__: jnp.float32(1), "Baseline.move: expected a memory like .*int32.*, got .*float32"),
        ("observe", lambda *_: None, "Baseline.observe: expected a memory like that of Baseline.memory, .*, got None"),
        ("credit", lambda *_: np.zeros(3), r"Baseline.credit: expected the shape \(2, 4, 15\), got \(3,\)"),
        ("memory", lambda _: {"n": jnp.zeros(0)}, r"Baseline.memory\(\)\['n'\]: expected an array of numbers"),
        ("memory", lambda _: jnp.bool_(True), r"Baseline.memory\(\): expected an array of numbers"),
    ],
)
def test_an_algorithm_that_breaks_the_seam_is_named(tmp_path, monkeypatch, name, broken, message):
    monkeypatch.setattr(baseline.Baseline, name, broken)
    with pytest.raises(ValueError, match=message):
        main.train(tiny(**TOY | {"train.sft_steps": 0, "train.rl_steps": 1}), tmp_path)


def test_the_paths_in_a_memory_are_free(tmp_path, monkeypatch):
    monkeypatch.setattr(baseline.Baseline, "memory", lambda _: {"layers": {"n": jnp.int32(0)}})
    monkeypatch.setattr(baseline.Baseline, "move", lambda _, memory, summary, skipped: memory)
    monkeypatch.setattr(baseline.Baseline, "describe", lambda *_: {})
    state = main.train(tiny(**TOY | {"train.sft_steps": 0, "train.rl_steps": 1}), tmp_path)
    assert state.memory.keys() == {"layers"}


@pytest.mark.parametrize("name", ["cmpo", "grpo"])
def test_a_budget_that_cannot_be_is_refused_whatever_the_algorithm(tmp_path, name):
    config = tiny(**{"algo.name": name})
    with config.ignore_type():
        config.pid.target = {"voucher": 2.0, "turns": 2.8}
    with pytest.raises(ValueError, match="config.pid.target.voucher: expected 0 to 1, of dialogues, got 2.0"):
        main.train(config, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_domain_needs_no_section_of_another(tmp_path):
    """As docs/domains.md has it: the sections of every run, and the domain's name."""
    config = common.get_config()
    sizes = {
        name: value
        for name, value in flatten_config(tiny().to_dict()).items()
        if name in flatten_config(config.to_dict())
    }
    config.update_from_flattened_dict(sizes | {"domain": "tests.builders.shop", "train.rl_steps": 1})
    with config.ignore_type():
        config.pid.target = {"refund": 0.5, "turns": 3.0}
    main.train(config, tmp_path)
    served_by, step = agents.load_policy(config, tmp_path)
    played = evaluate.play_evaluation(config, served_by, seeds=1)
    found = evaluate.compose_result(config, "policy", played, step=step)
    evaluate.write_result(tmp_path / "evaluation_policy.json", found, played)
    assert results.read_result(tmp_path / "evaluation_policy.json")["agent"] == "policy"
    assert "found no sound" not in run_page.write_report(tmp_path).read_text()
