"""A small policy behind the OpenAI protocol, served over real HTTP on loopback."""

import contextlib
import functools
import socket
import threading
import time

import uvicorn

from models import tokenizer
from rollouts.engine.constraints import Constraints
from rollouts.serving.app import make_app
from rollouts.serving.conversations import Conversations
from rollouts.serving.guard import Guard
from rollouts.serving.served import Served
from tests.builders.engines import CONFIG, STOP, engine_of

TEXTS = ["You are a customer service agent.", "My soup arrived cold! user assistant system. " * 9]


@functools.cache
def trained():
    """A tokenizer with the vocabulary of `engines.CONFIG`."""
    made = tokenizer.train_tokenizer(TEXTS, 300)
    assert (made.vocab_size, made.im_end) == (CONFIG.vocab_size, STOP)
    return made


@functools.cache
def constraints():
    return Constraints(trained(), CONFIG.vocab_size)


def served_of(engine=None, *, name="policy", most=64, room=10**6, age=600.0, ended=lambda dialogue: None, **fields):
    """A model with random weights."""
    engine = engine or engine_of(capacity=1024, max_new_tokens=12)
    conversations = Conversations(engine, most=most, room=room, age=age, ended=ended)
    return Served(
        name,
        engine,
        trained(),
        conversations,
        **({} if "constraints" in fields else {"constraints": constraints()}),
        **fields,
    )


def make_tool(**properties):
    """The tool `f`, whose arguments are these and no others."""
    closed = {"required": list(properties), "additionalProperties": False}
    parameters = {"type": "object", "properties": properties, **closed}
    return {"type": "function", "function": {"name": "f", "parameters": parameters}}


@contextlib.contextmanager
def serving(*models, guard=None, **options):
    """Serves models, or an application, behind the guard; gives the base URL."""
    app = make_app(models, **options) if isinstance(models[0], Served) else models[0]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(Guard(app, **(guard or {})), log_level="critical", access_log=False)
        running = uvicorn.Server(config)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not running.started:
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            running.should_exit = True
            thread.join(30)
