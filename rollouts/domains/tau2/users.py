"""Those who call: a user is asked for the next words, and may use tools of their own before they speak."""

from collections.abc import Callable, Sequence
from typing import Protocol

from rollouts.domains.tau2.world import Action, Result

Act = Callable[[Sequence[Action]], Sequence[Result]]
"""Uses tools, which may be several at once; raises `world.DialogueOver` where the dialogue ends with that."""


class User(Protocol):
    """One dialogue's user."""

    async def speak(self, heard: str, act: Act) -> str:
        """Returns the next words, after what the agent said. Raises DialogueError if nobody answers."""
