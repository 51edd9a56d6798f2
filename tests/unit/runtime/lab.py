"""A driver without Spark: its log is a real folder, its store is in memory, its operations are swaps of the record."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from airflow_provider_offsets.backends import machine
from airflow_provider_offsets.checkpoint.files import CheckpointFolder, open_checkpoint
from airflow_provider_offsets.checkpoint.log import LogEntry
from airflow_provider_offsets.control.pipeline import Control
from airflow_provider_offsets.control.record_cell import RecordCell
from airflow_provider_offsets.core.batch import Batch, Stream, digest_of, next_row_time_ms
from airflow_provider_offsets.core.epoch import Claim, CutOff, Ended, EndedHow, ProcessIdentity, Recorded
from airflow_provider_offsets.core.pipeline import Subscription
from airflow_provider_offsets.core.position import Position
from airflow_provider_offsets.core.record.events import (
    AskToStop,
    CancelLaunch,
    CloseDead,
    LaunchEpoch,
    Reconcile,
    TakeLease,
)
from airflow_provider_offsets.core.record.model import EpochLaunch, Phase, PipelineRecord
from airflow_provider_offsets.errors import StoreUnreachable
from airflow_provider_offsets.runtime.batch_log import BatchLog
from airflow_provider_offsets.runtime.held_epoch import HeldEpoch
from airflow_provider_offsets.runtime.settings import Secrets, Settings
from airflow_provider_offsets.runtime.write_count import UNKNOWN, Rows
from airflow_provider_offsets.testing import MemoryStore
from tests.unit.core.observations import IDENTITY, at

QUERY = "query-1"
STREAM = Stream("alerts", ("flights",))
AWAY = StoreUnreachable(seen="nobody", expected="an answer", do="start it")


class Killed(BaseException):
    """SIGKILL: an exception that no code of the product catches."""


class Store(MemoryStore):
    """A store that applies ``fate`` before and after each swap, and before each read of a cell."""

    def __init__(self) -> None:
        super().__init__()
        self.fate: Callable[[str, str], None] = lambda side, act: None

    def get(self, pipeline: str, name: str) -> str | None:
        """Read a cell, after one call of ``fate``."""
        self.fate("before", "get")
        return super().get(pipeline, name)

    def swap(self, *arguments: Any, **options: Any) -> bool:
        """Swap, between two calls of ``fate``."""
        self.fate("before", "swap")
        done = super().swap(*arguments, **options)
        self.fate("after", "swap")
        return done


class SplitStore(Store):
    """A store without transactions: facts, then the text, then the row, with a call of ``fate`` between any two."""

    def swap(self, pipeline: str, name: str, expected: str | None, value: str, **options: Any) -> bool:
        """Swap as HBase does."""
        stream, append = options.get("stream"), options.pop("append", None)
        self.fate("before", "text")
        done = MemoryStore.swap(self, pipeline, name, expected, value, **options)
        self.fate("after", "text")
        if done and append is not None and stream is not None:
            self.append(stream, append)
            self.fate("after", "row")
        return done


class Machine(machine.LocalMachine):
    """A machine on which the test chooses the calling process."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def this_process(self) -> ProcessIdentity:
        """Return the identity of the calling process."""
        return process(self._pid)


def process(pid: int) -> ProcessIdentity:
    """Return the identity of a process of the test."""
    return ProcessIdentity("worker-1", "boot", pid, 7)


@dataclass
class Clock:
    """A clock that advances when somebody waits."""

    now: float = 1000.0

    def now_ms(self) -> int:
        """Return the time of day."""
        return int(self.now * 1000)

    def monotonic_s(self) -> float:
        """Return the seconds."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Advance the time."""
        self.now += seconds


@dataclass
class Lab:
    """One pipeline: its store, and the checkpoints below ``home``."""

    home: Path
    store: Store = field(default_factory=Store)

    @property
    def control(self) -> Control:
        """The control store of the pipeline."""
        return Control(self.store, "alerts")

    @property
    def record(self) -> PipelineRecord:
        """The pipeline's current record."""
        found = self.control.record()
        assert found is not None
        return found

    @property
    def recorded(self) -> list[tuple[int | None, int | None, Position]]:
        """Batch id, epoch and end of every row of the history."""
        return [(each.batch_id, each.epoch, each.end) for each in self.store.oldest_first(STREAM)]

    @property
    def cuts(self) -> list[tuple[int, int]]:
        """Batch id and count of all interrupted batches, in all epochs."""
        return [(each.batch_id, each.count) for epoch in self.control.epochs() for each in epoch.cuts]

    def checkpoint(self, name: str = "checkpoint") -> CheckpointFolder:
        """Return a checkpoint's folder."""
        return open_checkpoint(str(self.home / name))

    def log(self, name: str = "checkpoint") -> BatchLog:
        """Return a checkpoint's log."""
        return BatchLog(self.checkpoint(name), at(0, 0))

    def launch(self, start: Position | None = None, name: str = "checkpoint", **known: Any) -> Claim:
        """Do what an operation does before a driver exists: account for the previous epoch, and record the launch.

        :param known: fields of the claim.
        """
        cell = RecordCell(self.store, "alerts")
        record = cell.create()
        number = record.epoch + 1
        operation = f"op-{number}"
        cell.change(TakeLease(operation, 0, 0, take_over=True))
        record = self.close(operation) if record.launch is not None else record
        if record.launch is not None:
            self.control.keep_epoch(self.control.newest_launch(record))
        claim = Claim(
            number=number,
            operation=operation,
            tag=f"tag-{number}",
            checkpoint=self.checkpoint(name).location,
            start=self.position(record) if start is None else start,
            identity=IDENTITY,
            stream=STREAM,
            plan=f"plan-{number}",
            recorded_before=self._recorded_before(record),
        )
        claim = replace(claim, **known)
        self.control.keep_claim(claim)
        launch = EpochLaunch(claim.number, claim.tag, operation, claim.plan, claim.checkpoint)
        generation = self.record.generation
        newest = next(self.store.newest_first(STREAM), None)
        cell.change(LaunchEpoch(operation, generation, launch, 0, 0 if newest is None else newest.row_time_ms or 0))
        return claim

    def close(self, operation: str) -> PipelineRecord:
        """Cancel, close and reconcile whatever is open, as ``operations.lease`` does; return the record."""
        cell = RecordCell(self.store, "alerts")
        record = cell.change(TakeLease(operation, 0, 0, take_over=True))
        if record.phase is Phase.LAUNCHING:
            record = cell.change(CancelLaunch(operation, 0))
        if record.phase is Phase.RUNNING and record.holder is not None:
            record = cell.change(CloseDead(operation, record.holder, Ended(EndedHow.DIED, 0, message="gone")))
        return self._reconcile(cell, operation, record) if record.phase is Phase.ENDED else record

    def position(self, record: PipelineRecord) -> Position:
        """Return the position of the pipeline."""
        epoch = self.control.claimed_epoch(record)
        if epoch is None or record.recorded is None:
            return at(0, 0)
        if record.recorded.row_time_ms is None:
            return epoch.claim.start
        batch = self.store.prepared(STREAM, record.recorded.row_time_ms)
        assert batch is not None
        return epoch.claim.start.updated(batch.end)

    def stop(self) -> None:
        """Ask the job to stop, as the operation that launches the next epoch."""
        operation = f"op-{self.record.epoch + 1}"
        cell = RecordCell(self.store, "alerts")
        cell.change(TakeLease(operation, 0, 0, take_over=True))
        cell.change(AskToStop(operation, "upgrade", 0))

    def hold(self, claim: Claim | None = None, **settings: Any) -> HeldEpoch:
        """Return a driver's hold on a launch that it will claim, by default the newest one."""
        if claim is None:
            launch = self.record.launch
            assert launch is not None
            claim = self.control.claim(launch.epoch, launch.tag)
        quick = {"poll_interval_s": 0.001, "heartbeat_interval_s": 0.0, "store_retry_timeout_s": 0.0, **settings}
        made = Settings("alerts", Subscription.SUBSCRIBE, claim, Secrets("memory://"), **quick)
        return HeldEpoch(made, self.store, BatchLog(open_checkpoint(claim.checkpoint), claim.start))

    def held(self, pid: int = 1, **settings: Any) -> HeldEpoch:
        """Return an epoch that a driver has launched and claimed, at the start of a run."""
        if self.control.record() is None:
            self.launch()
        epoch = self.hold(**settings)
        with running_as(pid):
            epoch.claim()
        epoch.start_run()
        return epoch

    def plan(self, batch_id: int, *ends: int, commit: bool = False, time_ms: int | None = None) -> None:
        """Do what Spark does before a batch, and after it."""
        files = self.checkpoint()
        files.create("metadata", json.dumps({"id": QUERY}))
        files.create("sources/0/0", f"\0v1\n{at(0, 0).to_json()}")
        metadata = {"batchTimestampMs": 1_000 + batch_id if time_ms is None else time_ms}
        files.create(f"offsets/{batch_id}", LogEntry(metadata, (at(*ends),)).to_text())
        if commit:
            files.create(f"commits/{batch_id}", "v1\n{}")

    def _recorded_before(self, record: PipelineRecord) -> Recorded | None:
        recorded = record.recorded
        if recorded is None or recorded.batch_id is not None:
            return recorded
        return self.control.claim(recorded.epoch, recorded.tag).recorded_before

    def _reconcile(self, cell: RecordCell, operation: str, record: PipelineRecord) -> PipelineRecord:
        claim, started, recorded, cut, batch = (
            self.control.newest_launch(record).claim,
            record.started,
            None,
            None,
            None,
        )
        known = record.recorded
        if known is not None and known.row_time_ms is not None and known.tag == claim.tag:
            kept = self.store.prepared(STREAM, known.row_time_ms)
            assert kept is not None, "facts come before the record that names them"
            self.store.append(STREAM, kept)
        if started is not None:
            log = BatchLog(open_checkpoint(claim.checkpoint), claim.start)
            batch = log.batch(started.batch_id, epoch=claim.number)
        if started is not None and batch is not None:
            row = started.row_time_ms or next_row_time_ms(batch.batch_time_ms, record.last_row_time_ms)
            batch = batch.at_row(row)
            if log.is_committed(started.batch_id):
                recorded = Recorded(claim.number, claim.tag, started.batch_id, QUERY, row, digest_of(batch))
            else:
                cut = CutOff(started.batch_id, QUERY, row, started.count)
        return cell.change(
            Reconcile(operation, record.generation, 0, recorded, cut),
            stream=STREAM,
            prepare=batch,
            append=batch if recorded is not None else None,
        )


@contextmanager
def running_as(pid: int) -> Iterator[None]:
    """Run the context as the process with this number."""
    with machine.installed(Machine(pid)):
        yield


class Query:
    """A run of one batch that has ended at the second check."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self.looks = 0
        self.is_over = False
        self.stopped_while_running = False
        self.lastProgress: dict[str, Any] | None = None

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
    """A writer whose every run does the next of ``works``; after the last one, ``then``."""

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


class CountedRows:
    """A substitute for Spark's listener of writes: the session of the fake has the rows."""

    def __init__(self, spark: Any) -> None:
        self._spark = spark

    def __enter__(self) -> CountedRows:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def rows(self) -> Rows:
        """Return the rows of the batch."""
        found: Rows = self._spark.rows
        return found


class Frame:
    """A batch's frame, with the session from which it comes."""

    def __init__(self) -> None:
        self.sparkSession = self.conf = self
        self.has_jvm = True
        self.rows = UNKNOWN

    def get(self, key: str, default: str) -> str:
        if not self.has_jvm:
            raise ConnectionRefusedError("the JVM is gone")
        return default


class Spark:
    """Writer and query in one: at each check it plans one batch, calls it back, and commits it if that returns.

    :param batches: ids; each batch reads ten offsets of each partition.
    """

    def __init__(self, lab: Lab, *batches: int, then: Callable[[], None] | None = None) -> None:
        self._lab, self._batches = lab, list(batches)
        self._then = then or lab.stop
        self._callback: Callable[[Any, int], None] = lambda frame, batch_id: None
        self.is_stopped = False
        self.status = {"isDataAvailable": False, "message": "Waiting for next trigger"}

    def foreachBatch(self, callback: Callable[[Any, int], None]) -> Spark:  # Spark's name
        self._callback = callback
        return self

    def start(self) -> Spark:
        return self

    def awaitTermination(self, timeout: float) -> bool:  # Spark's name
        if not self._batches:
            self._then()
            return False
        batch_id = self._batches.pop(0)
        self._lab.plan(batch_id, 10 * batch_id + 10, 10 * batch_id + 10)
        self._callback(Frame(), batch_id)
        self._lab.checkpoint().create(f"commits/{batch_id}", "v1\n{}")
        return False

    def stop(self) -> None:
        self.is_stopped = True


def planned(batch_id: int, epoch: int = 1, *, time_ms: int | None = None) -> Batch:
    """Return the batch that ``Lab.plan`` plans under this id, with ten offsets of each partition."""
    start, end = 10 * batch_id, 10 * batch_id + 10
    return Batch(
        end=at(end, end),
        batch_time_ms=1_000 + batch_id if time_ms is None else time_ms,
        batch_id=batch_id,
        query_id=QUERY,
        epoch=epoch,
        start=at(start, start),
    )
