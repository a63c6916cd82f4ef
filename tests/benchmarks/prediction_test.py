"""What a sweep's runs are in the lab, and how the two are compared."""

import json
import math

import pytest

from benchmarks import prediction
from benchmarks.prediction import Served
from cmpo.lab.grids import Finding
from cmpo.lab.plan import LabConfig
from cmpo.sweeping.plan import plan_runs
from configs import ablations, fds


def config_of(**changes):
    config = fds.get_config("algo=cmpo")
    config.update_from_flattened_dict(changes)
    return config.to_dict()


def finding(name, rate, gain):
    others = dict.fromkeys(("rate", "rate_deviation", "miss", "near", "lambdas", "satisfaction", "process_reward"), 0.0)
    return Finding(**others, name=name, target=0.3, ended=rate, gain=gain)


def test_a_run_has_its_settings_in_the_lab_but_for_the_learning_rate():
    changes = {"pid.target": 0.15, "pid.kp": 3.5, "algo.credit": "dialogue", "train.rl_steps": 7, "algo.group_size": 3}
    made = prediction.translate_config(config_of(**changes), 0.01)
    expected = {"target": 0.15, "kp": 3.5, "credit": "dialogue", "steps": 7, "dialogues": 3, "learning_rate": 0.01}
    assert {name: getattr(made, name) for name in expected} == expected
    assert made.final_fraction == fds.get_config().train.final_fraction != LabConfig().final_fraction


def test_without_a_controller_the_price_stays():
    made = prediction.translate_config(config_of(**{"pid.enabled": False, "pid.initial_lambda": 0.9}), 0.01)
    assert (made.kp, made.ki, made.kd, made.initial_lambda) == (0, 0, 0, 0.9)


def test_all_lines_of_the_budgets_can_be_predicted():
    for run in plan_runs(ablations.get_config("budgets"), 1):
        assert prediction.translate_config(run.config.to_dict(), 0.01).steps == run.config.train.rl_steps


@pytest.mark.parametrize(("order", "expected"), [((0.1, 0.2, 0.4, 0.6), "1.00"), ((0.6, 0.4, 0.2, 0.1), "-1.00")])
def test_ranks_are_correlated(order, expected):
    rates = dict(zip("abcd", (0.06, 0.15, 0.3, 0.9), strict=True))
    served = {name: (config_of(), Served(rate, rate / 2)) for name, rate in rates.items()}
    lab = {name: finding(name, rate, rate**2) for name, rate in zip(rates, order, strict=True)}
    text = prediction.format_records(prediction.compare_lines(served, lab))
    assert f"vouchers, %: rank correlation {expected}" in text
    assert f"share of the gain, %: rank correlation {expected}" in text
    assert "4 settings" in text


def test_a_line_without_a_budget_has_no_distance_and_one_without_vouchers_no_share():
    served = {
        "free": (config_of(**{"pid.enabled": False}), Served(0.9, 0.8)),
        "none": (config_of(), Served(0.01, 4.0)),
    }
    records = prediction.compare_lines(served, {name: finding(name, 0.5, 0.5) for name in served})
    assert all(map(math.isnan, records[0]["off"])) and records[0]["share"] == (0.8, 0.5)
    assert records[1]["off"] == pytest.approx((0.29, 0.2)) and all(map(math.isnan, records[1]["share"]))
    assert "expected 3 settings or more" in prediction.format_records(records)


def test_a_sweep_is_read_by_its_lines(tmp_path):
    run = tmp_path / "runs" / "budget_30_0"
    run.mkdir(parents=True)
    (run / "config.json").write_text(json.dumps(config_of()))
    lines = [
        {"label": "budget_30", "runs": 2, "mean": {"voucher_rate": 0.31, "gain_share": None}},
        {"label": "broken", "runs": 0, "mean": {}},
    ]
    (tmp_path / "sweep.json").write_text(json.dumps(lines))
    found = prediction.read_lines(tmp_path)
    assert list(found) == ["budget_30"]
    assert found["budget_30"][1].rate == 0.31 and math.isnan(found["budget_30"][1].share)
