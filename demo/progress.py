"""Progress lines for people, and waiting with a timeout."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class DemoFailed(Exception):
    """The demo cannot continue; the message has the cause and, if known, the fix."""


class Progress:
    """Progress output: one line per event, prefixed with the seconds since the demo began."""

    def __init__(self) -> None:
        self._begin = time.monotonic()
        self._printing = threading.Lock()

    @property
    def seconds(self) -> float:
        """Seconds since the demo began."""
        return time.monotonic() - self._begin

    def say(self, text: str) -> None:
        """Print one line."""
        with self._printing:
            print(f"{self.seconds:5.0f} s  {text}", flush=True)


def wait_for(
    what: str,
    look: Callable[[], T | None],
    *,
    limit_s: float,
    every_s: float = 0.3,
    meanwhile: Callable[[], object] = lambda: None,
) -> T:
    """Return the result of ``look`` as soon as that result is truthy.

    :param what: what is awaited, for the error message.
    :param look: called repeatedly.
    :param limit_s: seconds to wait at most.
    :param every_s: seconds between two calls of ``look``.
    :param meanwhile: called between two calls of ``look``; an exception in it ends the wait.
    :raises DemoFailed: ``look`` returned nothing truthy within ``limit_s`` seconds.
    """
    deadline = time.monotonic() + limit_s
    while not (found := look()):
        if time.monotonic() > deadline:
            raise DemoFailed(f"{what}: not within {limit_s:.0f} s")
        meanwhile()
        time.sleep(every_s)
    return found
