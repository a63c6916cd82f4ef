"""Sums that `calculate` would hold everybody up with, and those that it is left with."""

import time

import pytest

from rollouts.domains.tau2.sums import refuse_sum


@pytest.mark.parametrize(
    "asked",
    [
        "2 + 2",
        " 100 * (1 + 0.05) ** 12",
        "2 ** (2 ** (2 ** 2))",
        "10 ** 400 / 10 ** 399",
        "2 ** -99999999",
        "1 ** 99999999999 - 0 ** 99999999999",
        "2.0 ** 999999999",  # the tool refuses these itself
        "2 ** 9()",
        "(2 ** 2",
        "2 ** x",
        "2 ** 2 / 0",
        "(-8) ** 0.5",
        7,
    ],
)
def test_what_the_tool_can_do_or_refuses_at_once_is_left_to_it(asked):
    assert refuse_sum("calculate", {"expression": asked}) == ""


@pytest.mark.parametrize(
    "asked",
    [
        "9**9**9",
        "(9 ** 9 ** 9)()",
        "(9**9**9) / (9**9**9)",
        "-(-9) ** 99999999",
        "(2 ** 60000) ** 60000",
        "1" + "+1" * 20_000 + "**2",
        "*".join(["2 ** 60000"] * 3) + "** 90000",
    ],
)
def test_a_power_that_is_too_large_is_refused_at_once(asked):
    begun = time.monotonic()
    assert refuse_sum("calculate", {"expression": asked}) == "Result too large"
    assert refuse_sum("think", {"expression": asked}) == refuse_sum("calculate", {"formula": asked}) == ""
    assert time.monotonic() - begun < 5
