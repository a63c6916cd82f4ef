"""Takes Ctrl-C and SIGTERM as a request to save and stop."""

import signal
import sys


class Interrupted(Exception):
    """The run was asked to stop while it waited for endpoints; their answers so far are kept."""


class Interrupts:
    """Notes the first SIGINT or SIGTERM in `received`; the second ends the process at once. A context manager.

    The second loses nothing: what is on disk is complete at any moment (docs/runs.md).
    """

    def __init__(self):
        self.received = False

    def __enter__(self) -> "Interrupts":
        self._before = {number: signal.signal(number, self._note_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note_signal(self, number, frame):
        self.received = True
        for each in self._before:  # then the kernel ends the process, without waiting for Python or a save
            signal.signal(each, signal.SIG_DFL)
        print("\nsaving, then stopping; once more to stop without saving", file=sys.stderr)
