"""What every command does around its work: parse the flags, and tell foreseeable errors in one line."""

import sys
from collections.abc import Callable, Sequence

from absl import app, flags, logging

from cmpo.rollout import RolloutsFailed

FORESEEN = (ValueError, OSError, FloatingPointError, RolloutsFailed)
"""Errors that come of input, endpoints or numbers, and whose message says it all."""


def run(work: Callable[[], None], *, required: Sequence[str]) -> None:
    """Parses the flags, `required` among them, and does `work`; a foreseeable error is one line and exit status 1."""
    flags.mark_flags_as_required(required)

    def main(_) -> None:
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)
        try:
            work()
        except FORESEEN as error:
            sys.exit(f"error: {error}")

    app.run(main, flags_parser=_parse)


def _parse(arguments: Sequence[str]) -> list[str]:
    try:
        return app.parse_flags_with_usage(arguments)
    except (AttributeError, KeyError) as error:  # how ml_collections reports a field that does not exist
        while isinstance(error.args[0], Exception):
            error = error.args[0]
        sys.exit("error: --config: no such field: " + " ".join(str(error.args[0]).split()))
