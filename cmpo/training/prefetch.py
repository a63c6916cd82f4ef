"""Work on a separate thread: dialogues are played there while the model is updated."""

import concurrent.futures
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Ahead(Generic[T]):
    """Runs one piece of work at a time. A context manager: on leaving, it asks running work to stop, and waits."""

    def __init__(self):
        self.stopping = False  # running work looks at it from time to time
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="rollouts")
        self._work: concurrent.futures.Future[T] | None = None

    def __enter__(self) -> "Ahead[T]":
        return self

    def __exit__(self, *_):
        self.stopping = True
        self._thread.shutdown()

    @property
    def busy(self) -> bool:
        """Whether work was started whose result was not taken yet."""
        return self._work is not None

    def start(self, work: Callable[[], T]) -> None:
        """Begins `work`. Raises RuntimeError if the result of the previous work was not taken."""
        if self._work:
            raise RuntimeError("the result of the previous work was not taken")
        self._work = self._thread.submit(work)

    def result(self) -> T:
        """Waits for the result and returns it, or raises the work's error."""
        work, self._work = self._work, None
        return work.result()
