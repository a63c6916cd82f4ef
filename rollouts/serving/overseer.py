"""The seam between a server of answers and whoever watches what it gives: a ledger that holds a budget, say."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from prometheus_client import Metric


class Overseer(Protocol):
    """Sees each answer before it is sent, and hears what became of the dialogue.

    All methods return at once and are called from one thread, the event loop's. `dialogue` is the server's own name of
    a conversation, the same from its first answer to its last; a history that does not continue the one that a name
    stands for is another conversation, with another name. A name may come back after `end`, and is the same dialogue.
    The methods that take something down raise OSError if it cannot be kept: then nothing is to be sent.
    """

    enforces: bool
    """May `review` return other words? Then nothing of an answer may be sent, nor streamed, before it has returned."""

    def review(self, dialogue: str, text: str, *, before: Sequence[str], tokens: int) -> str:
        """Takes down an answer that is about to be sent; returns what is to be sent: `text`, or other words.

        It is called once for each choice of a request, and again when a request is repeated. Of the answers that share
        a `before`, the one that is the last of the next call's `before` was given; as long as none is, any may be.

        Args:
          dialogue: the conversation.
          text: the agent's whole output, thoughts and actions included, without special tokens.
          before: the agent's outputs earlier in this conversation, whole, as `review` returned them.
          tokens: how many tokens were sampled for `text`.
        """

    def report(
        self, dialogue: str, *, resolved: bool | None = None, escalated: bool | None = None, rating: float | None = None
    ) -> None:
        """Takes down what the client says of a dialogue; None says nothing. It may come again, and the latest counts.

        Raises KeyError if there is no such dialogue, or none that is still known; ValueError if the rating is not
        finite.
        """

    def end(self, dialogue: str) -> None:
        """Hears that the server let a conversation go. One that had no answer is ignored."""

    def collect(self) -> Iterable[Metric]:
        """Returns the metrics: an overseer is a collector, for `prometheus_client.CollectorRegistry.register`."""
