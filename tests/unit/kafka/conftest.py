"""A clock that does not depend on the load of the machine."""

from __future__ import annotations

import pytest

from airflow_provider_offsets.kafka import calls, reader


class Clock:
    """A clock that advances while somebody sleeps, and by a millisecond whenever it is read."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 0.001
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Return the clock of a scripted cluster's clients. Real clients need the real one."""
    made = Clock()
    for module in (calls, reader):
        monkeypatch.setattr(module, "time", made)
        monkeypatch.setattr(module, "PAUSE_S", 0.01)
    return made
