"""Refuses a second trainer in the same workdir."""

import contextlib
import fcntl
import os
import pathlib
import socket
from collections.abc import Iterator

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


def is_free(workdir: pathlib.Path) -> bool:
    """Whether nobody holds DIR/lock."""
    if not (workdir / NAME).exists():
        return True
    with (workdir / NAME).open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def _take_lock(workdir: pathlib.Path, stack: contextlib.ExitStack) -> None:
    path = workdir / NAME
    with files.name_file_in_errors(path):
        workdir.mkdir(parents=True, exist_ok=True)
        file = stack.enter_context(path.open("a+", encoding="utf-8"))
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "another process"
        raise WorkdirInUse(f"{workdir} is in use by {holder}; end that one, or choose another --workdir") from None
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
