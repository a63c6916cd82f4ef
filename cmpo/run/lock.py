"""Keeps a second trainer, or a second sweep, out of a workdir."""

import contextlib
import fcntl
import os
import pathlib
import socket
import time
from collections.abc import Callable, Iterator

from cmpo.distributed import processes
from cmpo.run import files

NAME = "lock"


class WorkdirInUse(OSError):
    """Another process trains in this workdir."""


@contextlib.contextmanager
def hold_lock(workdir: pathlib.Path) -> Iterator[None]:
    """Holds DIR/lock, on process 0 only, and makes the directory. However the process ends, the kernel frees the lock.

    Raises WorkdirInUse, naming who holds it, or OSError if nothing can be written there.
    """
    with contextlib.ExitStack() as stack:
        processes.run_once(lambda: _take_lock(workdir, stack))
        yield


@contextlib.contextmanager
def wait_for_lock(workdir: pathlib.Path, say: Callable[[str], None]) -> Iterator[int]:
    """Holds DIR/lock as soon as it is free; says once who holds it until then. Yields the lock's file descriptor.

    A child process that inherits the descriptor holds the lock, too, for as long as it lives.
    """
    with contextlib.ExitStack() as stack:
        descriptor, waiting = None, False
        while descriptor is None:
            try:
                descriptor = _take_lock(workdir, stack)
            except WorkdirInUse:
                if not waiting:
                    say(f"{workdir}: waiting for {_read_holder(workdir)}, or what it left under way, to end")
                waiting = True
                time.sleep(0.1)
        yield descriptor


def _take_lock(workdir: pathlib.Path, stack: contextlib.ExitStack) -> int:
    path = workdir / NAME
    with files.name_file_in_errors(path):
        workdir.mkdir(parents=True, exist_ok=True)
        file = stack.enter_context(path.open("a+", encoding="utf-8"))
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        holder = _read_holder(workdir)
        raise WorkdirInUse(f"{workdir} is in use by {holder}; end that one, or choose another --workdir") from None
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    return file.fileno()


def _read_holder(workdir: pathlib.Path) -> str:
    return (workdir / NAME).read_text(encoding="utf-8").strip() or "another process"
