"""A clock that no machine is too busy for."""

from __future__ import annotations

import pytest

from airflow_provider_offsets.kafka import calls, reader


class Clock:
    """Time passes for who sleeps, and by a millisecond for who looks at it."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 0.001
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time of whoever asks a scripted cluster. Real clients need the real one."""
    made = Clock()
    for module in (calls, reader):
        monkeypatch.setattr(module, "time", made)
        monkeypatch.setattr(module, "PAUSE_S", 0.01)
    return made
