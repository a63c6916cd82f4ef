"""Serves the embedded endpoint: ``python -m rollouts.embedded --port=8001``."""

import uvicorn
from absl import app, flags

from rollouts.embedded.app import app as endpoint

_PORT = flags.DEFINE_integer("port", 8001, "Port on the loopback interface.", lower_bound=1, upper_bound=65535)


def main(_):
    """Runs the server until it is interrupted."""
    uvicorn.run(endpoint, host="127.0.0.1", port=_PORT.value, log_level="warning", access_log=False)


if __name__ == "__main__":
    app.run(main)
