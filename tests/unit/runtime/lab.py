"""A driver without Spark: its log is a real folder, its store is in memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airflow_provider_offsets.core.batch import Stream
from airflow_provider_offsets.core.epoch import Claim
from airflow_provider_offsets.core.pipeline import Subscription
from airflow_provider_offsets.core.position import Position
from airflow_provider_offsets.runtime.batch_log import BatchLog
from airflow_provider_offsets.runtime.held_epoch import HeldEpoch
from airflow_provider_offsets.runtime.settings import Secrets, Settings
from airflow_provider_offsets.stores.checkpoint import CheckpointFolder, LogEntry, open_checkpoint
from airflow_provider_offsets.stores.control import Control
from airflow_provider_offsets.testing import MemoryStore
from tests.unit.core.worlds import IDENTITY, at

QUERY = "query-1"
STREAM = Stream("alerts", ("flights",))


@dataclass
class Lab:
    """One pipeline: its store, and the checkpoints below ``home``."""

    home: Path
    store: MemoryStore = field(default_factory=MemoryStore)

    @property
    def control(self) -> Control:
        return Control(self.store, "alerts")

    @property
    def recorded(self) -> list[tuple[int | None, int | None, Position]]:
        """Batch id, epoch and end of all that the history has."""
        return [(each.batch_id, each.epoch, each.end) for each in self.store.oldest_first(STREAM)]

    def checkpoint(self, name: str = "checkpoint") -> CheckpointFolder:
        return open_checkpoint(str(self.home / name))

    def log(self, name: str = "checkpoint") -> BatchLog:
        return BatchLog(self.checkpoint(name), at(0, 0))

    def hold(self, number: int = 1, name: str = "checkpoint", operation: str = "op", **settings: Any) -> HeldEpoch:
        """Give a driver's hold on an epoch that it is to claim."""
        claim = Claim(number, operation, f"op-{number}@1", self.checkpoint(name).location, at(0, 0), IDENTITY)
        quick = {"poll_interval_s": 0.001, "heartbeat_interval_s": 0.0, "store_patience_s": 0.0, **settings}
        made = Settings("alerts", STREAM, Subscription.SUBSCRIBE, claim, Secrets("memory://"), **quick)
        return HeldEpoch(made, self.store, lambda each: BatchLog(open_checkpoint(each.checkpoint), each.start))

    def plan(self, batch_id: int, *ends: int, commit: bool = False) -> None:
        """Do what Spark does before a batch, and after it."""
        files = self.checkpoint()
        files.create("metadata", json.dumps({"id": QUERY}))
        files.create("sources/0/0", f"\0v1\n{at(0, 0).to_json()}")
        files.create(f"offsets/{batch_id}", LogEntry({"batchTimestampMs": 1_000 + batch_id}, (at(*ends),)).to_text())
        if commit:
            files.create(f"commits/{batch_id}", "v1\n{}")


class Query:
    """A run of one batch that is over at the second look."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self.looks = 0
        self.is_over = False
        self.stopped_while_running = False

    @property
    def status(self) -> dict[str, Any]:
        self.looks += 1
        if self.looks == 2:
            self._work()
            self.is_over = True
        return {"message": "Waiting for next trigger" if self.is_over else "Processing new data"}

    def awaitTermination(self, timeout: float) -> bool:  # Spark's name
        return False

    def stop(self) -> None:
        self.stopped_while_running = not self.is_over


class Writer:
    """A writer whose every run does the next of ``works``; after the last one, what ``then`` does."""

    def __init__(self, *works: Callable[[], None], then: Callable[[], None]) -> None:
        self._works = list(works)
        self._then = then
        self.runs: list[Query] = []
        self.triggers: list[dict[str, str]] = []

    def trigger(self, **trigger: str) -> Writer:
        self.triggers.append(trigger)
        return self

    def start(self) -> Query:
        self.runs.append(Query(self._works.pop(0) if self._works else self._then))
        return self.runs[-1]
