"""The OpenAI protocol over the sampling engine: chat completions, completions, models, health, metrics."""

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from rollouts.engine.constraints import ConstraintError
from rollouts.serving.answering import DrawnPiece, draw_answers, join_pieces
from rollouts.serving.chats import ChatExchange, View, read_dialogue
from rollouts.serving.completions import TextExchange
from rollouts.serving.metrics import CountRequests, ServerMetrics
from rollouts.serving.overseer import Overseer
from rollouts.serving.protocol import ChatRequest, CompletionRequest, Outcome, RequestError, read_request
from rollouts.serving.responses import ChatWriter, TextWriter, Writer
from rollouts.serving.served import Served

T = TypeVar("T")

_SWEEP = 1.0  # seconds


def make_app(
    models: Sequence[Served],
    *,
    overseer: Overseer | None = None,
    view: View | None = None,
    reasoning: bool = False,
    routes: Sequence[BaseRoute] = (),
    entropy: Callable[[], int] = lambda: secrets.randbits(31),
) -> Starlette:
    """Makes the ASGI application.

    Args:
      models: what is served.
      overseer: sees every answer of a conversation before it is sent; None: nobody does.
      view: what is sent of a model's text; None: the text as it was written, and calls of tools.
      reasoning: whether thoughts are sent apart, as `reasoning_content`; the rest of an answer then comes whole.
      routes: more of them, such as those of a page.
      entropy: draws the seed of a request that has none.
    """
    server = _Server(models, overseer, view, reasoning, entropy)
    return Starlette(
        routes=[
            Route("/v1/chat/completions", server.complete_chat, methods=["POST"]),
            Route("/v1/completions", server.complete_text, methods=["POST"]),
            Route("/v1/models", server.list_models),
            Route("/v1/models/{name:path}", server.show_model),
            Route("/v1/outcomes", server.take_outcome, methods=["POST"]),
            Route("/health", server.report_health),
            Route("/metrics", server.report_metrics),
            *routes,
        ],
        lifespan=server.live,
        middleware=[Middleware(CountRequests, counter=server.metrics.requests)],
        exception_handlers={
            ConstraintError: _refuse_constraint,
            RequestError: _refuse,
            HTTPException: _refuse_path,
            ClientDisconnect: _end_quietly,
            Exception: _report_fault,
        },
    )


class _Server:
    """The handlers of one application."""

    def __init__(
        self,
        models: Sequence[Served],
        overseer: Overseer | None,
        view: View | None,
        reasoning: bool,
        entropy: Callable[[], int],
    ):
        self._models = {served.name: served for served in models}
        self._overseer, self._view, self._reasoning, self._entropy = overseer, view, reasoning, entropy
        self.metrics = ServerMetrics(models, overseer)

    @contextlib.asynccontextmanager
    async def live(self, app: Starlette) -> AsyncIterator[None]:
        """Runs the engines while the application lives."""
        async with contextlib.AsyncExitStack() as stack:
            for served in self._models.values():
                await stack.enter_async_context(served.engine)
                stack.callback(served.conversations.close)
            sweeping = asyncio.create_task(self._drop_old())
            stack.callback(sweeping.cancel)
            yield

    async def _drop_old(self) -> None:
        """Lets conversations go when they are old, also where nobody asks for anything."""
        while True:
            await asyncio.sleep(_SWEEP)
            for served in self._models.values():
                served.conversations.drop_old()

    async def complete_chat(self, request: Request) -> Response:
        """Answers /v1/chat/completions."""
        asked = read_request(ChatRequest, await _read_json(request))
        served = self._find_model(asked.model)
        for param in ("tools", "logprobs", "return_token_ids") if self._view else ():
            if getattr(asked, param):
                raise RequestError(f"'{param}': not supported by a server with --customer_view", param=param)
        session = request.headers.get("x-session-id", "")
        exchange = ChatExchange(
            served,
            asked,
            session=session,
            entropy=self._entropy,
            overseer=self._overseer,
            view=self._view,
            reasoning=self._reasoning,
        )
        return await self._answer(request, asked, served, exchange, ChatWriter)

    async def complete_text(self, request: Request) -> Response:
        """Answers /v1/completions."""
        asked = read_request(CompletionRequest, await _read_json(request))
        served = self._find_model(asked.model)
        if self._view or (self._overseer and self._overseer.enforces):
            raise RequestError("this server answers in conversations alone: it looks over what is sent", status=404)
        exchange = TextExchange(served, asked, id=f"cmpl-{secrets.token_hex(8)}", entropy=self._entropy)
        return await self._answer(request, asked, served, exchange, TextWriter)

    async def _answer(
        self,
        request: Request,
        asked: ChatRequest | CompletionRequest,
        served: Served,
        exchange: ChatExchange | TextExchange,
        kind: type[Writer],
    ) -> Response:
        logprobs, ids = asked.logprobs is not None and asked.logprobs is not False, bool(asked.return_token_ids)
        now = int(time.time())
        writer = kind(exchange.id, served.name, now, logprobs, ids, served.tokenizer, exchange.prompts)
        pieces = self._draw(served, exchange)
        if asked.stream:
            usage = bool(asked.stream_options and asked.stream_options.include_usage)
            return EventStream(_stream_events(writer, pieces, exchange, usage), exchange.close)

        async def collect() -> list[DrawnPiece]:
            return [piece async for piece in pieces]

        try:
            found = await _await_unless_gone(request, collect())
        finally:
            exchange.close()
        numbers = range(len(exchange.starts))
        answers = [join_pieces([piece for piece in found if piece.index == number]) for number in numbers]
        sampled = sum(piece.sampled for piece in found)
        return JSONResponse(writer.write_body(answers, exchange.count_usage(sampled)))

    async def _draw(self, served: Served, exchange: ChatExchange | TextExchange) -> AsyncIterator[DrawnPiece]:
        """Draws the answers of an exchange, and keeps those that came to their end."""
        metrics, started = self.metrics, time.perf_counter()
        by_answer: dict[int, list[DrawnPiece]] = {}
        asked = exchange.count_usage(0)
        metrics.prompt.labels(served.name).inc(asked.prompt)
        metrics.cached.labels(served.name).inc(asked.cached)
        with metrics.under_way.track_inprogress():
            try:
                async with contextlib.aclosing(
                    draw_answers(exchange.wish, exchange.starts, served.tokenizer)
                ) as pieces:
                    async for piece in pieces:
                        if not by_answer:
                            metrics.first.observe(time.perf_counter() - started)
                        by_answer.setdefault(piece.index, []).append(piece)
                        if piece.finish:
                            exchange.keep(piece.index, join_pieces(by_answer[piece.index]))
                            metrics.sampled.labels(served.name).inc(piece.sampled)
                        yield piece
                metrics.whole.observe(time.perf_counter() - started)
            except (asyncio.CancelledError, GeneratorExit):
                metrics.gone.inc()
                raise

    async def take_outcome(self, request: Request) -> Response:
        """Answers /v1/outcomes."""
        outcome = read_request(Outcome, await _read_json(request))
        if self._overseer is None:
            raise RequestError("this server keeps no ledger of outcomes; start it with --budget", status=404)
        named = [served.conversations.find_dialogue(outcome.id) for served in self._models.values()]
        said = {name: getattr(outcome, name) for name in ("resolved", "escalated", "rating")}
        try:
            for dialogue in filter(None, named) if any(named) else [read_dialogue(outcome.id)]:
                self._overseer.report(dialogue, **said)
        except KeyError:
            raise RequestError(
                f"'id': expected the id of an answer, or an x-session-id, that is still known, got {outcome.id!r:.80}",
                param="id",
                status=404,
            ) from None
        return JSONResponse({"object": "outcome", "id": outcome.id})

    async def list_models(self, request: Request) -> Response:
        """Answers /v1/models."""
        return JSONResponse({"object": "list", "data": [_describe_model(served) for served in self._models.values()]})

    async def show_model(self, request: Request) -> Response:
        """Answers /v1/models/NAME."""
        return JSONResponse(_describe_model(self._find_model(request.path_params["name"])))

    async def report_health(self, request: Request) -> Response:
        """Answers /health."""
        return JSONResponse({"status": "ok"})

    async def report_metrics(self, request: Request) -> Response:
        """Answers /metrics."""
        return Response(self.metrics.write(), media_type=CONTENT_TYPE_LATEST)

    def _find_model(self, name: str) -> Served:
        if name not in self._models:
            known = ", ".join(repr(one) for one in self._models)
            raise RequestError(
                f"'model': expected one of {known}, got {name!r:.80}", param="model", status=404, code="model_not_found"
            )
        return self._models[name]


class EventStream(StreamingResponse):
    """Server-sent events. `close` is called in the end, even where the client left before the first of them."""

    def __init__(self, events: AsyncGenerator[bytes, None], close: Callable[[], None]):
        super().__init__(events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        self._close = close

    async def __call__(self, scope, receive, send) -> None:
        """See StreamingResponse."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self.body_iterator.aclose()
            self._close()


async def _stream_events(
    writer: Writer, pieces: AsyncIterator[DrawnPiece], exchange: ChatExchange | TextExchange, usage: bool
) -> AsyncGenerator[bytes, None]:
    """Writes pieces as server-sent events."""
    sampled = 0
    async with contextlib.aclosing(pieces):
        for chunk in writer.open_stream(len(exchange.starts)):
            yield _write_event(chunk)
        try:
            async for piece in pieces:
                sampled += piece.sampled
                yield _write_event(writer.write_chunk(piece))
        except Exception as error:  # too late for another status
            yield _write_event(RequestError(f"{type(error).__name__}: {error}", status=500).to_json())
            return
    if usage:
        yield _write_event(writer.write_usage(exchange.count_usage(sampled)))
    yield b"data: [DONE]\n\n"


def _write_event(data: Mapping[str, Any]) -> bytes:
    return f"data: {json.dumps(data)}\n\n".encode()  # in ASCII: some clients end lines at other characters, too


async def _await_unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Waits for the result of `work`, and cancels it if the client leaves. Raises ClientDisconnect if it does."""
    working, leaving = asyncio.create_task(work), asyncio.create_task(_await_leaving(request))
    try:
        await asyncio.wait([working, leaving], return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _await_leaving(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _read_json(request: Request) -> Any:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # what a foreign page may send without asking is of another type
        raise RequestError(f"expected the Content-Type application/json, got {kind or 'none'!r:.80}", status=415)
    try:
        return await request.json()
    except (ValueError, RecursionError) as error:
        raise RequestError(f"expected a body of JSON: {error}") from None


def _describe_model(served: Served) -> dict[str, Any]:
    return {
        "id": served.name,
        "object": "model",
        "created": served.created,
        "owned_by": "cmpo",
        "max_model_len": served.engine.sampling.capacity,
    }


def _refuse(request: Request, error: RequestError) -> Response:
    return JSONResponse(error.to_json(), error.status)


def _refuse_constraint(request: Request, error: ConstraintError) -> Response:
    """Answers where a schema turned out to be too much in the middle of an answer."""
    return _refuse(request, RequestError(f"'response_format' or 'tools': not supported: {error}"))


def _refuse_path(request: Request, error: HTTPException) -> Response:
    message = f"{request.method} {request.url.path}: {error.detail}"
    return JSONResponse(RequestError(message, status=error.status_code).to_json(), error.status_code, error.headers)


def _report_fault(request: Request, error: Exception) -> Response:
    """Answers where this program is at fault; the server logs the error."""
    headers = {"Connection": "close"}  # as the server does after an error
    return JSONResponse(RequestError("a fault of the server", status=500).to_json(), 500, headers)


def _end_quietly(request: Request, error: ClientDisconnect) -> Response:
    """Nobody reads it."""
    return Response(status_code=499)
