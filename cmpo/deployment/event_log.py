"""The file of a ledger's events: read from its beginning, then written line by line."""

import errno
import fcntl
import os
import pathlib
from collections.abc import Callable, Iterator

from cmpo.deployment.events import Event, parse_event
from cmpo.run import files


class EventLog:
    """Holds a log open for one process. Call `read_events` to its end, then `append`.

    A line is with the operating system when `append` returns, so it survives the process; it may not survive the
    machine, as waiting for the disk would make every answer wait.

    Raises OSError, naming the file, if it cannot be written, or another process holds it.
    """

    def __init__(self, path: pathlib.Path, say: Callable[[str], None]):
        self._path, self._say = path, say
        files.make_parent_directory(path)
        with files.name_file_in_errors(path):
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise OSError(f"{path} is in use by another server; end that one, or choose another --ledger") from None

    def close(self) -> None:
        """Closes the file, which frees it for others."""
        os.close(self._file)

    def read_events(self) -> Iterator[Event]:
        """Yields what was written so far. Says so of a last line that was cut off as it was written, and removes it.

        What such a line was about has not happened: nothing is sent before its line is written. Raises ValueError,
        naming the line, if a line is not of a ledger.
        """
        sound = 0
        with self._path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    self._say(f"{self._path}:{number}: left out a last line that was cut off: {line!r:.100}")
                    os.ftruncate(self._file, sound)
                    return
                try:
                    yield parse_event(line)
                except ValueError as error:
                    raise ValueError(f"{self._path}:{number}: {error}") from None
                sound += len(line)

    def append(self, event: Event) -> None:
        """Writes a line, or nothing of it. Raises OSError, naming the file."""
        line = event.model_dump_json(exclude_none=True).encode() + b"\n"
        with files.name_file_in_errors(self._path):
            before = os.fstat(self._file).st_size
            try:
                if os.write(self._file, line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                os.ftruncate(self._file, before)
                raise
