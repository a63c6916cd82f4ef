"""Draws answers, piece by piece: what is streamed and what is answered at once are the same pieces.

Letters: T = tokens of a piece.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np

from models.tokenizer import Tokenizer
from rollouts.engine.engine import EngineSession, Sampled, TokenMask
from rollouts.engine.sampling import TurnOptions
from rollouts.seeds import fold
from rollouts.serving.text import TextStream
from rollouts.thoughts import split_thoughts
from rollouts.tool_calls import SILENCE, OutputReader

_FINISHES = {"end_of_turn": "stop", "cut": "stop", "length": "length", "context": "length"}


class Read(NamedTuple):
    """What was made of the next bit of a model's text."""

    content: str = ""
    calls: Sequence[Mapping[str, Any]] = ()  # of tools, whole; all of them come at the end of a text
    fields: Mapping[str, Any] = MappingProxyType({})  # of the message, beside the protocol's


class Reader(Protocol):
    """Takes a model's text apart as it comes."""

    def feed(self, text: str) -> Read:
        """Takes more of the text."""

    def close(self) -> Read:
        """Takes its end; returns what was held back."""


class PlainReader:
    """The text is the content."""

    def feed(self, text: str) -> Read:
        """See Reader."""
        return Read(text)

    def close(self) -> Read:
        """See Reader."""
        return Read()


class CallReader:
    """Tells words from calls of tools."""

    def __init__(self, output: OutputReader):
        self._output = output

    def feed(self, text: str) -> Read:
        """See Reader."""
        return Read(self._output.feed(text))

    def close(self) -> Read:
        """See Reader."""
        content, calls = self._output.finish()
        return Read(content, [call.to_object() for call in calls])


class WholeReader:
    """Waits for the whole text, and says what is made of it."""

    def __init__(self, view: Callable[[str], Read]):
        self._view, self._text = view, ""

    def feed(self, text: str) -> Read:
        """See Reader."""
        self._text += text
        return Read()

    def close(self) -> Read:
        """See Reader."""
        read = self._view(self._text)
        return read if read.content.strip() or read.calls else read._replace(content=SILENCE)


def read_reasoning(reader: Reader, text: str) -> Read:
    """Takes the thoughts out of a whole text, and has the rest read by `reader`."""
    thoughts, rest = split_thoughts(text)
    begun, end = reader.feed(rest), reader.close()
    fields = {"reasoning_content": thoughts} if thoughts else {}
    return Read(begun.content + end.content, end.calls, {**end.fields, **fields})


class Wish(NamedTuple):
    """How answers are drawn and read."""

    seeds: Sequence[int]  # one for each answer
    options: TurnOptions
    stops: Sequence[str]
    constraints: Sequence[TokenMask | None]  # one for each answer
    reader: Callable[[int], Reader]  # gets the number of the answer
    review: Callable[[str, int], str] | None = None  # gets a whole text and its tokens; returns what takes its place
    waits: bool = False  # is nothing sent before it was reviewed?


class Start(NamedTuple):
    """Where an answer is drawn: after `incoming` in a stream."""

    session: EngineSession
    incoming: np.ndarray  # [I] int32


class DrawnPiece(NamedTuple):
    """The next bit of an answer."""

    index: int  # of the answer
    read: Read
    ids: np.ndarray  # [T] int32
    logprobs: np.ndarray  # [T] float32, under the distribution drawn from
    model_logprobs: np.ndarray  # [T] float32, under the model's own
    finish: str = ""  # at its end: stop | length | tool_calls
    text: str = ""  # at its end: the whole text, as it was reviewed
    rewritten: bool = False  # is that another one than the model wrote?
    sampled: int = 0  # at its end: how many tokens were sampled


class DrawnAnswer(NamedTuple):
    """All pieces of an answer in one."""

    content: str
    calls: Sequence[Mapping[str, Any]]
    fields: Mapping[str, Any]
    ids: np.ndarray
    logprobs: np.ndarray
    model_logprobs: np.ndarray
    finish: str
    text: str  # the whole text, as it was reviewed
    rewritten: bool


def choose_seeds(seed: int | None, count: int, entropy: Callable[[], int]) -> list[int]:
    """Returns a seed for each answer: the first has the one that was asked for; None: drawn from `entropy`."""
    first = entropy() if seed is None else seed
    first = first if 0 <= first < 1 << 31 else fold(first)
    return [first, *(fold(first, "choice", number) for number in range(1, count))]


async def draw_answers(wish: Wish, starts: Sequence[Start], tokenizer: Tokenizer) -> AsyncIterator[DrawnPiece]:
    """Draws an answer at each of `starts`, all at once, and gives their pieces as they come.

    Leaving it early cancels what is being drawn.
    """
    pieces: asyncio.Queue[DrawnPiece | None] = asyncio.Queue()

    async def draw_one(index: int) -> None:
        drawing = _Drawing(index, wish, tokenizer, pieces.put_nowait)
        session, incoming = starts[index]
        await session.generate(
            incoming, wish.seeds[index], options=wish.options, constraint=wish.constraints[index], watch=drawing.watch
        )

    async def draw_all() -> None:
        try:
            async with asyncio.TaskGroup() as group:  # one that fails cancels the others
                for index in range(len(starts)):
                    group.create_task(draw_one(index))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            pieces.put_nowait(None)

    drawing = asyncio.create_task(draw_all())
    try:
        while piece := await pieces.get():
            yield piece
        await drawing
    finally:
        drawing.cancel()
        await asyncio.gather(drawing, return_exceptions=True)


class _Drawing:
    """An answer that is being drawn: watches its turn, and passes on what may be shown."""

    def __init__(self, index: int, wish: Wish, tokenizer: Tokenizer, emit: Callable[[DrawnPiece], None]):
        self._index, self._wish, self._emit, self._reader = index, wish, emit, wish.reader(index)
        self._text = TextStream(tokenizer.decode, wish.stops, silent=[tokenizer.im_end])
        self._fed = self._shown = self._sent = 0  # tokens read, characters shown, tokens sent

    def watch(self, so_far: Sampled) -> int | None:
        """See `rollouts.engine.engine.Watch`."""
        text = self._text
        text.feed(so_far.ids[self._fed :], last=bool(so_far.stop))
        self._fed = len(so_far.ids)
        if so_far.stop or text.stopped:
            self._finish(so_far)
        elif not self._wish.waits and any(read := self._read(text.text)):
            self._send(read, so_far, text.kept)
        return text.kept if text.stopped else None

    def _finish(self, so_far: Sampled) -> None:
        """Sends the end of the answer. Where other words take the place of the model's, its tokens are not sent."""
        text, review = self._text, self._wish.review
        final = review(text.text, text.kept) if review else text.text
        rewritten = final != text.text
        read, end = self._read(final), self._reader.close()
        read = Read(read.content + end.content, [*read.calls, *end.calls], {**read.fields, **end.fields})
        finish = "tool_calls" if read.calls else "stop" if text.stopped else _FINISHES[so_far.stop]
        kept, sampled = 0 if rewritten else text.kept, text.kept
        self._send(read, so_far, kept, finish=finish, text=final, rewritten=rewritten, sampled=sampled)

    def _read(self, text: str) -> Read:
        read = self._reader.feed(text[self._shown :])
        self._shown = len(text)
        return read

    def _send(self, read: Read, so_far: Sampled, kept: int, **end: Any) -> None:
        tokens = (part[self._sent : kept] for part in so_far[:3])
        self._emit(DrawnPiece(self._index, read, *tokens, **end))
        self._sent = kept


def join_pieces(pieces: Sequence[DrawnPiece]) -> DrawnAnswer:
    """Puts the pieces of one answer together."""
    fields = {name: value for piece in pieces for name, value in piece.read.fields.items()}
    arrays = (np.concatenate(parts) for parts in zip(*(piece[2:5] for piece in pieces), strict=True))
    calls = [call for piece in pieces for call in piece.read.calls]
    content, end = "".join(piece.read.content for piece in pieces), pieces[-1]
    return DrawnAnswer(content, calls, fields, *arrays, end.finish, end.text, end.rewritten)
