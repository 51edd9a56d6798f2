"""Progress lines for people."""

import threading
import time
from collections.abc import Callable
from types import TracebackType

_printing = threading.Lock()


def say(name: str, text: str) -> None:
    """Print one line about a server or step; lines of parallel steps do not mix."""
    with _printing:
        print(f"{name:<8} {text}", flush=True)


class Ticker:
    """Context manager that prints every few seconds that a step is still running.

    :param name: name of the server or step.
    :param doing: returns the text to print.
    :param every: seconds between two lines.
    """

    def __init__(self, name: str, doing: Callable[[], str], *, every: float = 10.0) -> None:
        self._name, self._doing, self._every = name, doing, every
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._tick, daemon=True)
        self._begin = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the step began."""
        return time.monotonic() - self._begin

    def _tick(self) -> None:
        while not self._done.wait(self._every):
            say(self._name, f"{self.seconds:4.0f} s  {self._doing()}")

    def __enter__(self) -> "Ticker":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
