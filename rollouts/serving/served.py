"""A model that is served, and what a request may ask of it."""

import dataclasses
from collections.abc import Callable

import numpy as np

from models.tokenizer import Tokenizer
from rollouts.engine.constraints import Constraints
from rollouts.engine.engine import Engine
from rollouts.engine.sampling import TurnOptions
from rollouts.serving.conversations import Conversations
from rollouts.serving.protocol import ChatRequest, CompletionRequest, RequestError


@dataclasses.dataclass(frozen=True)
class Served:
    """A model under its name.

    Attributes:
      engine: with its weights; entered while the server runs. Its `Sampling` is the default of a turn.
      tokenizer: the model's.
      conversations: that may come back.
      constraints: for answers that must follow a schema; None: not supported.
      hear: strips from what others wrote what only the agent may write, see `rollouts.domain.TurnFormat`.
      system: the system text of a conversation that has none; None: none.
      created: seconds since 1970.
    """

    name: str
    engine: Engine
    tokenizer: Tokenizer
    conversations: Conversations
    constraints: Constraints | None = None
    hear: Callable[[str], str] = str
    system: str | None = None
    created: int = 0

    def check_room(self, prompt: np.ndarray, param: str) -> None:
        """Raises RequestError if a prompt, [T], leaves no room for a token."""
        if len(prompt) >= (capacity := self.engine.sampling.capacity):
            raise RequestError(
                # In the words that clients look for.
                f"This model's maximum context length is {capacity} tokens. However, your '{param}' resulted in "
                f"{len(prompt)} tokens; expected fewer (context_length_exceeded)",
                param=param,
                code="context_length_exceeded",
            )


def choose_options(served: Served, request: ChatRequest | CompletionRequest) -> TurnOptions:
    """Chooses how the answers to a request are drawn: as it asks, else as the engine does.

    Raises RequestError if it asks for more answers at once than there are slots.
    """
    default = served.engine.sampling
    if (request.n or 1) > default.slots:
        raise RequestError(f"'n': expected at most the {default.slots} of this server, got {request.n}", param="n")
    given = {
        "max_new_tokens": request.limit and min(request.limit, default.capacity),
        "temperature": request.temperature,
        "top_k": request.top_k and min(max(request.top_k, 0), served.engine.vocab_size),
        "top_p": request.top_p,
    }
    names = [field.name for field in dataclasses.fields(TurnOptions)]
    return TurnOptions(**{name: getattr(default, name) if given[name] is None else given[name] for name in names})
