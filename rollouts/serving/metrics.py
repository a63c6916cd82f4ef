"""What the server counts, in Prometheus' format."""

from collections.abc import Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from rollouts.serving.overseer import Overseer
from rollouts.serving.served import Served

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class ServerMetrics:
    """Counters of one server, in a registry of their own."""

    def __init__(self, models: Sequence[Served], overseer: Overseer | None):
        self.registry = registry = CollectorRegistry()
        self.requests = Counter("cmpo_requests", "Requests by path and status.", ["path", "status"], registry=registry)
        self.prompt = Counter("cmpo_prompt_tokens", "Tokens of prompts.", ["model"], registry=registry)
        self.cached = Counter(
            "cmpo_cached_tokens", "Tokens of prompts that were read before.", ["model"], registry=registry
        )
        self.sampled = Counter("cmpo_sampled_tokens", "Tokens sampled.", ["model"], registry=registry)
        self.gone = Counter("cmpo_disconnects", "Requests whose client left before the end.", registry=registry)
        self.first = Histogram(
            "cmpo_first_piece_seconds", "Until the first piece.", registry=registry, buckets=_SECONDS
        )
        self.whole = Histogram(
            "cmpo_answer_seconds", "Until the end of an answer.", registry=registry, buckets=_SECONDS
        )
        self.under_way = Gauge("cmpo_requests_under_way", "Requests that are being answered.", registry=registry)
        computed = Gauge("cmpo_computed_tokens", "Tokens that went through the model.", ["model"], registry=registry)
        kept = Gauge("cmpo_conversations", "Conversations that may come back.", ["model"], registry=registry)
        streams = Gauge("cmpo_open_streams", "Streams of the engine that are open.", ["model"], registry=registry)
        for served in models:
            computed.labels(served.name).set_function(lambda served=served: served.engine.counts.computed)
            kept.labels(served.name).set_function(lambda served=served: len(served.conversations))
            streams.labels(served.name).set_function(lambda served=served: served.engine.open_sessions)
        if overseer:
            registry.register(overseer)

    def write(self) -> bytes:
        """Writes all of them."""
        return generate_latest(self.registry)


class CountRequests:
    """ASGI middleware: counts requests by path and status.

    What stands for a parameter in a path is left out of its name, and paths that no route has are one.
    """

    def __init__(self, app: Any, counter: Counter):
        self._app, self._counter = app, counter

    async def __call__(self, scope, receive, send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def note_and_send(message):
            if message["type"] == "http.response.start":
                self._counter.labels(_name_path(scope), str(message["status"])).inc()
            await send(message)

        await self._app(scope, receive, note_and_send)


def _name_path(scope: Mapping[str, Any]) -> str:
    """Names the path of a request that was routed; a parameter is named, too, as its value may be a secret."""
    if "endpoint" not in scope:
        return "other"
    path = scope["path"]
    for name, value in scope["path_params"].items():
        before, _, after = path.rpartition(str(value))
        path = f"{before}{{{name}}}{after}"
    return path
