"""The flags of every server of ours: where it listens, who may ask, and how much at a time."""

from typing import Any

from absl import flags

from rollouts.serving import guard

_HOST = flags.DEFINE_string("host", "127.0.0.1", "Address to serve at; any other than loopback needs a key.")
_PORT = flags.DEFINE_integer("port", None, "Port to serve at.", lower_bound=1, upper_bound=65535)
_KEY = flags.DEFINE_string("api_key_env", "", "Name of the environment variable that holds the key clients must send.")
_BODY = flags.DEFINE_integer("max_body_bytes", 4_000_000, "Requests with larger bodies are refused.", lower_bound=1)
_CONCURRENT = flags.DEFINE_integer(
    "max_concurrent", 1024, "Requests above this number at a time are refused.", lower_bound=1
)
_READ = flags.DEFINE_float("read_timeout", 30.0, "Seconds a request may take to come in.", lower_bound=0.0)
_ANSWER = flags.DEFINE_float("answer_timeout", 300.0, "Seconds an answer may take.", lower_bound=0.0)


def check_flags() -> None:
    """Raises ValueError, naming the flag, if the server could not begin; to be called before anything is loaded."""
    guard.read_api_key(_HOST.value, _KEY.value)


def name_address(default_port: int) -> str:
    """Names the address that is served at."""
    return f"http://{_HOST.value}:{_PORT.value or default_port}"


async def serve_app(app: Any, default_port: int) -> None:
    """Serves an ASGI application as the flags say; see `guard.serve_app`."""
    await guard.serve_app(
        app,
        host=_HOST.value,
        port=_PORT.value or default_port,
        api_key_env=_KEY.value,
        max_body_bytes=_BODY.value,
        max_concurrent=_CONCURRENT.value,
        read_timeout=_READ.value,
        answer_timeout=_ANSWER.value,
    )
