"""The page to talk to agents: its files, and the requests that it makes beside those of the OpenAI protocol.

GET /                            the page; its files are below /page/files/
GET /page/about                  what there is to choose from
POST /page/scenes                begins a scene: {"task": number, "agents": [name, …]} -> {"id"}
GET /page/scenes/ID/events       its events from number ?from= on, each a line of JSON; see `rollouts.serving.scenes`
POST /page/scenes/ID/words       says {"text", "agents": [name, …]} to those agents; without "agents", to all
DELETE /page/scenes/ID           ends it
POST /page/turns                 takes a turn of an agent apart by its words alone: {"text"}

Errors are in the form of the OpenAI protocol.
"""

import json
import math
import mimetypes
import pathlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from rollouts.agents.person import mend_text
from rollouts.serving.scenes import PageTable, Scene, Scenes

FILES = pathlib.Path(__file__).with_name("page")
"""The files of the page. They hold no secrets: a browser gets them before it has a key."""

HEADERS = {
    # Trusted types: not even a mistake in our own scripts can make a message into markup.
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}

MAX_CHARACTERS = 4000
"""Of a message to agents, and of a turn that is taken apart ten times as many."""

STREAM_SECONDS = 20.0
"""How long one answer with events goes on; the page then asks for more. A server that stops need not wait longer."""


def make_page_routes(table: PageTable | None = None, **limits) -> list[Route]:
    """Makes the routes of the page, to be mounted at the root of a server of the OpenAI protocol.

    Without a `table`, or where it has no tasks, there is only free conversation with the server's models. `limits` are
    those of `Scenes`.
    """
    desk = _Desk(table, limits)
    return [
        Route("/", _send_file, methods=["GET"]),
        Route("/page/files/{name}", _send_file, methods=["GET"]),
        Route("/page/about", desk.tell_offer, methods=["GET"]),
        Route("/page/scenes", desk.begin_scene, methods=["POST"]),
        Route("/page/scenes/{id}", desk.end_scene, methods=["DELETE"]),
        Route("/page/scenes/{id}/events", desk.send_events, methods=["GET"]),
        Route("/page/scenes/{id}/words", desk.say_words, methods=["POST"]),
        Route("/page/turns", desk.read_turn, methods=["POST"]),
    ]


class _Refused(Exception):
    """A request that cannot be done; `response` says why."""

    def __init__(self, status: int, message: str, field: str | None = None):
        super().__init__(message)
        error = {"message": message, "type": "invalid_request_error", "param": field, "code": None}
        self.response = JSONResponse({"error": error}, status, HEADERS)


def _answer_refusals(handle):
    """Answers with the error where a handler refuses a request."""

    async def handle_or_refuse(self, request: Request) -> Response:
        try:
            return await handle(self, request)
        except _Refused as refused:
            return refused.response

    return handle_or_refuse


class _Desk:
    """Answers the page's requests."""

    def __init__(self, table: PageTable | None, limits: Mapping[str, float]):
        self._table = table
        self._scenes = Scenes(table, **limits) if table and table.tasks and table.agents else None

    async def tell_offer(self, request: Request) -> Response:
        table, playing = self._table, self._scenes is not None
        tasks = [
            {
                "labels": task.labels,
                "lines": list(table.domain.show_task(task.description)),
                "opening": "\n\n".join(message.content for message in task.opening if message.role == "system"),
            }
            for task in (table.tasks if playing else ())
        ]
        endings = [{"label": label, "text": text} for label, text in table.domain.endings()] if playing else []
        return _send_json(
            {
                "title": table.title if table else "",
                "reads_turns": table is not None and not table.customer_view,
                "customer_view": table is not None and table.customer_view,
                "budgets": dict(table.budgets) if table else {},
                "costs": {cost.name: cost.total for cost in table.domain.costs} if table else {},
                "tasks": tasks,
                "agents": list(table.agents) if playing else [],
                "endings": endings,
                "help": table.domain.show_help("user") if playing else "",
                "max_characters": MAX_CHARACTERS,
            }
        )

    @_answer_refusals
    async def begin_scene(self, request: Request) -> Response:
        scenes, body = self._find_scenes(), await _read_object(request)
        number, tasks = body.get("task"), self._table.tasks
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < len(tasks):
            raise _Refused(400, f"'task': expected 0 to {len(tasks) - 1}, got {number!r:.100}", "task")
        names = self._read_names(body)
        if not names:
            raise _Refused(400, f"'agents': expected some of {list(self._table.agents)}, got none", "agents")
        return _send_json({"id": scenes.begin(tasks[number], names)}, 201)

    @_answer_refusals
    async def send_events(self, request: Request) -> Response:
        scene, first = self._find_scene(request), request.query_params.get("from", "0")
        if not (first.isascii() and first.isdecimal() and len(first) < 10):
            raise _Refused(400, f"'from': expected the number of an event, got {first!r:.100}", "from")

        async def write_lines() -> AsyncIterator[bytes]:
            async for event in scene.follow_events(int(first), STREAM_SECONDS):
                yield b"\n" if event is None else json.dumps(event).encode() + b"\n"

        return StreamingResponse(write_lines(), headers=HEADERS, media_type="application/x-ndjson")

    @_answer_refusals
    async def say_words(self, request: Request) -> Response:
        scene, body = self._find_scene(request), await _read_object(request)
        names, line = self._read_names(body), _read_text(body, MAX_CHARACTERS)
        listeners = scene.find_listeners(names)
        if not listeners:
            raise _Refused(409, "the agents have not answered yet, or their dialogues are over")
        try:
            words = self._table.domain.read_typed("user", line)
        except ValueError as error:
            raise _Refused(400, f"'text': {error}", "text") from None
        if not words:
            raise _Refused(400, "'text': expected words, got none", "text")
        scene.say(words, listeners)
        return _send_json({}, 202)

    @_answer_refusals
    async def end_scene(self, request: Request) -> Response:
        self._find_scene(request)
        self._scenes.end(request.path_params["id"])
        return Response(status_code=204, headers=HEADERS)

    @_answer_refusals
    async def read_turn(self, request: Request) -> Response:
        if self._table is None:
            raise _Refused(404, "no domain is served that could take a turn apart")
        text = _read_text(await _read_object(request), 10 * MAX_CHARACTERS)
        domain = self._table.domain
        effect = domain.read_turn(text)
        shown = domain.show_turn(effect.notes)
        amounts = zip(domain.costs, effect.cost.tolist(), strict=True)
        spent = [(cost.name, amount) for cost, amount in amounts if not math.isnan(amount)]
        return _send_json({**shown._asdict(), "raw": "" if shown.said else text, "spent": spent})

    def _find_scenes(self) -> Scenes:
        if self._scenes is None:
            raise _Refused(404, "no tasks are served to choose from")
        return self._scenes

    def _find_scene(self, request: Request) -> Scene:
        if (scene := self._find_scenes().find(request.path_params["id"])) is None:
            raise _Refused(404, "there is no such dialogue, or it was let go; begin another")
        return scene

    def _read_names(self, body: Mapping[str, Any]) -> list[str]:
        """Reads the field agents; absent, it names none."""
        names, known = body.get("agents", []), self._table.agents
        if not isinstance(names, list) or any(name not in known for name in names if isinstance(name, str)):
            raise _Refused(400, f"'agents': expected some of {list(known)}, got {names!r:.100}", "agents")
        if not all(isinstance(name, str) for name in names):
            raise _Refused(400, f"'agents': expected names, got {names!r:.100}", "agents")
        return list(dict.fromkeys(names))


async def _send_file(request: Request) -> Response:
    """Sends a file of the page, if it is one of the page's own."""
    name = request.path_params.get("name", "index.html")
    if name not in {path.name for path in FILES.iterdir()}:
        return _Refused(404, "there is no such file").response
    return FileResponse(FILES / name, headers=HEADERS, media_type=mimetypes.guess_type(name)[0])


def _send_json(content: Any, status: int = 200) -> JSONResponse:
    return JSONResponse(content, status, HEADERS)


async def _read_object(request: Request) -> dict[str, Any]:
    """Reads a request's body. JSON only: what a form of another site may send is not."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise _Refused(415, f"expected the Content-Type application/json, got {kind!r:.100}")
    try:
        found = json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise _Refused(400, f"expected a JSON object, got {type(error).__name__}: {error!s:.100}") from None
    if not isinstance(found, dict):
        raise _Refused(400, f"expected a JSON object, got {found!r:.100}")
    return found


def _read_text(body: Mapping[str, Any], longest: int) -> str:
    text = body.get("text")
    if not isinstance(text, str) or len(text) > longest:
        came = f"{len(text)}" if isinstance(text, str) else f"{text!r:.100}"
        raise _Refused(400, f"'text': expected text of at most {longest} characters, got {came}", "text")
    return mend_text(text)
