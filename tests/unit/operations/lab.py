"""A machine in memory: processes, a clock, and a driver that imitates Spark and the runtime.

The driver works with the checkpoint, the history and the control store. Nothing sleeps, and nothing is written outside
the test's own folder.
"""

from __future__ import annotations

import functools
import io
import pickle
import shutil
import signal
import threading
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_offsets import clock
from airflow_provider_offsets.backends import machine
from airflow_provider_offsets.backends.detached import Launch
from airflow_provider_offsets.backends.machine import LocalMachine
from airflow_provider_offsets.backends.marker import place_marker
from airflow_provider_offsets.checkpoint.files import LocalCheckpoint, open_checkpoint
from airflow_provider_offsets.checkpoint.log import LogEntry, read_state
from airflow_provider_offsets.control.pipeline import Control
from airflow_provider_offsets.control.record_cell import RecordCell
from airflow_provider_offsets.core import codec
from airflow_provider_offsets.core.batch import Batch, Stream, digest_of
from airflow_provider_offsets.core.epoch import Ended, EndedHow, Epoch, Heartbeat, Operation, ProcessIdentity, Recorded
from airflow_provider_offsets.core.pipeline import SparkJob, StopPolicy, StreamingPipeline
from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.core.record.events import ClaimLaunch, EndEpoch, GoIdle, RecordBatch, StartBatch
from airflow_provider_offsets.core.record.model import RECORD, PipelineRecord, StartedBatch
from airflow_provider_offsets.core.snapshot import CHECKPOINT
from airflow_provider_offsets.errors import Fenced, StopRequested
from airflow_provider_offsets.operations import submitting
from airflow_provider_offsets.operations.session import Session
from airflow_provider_offsets.operations.submitting import Launcher
from airflow_provider_offsets.runtime.settings import FILE_KEY, Secrets, Settings
from airflow_provider_offsets.stores.memory import MemoryStore
from airflow_provider_offsets.testing.fake_kafka import FakeKafka

TOPIC = "flights"
NAME = "delay_alerts"
HERE, ELSEWHERE = "worker-1", "worker-2"
SECRETS = Secrets("postgresql://me:hunter2@db/offsets", {"kafka.bootstrap.servers": "broker:9092"})


class Clock:
    """A substitute for the ``time`` module: time and the drivers advance only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.on_tick: Callable[[], None] = lambda: None

    def monotonic_s(self) -> float:
        return self.now

    def now_ms(self) -> int:
        return int(self.now * 1000)

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.on_tick()


@dataclass
class Driver:
    """One launched driver: the program of a pipeline and Spark in one."""

    lab: Lab
    launch_id: str
    process: ProcessIdentity
    log: Path
    settings: Settings
    epoch: int = 0
    query_id: str = "query-1"
    obeys: bool = True
    """False: ignores stop requests between two batches, though not at the beginning of a batch."""
    beats: int = 0

    def __post_init__(self) -> None:
        self.cell = RecordCell(self.lab.store, self.settings.pipeline)

    def tick(self) -> None:
        """Do one step of a live driver: claim, obey a stop request, run the next batch, or stay idle."""
        if not self.is_alive:
            return
        if not self.epoch:
            self._claim()
        elif not self.settings.claim.tracked:
            self._tick_untracked()
        elif self.obeys and self._is_to_stop():
            self.end(EndedHow.STOPPED)
        else:
            self._batch_or_idle()

    @property
    def control(self) -> Control:
        return Control(self.lab.store, self.settings.pipeline)

    @property
    def is_alive(self) -> bool:
        return self.process in self.lab.alive

    def die(self, words: str = "") -> None:
        """Exit without a message to the store; ``words`` are the end of the log."""
        self.lab.alive.discard(self.process)
        if words:
            self.log.write_text(words)

    def end(self, how: EndedHow, message: str = "") -> None:
        self.cell.change(EndEpoch(self.settings.claim.tag, self.process, Ended(how, 1, message=message)))
        self.lab.alive.discard(self.process)

    def begin(self, batch: Batch, run: str = "run-1") -> Batch:
        """Begin a batch and return it with its row time."""
        record = self.cell.read()
        assert record is not None
        placed = batch.at_row(max(batch.batch_time_ms, record.last_row_time_ms + 1))
        assert placed.batch_id is not None
        assert placed.query_id is not None
        started = StartedBatch(
            placed.batch_id, placed.query_id, placed.batch_time_ms, run, placed.row_time_ms, digest_of(placed)
        )
        event = StartBatch(self.settings.claim.tag, self.process, started)
        started_now = self.cell.change(event, stream=self.settings.claim.stream, prepare=placed).started
        assert started_now is not None
        return placed.at_row(started_now.row_time_ms or 0)

    def begin_unplanned(self, batch_id: int, run: str = "run-1") -> None:
        """Begin a batch as a driver of ``sink=`` does: Spark has not planned its end yet."""
        state = read_state(open_checkpoint(self.settings.claim.checkpoint))
        started = StartedBatch(batch_id, "" if state is None else state.query_id, 1000 + batch_id, run)
        self.cell.change(StartBatch(self.settings.claim.tag, self.process, started))

    def record(self, placed: Batch, run: str = "run-1") -> None:
        """Record a batch that was started."""
        assert placed.query_id is not None
        claim = self.settings.claim
        recorded = Recorded(
            self.epoch, claim.tag, placed.batch_id, placed.query_id, placed.row_time_ms, digest_of(placed)
        )
        event = RecordBatch(claim.tag, self.process, run, recorded)
        self.cell.change(event, stream=self.settings.claim.stream, append=placed)

    def _is_to_stop(self) -> bool:
        record = self.cell.read()
        return record is not None and record.stop is not None

    def _claim(self) -> None:
        try:
            self.epoch = self.cell.change(
                ClaimLaunch(self.settings.claim.tag, self.process, self.lab.clock.now_ms())
            ).epoch
        except Fenced as error:
            self.die(f"Fenced: {error}")

    def plan(self) -> Batch | None:
        """Plan the next batch as Spark does, or find the planned one, and return it; None with nothing to read."""
        checkpoint = open_checkpoint(self.settings.claim.checkpoint)
        state = read_state(checkpoint)
        if state is None:
            checkpoint.create("metadata", f'{{"id":"{self.query_id}"}}')
            checkpoint.create("sources/0/0", f"\0v1\n{self.settings.claim.start.to_json()}")
            state = read_state(checkpoint)
        assert state is not None
        end = state.planned or self.lab.kafka.live_topics([TOPIC]).end
        if end == state.committed and state.planned is None:
            return None
        batch_id = state.committed_batch_id + 1 if state.planned_batch_id is None else state.planned_batch_id
        entry = LogEntry({"batchWatermarkMs": 0, "batchTimestampMs": 1000 + batch_id, "conf": {}}, (end,))
        checkpoint.create(f"offsets/{batch_id}", entry.to_text())
        return Batch(end, 1000 + batch_id, batch_id, state.query_id, self.epoch, state.committed)

    def commit(self, batch: Batch) -> None:
        """Write what Spark writes once a batch is finished."""
        checkpoint = open_checkpoint(self.settings.claim.checkpoint)
        checkpoint.create(f"commits/{batch.batch_id}", 'v1\n{"nextBatchWatermarkMs":0}')

    def _batch_or_idle(self) -> None:
        batch = self.plan()
        if batch is None:
            self._idle()
            return
        if not self._is_recorded(batch) and batch.record_count:
            try:
                self.record(self.begin(batch))
            except StopRequested:
                self.end(EndedHow.STOPPED)
                return
            except Fenced:
                self.die("Fenced")
                return
        self.commit(batch)

    def _is_recorded(self, batch: Batch) -> bool:
        record = self.cell.read()
        recorded = None if record is None else record.recorded
        before = self.settings.claim.recorded_before if recorded is None or recorded.batch_id is None else recorded
        return before is not None and (before.query_id, before.batch_id, before.digest) == (
            batch.query_id,
            batch.batch_id,
            digest_of(batch),
        )

    def _tick_untracked(self) -> None:
        """Do one step of an untracked program: check for its marker, or read and store its position."""
        pipeline = self.lab.pipeline
        if self.obeys and pipeline.stop.marker and Path(pipeline.stop.marker).exists():
            self.die()
        elif pipeline.authoritative == CHECKPOINT:
            self._batch_of_checkpoint()
        else:
            stored = self.lab.kept.offsets or Position()
            live = self.lab.kafka.live_topics([TOPIC])
            self.lab.kept.offsets = live.begin.updated(stored).updated(live.end)

    def _batch_of_checkpoint(self) -> None:
        checkpoint = open_checkpoint(self.settings.claim.checkpoint)
        state = read_state(checkpoint)
        live = self.lab.kafka.live_topics([TOPIC]).end
        assert state is not None
        if state.committed == live:
            return
        number = state.committed_batch_id + 1
        entry = LogEntry(
            {"batchWatermarkMs": 0, "batchTimestampMs": 1000 + number, "conf": {}}, (state.planned or live,)
        )
        checkpoint.create(f"offsets/{number}", entry.to_text())
        if self.lab.stalls:
            return
        checkpoint.create(f"commits/{number}", 'v1\n{"nextBatchWatermarkMs":0}')

    def _idle(self) -> None:
        self.beats += 1
        self.control.beat(self.epoch, Heartbeat(self.beats, 1))
        try:
            self.cell.change(GoIdle(self.settings.claim.tag, self.process))
        except Fenced:
            self.die("Fenced")


class Crash(BaseException):
    """SIGKILL, as closely as a test can imitate it: only a ``finally`` runs after it."""


@dataclass
class Fuse:
    """Raises ``Crash`` at the k-th write of a task, before it or directly after it; never for 0."""

    at: int = 0
    after: bool = False
    writes: int = 0
    is_blown: bool = False
    is_lit: bool = False
    state: Callable[[], object] | None = None
    """Returns the state of everything that outlives the task; for a run that is not killed."""
    repeated: set[int] = field(default_factory=set)
    """Writes before which nothing has happened since the previous write: a kill there is a kill after that one."""
    _left: object = None

    def write(self, act: Callable[[], Any]) -> Any:
        if not self.is_lit:
            return act()
        self.writes += 1
        if self.state is not None:
            if self.state() == self._left:
                self.repeated.add(self.writes)
            done = act()
            self._left = self.state()
            return done
        if self.writes != self.at:
            return act()
        self.is_blown, self.is_lit = True, False
        if self.after:
            act()
        raise Crash(f"{'after' if self.after else 'before'} write {self.at}")

    @contextmanager
    def lit(self) -> Iterator[None]:
        """Count the writes in this context as those of a task that may be killed."""
        self.is_lit = not self.is_blown
        self._left = None
        try:
            yield
        finally:
            self.is_lit = False


def kills(undisturbed: Fuse) -> list[tuple[int, bool]]:
    """Return the kills to try: after each write, and before it unless nothing has happened since the previous write.

    :param undisturbed: the fuse of a run that was not killed, with ``state``.
    :returns: number of the write, and whether the task is killed after it.
    """
    writes = range(1, undisturbed.writes + 1)
    return [(k, after) for k in writes for after in (False, True) if after or k not in undisturbed.repeated]


class FusedStore:
    """The store as a task sees it; a driver sees the store itself."""

    def __init__(self, store: MemoryStore, fuse: Fuse) -> None:
        self._store, self._fuse = store, fuse

    def check_and_put(self, pipeline: str, name: str, expected: str | None, value: str) -> bool:
        return bool(self._fuse.write(lambda: self._store.check_and_put(pipeline, name, expected, value)))

    def swap(self, *arguments: Any, **more: Any) -> bool:
        return bool(self._fuse.write(lambda: self._store.swap(*arguments, **more)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


@dataclass
class KeptElsewhere:
    """A store in which an untracked job keeps its offsets, with its own writes at which a task may be killed."""

    fuse: Fuse
    offsets: Position | None = None
    kind: str = "zookeeper"

    def position(self, stream: Stream) -> Position | None:
        return self.offsets

    def write(self, stream: Stream, position: Position, *, expected: Position | None) -> None:
        assert self.offsets in (expected, position)
        self.fuse.write(lambda: setattr(self, "offsets", position))


@dataclass
class Lab:
    """One pipeline on one machine."""

    folder: Path
    clock: Clock = field(default_factory=Clock)
    store: MemoryStore = field(default_factory=MemoryStore)
    kafka: FakeKafka = field(default_factory=FakeKafka)
    alive: set[ProcessIdentity] = field(default_factory=set)
    drivers: list[Driver] = field(default_factory=list)
    fuse: Fuse = field(default_factory=Fuse)
    environments: list[Mapping[str, str]] = field(default_factory=list)
    commands: list[list[str]] = field(default_factory=list)
    signalled: list[int] = field(default_factory=list)
    on_launch: Callable[[Driver], None] = lambda driver: None
    newest_first: bool = False
    """Which of two drivers acts first at a tick."""
    had_two_drivers: bool = False
    """Whether two drivers have lived at one tick: only then does their order matter."""
    stop: StopPolicy = field(default_factory=lambda: StopPolicy(graceful_timeout_s=10))
    more: dict[str, Any] = field(default_factory=dict)
    application: str = "job.py"
    packages: str = ""
    offsets_in: tuple[str, ...] = ()
    """Offset stores of an untracked job: ``checkpoint`` or ``elsewhere``. Empty for a tracked one."""
    stalls: bool = False
    """Whether an untracked driver hangs in its batch."""
    checkpoint: str = ""
    """Location of the checkpoint, if not in the folder."""

    def __post_init__(self) -> None:
        if self.offsets_in:
            self.more |= {"tracked": False, "offsets_in": self.offsets_in}
            self.stop = replace(self.stop, marker=str(self.folder / "stop"))
        self.kept = KeptElsewhere(self.fuse)
        self.machine = LabMachine(self)
        self.clock.on_tick = self.tick
        self.kafka.create_topic(TOPIC, partitions=2)
        self.feed(100)

    def tick(self) -> None:
        self.had_two_drivers |= sum(driver.is_alive for driver in self.drivers) > 1
        for driver in reversed(self.drivers) if self.newest_first else list(self.drivers):
            driver.tick()

    def feed(self, count: int, *partitions: int) -> None:
        for partition in partitions or (0, 1):
            self.kafka.append(TOPIC, partition, count)

    @property
    def pipeline(self) -> StreamingPipeline:
        checkpoint = self.checkpoint or str(self.folder / "checkpoint")
        job = SparkJob(
            str(self.folder / self.application), checkpoint, packages=self.packages, log_dir=str(self.folder / "logs")
        )
        return StreamingPipeline(NAME, (TOPIC,), job, stop=self.stop, start_timeout_s=20, **self.more)

    def session(self, operation: str = "op", store: Any = None) -> Session:
        """Return the session of an open operation, opened as every task opens it."""
        session = Session(
            self.pipeline,
            operation,
            FusedStore(self.store, self.fuse) if store is None else store,
            self.kafka,
            {"elsewhere": self.kept} if "elsewhere" in self.offsets_in else {},
        )
        self.kept.fuse = self.fuse
        session.control.open_operation(Operation(operation, "maintenance", "a test"))
        return session

    @property
    def control(self) -> Control:
        return Control(self.store, NAME)

    def launch(self, launch_id: str, command: Sequence[str], *, log: str, env: Mapping[str, str]) -> Launch:
        """Launch a driver that lives and has read its settings, as ``backends.detached.launch`` does."""
        file = Path(command[-1])
        settings = codec.loads(Settings, file.read_text())
        file.unlink()
        process = ProcessIdentity(HERE, "boot-1", 100 + len(self.drivers), 7)
        driver = Driver(self, launch_id, process, Path(log), settings)
        driver.log.write_text("")
        self.alive.add(process)
        self.drivers.append(driver)
        self.environments.append(env)
        self.commands.append(list(command))
        self.on_launch(driver)
        return Launch(launch_id, process if driver.is_alive else None, log)

    def is_alive(self, process: ProcessIdentity) -> bool | None:
        return process in self.alive if process.host == HERE else None

    def signal_group(self, process: ProcessIdentity, number: int) -> bool:
        if not self.is_alive(process):
            return False
        self.signalled.append(int(number))
        return True

    @property
    def record(self) -> PipelineRecord:
        """The pipeline's record, which an operation has created."""
        record = self.control.record()
        assert record is not None
        return record

    @property
    def epoch(self) -> Epoch:
        """The newest launch, with its outcome."""
        return self.control.newest_launch(self.record)

    @property
    def holder(self) -> str:
        """The operation that holds the lease; empty if none does."""
        lease = self.record.lease
        return "" if lease is None else lease.operation

    @property
    def batches(self) -> list[Batch]:
        """The history, oldest first."""
        return list(self.store.oldest_first(self.pipeline.stream))

    @property
    def driver(self) -> Driver:
        """The driver that was launched last."""
        return self.drivers[-1]

    @property
    def launcher(self) -> Launcher:
        """How this machine launches a job."""
        return Launcher(self.command, SECRETS)

    def command(self, conf: Mapping[str, str]) -> list[str]:
        return ["spark-submit", conf[FILE_KEY]]

    def at(self, *offsets: int) -> Position:
        return Position({TopicPartition(TOPIC, number): offset for number, offset in enumerate(offsets)})

    def interpose(self, monkeypatch: pytest.MonkeyPatch, act: Callable[[], Any]) -> None:
        """Call somebody else directly before the next swap of the record, whoever makes that swap."""
        swap, left = self.store.swap, [act]

        def swapped(pipeline: str, name: str, *arguments: Any, **more: Any) -> bool:
            if left and name == RECORD:
                left.pop()()
            return swap(pipeline, name, *arguments, **more)

        monkeypatch.setattr(self.store, "swap", swapped)

    def state(self) -> object:
        """Return what outlives a task: the stores, the files, the processes and the time."""
        drivers = [(each.launch_id, each.is_alive, each.epoch, each.query_id, each.beats) for each in self.drivers]
        files = {file: file.read_bytes() for file in sorted(self.folder.rglob("*")) if file.is_file()}
        kept = repr(self.kept.offsets), repr(vars(self.store)), len(self.commands), len(self.signalled)
        return self.clock.now, kept, drivers, files

    def wipe(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)


class _Pickler(pickle.Pickler):
    """Pickles a lab, except for functions and locks, which the copies share, and its fuse, which is replaced."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.shared: list[object] = []

    def persistent_id(self, value: object) -> int | None:
        if not isinstance(value, types.FunctionType | type(threading.RLock()) | Fuse):
            return None
        self.shared.append(value)
        return len(self.shared) - 1


class _Unpickler(pickle.Unpickler):
    def __init__(self, text: bytes, shared: list[object]) -> None:
        super().__init__(io.BytesIO(text))
        self._shared = shared

    def persistent_load(self, number: int) -> object:
        return self._shared[number]


class Moment:
    """A lab with its files at one moment. Each copy goes on from there, in the same folder.

    So tests that go on in several ways from the same state create that state once.
    """

    def __init__(self, lab: Lab) -> None:
        file = io.BytesIO()
        pickler = _Pickler(file)
        pickler.dump(lab)
        self._lab, self._shared = file.getvalue(), pickler.shared
        found = sorted(lab.folder.rglob("*"))
        assert not any(each.is_symlink() for each in found)
        self._folders = [each for each in found if each.is_dir()]
        self._files = [(each, each.read_bytes(), each.stat().st_mode) for each in found if each.is_file()]

    def copy(self, fuse: Fuse | None = None) -> Lab:
        """Return a copy of the lab, and restore its files. Its folder loses all other files."""
        lab: Lab = _Unpickler(self._lab, self._shared).load()
        lab.wipe()
        for folder in self._folders:
            folder.mkdir()
        for path, content, mode in self._files:
            path.write_bytes(content)
            path.chmod(mode)
        lab.fuse = lab.kept.fuse = fuse or Fuse()
        return lab


class LabMachine(LocalMachine):
    """The lab as the machine that operations run on. A test that needs another machine patches ``lab.machine``."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    def is_alive(self, process: ProcessIdentity) -> bool | None:
        return self._lab.is_alive(process)

    def is_session_alive(self, leader: ProcessIdentity) -> bool | None:
        return self._lab.is_alive(leader)

    def signal_group(self, process: ProcessIdentity, number: signal.Signals) -> bool:
        return self._lab.signal_group(process, number)

    def signal_leader(self, leader: ProcessIdentity, number: signal.Signals) -> bool:
        return self._lab.signal_group(leader, number)

    def signal_session(self, leader: ProcessIdentity, number: signal.Signals) -> bool:
        return self._lab.signal_group(leader, number)

    def place_marker(self, location: str, text: str) -> None:
        self._lab.fuse.write(lambda: place_marker(location, text))


@functools.lru_cache(maxsize=1_000)
def _decoded(kind: type, text: str) -> Any:
    return _loads(kind, text)


_loads = codec.loads


def install(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """Replace the real machine by this one for the operations."""
    create, write = LocalCheckpoint.create, Settings.write
    monkeypatch.setattr(machine, "_machine", lab.machine)
    monkeypatch.setattr(clock, "_clock", lab.clock)
    monkeypatch.setattr(submitting, "launch", lambda *a, **k: lab.fuse.write(lambda: lab.launch(*a, **k)))
    monkeypatch.setattr(LocalCheckpoint, "create", lambda *a: lab.fuse.write(lambda: create(*a)))
    move = LocalCheckpoint.move_to
    monkeypatch.setattr(LocalCheckpoint, "move_to", lambda *a: lab.fuse.write(lambda: move(*a)))
    monkeypatch.setattr(Settings, "write", lambda *a: lab.fuse.write(lambda: write(*a)))
    # The drivers and each session read the same few texts again and again; what they read is immutable.
    monkeypatch.setattr(codec, "loads", _decoded)
    # The same process reads what it has written, so the data need not reach the disk.
    monkeypatch.setattr("os.fsync", lambda handle: None)
    return lab
