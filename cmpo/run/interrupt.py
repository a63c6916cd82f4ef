"""Ctrl-C and SIGTERM as a request to save and stop."""

import signal
import sys


class Interrupted(Exception):
    """The run was asked to stop while endpoints were being asked; what they had answered is kept."""


class Interrupts:
    """Notes the first SIGINT or SIGTERM in `received`; the second ends the process at once. A context manager.

    Nothing is lost by the second: what is on disk is complete at any moment (docs/runs.md).
    """

    def __init__(self):
        self.received = False

    def __enter__(self) -> "Interrupts":
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number, frame):
        self.received = True
        for each in self._before:  # the kernel's own way: it does not wait for Python, nor for a save
            signal.signal(each, signal.SIG_DFL)
        print("\nsaving, then stopping; once more to stop without saving", file=sys.stderr)
