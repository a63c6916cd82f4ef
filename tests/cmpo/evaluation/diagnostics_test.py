"""How good the signals are that are learnt from, by hand and against SciPy's and the textbook's formulas."""

import math
import types

import numpy as np
import pytest
import scipy.stats

from cmpo.evaluation import diagnostics
from rollouts import domains
from rollouts.domains.fds import rules
from rollouts.types import Dialogue, Turn
from tests.builders.runs import tiny

FDS = domains.load(tiny())
TWO = types.SimpleNamespace(name="voucher"), types.SimpleNamespace(name="turns")


def dialogue(outcome, *turns, failure=""):
    """A dialogue whose turns were judged so; None: a turn that was not."""
    none = np.zeros(0, np.float32)
    played = tuple(
        Turn((), "", none, none, none, none, none, notes={"action": "chat"} | ({"scores": scores} if scores else {}))
        for scores in turns
    )
    return Dialogue(None, 0, played, outcome, "rated", none, failure=failure)


def test_a_principle_is_correlated_by_its_mean_over_the_turns_that_were_judged():
    """Ranks of "rules": 1, 3, 2 beside outcomes 1, 2, 4 give 0.5; those of "stage" are the other way round."""
    dialogues = [
        dialogue(1.0, {"rules": 0.0, "stage": 1.0}, {"rules": 0.5, "stage": 1.0}),
        dialogue(2.0, {"rules": 1.0, "stage": 0.5}, None),
        dialogue(4.0, {"rules": 0.5, "stage": 0.0}, {"rules": 1.0, "stage": 0.0}, {"rules": math.nan, "stage": 0.0}),
        dialogue(-3.0, None),
        dialogue(9.0, {"rules": 0.0, "stage": 0.0}, failure="judge"),
    ]
    found = diagnostics.correlate_scores(FDS, dialogues)
    assert found == pytest.approx({"rules": 0.5, "stage": -1.0})


def test_ties_share_their_rank_and_what_is_constant_or_too_little_tells_nothing():
    scores, outcomes = [0.0, 0.0, 0.5, 1.0, 1.0], [1.0, 3.0, 2.0, 3.0, 5.0]
    dialogues = [dialogue(o, {"rules": s, "stage": 1.0}) for s, o in zip(scores, outcomes, strict=True)]
    found = diagnostics.correlate_scores(FDS, dialogues)
    ranks = [1.5, 1.5, 3, 4.5, 4.5], [1, 3.5, 2, 3.5, 5]
    assert found["rules"] == pytest.approx(np.corrcoef(*ranks)[0, 1]) and np.isnan(found["stage"])
    assert np.isnan(list(diagnostics.correlate_scores(FDS, dialogues[:2]).values())).all()
    assert diagnostics.correlate_scores(FDS, []) == {}


def test_the_interval_over_steps_is_students():
    steps = [{"judge_correlation": {"rules": x, "stage": y}} for x, y in ((0.1, 0.5), (0.4, None), (0.7, None))]
    found = diagnostics.average_correlations([*steps, {"judge_correlation": {}}, {}])
    expected = scipy.stats.ttest_1samp([0.1, 0.4, 0.7], 0).confidence_interval(0.95)
    assert found.keys() == {"rules"} and found["rules"] == pytest.approx((0.4, max(expected.low, -1), 1.0, 3))
    narrow = diagnostics.average_correlations([{"judge_correlation": {"rules": x}} for x in (0.4, 0.41, 0.42)])
    expected = scipy.stats.ttest_1samp([0.4, 0.41, 0.42], 0).confidence_interval(0.95)
    assert narrow["rules"] == pytest.approx((0.41, expected.low, expected.high, 3))


def test_prices_are_summarized_over_the_groups_that_taught_something():
    prices = np.array([[x, 2 * x] for x in range(11)] + [[np.nan, np.nan]])
    found = diagnostics.summarize_prices(TWO, prices)
    assert found["effective_price"] == {"voucher": 5.0, "turns": 10.0}
    assert found["effective_price_low"] == {"voucher": 1.0, "turns": 2.0}
    assert found["effective_price_high"] == {"voucher": 9.0, "turns": 18.0}
    assert np.isnan(diagnostics.summarize_prices(rules.COSTS[:1], prices[-1:, :1])["effective_price"])
    assert diagnostics.summarize_prices((), np.zeros((3, 0)))["effective_price"] is None
