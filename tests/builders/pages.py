"""The page behind a real server on loopback: scripted agents, the embedded judge, and models that echo."""

import asyncio
import contextlib
import json
import socket
import threading
from collections import Counter

import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from cmpo.cli.page import open_page_table
from cmpo.training.clients import make_clients
from configs import fds
from rollouts import domains
from rollouts.serving.guard import Guard
from rollouts.serving.page_routes import make_page_routes

TURN = "<think>Plan: {0}.</think><response>I hear: {0}</response><action>{1}</action>"


class Counted:
    """An agent that counts the sessions it has open, and takes its time."""

    def __init__(self, agent, seconds=0.0):
        self.agent, self.seconds, self.sessions = agent, seconds, Counter()

    async def open(self, task, seed):
        self.sessions["opened"] += 1
        session, reply, close = await self.agent.open(task, seed), None, None
        reply, close = session.reply, session.close

        async def reply_later(messages, seed):
            await asyncio.sleep(self.seconds)
            return await reply(messages, seed)

        def note_close():
            self.sessions["closed"] += 1
            close()

        session.reply, session.close = reply_later, note_close
        return session


class EchoingModels:
    """The OpenAI protocol as far as the page speaks it; keeps the requests. What is said decides what comes back."""

    def __init__(self, names):
        self.names, self.asked = names, []

    @property
    def routes(self):
        return [
            Route("/v1/models", self.list_models),
            Route("/v1/chat/completions", self.complete, methods=["POST"]),
        ]

    async def list_models(self, request):
        return JSONResponse({"object": "list", "data": [{"id": name, "object": "model"} for name in self.names]})

    async def complete(self, request):
        body = await request.json()
        self.asked.append(body)
        words = body["messages"][-1]["content"]
        if words == "refuse" and body["model"] == self.names[0]:
            error = {"message": "'messages': too long <b>for me</b>", "type": "invalid_request_error"}
            return JSONResponse({"error": error}, 400)
        action = "voucher" if "voucher" in words else "chat"
        text = TURN.format(words, action) if body["model"] == "policy" else words

        async def stream():
            for start in range(0, len(text), 7):
                delta = {"content": text[start : start + 7]}
                yield f"data: {json.dumps({'choices': [{'index': 0, 'delta': delta}]})}\n\n"
            if body["model"] == "customer's":
                yield f"data: {json.dumps({'choices': [{'index': 0, 'delta': {'action': action}}]})}\n\n"
            if words == "wait":
                await asyncio.sleep(60)
            usage = {"prompt_tokens": 5, "completion_tokens": len(text), "total_tokens": 5 + len(text)}
            yield f"data: {json.dumps({'choices': [], 'usage': usage})}\n\ndata: [DONE]\n\n"

        return StreamingResponse(stream(), media_type="text/event-stream")


@contextlib.contextmanager
def serve_page(
    names=("never", "generous"), *, models=("policy", "plain"), seconds=0.0, api_key="", limits=None, **view
):
    """Serves the page with scripted agents of FDS; gives its URL, the agents by name and the models."""
    config = fds.get_config()
    agents = {name: Counted(domains.load(config).scripted_agent(config, name, 0.3), seconds) for name in names}
    echoing, begun = EchoingModels(models), threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        async def serve():
            async with open_page_table(config, make_clients(config), agents, title="a run, step 7", **view) as table:
                app = Starlette(routes=[*make_page_routes(table, **(limits or {})), *echoing.routes])
                settings = {"log_level": "critical", "access_log": False, "timeout_graceful_shutdown": 1}
                running.append(uvicorn.Server(uvicorn.Config(Guard(app, api_key=api_key), **settings)))
                begun.set()
                await running[0].serve(sockets=[listener])

        running = []
        thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
        thread.start()
        begun.wait()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", agents, echoing
        finally:
            running[0].should_exit = True
            thread.join()
