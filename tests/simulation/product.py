"""Everything of the product that the simulation drives: what is replaced, how drivers run, and what tasks do.

To simulate another mechanism, change only this file.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import sqlite3
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

import sqlalchemy

from airflow_provider_offsets import clock
from airflow_provider_offsets.backends import detached, machine
from airflow_provider_offsets.checkpoint import files as checkpoint_files
from airflow_provider_offsets.control.replays import ReplayControl
from airflow_provider_offsets.core import codec
from airflow_provider_offsets.core.batch import Stream
from airflow_provider_offsets.core.epoch import Operation, ProcessIdentity
from airflow_provider_offsets.core.pipeline import SparkJob, StopPolicy, StreamingPipeline
from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.core.recovery import RecoveryPolicy, recovery_of
from airflow_provider_offsets.core.replay.model import BackfillPolicy, Interval, ReplayPlan
from airflow_provider_offsets.core.restart.model import OnConflict, RestartPolicy
from airflow_provider_offsets.core.sink.audit import SinkReport
from airflow_provider_offsets.core.sink.key import parse_key
from airflow_provider_offsets.core.sink.ledger import Ledger
from airflow_provider_offsets.core.sink.model import Sink as DescribedSink
from airflow_provider_offsets.core.sink.model import SinkFormat
from airflow_provider_offsets.errors import KafkaUnreachable, OffsetsError, PlanRefused, StateChanged, StoreUnreachable
from airflow_provider_offsets.operations import (
    backfilling,
    health,
    lease,
    replaying,
    rolling_back,
    stopping,
    submitting,
)
from airflow_provider_offsets.operations.applying import apply_plan, recorded_application
from airflow_provider_offsets.operations.auditing import audit_history
from airflow_provider_offsets.operations.backfilling import (
    Waiting,
    audit_recorded_replay,
    make_replay_plan,
    recorded_replay_plan,
)
from airflow_provider_offsets.operations.ending import end_epoch
from airflow_provider_offsets.operations.lease import new_attempt, of_attempt
from airflow_provider_offsets.operations.planning import make_plan, recorded_plan
from airflow_provider_offsets.operations.recovering import begin_recovery, find_death
from airflow_provider_offsets.operations.renaming import rename
from airflow_provider_offsets.operations.replaying import ShardReplaying
from airflow_provider_offsets.operations.rolling_back import roll_back
from airflow_provider_offsets.operations.session import Session
from airflow_provider_offsets.operations.sink_auditing import audit_sink
from airflow_provider_offsets.operations.stopping import StopResult, ask_to_stop, await_stop
from airflow_provider_offsets.operations.submitting import Launcher, submit_job
from airflow_provider_offsets.operations.transferring import stopped_pipeline
from airflow_provider_offsets.operations.versions import KeptFile, KeptVersion
from airflow_provider_offsets.runtime import (
    TrackedStream,
    claiming,
    foreach_batch,
    live_query,
    native_sink,
    shard_replay,
    tracked_stream,
)
from airflow_provider_offsets.runtime.settings import FILE_KEY, RUN_ID_KEY, ReplaySettings, Secrets, Settings
from airflow_provider_offsets.runtime.write_count import Rows
from airflow_provider_offsets.stores.memory import MemoryStore
from airflow_provider_offsets.stores.sql.layout import METADATA
from airflow_provider_offsets.stores.sql.store import SqlStore
from airflow_provider_offsets.testing import FakeKafka
from tests.simulation import checker
from tests.simulation.invariants import Invariants, Span, contents_of, spans_of
from tests.simulation.platform import EffectfulStore, FileSystem, Identity, Markers, ProcessTable, Record, Sink
from tests.simulation.scheduler import Actor, Side, Simulation
from tests.simulation.spark import BatchFrame, Frame, Kafka, Offsets, QueryDied, SparkSession

PIPELINE = "orders"
CHECKPOINT = "sim://ck/orders"
LOGS = str(Path(tempfile.gettempdir()) / "airflow-provider-offsets-simulation")
SECRETS = Secrets("memory://", {"kafka.bootstrap.servers": "broker:9092"})
VERSION = KeptVersion(KeptFile("job.py", "0" * 64))
LEASE_TIMEOUT_S = 90
MARKERS = "sim://markers"


def unreachable(kind: str) -> Exception:
    """Return the error that a fake of ``kind`` raises where the real system would not answer."""
    if kind == "kafka":
        return KafkaUnreachable(seen="no broker answers", expected="an answer", do="wait")
    if kind in ("store", "checkpoint"):
        return StoreUnreachable(seen="no answer", expected="an answer", do="wait")
    return OSError(11, f"{kind}: resource temporarily unavailable")


def new_memory_store() -> MemoryStore:
    """Return an empty store in memory."""
    return MemoryStore()


def new_sql_store() -> SqlStore:
    """Return an empty store on a SQLite file: one that this process has used before, if it has an idle one.

    A new engine compiles each of its statements again.
    """
    idle = _IDLE_SQL_STORES.setdefault(os.getpid(), [])
    if idle:
        store = idle.pop()
        with store._transaction() as connection:
            for table in METADATA.sorted_tables:
                connection.execute(table.delete())
        return store
    folder = Path(tempfile.mkdtemp(prefix="offsets-simulation-"))
    Finalize(None, shutil.rmtree, (folder,), exitpriority=0)
    store = SqlStore(f"sqlite:///{folder / 'offsets.db'}")
    sqlalchemy.event.listen(store._engine, "connect", _without_fsync)
    store.create()
    return store


_IDLE_SQL_STORES: dict[int, list[SqlStore]] = {}
"""Stores of histories that have ended, by process: a forked process must not use the connections of its parent."""


def _without_fsync(connection: sqlite3.Connection, record: object) -> None:
    """Switch off fsync: processes die in a history, and machines do not."""
    connection.execute("PRAGMA synchronous=OFF")


def in_the_way(target: str) -> Exception:
    """Return what a checkpoint folder raises when it is moved to an existing location."""
    return StateChanged(seen=f"something is at {target}", expected="nothing there", do="find out what made it")


class SimClock:
    """The clock of the calling actor."""

    def __init__(self, sim: Simulation) -> None:
        self._sim = sim

    def now_ms(self) -> int:
        """Return the wall clock of the actor's host."""
        return self._sim.now_ms()

    def monotonic_s(self) -> float:
        """Return virtual time."""
        return self._sim.now_s

    def sleep(self, seconds: float) -> None:
        """Suspend the actor, so that others continue."""
        self._sim.sleep(seconds)


class SimMachine:
    """The process table behind the product's interface of a machine."""

    def __init__(self, sim: Simulation, table: ProcessTable, markers: Markers) -> None:
        self._sim, self._table, self._markers = sim, table, markers

    def this_process(self) -> ProcessIdentity:
        """Return the identity of the actor's process."""
        return ProcessIdentity(*self._table.identity(self._sim.current.process))

    def session_leader(self) -> ProcessIdentity:
        """Return the identity of the leader of the actor's session."""
        own = self._sim.current.process
        leader = self._table.leaders.get(own, own)
        return ProcessIdentity(*self._table.identity(leader if self._sim.is_alive(leader) else own))

    def is_alive(self, process: ProcessIdentity) -> bool | None:
        """Return whether a process is alive, as far as the actor's host can tell."""
        return self._table.is_alive(_identity(process))

    def is_session_alive(self, leader: ProcessIdentity) -> bool | None:
        """Return whether any process of a session is alive, as far as the actor's host can tell."""
        return self._table.is_session_alive(_identity(leader))

    def signal_group(self, process: ProcessIdentity, number: Any) -> bool:
        """Send a signal to the group of a process."""
        return self._table.signal_group(_identity(process), number)

    def signal_leader(self, leader: ProcessIdentity, number: Any) -> bool:
        """Send a signal to the leader of a session, or to what the leader has left."""
        return self._table.signal_leader(_identity(leader), number)

    def signal_session(self, leader: ProcessIdentity, number: Any) -> bool:
        """Send a signal to a session."""
        return self._table.signal_session(_identity(leader), number)

    def spawn(self, command: Sequence[str], *, log: str, env: Mapping[str, str]) -> ProcessIdentity | None:
        """Start a driver."""
        return ProcessIdentity(*self._table.spawn(list(command), log))

    def left_on_yarn(self, application: Any) -> str:
        """Return nothing: there is no YARN here."""
        return ""

    def kill_on_yarn(self, application: Any) -> str:
        """Return nothing."""
        return ""

    def place_marker(self, location: str, text: str) -> None:
        """Create a marker file."""
        self._markers.place(location)

    def remove_marker(self, location: str) -> None:
        """Remove a marker file."""
        self._markers.remove(location)


def _identity(process: ProcessIdentity) -> Identity:
    return Identity(
        process.host, process.boot_id, process.pid, process.start_ticks, process.namespaces, process.machine_id
    )


class SimKafka(Kafka):
    """The product's fake cluster, with an effect point at each request, and with records that have an identity."""

    def __init__(self, sim: Simulation) -> None:
        self._sim = sim
        self.cluster = FakeKafka()
        self.eras: dict[tuple[str, int], list[tuple[int, int]]] = {}
        """By topic id and partition: (first offset, era), the newest last."""

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.cluster, name)

        def call(*arguments: Any, **options: Any) -> Any:
            return self._sim.effect("kafka", name, lambda: found(*arguments, **options))

        setattr(self, name, call)
        return call

    def truncate(self, topic: str, partition: int, end: int) -> None:
        """Remove the records from ``end`` on by an unclean election; later records there are other records."""
        eras = self.eras.setdefault((self.topic_id(topic), partition), [])
        self.cluster.truncate(topic, partition, end, leader_epoch=len(eras) + 1)
        eras.append((end, len(eras) + 1))

    def ends(self, topics: list[str]) -> Offsets:
        """Return the end of each partition, as Spark asks for it."""
        return {(key.topic, key.partition): end for key, end in self.live_topics(topics).end.items()}

    def begins(self, topics: list[str]) -> Offsets:
        """Return the earliest retained offsets, without an own effect: Spark asks for them with the ends."""
        live = self.cluster.live_topics(topics)
        return {(key.topic, key.partition): begin for key, begin in live.begin.items()}

    def records(self, topic: str, partition: int, start: int, end: int) -> list[Record]:
        """Return the records at the offsets ``[start, end)``."""
        topic_id = self.topic_id(topic)
        return [
            Record(topic, topic_id, partition, offset, self.era(topic_id, partition, offset))
            for offset in range(start, end)
        ]

    def topic_id(self, topic: str) -> str:
        """Return the current id of a topic."""
        return self.cluster.live_topics([topic]).topics[0].topic_id

    def era(self, topic_id: str, partition: int, offset: int) -> int:
        """Return how often a truncation of the log has freed an offset for another record."""
        eras = self.eras.get((topic_id, partition), [])
        return next((number for first, number in reversed(eras) if offset >= first), 0)


@dataclass(frozen=True)
class Kind:
    """What a history is about, drawn from its seed."""

    mode: str = "process"
    """``process``, ``sink``, ``untracked`` or ``dstream``."""
    topics: tuple[str, ...] = ("orders",)
    partitions: int = 2
    limit: int = 10
    """Largest number of records in a batch."""
    file_sink: bool = False
    store: str = "memory"
    start_timeout_s: int = 40
    graceful_timeout_s: int = 30
    kill_timeout_s: int | None = None
    batch_s: float = 1.0
    """How long the user's function takes."""
    runs_again: bool = False
    """Whether the program calls ``stream.run`` again after a failed query."""
    adopted: bool = False
    """Whether the job once ran without this provider, on the same checkpoint, and was killed in a batch."""
    position_store: str = ""
    """The store of an untracked job: ``zookeeper`` or ``kafka``; empty: its checkpoint."""
    writes_beside: bool = False
    """Whether the program also writes its position to ZooKeeper after each batch's output, beside its authoritative
    store."""
    retain: int = 100
    """``spark.sql.streaming.minBatchesToRetain``."""
    spark_version: str = "4.2.0"
    has_launcher: bool = False
    """Whether a driver is a Python process and the Java process that launched it."""


@functools.lru_cache(maxsize=8)
def _described(kind: Kind, name: str, group_id: str, checkpoint: str) -> StreamingPipeline:
    tracked = kind.mode in ("process", "sink")
    more: dict[str, Any] = {}
    if not tracked:
        more = {"tracked": False, "offsets_in": ("zk",) if kind.position_store else ("checkpoint",)}
    if kind.writes_beside:
        more["offsets_in"] = ("history" if tracked else "checkpoint", "zk")
    if kind.mode == "process":
        more["sink"] = DescribedSink(SinkFormat.BATCH_TABLE, conn_id="warehouse", batch_table="batches")
    elif kind.file_sink:
        more["sink"] = DescribedSink(SinkFormat.FILES, "/out")
    return StreamingPipeline(
        name,
        kind.topics,
        SparkJob("/jobs/job.py", checkpoint, log_dir=LOGS),
        stop=StopPolicy(
            graceful_timeout_s=kind.graceful_timeout_s,
            kill_timeout_s=kind.kill_timeout_s,
            marker="" if tracked else f"{MARKERS}/{name}",
        ),
        start_timeout_s=kind.start_timeout_s,
        recovery=RecoveryPolicy(tries=3, within_s=600, confirm_s=5),
        group_id=group_id,
        **more,
    )


class World:
    """One pipeline with its platform, in which a history happens."""

    def __init__(self, sim: Simulation, kind: Kind, make_store: Callable[[], Any] = new_memory_store) -> None:
        self.sim, self.kind = sim, kind
        self.name, self.group_id, self.checkpoint = PIPELINE, PIPELINE, CHECKPOINT
        self.inner = make_store()
        self.store = EffectfulStore(sim, self.inner, "history", is_split=kind.store == "split")
        self.kafka = SimKafka(sim)
        self.sink = Sink(sim, kind.file_sink)
        self.markers = Markers(sim)
        self.settings: dict[str, str] = {}
        self.table = ProcessTable(sim, self._program, has_launchers=kind.has_launcher)
        self.files = FileSystem(sim, in_the_way, has_jvm=self.table.has_launcher)
        self.positions = PositionStore(sim, kind.position_store or "zookeeper")
        self.answered: dict[int, str] = {}
        """Processes that must not write a batch any more, and the run whose stop was answered."""
        self.has_lied = False
        self.modes: set[str] = set()
        """The ways in which the tracked program has written. Each way is a sink of its own."""
        self.invariants = Invariants(
            sim,
            self.sink,
            self.files,
            contents_of(self.inner),
            facts=self._facts,
            position=lambda: _plain(self.positions.stored if self.kind.position_store else None),
            leaders=self.table.leaders,
            answered=self.answered,
            is_excused=lambda: self.has_lied,
        )
        sim.after_effect = self.invariants.after_effect
        for topic in kind.topics:
            self.kafka.cluster.create_topic(topic, kind.partitions)

    def close(self) -> None:
        """Leave the store to the next history."""
        if isinstance(self.inner, SqlStore):
            _IDLE_SQL_STORES[os.getpid()].append(self.inner)

    @property
    def pipeline(self) -> StreamingPipeline:
        """The pipeline as a person would describe it."""
        return _described(self.kind, self.name, self.group_id, self.checkpoint)

    @property
    def kept_in(self) -> dict[str, PositionStore]:
        """The stores beside the history and the checkpoint, by the names of their connections."""
        return {"zk": self.positions} if self.kind.position_store or self.kind.writes_beside else {}

    def describe_as_new_pipeline(self) -> None:
        """Describe the job as a new pipeline, as a refusal advises.

        The new pipeline has another name, group, checkpoint and marker. A file sink gets another folder, since it
        identifies batches by their ids.
        """
        self.sink.batches = set()
        if self.sink.is_file_sink:
            self.sink.ledger = []
        self.name = self.group_id = f"{self.name}-again"
        self.checkpoint = f"{self.checkpoint}-again"
        self.positions = PositionStore(self.sim, self.positions.kind)

    def session(self, operation: str) -> Session:
        """Return the session of one operation, opened as each task opens it."""
        world = of_attempt(Session(self.pipeline, operation, self.store, self.kafka, self.kept_in))
        return self._opened(world)

    def new_session(self, operation: str, key: str) -> Session:
        """Return the session of an operation's stop task: a new attempt if the task was cleared since."""
        return self._opened(new_attempt(Session(self.pipeline, operation, self.store, self.kafka, self.kept_in), key))

    def _opened(self, world: Session) -> Session:
        world.control.open_operation(Operation(world.operation, world.operation.partition("/")[0], "simulated"))
        return world

    def command(self, conf: Mapping[str, str]) -> list[str]:
        """Return the command line of the job."""
        return ["spark-submit", conf[FILE_KEY], *(["replay"] if RUN_ID_KEY in conf else [])]

    def _program(self, command: list[str]) -> Callable[[], Any]:
        if "airflow_provider_offsets.runtime.claiming" in command:
            return lambda: self._claiming(command[command.index("airflow_provider_offsets.runtime.claiming") + 1 :])
        if "replay" in command:
            return lambda: self._replay_driver(command[1])
        return lambda: self._tracked_driver(command[1])

    def run_before(self, batches: int) -> None:
        """Run the job as before it used this provider, on the same checkpoint, and kill it in the middle of a batch."""
        spark = self._spark()
        spark.source = {"startingOffsets": "earliest"}
        engine = spark.engine(self.checkpoint, None)

        def program() -> None:
            for _ in range(batches + 1):
                if not engine.trigger():
                    return

        actor = self.sim.spawn("legacy", program, host="worker-2")
        written = len(self.sink.writes)
        self.sim.run(
            until=lambda point: point.kind == "sink" and point.side is Side.AFTER and engine.batch_id == batches,
            stops=lambda: actor.is_gone,
        )
        self.sim.kill_process(actor.process)
        assert len(self.sink.writes) >= written

    def start_untracked(self, name: str) -> Actor:
        """Start the program as it was before it used this provider, on the checkpoint of the description."""
        spark = self._spark()
        spark.source = {"startingOffsets": "earliest"}
        engine = spark.engine(self.checkpoint, None)

        def program() -> None:
            while True:
                if not engine.trigger():
                    self.sim.sleep(4.0)

        return self.sim.spawn(name, program, host="worker-2")

    def lose_control_store(self) -> None:
        """Replace the control store in memory, with the history in it, by an empty one."""
        assert isinstance(self.inner, MemoryStore)
        for kept in (self.inner._control, self.inner._histories, self.inner._facts):
            kept.clear()
        self.invariants.forget()

    def _spark(self) -> SparkSession:
        spark = SparkSession(self.sim, self.kafka, self.files.open, self.sink, list(self.kind.topics))
        spark.limit, spark.batch_s, spark.new_id = self.kind.limit, self.kind.batch_s, lambda: str(uuid.uuid4())
        spark.retain, spark.version = self.kind.retain, self.kind.spark_version
        return spark

    def take_settings(self, file: Path | str, kind: Any = Settings) -> Any:
        """Return the settings in a file, and remove the file, as a driver does."""
        text = self.sim.effect("file", "take settings", lambda: self.settings.pop(str(file), None))
        if text is None:
            raise OSError(f"{file} is not there")
        return codec.loads(kind, text)

    def _tracked_driver(self, file: str) -> None:
        """Run the program of a tracked job, as a user writes it."""
        settings = self.take_settings(file)
        settings = replace(settings, heartbeat_interval_s=15.0, poll_interval_s=4.0, store_retry_timeout_s=20.0)
        kind = self.kind  # the entry may be edited while the program runs
        self.modes.add(kind.mode)
        self.sim.sleep(2.0)  # Spark starts
        spark = self._spark()
        with TrackedStream(spark, settings) as stream:
            spark.epoch = stream.epoch
            frame = stream.read_kafka()
            spark.on_batch = lambda batch_id, query_id: self._on_batch(stream.epoch, batch_id, query_id)

            def process(batch: Frame, batch_id: int) -> None:
                self._on_batch(stream.epoch, batch_id, batch.query_id)
                self.sim.sleep(kind.batch_s)
                records, key = batch.records, parse_key(stream.batch_key)
                self.sink.write(records, batch_id, batch.query_id, stream.epoch, key=key)
                spark.write_count += len(records)
                self._write_beside(kind, batch.end)

            for is_last in (False, True) if kind.runs_again else (True,):
                try:
                    if kind.mode == "process":
                        stream.run(frame, process=process)
                    else:
                        stream.run(frame, sink=lambda writer: writer.format("kafka"))
                    break
                except QueryDied:
                    if is_last:
                        raise

    def _replay_driver(self, file: str) -> None:
        """Run the same program in a replay."""
        settings = replace(
            self.take_settings(file, ReplaySettings), heartbeat_interval_s=15.0, store_retry_timeout_s=20.0
        )
        self.sim.sleep(2.0)
        spark = self._spark()
        with TrackedStream(spark, settings) as stream:

            def process(batch: BatchFrame, batch_id: int) -> None:
                self.sim.sleep(self.kind.batch_s)
                records = batch.fetch()
                spark.read_count = len(records)
                for at in range(0, len(records), 3):
                    if spark.is_cancelled:
                        raise QueryDied("Job was cancelled")
                    key = parse_key(stream.batch_key) if at + 3 >= len(records) else None
                    self.sink.write(records[at : at + 3], batch_id, "", 0, stream.run_id, key=key)
                spark.write_count += len(records)

            stream.run(stream.read_kafka(), process=process)

    def _on_batch(self, epoch: int, batch_id: int, query_id: str) -> None:
        """Check the invariants when the output of a batch begins."""
        actor = self.sim.current
        if actor.process in self.answered and not self.has_lied:
            self.sim.violate(
                "stop broken", f"{actor.name} begins batch {batch_id} after {self.answered[actor.process]}"
            )
        newest = newest_epoch_number(self)
        # A driver that the machine called gone may have started the batch that a later epoch has recorded since.
        is_called_gone = self.has_lied and newest > epoch
        if (query_id, batch_id) in self.invariants.recorded and not is_called_gone:
            self.sim.violate("batch id begins again", f"batch {batch_id} of {query_id} in epoch {epoch}")
        if newest > epoch and not self.has_lied:
            self.sim.violate("two writers", f"epoch {epoch} begins batch {batch_id} while epoch {newest} is claimed")

    def _facts(self, row_time_ms: int) -> Sequence[Span]:
        """Return what the batch under a row time reads, as the store has it."""
        batch = self.inner.prepared(self.pipeline.stream, row_time_ms)
        return () if batch is None else spans_of(batch)

    def note_stop(self, run: str) -> None:
        """Record that a stop was answered: drivers launched earlier may not write a batch any more."""
        for each in self.sim.actors:
            if each.is_driver and not each.is_gone:
                self.answered.setdefault(each.process, run)
        self.invariants.note_stop(run)

    def _claiming(self, arguments: list[str]) -> None:
        """Claim an epoch and then become spark-submit."""
        try:
            if claiming.main(arguments):
                return
        except _Exec:
            pass
        self.sim.sleep(2.0)
        self._untracked_program()

    def _untracked_program(self) -> None:
        """Run the program of an untracked job, which checks for its marker between two batches."""
        if self.kind.position_store:
            self._dstream_program()
            return
        kind, spark, marker = self.kind, self._spark(), self.pipeline.stop.marker
        spark.source = {"startingOffsets": "earliest"}

        def process(batch: Frame, batch_id: int) -> None:
            self.sim.sleep(kind.batch_s)
            self.sink.write(batch.records, batch_id, batch.query_id, 0)
            self._write_beside(kind, batch.end)

        engine = spark.engine(self.checkpoint, process)
        while not self.markers.is_there(marker):
            if not engine.trigger():
                self.sim.sleep(4.0)

    def _write_beside(self, kind: Kind, end: Offsets) -> None:
        """Write a batch's end to ZooKeeper too, if the program does so."""
        if kind.writes_beside:
            self.positions.put(Position({TopicPartition(*key): offset for key, offset in end.items()}))

    def _dstream_program(self) -> None:
        """Run a job that reads its start from a position store and writes the position after each batch's output."""
        stream, topics, marker = self.pipeline.stream, list(self.kind.topics), self.pipeline.stop.marker
        stored = self.positions.position(stream) or Position()
        at = {(key.topic, key.partition): offset for key, offset in stored.items()}
        number = 0
        while not self.markers.is_there(marker):
            ends = self.kafka.ends(topics)
            begins = self.kafka.begins(topics)
            upto, left = {}, self.kind.limit
            for key in sorted(ends):
                start = at.get(key, begins[key] if not stored else 0)
                if ends[key] < start or start < begins[key]:
                    raise QueryDied("OffsetOutOfRange")
                upto[key] = start + min(left, ends[key] - start)
                left -= upto[key] - start
                at.setdefault(key, start)
            if upto == at:
                self.sim.sleep(4.0)
                continue
            records = [each for key in sorted(upto) for each in self.kafka.records(*key, at[key], upto[key])]
            self.sink.write(records, number, "dstream", 0)
            self.positions.put(Position({TopicPartition(*key): offset for key, offset in upto.items()}))
            at, number = upto, number + 1


def _plain(position: Position | None) -> Offsets:
    return {(key.topic, key.partition): offset for key, offset in position.items()} if position else {}


class _Exec(Exception):
    """Raised when the process becomes another program."""


@dataclass
class PositionStore:
    """ZooKeeper: znodes that a job writes with each batch, protected by a version against concurrent writers."""

    sim: Simulation
    kind: str
    stored: Position | None = None

    def position(self, stream: Stream) -> Position | None:
        """Return what is stored."""
        return self.sim.effect("store", "zk position", lambda: self._of(stream))

    def write(self, stream: Stream, position: Position, *, expected: Position | None) -> None:
        """Set the position, if it is the expected one."""

        def write() -> None:
            there = self._of(stream)
            if there == position:
                return
            if there != expected:
                raise StateChanged(seen=f"{there}", expected=f"{expected}", do="plan again")
            self._set(position)

        self.sim.effect("store", "zk write", write)

    def put(self, position: Position) -> None:
        """Write as the job itself does."""
        self.sim.effect("store", "zk put by the job", lambda: self._set(position))

    def _of(self, stream: Stream) -> Position | None:
        """Return the znodes of the stream's topics."""
        found = {key: offset for key, offset in (self.stored or Position()).items() if key.topic in stream.topics}
        return Position(found) if found else None

    def _set(self, position: Position) -> None:
        """Set these znodes: those of other topics stay."""
        self.stored = (self.stored or Position()).updated(position)


def record_of(world: World) -> dict[str, Any]:
    """Return the pipeline's record as plain JSON, without an effect point; empty before the first operation."""
    return dict(json.loads(world.inner.get(world.name, "pipeline") or "{}"))


def newest_epoch_number(world: World) -> int:
    """Return the number of the newest claimed epoch."""
    recorded = record_of(world).get("recorded")
    return int(recorded["epoch"]) if recorded else 0


def host_of_job(world: World) -> str:
    """Return the host where the newest driver runs or ran, where a person would log in."""
    holder = record_of(world).get("holder")
    return str(holder["host"]) if holder else "worker-1"


def uuid_of(sim: Simulation) -> Callable[[], uuid.UUID]:
    """Return a substitute for ``uuid.uuid4`` that draws from the history's own generator."""
    return lambda: uuid.UUID(int=sim.random.getrandbits(128), version=4)


@contextmanager
def installed(world: World) -> Iterator[None]:
    """Make the product run on the platform of this history."""
    sim = world.sim

    def write_settings(settings: Any, file: Path) -> None:
        sim.effect("file", "write settings", lambda: world.settings.__setitem__(str(file), codec.dumps(settings)))

    def log_tail(launch: Any, lines: int = 20) -> str:
        return "\n".join(world.table.logs.get(launch.log, [])[-lines:])

    def execvp(program: str, arguments: list[str]) -> None:
        raise _Exec

    with ExitStack() as stack:

        def patch(target: Any, name: str, new: Any) -> None:
            stack.callback(setattr, target, name, getattr(target, name))
            setattr(target, name, new)

        stack.enter_context(clock.installed(SimClock(sim)))
        stack.enter_context(machine.installed(SimMachine(sim, world.table, world.markers)))
        patch(uuid, "uuid4", uuid_of(sim))
        patch(checkpoint_files, "FILE_SYSTEMS", {"sim": world.files.open})
        patch(tracked_stream, "open_store", lambda url: world.store)
        patch(claiming, "open_store", lambda url: world.store)
        patch(claiming, "take_settings", world.take_settings)
        patch(os, "execvp", execvp)
        patch(live_query, "HadoopCheckpoint", lambda spark, location: world.files.open(location))
        patch(Settings, "write", write_settings)
        patch(ReplaySettings, "write", write_settings)
        patch(shard_replay, "marked", lambda frame: frame)
        patch(shard_replay, "refuse_stateful", lambda frame: None)
        patch(shard_replay, "refuse_shared_scratch", lambda spark: None)
        patch(shard_replay, "ReadCount", ReadCount)
        patch(shard_replay, "WriteCount", WriteCount)
        patch(foreach_batch, "WriteCount", WriteCount)
        patch(shard_replay, "threading", Threads(sim))
        patch(replaying, "keep_version", lambda job: VERSION)
        patch(backfilling, "keep_version", lambda job: VERSION)
        patch(replaying, "driver_environment", dict)
        patch(replaying, "POLL_S", 3.0)
        patch(detached.Launch, "log_tail", log_tail)
        patch(codec, "loads", functools.lru_cache(maxsize=2048)(codec.loads))  # its values are never changed
        patch(submitting, "keep_version", lambda job: VERSION)
        patch(rolling_back, "restored_job", lambda job, version: job)
        patch(submitting, "driver_environment", dict)
        patch(submitting, "POLL_S", 2.0)
        patch(stopping, "POLL_S", 2.0)
        patch(health, "POLL_S", 3.0)
        patch(lease, "LEASE_TIMEOUT_S", LEASE_TIMEOUT_S)
        patch(native_sink, "POLL_S", 1.0)
        yield


# What the tasks of the DAGs do: the same calls in the same order as the operators.


def task_plan_backfill(world: World, operation: str, start_ms: int, end_ms: int, key: str) -> ReplayPlan:
    """Plan the replay of an interval.

    :raises PlanRefused: it has problems.
    """
    session = world.new_session(operation, key)
    policy = BackfillPolicy(records_per_shard=5, max_shards=4)
    made = make_replay_plan(
        session,
        Interval(start_ms, end_ms),
        policy,
        attempt_key=key,
        accept_lost=dict.fromkeys(world.kind.topics, 1000),
        now_ms=clock.now_ms(),
    )
    assert not isinstance(made, Waiting), "the policy closes open intervals"
    if made.problems:
        raise PlanRefused(made.problems)
    return made


def task_replay_shard(world: World, operation: str, plan: ReplayPlan, number: int) -> int:
    """Replay one shard; return how many records were read."""
    session = world.session(operation)
    launcher = Launcher(world.command, SECRETS)
    return ShardReplaying(session, plan.shards[number], plan.run_id, launcher).run().records_read


def task_audit_backfill(world: World, operation: str) -> str:
    """Audit a replay, as its last task does; return the audit's objections."""
    session = world.session(operation)
    plan = recorded_replay_plan(session)
    assert plan is not None
    return "; ".join(audit_recorded_replay(ReplayControl(session.store, world.name), plan).findings)


def audit_of_backfill(world: World, operation: str) -> dict[str, Any] | None:
    """Return the audit of the newest attempt of a backfill as plain JSON, or None if it planned nothing."""
    with world.sim.quietly():
        session = world.session(operation)
        plan = recorded_replay_plan(session)
        if plan is None or plan.problems:
            return None
        audit = audit_recorded_replay(ReplayControl(session.store, world.name), plan)
    return {**codec.plain(audit), "is_clean": audit.is_clean}


def deleted_places(world: World) -> set[tuple[str, int, int]]:
    """Return the records that retention has deleted."""
    begins = world.kafka.begins(list(world.kind.topics))
    return {(topic, partition, offset) for (topic, partition), begin in begins.items() for offset in range(begin)}


class ReadCount:
    """What Spark's listener reports about records that the program's actions have read."""

    def __init__(self, spark: SparkSession) -> None:
        self._spark = spark

    def __enter__(self) -> ReadCount:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def most(self) -> int:
        """Return the largest count."""
        return self._spark.read_count

    def so_far(self) -> int:
        """Return nothing yet."""
        return 0


class WriteCount:
    """What Spark's listener reports about rows that the program's write commands have written."""

    def __init__(self, spark: SparkSession) -> None:
        self._spark = spark
        self._before = spark.write_count

    def __enter__(self) -> WriteCount:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def rows(self) -> Rows:
        """Return the rows of this batch."""
        count = self._spark.write_count - self._before
        return Rows(count, saw_none=not count)


class Threads:
    """``threading`` as the runtime uses it: a thread is an actor of the same process."""

    def __init__(self, sim: Simulation) -> None:
        self._sim = sim

    def Event(self) -> SimEvent:  # threading's name
        """Return an event."""
        return SimEvent(self._sim)

    def Thread(self, *, target: Callable[..., Any], args: Sequence[Any], name: str, daemon: bool) -> SimThread:
        """Return a thread."""
        return SimThread(self._sim, lambda: target(*args), name)


class SimEvent:
    """A substitute for ``threading.Event``."""

    def __init__(self, sim: Simulation) -> None:
        self._sim, self._is_set = sim, False

    def set(self) -> None:
        """Set it."""
        self._is_set = True

    def wait(self, timeout: float) -> bool:
        """Wait until it is set."""
        return self._sim.wait_for(lambda: self._is_set, at_most_s=timeout)


class SimThread:
    """A substitute for ``threading.Thread``."""

    def __init__(self, sim: Simulation, run: Callable[[], Any], name: str) -> None:
        self._sim, self._run, self._name = sim, run, name
        self._actor: Actor | None = None

    def start(self) -> None:
        """Start it."""
        current = self._sim.current
        self._actor = self._sim.spawn(
            f"{current.name}.{self._name}", self._run, host=current.host.name, process=current.process, is_driver=True
        )

    def join(self) -> None:
        """Wait until the thread has ended."""
        actor = self._actor
        assert actor is not None
        self._sim.wait_for(lambda: actor.is_gone)


def at_text() -> str:
    """Return the time of the actor's host as the operators write it."""
    return datetime.fromtimestamp(clock.now_ms() / 1000, UTC).isoformat(timespec="milliseconds")


def task_snapshot(world: World, operation: str, moment: str) -> None:
    """Take a snapshot."""
    world.session(operation).take_snapshot(moment, reason="simulated", taken_at=at_text())


def task_plan(world: World, operation: str, start: str, policy: RestartPolicy) -> None:
    """Plan.

    :raises PlanRefused: it has problems.
    """
    plan = make_plan(world.session(operation), start, policy)
    if plan.problems:
        raise PlanRefused(plan.problems)


def task_stop(world: World, operation: str, take_over: bool = False, attempt: str = "1") -> str:
    """Stop the job; return how it stopped.

    :param attempt: the same for all tries of one attempt, and another one when the task is cleared.
    """
    session = world.new_session(operation, attempt)
    asked = ask_to_stop(session, reason="simulated", take_over=take_over)
    result = asked if isinstance(asked, StopResult) else await_stop(session, asked, session.pipeline.stop)
    if result.how != "restarted by this operation" and not world.sim.current.is_lost:
        world.note_stop(session.operation)
    return result.how


def task_apply(world: World, operation: str) -> None:
    """Apply the newest plan of the operation."""
    session = world.session(operation)
    plan = recorded_plan(session)
    if plan is None:
        raise StateChanged(
            seen=f"operation {operation!r} has no plan", expected="a plan", do="run it from its stop task"
        )
    apply_plan(session, plan)


def task_submit(world: World, operation: str) -> str:
    """Submit the job; return how it started."""
    session = world.session(operation)
    applied = recorded_application(session)
    if applied is None:
        raise StateChanged(
            seen=f"operation {operation!r} applied no plan", expected="one", do="run it from its stop task"
        )
    return submit_job(session, applied, Launcher(world.command, SECRETS)).how


def task_roll_back(world: World, operation: str) -> None:
    """Restore the version and the position that preceded an operation."""
    roll_back(world.session(operation), lambda pipeline: Launcher(world.command, SECRETS), reason="simulated")


def hold_stopped(world: World, operation: str) -> None:
    """Hold the lease of a stopped job, as a person at the CLI does while a position is written."""
    with stopped_pipeline(world.session(operation), take_over=True):
        pass


def rename_pipeline(world: World, operation: str, former: str) -> None:
    """Rename the pipeline to its current name in the history."""
    rename(Session(world.pipeline, operation, world.store, world.kafka, world.kept_in), former)


def state_dead(world: World, operation: str, epoch: int) -> None:
    """End an epoch by the statement of a person that its driver does not run, which may be false."""
    world.has_lied |= any(each.is_driver and not each.is_gone for each in world.sim.actors)
    end_epoch(Session(world.pipeline, operation, world.store, world.kafka, world.kept_in), epoch, take_over=True)


def task_begin_recovery(world: World, operation: str, epoch: int, run: str) -> None:
    """Count a try of the recovery."""
    session = world.session(operation)
    policy = session.pipeline.recovery
    begin_recovery(session, epoch, run, policy, lease_timeout_s=LEASE_TIMEOUT_S)


def look_for_death(world: World) -> int | None:
    """Return the epoch that died and that a recovery may start again, or None."""
    session = Session(world.pipeline, "observe_job", world.store, world.kafka, {})
    death = find_death(session.control, lease_timeout_s=LEASE_TIMEOUT_S)
    return None if death is None else death.epoch


def recovery_operation(epoch: int) -> str:
    """Return the operation that recovers from the death of an epoch."""
    return recovery_of(epoch)


def audit_of(world: World) -> dict[str, Any]:
    """Return the product's audit as plain JSON."""
    session = Session(world.pipeline, "audit", world.store, world.kafka, world.kept_in)
    return dict(codec.plain(audit_history(session)))


def sink_audit_of(world: World) -> SinkReport:
    """Return what the product says of the sink."""
    session = Session(world.pipeline, "audit", world.store, world.kafka, world.kept_in)
    return audit_sink(session, lambda sink: Ledger(tuple(world.sink.ledger)))


def policy_of(
    accept_skipped: int = 0, accept_lost: int = 0, topics: Sequence[str] = (), on_conflict: str = "refuse"
) -> RestartPolicy:
    """Return the policy for what a person accepts."""
    return RestartPolicy(
        {t: accept_lost for t in topics if accept_lost},
        {t: accept_skipped for t in topics if accept_skipped},
        OnConflict(on_conflict),
    )


def is_retriable(error: BaseException) -> bool:
    """Return whether Airflow retries a task that failed this way."""
    return not isinstance(error, OffsetsError) or error.retriable


def is_product_error(error: BaseException) -> bool:
    """Return whether the product raises this error deliberately."""
    return isinstance(error, OffsetsError)


def expected_of(world: World) -> checker.Expected | None:
    """Return what the product has stored, for a checker that imports no class of the product."""
    stream, cells = world.pipeline.stream, dict(world.inner.scan(world.name, ""))
    if not world.pipeline.tracked:
        return checker.read_untracked(cells, kept_position(world))
    rows = [codec.plain(each) for each in world.inner.oldest_first(stream)]
    record = record_of(world)
    pointers = [record.get("recorded"), *record.get("cuts", ())]
    times = {each["row_time_ms"] for each in pointers if each is not None and each["row_time_ms"] is not None}
    facts = {time: codec.plain(world.inner.prepared(stream, time)) for time in times}
    return checker.read_expected(rows, cells, facts)


def checkpoint_offsets(world: World) -> str:
    """Return the start that a person names after reading Spark's checkpoint."""
    location = (record_of(world).get("launch") or {}).get("checkpoint") or world.checkpoint
    with world.sim.quietly():
        return offsets_text(world._spark().engine(location, None).position())


def offsets_text(offsets: Offsets) -> str:
    """Return a start at these offsets, as a person writes it."""
    return f"offsets:{Position({TopicPartition(*key): offset for key, offset in offsets.items()}).to_json()}"


def position_of(world: World) -> Offsets:
    """Return the pipeline's position, as its status shows it."""
    with world.sim.quietly():
        stands = Session(world.pipeline, "observe_job", world.store, world.kafka, world.kept_in).observe().last_known
    return {(key.topic, key.partition): offset for key, offset in (stands or Position()).items()}


def kept_position(world: World) -> dict[tuple[str, int], int]:
    """Return the position in an untracked job's own store."""
    if world.kind.position_store:
        return {(key.topic, key.partition): offset for key, offset in (world.positions.stored or Position()).items()}
    engine = SparkSession(world.sim, world.kafka, world.files.open, world.sink, list(world.kind.topics)).engine(
        world.checkpoint, None
    )
    with world.sim.quietly():
        return engine.position()
