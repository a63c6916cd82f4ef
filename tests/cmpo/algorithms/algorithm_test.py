"""The seam to what is learnt: a method that only its own module knows, through the whole loop."""

import shutil

import chex
import numpy as np
import pytest

from cmpo import evaluate, main
from cmpo.cli import agents
from cmpo.run.log import read_metrics
from tests.builders import shop
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


def test_where_nothing_costs_anything_there_is_no_multiplier(tmp_path, monkeypatch):
    act = shop.Complaining.act
    monkeypatch.setattr(shop.Complaining, "act", lambda *given: act(*given)._replace(cost=np.zeros(0, np.float32)))
    monkeypatch.setattr(shop.Shop, "costs", ())
    monkeypatch.setattr(shop, "COSTS", ())
    config = tiny(**{"domain": "tests.builders.shop", "train.sft_steps": 0, "train.rl_steps": 1})
    state = main.train(config, tmp_path)
    (record,) = read_metrics(tmp_path)
    assert record["lambda"] is None and state.memory == () and record["content"] is not None
