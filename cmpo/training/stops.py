"""What ends `cmpo.training.collecting.collect` and is no fault of ours."""

from cmpo.run.interrupt import Interrupted
from rollouts.endpoints.client import BudgetReached, ReplayMiss


class RolloutsFailed(RuntimeError):
    """Too many dialogues failed for the run to go on; the message says which endpoint did what."""


STOPS = (Interrupted, RolloutsFailed, BudgetReached, ReplayMiss)
"""The run saves and stops."""
