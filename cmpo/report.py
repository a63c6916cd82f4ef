"""Writes the page of a run: ``python -m cmpo.report --workdir=DIR`` makes DIR/report.html, a file that stands alone.

In place of a directory there may be a file that `cmpo.evaluate` wrote: then the page is that of the evaluation.
``--against=DIR`` compares it with another run, on one page; ``--scan="refund|callback"`` looks for words in all that
the agent said; both may be given several times. ``--png=PATH`` also saves the curves as a picture, ``--inspect=FOLDER``
all dialogues as logs of Inspect, and ``--trackio=PROJECT`` logs them as traces of Trackio.

``--serve`` writes nothing, but shows the page at http://127.0.0.1:PORT (--port) and follows a run that goes on.
"""

import asyncio
import pathlib
import socket
from collections.abc import Sequence

from absl import flags

from cmpo.cli import command
from cmpo.reports import inspect_log, run_data, run_page, trackio_traces, watching
from cmpo.run import files
from rollouts.serving import guard

_AGAINST = flags.DEFINE_multi_string(
    "against",
    [],
    "Directory of a run, or file of an evaluation, to compare with; may be given several times.",
    allow_override=True,  # cmpo.compare has a flag of this name, too
)
_SCAN = flags.DEFINE_multi_string("scan", [], "Regular expression to look for in what the agent said.")
_PNG = flags.DEFINE_string(
    "png",
    None,
    "File to save the curves in, as a picture.",
    allow_override=True,  # cmpo.card has a flag of this name, too
)
_INSPECT = flags.DEFINE_string("inspect", None, "Folder to write the dialogues to, as logs of Inspect.")
_TRACKIO = flags.DEFINE_string("trackio", None, "Project of Trackio to log the dialogues in, as traces.")
_SERVE = flags.DEFINE_bool("serve", False, "Serve the page on this machine, and follow a run that goes on.")
_PORT = flags.DEFINE_integer(
    "port",
    8008,
    "With --serve: where. It is always on loopback, for the page has no key.",
    lower_bound=0,
    upper_bound=65535,
    allow_override=True,  # the flags of servers have one of this name, too
)


def run() -> None:
    """Writes the page, and what else was asked for; prints where it is. Or serves the page until it is interrupted."""
    workdir, options = command.WORKDIR.value, {"against": _AGAINST.value, "scans": _SCAN.value}
    if _PNG.value and pathlib.Path(workdir).is_file():
        raise ValueError(f"--png: expected --workdir=DIR of a run, whose curves it draws, got the evaluation {workdir}")
    if _SERVE.value:
        asyncio.run(serve([workdir, *_AGAINST.value], _SCAN.value, _PORT.value))
        return
    check_outputs()
    print(run_page.write_report(workdir, out=command.OUT.value or "", **options))
    if _PNG.value:
        run_page.save_curves(workdir, _PNG.value)
        print(_PNG.value)
    if _INSPECT.value:
        paths = inspect_log.write_logs(run_data.load_source(workdir), pathlib.Path(_INSPECT.value))
        print(f"{_INSPECT.value}: {len(paths)} logs")
    if _TRACKIO.value:
        count = trackio_traces.log_traces(run_data.load_source(workdir), _TRACKIO.value)
        print(f"Trackio, project {_TRACKIO.value}: {count} dialogues")


def check_outputs() -> None:
    """Raises ValueError or OSError, naming what is wrong, if something that was asked for could not be written.

    Called before the page is, so that a command does all that it was told to, or nothing.
    """
    if command.OUT.value:
        files.make_parent_directory(pathlib.Path(command.OUT.value))
    if _PNG.value:
        run_page.check_picture(_PNG.value)
        files.make_parent_directory(pathlib.Path(_PNG.value))
    if _INSPECT.value:
        inspect_log.import_inspect()
        files.make_parent_directory(pathlib.Path(_INSPECT.value, "log.eval"))
    if _TRACKIO.value:
        trackio_traces.import_trackio()


async def serve(folders: Sequence[str], scans: Sequence[str], port: int) -> None:
    """Serves the page of the runs in `folders` on loopback.

    Raises as `run_page.write_report` does, and ValueError if the port cannot be had.
    """
    watch = watching.Watch(folders, scans)
    await watch.describe()  # what is wrong with the flags is said now
    with open_port(port) as listener:
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        await guard.serve_app(watching.make_app(watch), listener=listener)


def open_port(port: int) -> socket.socket:
    """Opens a port on loopback; 0: any that is free. Raises ValueError if it cannot be had."""
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError as error:
        raise ValueError(f"--port: cannot listen at {port}: {error.strerror}; choose another, or 0 for any") from None


if __name__ == "__main__":
    command.run(run, required=["workdir"])
