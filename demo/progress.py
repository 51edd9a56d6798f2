"""Lines for the person who watches, and waiting that always has an end."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class DemoFailed(Exception):
    """The demo cannot go on. Its text says what was seen, and what to do where that helps."""


class Progress:
    """Says one line for each event, with the seconds since the demo began at the left."""

    def __init__(self) -> None:
        self._begin = time.monotonic()
        self._printing = threading.Lock()

    @property
    def seconds(self) -> float:
        """How long the demo has taken so far."""
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
    """Give what ``look`` gives, as soon as that is neither None nor False nor empty.

    :param what: what is waited for, for the message when it does not come.
    :param meanwhile: called between two looks; what it raises ends the waiting.
    :raises DemoFailed: it did not come within ``limit_s`` seconds.
    """
    deadline = time.monotonic() + limit_s
    while not (found := look()):
        if time.monotonic() > deadline:
            raise DemoFailed(f"{what}: not within {limit_s:.0f} s")
        meanwhile()
        time.sleep(every_s)
    return found
