"""Reasons to end `cmpo.training.collecting.collect_dialogues` that are no errors in this program."""

from cmpo.run.interrupt import Interrupted
from rollouts.endpoints.client import BudgetReached, ReplayMiss


class RolloutsFailed(RuntimeError):
    """Too many dialogues failed for the run to go on; the message says which endpoint did what."""


STOPS = (Interrupted, RolloutsFailed, BudgetReached, ReplayMiss)
"""The run saves and stops."""
