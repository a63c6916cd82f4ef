"""Work on a thread of its own, beside the caller's: dialogues that are played while the model is updated."""

import concurrent.futures
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Ahead(Generic[T]):
    """One piece of work at a time; a context manager, which on leaving asks what is under way to stop, and waits."""

    def __init__(self):
        self.stopping = False  # what is under way looks at it from time to time
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="rollouts")
        self._work: concurrent.futures.Future[T] | None = None

    def __enter__(self) -> "Ahead[T]":
        return self

    def __exit__(self, *_):
        self.stopping = True
        self._thread.shutdown()

    @property
    def busy(self) -> bool:
        """Is there work whose result nobody took?"""
        return self._work is not None

    def start(self, work: Callable[[], T]) -> None:
        """Begins `work`. Raises RuntimeError if the result of what came before was not taken."""
        if self._work:
            raise RuntimeError("the result of the work before was not taken")
        self._work = self._thread.submit(work)

    def result(self) -> T:
        """Waits for the work's result, or raises what it raised."""
        work, self._work = self._work, None
        return work.result()
