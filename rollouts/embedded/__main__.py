"""Serves the embedded endpoint: ``python -m rollouts.embedded --port=8001``."""

import asyncio
import sys
from collections.abc import Sequence

from absl import app, flags

from rollouts.domains.fds.embedded.app import app as endpoint
from rollouts.serving import guard

_HOST = flags.DEFINE_string("host", "127.0.0.1", "Address to serve at; any other than loopback needs a key.")
_PORT = flags.DEFINE_integer("port", 8001, "Port to serve at.", lower_bound=1, upper_bound=65535)
_KEY = flags.DEFINE_string("api_key_env", "", "Name of the environment variable that holds the key clients must send.")
_BODY = flags.DEFINE_integer("max_body_bytes", 4_000_000, "Requests with larger bodies are refused.", lower_bound=1)
_CONCURRENT = flags.DEFINE_integer(
    "max_concurrent", 1024, "Requests above this number at a time are refused.", lower_bound=1
)
_READ = flags.DEFINE_float("read_timeout", 30.0, "Seconds a request may take to come in.", lower_bound=0.0)
_ANSWER = flags.DEFINE_float("answer_timeout", 300.0, "Seconds an answer may take.", lower_bound=0.0)


def main(_) -> None:
    """Runs the server until it is interrupted."""
    try:
        asyncio.run(
            guard.serve_app(
                endpoint,
                host=_HOST.value,
                port=_PORT.value,
                api_key_env=_KEY.value,
                max_body_bytes=_BODY.value,
                max_concurrent=_CONCURRENT.value,
                read_timeout=_READ.value,
                answer_timeout=_ANSWER.value,
            )
        )
    except ValueError as error:
        sys.exit(f"error: {error}")


def _parse_flags(line: Sequence[str]) -> list[str]:
    try:
        program, *others = flags.FLAGS(line)
    except flags.Error as error:
        sys.exit("error: " + " ".join(str(error).split()))
    if others:
        sys.exit(f"error: unexpected argument {others[0]!r}")
    return [program]


if __name__ == "__main__":
    app.run(main, flags_parser=_parse_flags)
