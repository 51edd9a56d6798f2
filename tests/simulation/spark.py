"""A Structured Streaming engine over checkpoint files in memory, which imitates Spark 4.2 and does nothing else.

Written after ``MicroBatchExecution.populateStartOffsets``, ``constructNextBatch`` and ``KafkaMicroBatchStream`` of
Spark 4.2.0.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.simulation.platform import Folder, Record, Sink
from tests.simulation.scheduler import Simulation

Offsets = dict[tuple[str, int], int]

WAITING_FOR_DATA, WAITING_FOR_TRIGGER = "Waiting for data to arrive", "Waiting for next trigger"


class QueryDied(Exception):
    """The equivalent of ``StreamingQueryException``, with the text of what ended the query."""


class QueryStopped(Exception):
    """Raised in a batch whose query the program itself stops: Spark interrupts the batch, and reports no error."""


def data_loss(reason: str) -> QueryDied:
    """Return what ends a query, or a bounded read, with ``failOnDataLoss``."""
    return QueryDied(f"Some data may have been lost; failOnDataLoss is true. Reason: {reason}")


class Kafka:
    """What the engine requests from Kafka, implemented by the fake cluster of the product's own test kit."""

    def ends(self, topics: list[str]) -> Offsets:
        """Return the end of each partition."""
        raise NotImplementedError

    def begins(self, topics: list[str]) -> Offsets:
        """Return the earliest retained offset of each partition."""
        raise NotImplementedError

    def records(self, topic: str, partition: int, start: int, end: int) -> list[Record]:
        """Return the records at the offsets ``[start, end)``."""
        raise NotImplementedError


@dataclass
class Frame:
    """The records of one batch. They are fetched when somebody reads them: planning a batch fetches nothing."""

    fetch: Callable[[], list[Record]]
    end: Offsets = field(default_factory=dict)
    query_id: str = ""
    sparkSession: Any = None

    @property
    def records(self) -> list[Record]:
        """The records.

        :raises QueryDied: some of them are deleted.
        """
        return self.fetch()


@dataclass
class Engine:
    """One query on one checkpoint.

    :ivar write: called with the frame and the batch id; its output is finished when it returns.
    :ivar start: ``startingOffsets``; used on an empty checkpoint only.
    :ivar limit: ``maxOffsetsPerTrigger``; 0 for none.
    """

    sim: Simulation
    kafka: Kafka
    folder: Folder
    topics: list[str]
    write: Callable[[Frame, int, str], None]
    start: Offsets | str
    limit: int = 0
    new_id: Callable[[], str] = lambda: "query"
    retain: int = 100
    """``spark.sql.streaming.minBatchesToRetain``."""
    assigned: list[tuple[str, int]] | None = None
    """Partitions of ``assign``: the query never sees another one."""
    query_id: str = ""
    batch_id: int = -1
    committed: Offsets = field(default_factory=dict)
    is_planned: bool = False
    available: Offsets = field(default_factory=dict)
    is_populated: bool = False
    message: str = "Initializing sources"
    has_bug_55271: bool = False
    """Whether it dies once it has committed a batch that it found planned, as Spark 4.1.0 to 4.1.2 do."""

    def populate(self) -> None:
        """Read the logs and find the batch to run, as ``populateStartOffsets`` does.

        :raises QueryDied: the logs have a hole, or ``startingOffsets`` names other partitions than there are.
        """
        self._read_id()
        offsets, commits = self._ids("offsets"), self._ids("commits")
        if not offsets:
            self._begin_again(commits)
        else:
            latest = offsets[-1]
            self.batch_id, self.available = latest, self._entry(latest)
            if latest != 0:
                before = self._entry_or_none(latest - 1)
                if before is None:
                    raise QueryDied(f"IllegalStateException: batch {latest - 1} doesn't exist")
                self.committed = before
            self.is_planned = True
            if commits and commits[-1] == latest:
                self.batch_id, self.committed, self.is_planned = latest + 1, self.available, False
        self.is_populated = True

    def trigger(self) -> bool:
        """Run one trigger: plan a batch if there is something to read, run it, commit it. Return whether one was run.

        :raises QueryDied: whatever ends a query.
        """
        is_resumed = False
        if not self.is_populated:
            self.populate()
            is_resumed = self.is_planned
        if not self.is_planned and not self._plan():
            return False
        self.message = "Processing new data"
        ranges = self._ranges()
        self.write(Frame(lambda: self._fetch(ranges), self.available), self.batch_id, self.query_id)
        if not self.folder.create(f"commits/{self.batch_id}", 'v1\n{"nextBatchWatermarkMs":0}'):
            raise QueryDied(f"CONCURRENT_STREAM_LOG_UPDATE: commits/{self.batch_id}")
        self.batch_id, self.committed, self.is_planned = self.batch_id + 1, self.available, False
        if is_resumed and self.has_bug_55271:
            raise QueryDied("NullPointerException\n\tat org.apache.spark.sql.kafka010.KafkaMicroBatchStream.metrics(")
        return True

    def has_data(self) -> bool:
        """Return whether another trigger would find something to read."""
        return self.is_planned or self._next_ends() is not None

    def position(self) -> Offsets:
        """Return the position of what the logs list as done."""
        done = set(self._ids("commits")) & set(self._ids("offsets"))
        return self._entry(max(done)) if done else self._initial() or {}

    def _read_id(self) -> None:
        text = self.folder.text("metadata")
        if text is None:
            if self._ids("offsets") or self._ids("commits"):
                raise QueryDied("STREAMING_CHECKPOINT_MISSING_METADATA_FILE: the metadata file is missing")
            self.query_id = self.new_id()
            self.folder.create("metadata", json.dumps({"id": self.query_id}))
        else:
            self.query_id = str(json.loads(text)["id"])

    def _begin_again(self, commits: list[int]) -> None:
        if commits:
            raise QueryDied("AssertionError: assertion failed")
        self.batch_id, self.is_planned = 0, False

    def _start(self) -> Offsets:
        """Return where the next batch starts: before the first commit, at the initial offsets."""
        return self.committed or self._initial_or_created()

    def _initial_or_created(self) -> Offsets:
        initial = self._initial()
        if initial is None:
            there = self._assigned_begins()
            initial = dict(there) if isinstance(self.start, str) else dict(self.start)
            if self.start == "latest":
                initial = self._assigned_ends()
            if set(initial) != set(there):
                raise QueryDied(
                    "AssertionError: If startingOffsets contains specific offsets, you must specify all"
                    " TopicPartitions."
                    f" startingOffsets has {sorted(initial)}, assigned {sorted(there)}"
                )
            self.folder.create("sources/0/0", f"\0v1\n{_to_json(initial)}")
        return initial

    def _plan(self) -> bool:
        ends = self._next_ends()
        if ends is None:
            self.message = WAITING_FOR_DATA
            return False
        self.available = ends
        metadata = {
            "batchWatermarkMs": 0,
            "batchTimestampMs": self.sim.now_ms(),
            "conf": {"spark.sql.shuffle.partitions": "200"},
        }
        text = "\n".join(["v1", json.dumps(metadata, separators=(",", ":")), _to_json(ends)])
        if not self.folder.create(f"offsets/{self.batch_id}", text):
            raise QueryDied(f"CONCURRENT_STREAM_LOG_UPDATE: offsets/{self.batch_id}")
        if self.retain < self.batch_id:
            for log in ("offsets", "commits"):
                self.folder.purge(log, self.batch_id - self.retain)
        self.is_planned = True
        return True

    def _next_ends(self) -> Offsets | None:
        """Return where the next batch ends, or None if there is none.

        Spark compares only with what is committed. So the first batch runs even without records, as does one in which a
        partition is new; and a batch that cannot run is planned before the query dies.
        """
        start = self._start()
        ends = self._limited(start, self._assigned_ends())
        return None if ends == self.committed else ends

    def _limited(self, start: Offsets, ends: Offsets) -> Offsets:
        """Share ``maxOffsetsPerTrigger`` by what waits in each partition, at least one each, as ``rateLimit`` does."""
        begins = self._assigned_begins()
        sizes = {key: end - start.get(key, begins.get(key, 0)) for key, end in ends.items()}
        total = sum(size for size in sizes.values() if size > 0)
        if not self.limit or not total:
            return ends
        shares = {key: self.limit * (size / total) for key, size in sizes.items() if size > 0}
        taken = {key: math.ceil(share) if share < 1 else math.floor(share) for key, share in shares.items()}
        return {key: min(end, end - sizes[key] + taken[key]) if key in taken else end for key, end in ends.items()}

    def _ranges(self) -> list[tuple[tuple[str, int], int, int]]:
        """Return what the batch reads, as its plan on the driver: a contradiction ends the query here."""
        begins, starts = self._assigned_begins(), self._start()
        if gone := set(self.available) - set(starts) - set(begins):
            raise data_loss(f"Cannot find initial offsets for partitions {sorted(gone)}")
        if gone := set(starts) - set(self.available):
            raise data_loss(f"Partitions {sorted(gone)} have been deleted")
        ranges = []
        for key in sorted(self.available):
            start, end = starts.get(key), self.available[key]
            if start is None:  # a new partition starts at the earliest offset, which must be 0
                start = begins[key]
                if start > 0:
                    raise data_loss(f"Added partition {key} starts from {start} instead of 0")
            if end < start:
                raise data_loss(f"Partition {key} offset was changed from {start} to {end}")
            ranges.append((key, start, end))
        return ranges

    def _fetch(self, ranges: list[tuple[tuple[str, int], int, int]]) -> list[Record]:
        """Return the records of a batch, as its executors fetch them."""
        begins, ends = self._assigned_begins(), self.kafka.ends(self.topics)
        records = []
        for key, start, end in ranges:
            if end > start and (start < begins.get(key, 0) or end > ends.get(key, 0)):
                raise data_loss(f"Could not read records in offset [{start}, {end}) for topic partition {key}")
            records += self.kafka.records(*key, start, end)
        return records

    def _assigned_ends(self) -> Offsets:
        return self._only_assigned(self.kafka.ends(self.topics))

    def _assigned_begins(self) -> Offsets:
        return self._only_assigned(self.kafka.begins(self.topics))

    def _only_assigned(self, offsets: Offsets) -> Offsets:
        return offsets if self.assigned is None else {key: offsets[key] for key in self.assigned if key in offsets}

    def _ids(self, folder: str) -> list[int]:
        return sorted(int(name) for name in self.folder.names(folder) if name.isdecimal())

    def _initial(self) -> Offsets | None:
        text = self.folder.text("sources/0/0")
        return None if text is None else _from_json(text.partition("\n")[2])

    def _entry(self, batch_id: int) -> Offsets:
        found = self._entry_or_none(batch_id)
        if found is None:
            raise QueryDied(f"IllegalStateException: batch {batch_id} doesn't exist")
        return found

    def _entry_or_none(self, batch_id: int) -> Offsets | None:
        text = self.folder.text(f"offsets/{batch_id}")
        if text is None:
            return None
        version = text.partition("\n")[0]
        if version != "v1":
            raise QueryDied(f"[MALFORMED_LOG_FILE] failed to read correct log version from {version}")
        return _from_json(text.rpartition("\n")[2])


def _to_json(offsets: Offsets) -> str:
    plain: dict[str, dict[str, int]] = {}
    for (topic, partition), offset in sorted(offsets.items()):
        plain.setdefault(topic, {})[str(partition)] = offset
    return json.dumps(plain, separators=(",", ":"))


def _from_json(text: str) -> Offsets:
    return {
        (topic, int(partition)): offset
        for topic, partitions in json.loads(text).items()
        for partition, offset in partitions.items()
    }


@dataclass
class Query:
    """A running query, as ``StreamingQuery`` has it. Its batches run while somebody waits for it."""

    engine: Engine
    spark: SparkSession
    one_trigger: bool = False
    """The next trigger never comes."""
    is_stopped: bool = False
    failure: BaseException | None = None
    triggered: int = 0

    @property
    def lastProgress(self) -> dict[str, Any] | None:  # Spark's name
        """What Spark reports about the last batch."""
        return self.spark.progress

    @property
    def status(self) -> dict[str, Any]:
        """What Spark reports about the query."""
        return {"message": self.engine.message, "isDataAvailable": self.engine.message == "Processing new data"}

    def awaitTermination(self, timeout: float) -> bool:  # Spark's name
        """Run at most one batch, or wait; return whether the query is over.

        :raises QueryDied: it failed.
        """
        if self.is_stopped:
            return True
        if self.one_trigger and self.triggered:
            self.engine.sim.sleep(timeout)
            return False
        try:
            ran = self.engine.trigger()
        except QueryStopped:
            self.is_stopped = True
            return True
        except QueryDied as error:
            self.is_stopped, self.failure = True, error
            raise
        except Exception as error:
            self.is_stopped, self.failure = True, error
            raise QueryDied(f"StreamingQueryException: {type(error).__name__}: {error}") from error
        self.triggered += 1
        if self.one_trigger:
            self.engine.message = WAITING_FOR_TRIGGER
        elif not ran:
            self.engine.sim.sleep(timeout)
        return False

    def stop(self) -> None:
        """End the query. No batch is running then: batches run only in ``awaitTermination``."""
        self.is_stopped = True


@dataclass
class Writer:
    """A ``DataStreamWriter``."""

    spark: Any
    options: dict[str, Any] = field(default_factory=dict)
    function: Callable[[Any, int], None] | None = None
    one_trigger: bool = False

    def queryName(self, name: str) -> Writer:
        return self

    def option(self, key: str, value: str) -> Writer:
        self.options[key] = value
        return self

    def format(self, name: str) -> Writer:
        return self

    def trigger(self, **trigger: Any) -> Writer:
        return Writer(self.spark, dict(self.options), self.function, one_trigger="days" in str(trigger))

    def foreachBatch(self, function: Callable[[Any, int], None]) -> Writer:
        self.function = function
        return self

    def start(self) -> Query:
        engine = self.spark.engine(self.options["checkpointLocation"], self.function)
        return Query(engine, self.spark, self.one_trigger)


class Reader:
    """A ``DataStreamReader``."""

    def __init__(self, spark: Any) -> None:
        self.spark = spark
        self.taken: dict[str, str] = {}

    def format(self, name: str) -> Reader:
        return self

    def options(self, **options: str) -> Reader:
        self.taken |= options
        return self

    def load(self) -> Stream:
        self.spark.source = self.taken
        return Stream(self.spark)


class Stream:
    """A streaming ``DataFrame``."""

    def __init__(self, spark: Any) -> None:
        self.spark = spark

    @property
    def writeStream(self) -> Writer:
        return Writer(self.spark)


@dataclass
class BatchFrame:
    """The records of a bounded read."""

    fetch: Callable[[], list[Record]]

    def count(self) -> int:
        """Read the records once more, to count them."""
        return len(self.fetch())


class BatchReader:
    """A ``DataFrameReader``."""

    def __init__(self, spark: SparkSession) -> None:
        self.spark = spark
        self.taken: dict[str, str] = {}

    def format(self, name: str) -> BatchReader:
        return self

    def options(self, **options: str) -> BatchReader:
        self.taken |= options
        return self

    def load(self) -> BatchFrame:
        start, end = _from_json(self.taken["startingOffsets"]), _from_json(self.taken["endingOffsets"])
        kafka, topics = self.spark.kafka, sorted({topic for topic, _ in start})

        def fetch() -> list[Record]:
            ends, begins = kafka.ends(topics), kafka.begins(topics)
            gone = [key for key in start if start[key] < begins.get(key, 0) or end[key] > ends.get(key, 0)]
            if gone:
                raise data_loss(f"Could not read records of {gone}")
            return [each for key in sorted(start) for each in kafka.records(*key, start[key], end[key])]

        return BatchFrame(fetch)


class Conf:
    """``spark.conf``."""

    def get(self, key: str, default: str = "") -> str:
        return default


class SparkSession:
    """A classic Spark session in one driver.

    :ivar epoch: the number that the sink sees; the program sets it.
    """

    version = "4.2.0"

    def __init__(
        self, sim: Simulation, kafka: Kafka, open_folder: Callable[[str], Folder], sink: Sink, topics: list[str]
    ) -> None:
        self.sim, self.kafka, self.open_folder, self.sink, self.topics = sim, kafka, open_folder, sink, topics
        self.conf, self.epoch, self.limit = Conf(), 0, 0
        self.retain = 100
        self.source: dict[str, str] = {}
        self.new_id: Callable[[], str] = lambda: "query"
        self.on_batch: Callable[[int, str], None] = lambda batch_id, query_id: None
        self.batch_s = 0.0
        self.read_count = 0
        self.write_count = 0
        """Rows that the program's write commands have written."""
        self.progress: dict[str, Any] | None = None
        self.is_cancelled = False

    @property
    def readStream(self) -> Reader:
        return Reader(self)

    @property
    def read(self) -> BatchReader:
        return BatchReader(self)

    @property
    def sparkContext(self) -> SparkSession:
        return self

    def cancelAllJobs(self) -> None:  # Spark's name
        self.is_cancelled = True

    def _reported(self, records: list[Record]) -> int:
        """Return the rows that the sink reports. Spark's file sinks do not count."""
        return -1 if self.sink.is_file_sink else len(records)

    def engine(self, checkpoint: str, function: Callable[[Any, int], None] | None) -> Engine:
        """Return the engine of a query on ``checkpoint``."""
        start = self.source.get("startingOffsets", "latest")
        assigned = None
        if "assign" in self.source:
            plain = json.loads(self.source["assign"])
            assigned = [(topic, number) for topic, numbers in plain.items() for number in numbers]

        def write(frame: Frame, batch_id: int, query_id: str) -> None:
            frame.sparkSession, frame.query_id = self, query_id
            if function is not None:
                function(frame, batch_id)
            else:
                self.on_batch(batch_id, query_id)
                self.sim.sleep(self.batch_s)
                records = frame.records
                self.sink.write(records, batch_id, query_id, self.epoch)
                self.progress = {"batchId": batch_id, "sink": {"numOutputRows": self._reported(records)}}

        return Engine(
            self.sim,
            self.kafka,
            self.open_folder(checkpoint),
            self.topics,
            write,
            start if start in ("earliest", "latest") else _from_json(start),
            self.limit,
            self.new_id,
            self.retain,
            assigned,
            has_bug_55271=self.version == "4.1.1",
        )
