"""Serves the embedded endpoint: ``python -m rollouts.embedded --port=8001``."""

import asyncio
import sys
from collections.abc import Sequence

from absl import app, flags

from rollouts.domains.fds.embedded.app import app as endpoint
from rollouts.serving import listening


def main(_) -> None:
    """Runs the server until it is interrupted."""
    try:
        asyncio.run(listening.serve_app(endpoint, default_port=8001))
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
