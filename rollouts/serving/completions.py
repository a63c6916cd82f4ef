"""Completions of texts or tokens: no template, no conversation."""

import itertools
from collections.abc import Callable

import numpy as np

from rollouts.serving.answering import DrawnAnswer, PlainReader, Start, Wish, choose_seeds
from rollouts.serving.protocol import MOST_CHOICES, CompletionRequest, RequestError
from rollouts.serving.responses import Usage
from rollouts.serving.served import Served, choose_options


class TextExchange:
    """One request to go on with texts, and its answers; see `rollouts.serving.chats.ChatExchange`."""

    def __init__(self, served: Served, request: CompletionRequest, *, id: str, entropy: Callable[[], int]):
        """Opens a stream for each answer. Raises RequestError."""
        self.id = id
        count, options = request.n or 1, choose_options(served, request)
        distinct = [_encode_prompt(served, prompt) for prompt in request.prompt]
        if len(distinct) * count > MOST_CHOICES:
            raise RequestError(
                f"'prompt': expected at most {MOST_CHOICES} answers to a request, got {len(distinct) * count}",
                param="prompt",
            )
        for prompt in distinct:
            served.check_room(prompt, "prompt")
        self._read = sum(map(len, distinct))
        self.prompts = [prompt for prompt in distinct for _ in range(count)]
        seeds = [choose_seeds(request.seed, count, entropy) for _ in distinct]
        self.starts = [Start(served.engine.open(), prompt) for prompt in self.prompts]
        self.wish = Wish(
            list(itertools.chain(*seeds)),
            options,
            request.stop,
            [None] * len(self.starts),
            lambda index: PlainReader(),
        )

    def keep(self, index: int, answer: DrawnAnswer) -> None:
        """Does nothing: nobody comes back to a text."""

    def count_usage(self, sampled: int) -> Usage:
        """See ChatExchange."""
        return Usage(self._read, 0, sampled)

    def close(self) -> None:
        """Ends the streams."""
        for session, _ in self.starts:
            session.close()


def _encode_prompt(served: Served, prompt: str | tuple[int, ...]) -> np.ndarray:
    """Encodes a prompt; tokens are taken as they are. Raises RequestError for an empty one, or an unknown token."""
    ids = served.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
    if not ids:
        raise RequestError("'prompt': expected at least one token, got none", param="prompt")
    if unknown := [token for token in ids if not 0 <= token < served.tokenizer.vocab_size]:
        raise RequestError(
            f"'prompt': expected tokens from 0 to {served.tokenizer.vocab_size - 1}, got {unknown[0]}", param="prompt"
        )
    return np.array(ids, np.int32)
