"""Clock of operations and drivers: the machine's own, unless a simulation installs another one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Protocol


class Clock(Protocol):
    """Interface of a clock."""

    def now_ms(self) -> int:
        """Return the time of day in milliseconds since 1970. It may jump forwards and backwards."""
        ...

    def monotonic_s(self) -> float:
        """Return seconds since an arbitrary moment. The value never decreases."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait for that many seconds."""
        ...


class SystemClock:
    """Clock of this machine."""

    def now_ms(self) -> int:
        """Return the time of day in milliseconds since 1970."""
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        """Return seconds since the machine was started."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait for that many seconds."""
        time.sleep(seconds)


_clock: Clock = SystemClock()


def now_ms() -> int:
    """Return the time for records, in milliseconds since 1970."""
    return _clock.now_ms()


def now_text() -> str:
    """Return the time for records in UTC, such as ``2026-11-01T00:00:00.000+00:00``."""
    return datetime.fromtimestamp(now_ms() / 1000, timezone.utc).isoformat(timespec="milliseconds")


def monotonic_s() -> float:
    """Return seconds since an arbitrary moment, to measure durations."""
    return _clock.monotonic_s()


def sleep(seconds: float) -> None:
    """Wait for that many seconds."""
    _clock.sleep(seconds)


@contextmanager
def installed(clock: Clock) -> Iterator[None]:
    """Replace the clock of this process within a ``with`` block, as a simulation does."""
    global _clock
    before, _clock = _clock, clock
    try:
        yield
    finally:
        _clock = before
