"""Shows how far a phase is, when it will end, and the numbers that matter."""

import sys
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from tqdm import tqdm


class Progress:
    """A progress bar on a terminal; elsewhere one line every `every` steps. See `show_progress`."""

    def __init__(self, total: int, initial: int, description: str, every: int, shown: Mapping[str, str]):
        self._every, self._shown = every, shown
        self._bar = tqdm(total=total, initial=initial, desc=description, disable=not sys.stderr.isatty())
        self._line = {"total": total, "initial": initial, "prefix": description}
        self._step, self._start = initial, time.monotonic()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_):
        self._bar.close()

    def update(self, record: Mapping[str, Any]) -> None:
        """Counts one step as done; `record` is what it logged."""
        self._step += 1
        shown = ", ".join(
            f"{name} {form.format(value)}".strip()
            for key, form in self._shown.items()
            for name, value in (record[key] if isinstance(record.get(key), Mapping) else {"": record.get(key)}).items()
            if value is not None
        )
        if not self._bar.disable:
            self._bar.set_postfix_str(shown, refresh=False)
            self._bar.update()
        elif self._step % self._every == 0 or self._step == self._line["total"]:
            line = "{desc}: {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"
            elapsed = time.monotonic() - self._start
            text = tqdm.format_meter(self._step, elapsed=elapsed, postfix=shown, bar_format=line, **self._line)
            print(text, file=sys.stderr, flush=True)


def show_progress(
    total: int,
    initial: int = 0,
    description: str = "",
    *,
    every: int = 10,
    shown: Mapping[str, str] = MappingProxyType({}),
) -> Progress:
    """Shows how far a phase of `total` steps is, when it will end, and the numbers that matter.

    A context manager: call `update(record)` after each step. `shown` maps the keys of numbers to the formats
    that they are shown in. `initial` steps were done before a restart.
    """
    return Progress(total, initial, description, every, shown)
