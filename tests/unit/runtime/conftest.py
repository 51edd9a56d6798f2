"""Drivers without a JVM: Spark's listener of writes has a substitute."""

from __future__ import annotations

import pytest

from airflow_provider_offsets.runtime import foreach_batch, shard_replay
from tests.unit.runtime.lab import CountedRows


@pytest.fixture(autouse=True)
def _count_without_spark(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (foreach_batch, shard_replay):
        monkeypatch.setattr(module, "WriteCount", CountedRows)
