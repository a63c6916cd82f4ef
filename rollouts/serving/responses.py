"""What the server answers: bodies and chunks of the OpenAI protocol."""

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from models.tokenizer import Tokenizer
from rollouts.serving.answering import DrawnAnswer, DrawnPiece


class Usage(NamedTuple):
    """What an answer took."""

    prompt: int  # tokens read, those of earlier turns among them
    cached: int  # of these, tokens that did not go through the model again
    completion: int  # tokens sampled in all answers

    def to_json(self) -> dict[str, Any]:
        """Returns the `usage` of an answer."""
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": self.cached},
        }


@dataclasses.dataclass
class Writer(abc.ABC):
    """Writes the answer to one request.

    Attributes:
      id: of the answer.
      model: its name.
      created: seconds since 1970.
      logprobs: whether log-probabilities were asked for, under the model's own distribution.
      token_ids: whether tokens were asked for. They come with `sampled_logprobs`, under the distribution that they were
        drawn from.
      tokenizer: the model's.
      prompts: what was read before each answer of a text completion; before all of a chat completion.
    """

    id: str
    model: str
    created: int
    logprobs: bool
    token_ids: bool
    tokenizer: Tokenizer
    prompts: Sequence[np.ndarray]

    kind = chunk_kind = "text_completion"

    def open_stream(self, count: int) -> list[dict[str, Any]]:
        """Writes the first chunks of a stream of `count` answers."""
        return []

    def write_body(self, answers: Sequence[DrawnAnswer], usage: Usage) -> dict[str, Any]:
        """Writes the whole answer."""
        choices = [
            {
                "index": index,
                **self._write_whole(answer),
                "finish_reason": answer.finish,
                "logprobs": self._write_logprobs(answer),
                **self._write_ids(answer),
                **self._write_prompt(index),
            }
            for index, answer in enumerate(answers)
        ]
        return self._begin(self.kind, choices) | {"usage": usage.to_json()}

    def write_chunk(self, piece: DrawnPiece) -> dict[str, Any]:
        """Writes a piece of the answer."""
        choice = {
            "index": piece.index,
            **self._write_part(piece),
            "finish_reason": piece.finish or None,
            "logprobs": self._write_logprobs(piece) if len(piece.ids) else None,
            **self._write_ids(piece),
        }
        return self._begin(self.chunk_kind, [choice])

    def write_usage(self, usage: Usage) -> dict[str, Any]:
        """Writes the last chunk of a stream whose usage was asked for."""
        return self._begin(self.chunk_kind, []) | {"usage": usage.to_json()}

    @abc.abstractmethod
    def _write_whole(self, answer: DrawnAnswer) -> dict[str, Any]:
        """Writes what was said, for a body."""

    @abc.abstractmethod
    def _write_part(self, piece: DrawnPiece) -> dict[str, Any]:
        """Writes what was said, for a chunk."""

    @abc.abstractmethod
    def _write_logprobs(self, drawn: DrawnAnswer | DrawnPiece) -> dict[str, Any] | None:
        """Writes the tokens' log-probabilities; None if they were not asked for."""

    def _begin(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices}

    def _write_prompt(self, index: int) -> dict[str, Any]:
        return {"prompt_token_ids": self.prompts[index].tolist()} if self.token_ids else {}

    def _write_ids(self, drawn: DrawnAnswer | DrawnPiece) -> dict[str, Any]:
        if not self.token_ids:
            return {}
        return {"token_ids": drawn.ids.tolist(), "sampled_logprobs": _to_list(drawn.logprobs)}


class ChatWriter(Writer):
    """Writes chat completions."""

    kind, chunk_kind = "chat.completion", "chat.completion.chunk"

    def open_stream(self, count: int) -> list[dict[str, Any]]:
        """See Writer. Clients expect that of answer 0 first, and the role in each."""
        chunks = []
        for index in range(count):
            delta = {"role": "assistant", "content": ""}
            choice = {"index": index, "delta": delta, "finish_reason": None, "logprobs": None}
            chunks.append(self._begin(self.chunk_kind, [choice]))
        chunks[0] |= super()._write_prompt(0)
        return chunks

    def write_body(self, answers: Sequence[DrawnAnswer], usage: Usage) -> dict[str, Any]:
        """See Writer."""
        return super().write_body(answers, usage) | super()._write_prompt(0)

    def _write_prompt(self, index: int) -> dict[str, Any]:
        return {}  # all answers have the same, which stands beside them

    def _write_whole(self, answer: DrawnAnswer) -> dict[str, Any]:
        message = {"role": "assistant", "content": answer.content or None, "refusal": None, **answer.fields}
        if answer.calls:
            message["tool_calls"] = list(answer.calls)
        return {"message": message}

    def _write_part(self, piece: DrawnPiece) -> dict[str, Any]:
        delta: dict[str, Any] = {"content": piece.read.content} if piece.read.content else {}
        if piece.read.calls:
            delta["tool_calls"] = [{"index": number, **call} for number, call in enumerate(piece.read.calls)]
        return {"delta": delta | dict(piece.read.fields)}

    def _write_logprobs(self, drawn: DrawnAnswer | DrawnPiece) -> dict[str, Any] | None:
        if not self.logprobs:
            return None
        content = []
        for token, logprob in zip(drawn.ids, _to_list(drawn.model_logprobs), strict=True):
            text = self.tokenizer.decode([token])
            spelled = None if "\N{REPLACEMENT CHARACTER}" in text else list(text.encode())  # None: half a character
            content.append({"token": text, "logprob": logprob, "bytes": spelled, "top_logprobs": []})
        return {"content": content, "refusal": None}


class TextWriter(Writer):
    """Writes completions of texts."""

    def __init__(self, *fields: Any):
        super().__init__(*fields)
        self._begun: set[int] = set()

    def write_chunk(self, piece: DrawnPiece) -> dict[str, Any]:
        """See Writer. The prompt of an answer comes with its first piece."""
        chunk = super().write_chunk(piece)
        if piece.index not in self._begun:
            chunk["choices"][0] |= self._write_prompt(piece.index)
        self._begun.add(piece.index)
        return chunk

    def _write_whole(self, answer: DrawnAnswer) -> dict[str, Any]:
        return {"text": answer.content}

    def _write_part(self, piece: DrawnPiece) -> dict[str, Any]:
        return {"text": piece.read.content}

    def _write_logprobs(self, drawn: DrawnAnswer | DrawnPiece) -> dict[str, Any] | None:
        if not self.logprobs:
            return None
        tokens = [self.tokenizer.decode([token]) for token in drawn.ids]
        return {"tokens": tokens, "token_logprobs": _to_list(drawn.model_logprobs)}


def _to_list(logprobs: np.ndarray) -> list[float]:
    return [min(float(value), 0.0) for value in logprobs]  # rounding may bring one above 0
