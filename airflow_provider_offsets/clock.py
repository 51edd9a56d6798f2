"""The clock that operations and drivers go by: the machine's own, unless a simulation installs another."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Clock(Protocol):
    """What this package asks of a clock."""

    def now_ms(self) -> int:
        """Return the time of day, in milliseconds since 1970. It may jump, forwards and backwards."""
        ...

    def monotonic_s(self) -> float:
        """Return seconds since some moment. They never go back."""
        ...

    def sleep(self, seconds: float) -> None:
        """Return after so many seconds."""
        ...


class SystemClock:
    """The clock of this machine."""

    def now_ms(self) -> int:
        """Return the time of day, in milliseconds since 1970."""
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        """Return seconds since the machine was started."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Return after so many seconds."""
        time.sleep(seconds)


_clock: Clock = SystemClock()


def now_ms() -> int:
    """Return the time for records, in milliseconds since 1970."""
    return _clock.now_ms()


def monotonic_s() -> float:
    """Return seconds since some moment, to measure how long something takes."""
    return _clock.monotonic_s()


def sleep(seconds: float) -> None:
    """Wait."""
    _clock.sleep(seconds)


@contextmanager
def installed(clock: Clock) -> Iterator[None]:
    """Let this process go by another clock, as a simulation does."""
    global _clock
    before, _clock = _clock, clock
    try:
        yield
    finally:
        _clock = before
