"""The simulation's Spark does what Spark does: every situation runs on both engines, and both must behave the same.

A situation is a list of steps that does not depend on the engine. Compared for each run: which ranges ran, under which
batch ids and in which order; how the query ended; which files the checkpoint then holds, with the offsets in them;
and what a file sink holds.
"""

from __future__ import annotations

import json
import logging
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from pyspark.sql import SparkSession

import stack
from airflow_provider_offsets.checkpoint import seed as checkpoint
from airflow_provider_offsets.checkpoint.files import CheckpointFolder, open_checkpoint
from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.core.snapshot import UNSTARTED
from airflow_provider_offsets.runtime.native_sink import ONE_TRIGGER, POLL_S, TRIGGER_IS_OVER
from airflow_provider_offsets.runtime.shard_replay import assign_option
from airflow_provider_offsets.testing import FakeKafka
from tests.contract.kafka_view import FOR_EVER
from tests.e2e.conftest import endpoint
from tests.integration.kafka.conftest import RealCluster
from tests.simulation import spark as simulated
from tests.simulation.platform import FileSystem, Sink
from tests.simulation.product import SimKafka
from tests.simulation.scheduler import Simulation

WAITING_FOR_DATA = "Waiting for data to arrive"
KILLED = "killed in the middle of a batch"
Ranges = dict[int, str]


class Cut(Exception):
    """An exception that ends a batch in its middle."""


@dataclass
class Run:
    """What one run of a query did."""

    batches: list[tuple[int, Ranges | None]] = field(default_factory=list)
    """In the order in which ``foreachBatch`` was called; None for the records of a batch that it did not read."""
    died: str = ""
    files: dict[str, Any] = field(default_factory=dict)
    sink: dict[int, Ranges] = field(default_factory=dict)


def ranges_of(offsets: Sequence[tuple[int, int]]) -> Ranges:
    """Return the range of each partition, with its count if the range has holes."""
    found: dict[int, list[int]] = {}
    for partition, offset in offsets:
        found.setdefault(partition, []).append(offset)
    return {
        partition: f"{min(each)}..{max(each)}" + ("" if len(each) == max(each) - min(each) + 1 else f" ({len(each)})")
        for partition, each in sorted(found.items())
    }


def summary(path: str, text: str) -> Any:
    """Return what a file of a checkpoint says about offsets."""
    if path.startswith("offsets/"):
        lines = text.split("\n")
        return lines[0], json.loads(lines[-1])
    if path.startswith("sources/"):
        return json.loads(text.partition("\n")[2])
    return None


class Stage:
    """A topic, a checkpoint and a file sink, with one of the two engines."""

    spark: Any
    cluster: Any
    folder: CheckpointFolder

    def __init__(self, topic: str) -> None:
        self.topic, self.runs = topic, [Run()]
        self.query_id = str(uuid.uuid4())

    def position(self, *offsets: int) -> Position:
        """Return offsets of the first partitions of the topic."""
        return Position({TopicPartition(self.topic, number): offset for number, offset in enumerate(offsets)})

    def run(
        self,
        start: str | tuple[int, ...],
        *,
        limit: int,
        sink: bool,
        assign: int,
        during: Mapping[int, Sequence[Step]],
        cut: bool,
        reads: bool,
        dies: str,
    ) -> None:
        """Run a query until nothing is left to read, or for one trigger with a sink, and record what it did."""
        self.runs.append(noted := Run())

        def process(frame: Any, batch_id: int) -> None:
            noted.batches.append((batch_id, ranges_of(self.read(frame)) if reads else None))
            for step in during.get(batch_id, ()):
                step(self)
            if cut:
                raise Cut(KILLED)

        wanted = self.position(*range(assign))
        source = {"assign": assign_option(wanted)} if assign else {"subscribe": self.topic}
        offsets = start if isinstance(start, str) else self.position(*start).to_json()
        try:
            writer = self.writer({**source, "startingOffsets": offsets}, limit)
            if sink:
                self.run_trigger(self.to_files(writer))
            else:
                self.run_until_stopped(writer.foreachBatch(process).start())
        except Exception as error:  # the error that ended the query: each engine has a class of its own
            text = str(error)
            assert re.search(dies or "^$", text, re.DOTALL), f"{type(self).__name__} died of: {text}"
            noted.died = dies
        assert noted.died == dies, f"{type(self).__name__} did not die: {noted}"
        noted.files = {path: summary(path, text) for path, text in sorted(self.files().items())}
        noted.sink = {batch_id: ranges_of(found) for batch_id, found in sorted(self.sunk().items())}

    def run_trigger(self, writer: Any) -> None:
        """Run one trigger, as the runtime runs a native sink."""
        query = writer.trigger(processingTime=ONE_TRIGGER).start()
        while not query.awaitTermination(POLL_S) and query.status["message"] != TRIGGER_IS_OVER:
            pass
        query.stop()

    def writer(self, source: dict[str, str], limit: int) -> Any:
        """Return the writer of a stream, on the checkpoint."""
        raise NotImplementedError

    def to_files(self, writer: Any) -> Any:
        """Return the writer with the file sink."""
        raise NotImplementedError

    def run_until_stopped(self, query: Any) -> None:
        """Wait until a query has nothing left to read, and stop it."""
        raise NotImplementedError

    def read(self, frame: Any) -> list[tuple[int, int]]:
        """Return the partition and offset of each record of a batch."""
        raise NotImplementedError

    def sunk(self) -> dict[int, list[tuple[int, int]]]:
        """Return the records in the file sink by batch."""
        raise NotImplementedError

    def files(self) -> dict[str, str]:
        """Return the files of the checkpoint."""
        raise NotImplementedError

    def remove(self, path: str) -> None:
        """Remove a file of the checkpoint."""
        raise NotImplementedError

    def bounded(self, start: Position, end: Position) -> int:
        """Return how many records a replay of a range counts."""
        raise NotImplementedError


class RealStage(Stage):
    """Spark and Kafka."""

    def __init__(self, spark: SparkSession, cluster: RealCluster, topic: str, home: Path) -> None:
        super().__init__(topic)
        self.spark, self.cluster, self._home = spark, cluster, home
        self.folder = open_checkpoint(str(home / "checkpoint"))
        # Spark fetches an end three times if it is below a known one.
        self._kafka = {"kafka.bootstrap.servers": cluster.bootstrap_servers, "fetchOffset.retryIntervalMs": "10"}

    def writer(self, source: dict[str, str], limit: int) -> Any:
        reader = self.spark.readStream.format("kafka").options(**self._kafka, **source)
        frame = (reader.option("maxOffsetsPerTrigger", limit) if limit else reader).load()
        written = frame.select("partition", "offset").coalesce(1).writeStream
        return written.option("checkpointLocation", self.folder.location)

    def to_files(self, writer: Any) -> Any:
        return writer.format("json").option("path", str(self._home / "sink"))

    def run_until_stopped(self, query: Any) -> None:
        try:
            query.processAllAvailable()
        finally:
            query.stop()

    def read(self, frame: Any) -> list[tuple[int, int]]:
        return [tuple(row) for row in frame.collect()]

    def sunk(self) -> dict[int, list[tuple[int, int]]]:
        found = {}
        for log in (self._home / "sink" / "_spark_metadata").glob("[0-9]*"):
            parts = [Path(urlsplit(json.loads(line)["path"]).path) for line in log.read_text().splitlines()[1:]]
            rows = [json.loads(line) for part in parts for line in part.read_text().splitlines()]
            found[int(log.name)] = [(row["partition"], row["offset"]) for row in rows]
        return found

    def files(self) -> dict[str, str]:
        root = Path(self.folder.location)
        there = [each for each in root.rglob("*") if each.is_file() and each.name[0] != "."]
        return {str(each.relative_to(root)): each.read_text() for each in there}

    def remove(self, path: str) -> None:
        file = Path(self.folder.location) / path
        file.unlink()
        file.with_name(f".{file.name}.crc").unlink(missing_ok=True)

    def bounded(self, start: Position, end: Position) -> int:
        options = {
            "assign": assign_option(start),
            "startingOffsets": start.to_json(),
            "endingOffsets": end.to_json(),
            "failOnDataLoss": "true",
            "kafkaConsumer.pollTimeoutMs": "5000",  # how long it waits for a record after the end
        }
        return int(self.spark.read.format("kafka").options(**self._kafka, **options).load().count())


class SimulatedStage(Stage):
    """The simulation's Spark on the product's fake of Kafka."""

    spark: simulated.SparkSession
    cluster: FakeKafka

    def __init__(self, topic: str) -> None:
        super().__init__(topic)
        self._sim = Simulation()
        kafka, self._disk = SimKafka(self._sim), FileSystem(self._sim)
        self.cluster, self._sink = kafka.cluster, Sink(self._sim, is_file_sink=True)
        self.folder = self._disk.open("sim://checkpoint")
        self.spark = simulated.SparkSession(self._sim, kafka, self._disk.open, self._sink, [topic])

    def writer(self, source: dict[str, str], limit: int) -> Any:
        self.spark.limit = limit
        stream = self.spark.readStream.format("kafka").options(**source).load()
        return stream.writeStream.option("checkpointLocation", self.folder.location)

    def to_files(self, writer: Any) -> Any:
        return writer.format("json")

    def run_until_stopped(self, query: Any) -> None:
        while query.status["message"] != WAITING_FOR_DATA:
            query.awaitTermination(1)
        query.stop()

    def read(self, frame: Any) -> list[tuple[int, int]]:
        return [(each.partition, each.offset) for each in frame.records]

    def sunk(self) -> dict[int, list[tuple[int, int]]]:
        found: dict[int, list[tuple[int, int]]] = {batch_id: [] for batch_id in self._sink.batches}
        for write in self._sink.writes:
            found[write.batch_id].append((write.record.partition, write.record.offset))
        return found

    def files(self) -> dict[str, str]:
        root = self.folder.location
        there = {folder.removeprefix(root).strip("/"): names for folder, names in self._disk.folders.items()}
        return {f"{at}/{name}".strip("/"): text for at, names in there.items() for name, (text, _) in names.items()}

    def remove(self, path: str) -> None:
        folder, _, name = f"{self.folder.location}/{path}".rpartition("/")
        del self._disk.folders[folder][name]

    def bounded(self, start: Position, end: Position) -> int:
        options = {"assign": assign_option(start), "startingOffsets": start.to_json(), "endingOffsets": end.to_json()}
        return self.spark.read.format("kafka").options(**options).load().count()


Step = Callable[[Stage], object]


def append(partition: int, count: int) -> Step:
    """Append records."""
    return lambda stage: stage.cluster.append(stage.topic, partition, count)


def grow(total: int) -> Step:
    """Add partitions to the topic."""
    return lambda stage: stage.cluster.add_partitions(stage.topic, total)


def delete(partition: int, before: int) -> Step:
    """Delete records, as retention does."""
    return lambda stage: stage.cluster.delete_records_before(stage.topic, partition, before)


def recreate(partitions: int) -> Step:
    """Delete the topic, and create one of the same name."""

    def step(stage: Stage) -> None:
        stage.cluster.delete_topic(stage.topic)
        stage.cluster.create_topic(stage.topic, partitions, **FOR_EVER)

    return step


def remove(*paths: str) -> Step:
    """Remove files of the checkpoint."""

    def step(stage: Stage) -> None:
        for path in paths:
            stage.remove(path)

    return step


def plant(path: str, like: str) -> Step:
    """Write a file into the checkpoint, as another process would."""
    return lambda stage: stage.folder.create(path, stage.folder.text(like) or "")


def close(stage: Stage) -> None:
    """Close the checkpoint, as an operation does."""
    checkpoint.close(stage.folder, "operation")


def seed(last_batch_id: int, *start: int) -> Step:
    """Seed a checkpoint, as an operation does."""
    return lambda stage: checkpoint.seed(
        stage.folder, query_id=stage.query_id, last_batch_id=last_batch_id, start=stage.position(*start), like=None
    )


def run(
    start: str | tuple[int, ...] = "earliest",
    *,
    limit: int = 0,
    sink: bool = False,
    assign: int = 0,
    during: Mapping[int, Sequence[Step]] | None = None,
    cut: bool = False,
    reads: bool = True,
    dies: str = "",
) -> Step:
    """Run a query.

    :param start: ``startingOffsets``; numbers are offsets of the first partitions.
    :param limit: ``maxOffsetsPerTrigger``.
    :param sink: for one trigger, into a file sink; False: until nothing is left to read, into ``foreachBatch``.
    :param assign: only so many partitions, with ``assign``.
    :param during: what happens in the middle of a batch, by its id.
    :param cut: the function raises in the first batch.
    :param reads: whether the function reads its records.
    :param dies: what the query says of its death, a pattern.
    """
    dies = KILLED if cut else dies
    return lambda stage: stage.run(
        start, limit=limit, sink=sink, assign=assign, during=during or {}, cut=cut, reads=reads, dies=dies
    )


FED = (append(0, 3), append(1, 2))
LOGGED = (*FED, run(limit=2), append(0, 1))
"""Three batches, and a record for a fourth batch."""
SITUATIONS: list[tuple[str, list[Step], list[int]]] = [
    # A first start.
    ("an empty folder begins at what retention has left", [*FED, delete(0, 1), run()], [0]),
    (
        "an empty folder with 'latest' leaves out what is there",
        [*FED, run("latest"), append(0, 1), run("latest")],
        [0, 1],
    ),
    ("an empty topic: the first batch runs without records", [run(), *FED, run("latest")], [0, 1]),
    ("startingOffsets names exactly the partitions there are", [*FED, run((1, 2))], [0]),
    ("startingOffsets lacks a partition", [*FED, run((1,), dies="you must specify all"), run((1, 2))], [0]),
    ("startingOffsets names one that is not there", [*FED, run((1, 2, 0), dies="you must specify all")], []),
    (
        "startingOffsets past the end",
        [*FED, run((9, 2), dies=r"offset was changed from 9 to 3"), run(dies="9 to 3")],
        [],
    ),
    (
        "startingOffsets below what retention has left",
        [*FED, delete(0, 2), run((1, 2), dies="Could not read records")],
        [],
    ),
    # A restart.
    ("committed: goes on behind it, whatever startingOffsets says", [*FED, run(), append(0, 2), run((0, 0))], [0, 1]),
    ("committed, and nothing new: nothing runs", [*FED, run(), run()], [0]),
    (
        "planned and not committed: the same range under the same id, then what has come since",
        [*FED, run(), append(0, 2), run(cut=True), append(1, 4), run()],
        [0, 1, 1, 2],
    ),
    ("the first batch is planned and not committed", [*FED, run(cut=True), append(1, 4), run()], [0, 0, 1]),
    ("the same with startingOffsets in between", [*FED, run((1, 1), cut=True), append(1, 4), run((3, 2))], [0, 0, 1]),
    (
        "it knows where it began, and has planned nothing: startingOffsets is not asked",
        [*FED, run((1, 1), cut=True), remove("offsets/0"), run((2, 2))],
        [0, 0],
    ),
    # Partitions that are new.
    ("a new partition on a plain restart is read from 0", [*FED, run(), grow(3), append(2, 2), run()], [0, 1]),
    ("a new partition without records makes a batch", [*FED, run(), grow(3), run(), run()], [0, 1]),
    ("a new partition while it runs", [*FED, run(during={0: [grow(3), append(2, 2)]})], [0, 1]),
    (
        "planned, and a partition is new: the planned batch runs without it",
        [*FED, run(), append(0, 1), run(cut=True), grow(3), append(2, 2), run()],
        [0, 1, 1, 2],
    ),
    (
        "the first batch is planned, and a partition is new",
        [*FED, run(cut=True), grow(3), append(2, 2), run()],
        [0, 0, 1],
    ),
    (
        "a new partition whose first records are deleted already",
        [
            *FED,
            run(),
            grow(3),
            append(2, 4),
            delete(2, 1),
            run(dies="starts from 1 instead of 0"),
            run(dies="instead of"),
        ],
        [0],
    ),
    (
        "'assign' sees no new partition",
        [*FED, run(assign=2), grow(3), append(2, 2), append(0, 1), run(assign=2)],
        [0, 1],
    ),
    ("'assign' to a part of the topic", [*FED, run((1,), assign=1)], [0]),
    # Checkpoints that an operation has written.
    ("seeded before the first batch", [*FED, seed(UNSTARTED, 1, 1), run((1, 1))], [0, 1]),
    ("seeded behind the last batch", [*FED, seed(6, 1, 1), run((0, 0))], [7, 8]),
    ("seeded, and nothing to read", [*FED, seed(6, 3, 2), run(), append(0, 1), run()], [7, 8]),
    ("seeded with a partition that is new", [*FED, grow(3), append(2, 2), seed(6, 3, 2, 0), run()], [7, 8]),
    ("seeded without a partition that is new", [*FED, grow(3), append(2, 2), seed(6, 3, 2), run()], [7, 8]),
    (
        "seeded without a partition that retention has cut",
        [*FED, grow(3), append(2, 2), delete(2, 1), seed(6, 3, 2), run(dies="starts from 1 instead of 0")],
        [7],
    ),
    (
        "a seed that was cut off: offsets without metadata",
        [*FED, seed(6, 1, 1), remove("metadata"), run(dies="MISSING_METADATA_FILE")],
        [],
    ),
    (
        "a seed of one entry: Spark wants the one before it too",
        [*FED, seed(6, 1, 1), remove("offsets/6", "commits/6"), run(dies="batch 6 doesn't exist")],
        [],
    ),
    ("closed: no query starts on it", [*FED, run(), close, append(0, 2), run(dies="MALFORMED_LOG_FILE")], [0]),
    (
        "closed behind a planned batch",
        [*FED, run(), append(0, 2), run(cut=True), close, append(0, 3), run(dies="MALFORMED_LOG_FILE")],
        [0, 1],
    ),
    (
        "closed while it runs: dies before its next batch, and does not start again",
        [
            *FED,
            run(during={0: [append(0, 1), close]}, dies="CONCURRENT_STREAM_LOG_UPDATE"),
            run(dies="MALFORMED_LOG_FILE"),
        ],
        [0],
    ),
    # What another job or a person did to the checkpoint.
    (
        "the commit of the running batch appears from elsewhere",
        [*FED, run(), append(0, 1), run(during={1: [plant("commits/1", "commits/0")]}, dies="CONCURRENT"), run()],
        [0, 1],
    ),
    (
        "a hole in the commits before the last",
        [*LOGGED, remove("commits/1"), run()],
        [0, 1, 2, 3],
    ),
    (
        "the last two commits are gone: runs the last batch only",
        [*LOGGED, remove("commits/1", "commits/2"), run()],
        [0, 1, 2, 2, 3],
    ),
    (
        "all commits are gone",
        [*LOGGED, remove("commits/0", "commits/1", "commits/2"), run()],
        [0, 1, 2, 2, 3],
    ),
    (
        "the entry before the last is gone",
        [*LOGGED, remove("offsets/1"), run(dies="batch 1 doesn't exist")],
        [0, 1, 2],
    ),
    (
        "entries before the last two are gone, as when Spark has purged them",
        [*LOGGED, remove("offsets/0", "commits/0"), run()],
        [0, 1, 2, 3],
    ),
    ("commits without offsets", [*FED, run(), remove("offsets/0"), run(dies="assertion failed")], [0]),
    (
        "the last entry is gone, its commit is not: runs the last but one again, and dies at its commit",
        [*FED, run(), append(0, 1), run(), remove("offsets/1"), run(dies="CONCURRENT_STREAM_LOG_UPDATE")],
        [0, 1, 0],
    ),
    (
        "the initial offsets are gone, and a batch is committed",
        [*FED, run(), remove("sources/0/0"), append(0, 1), run()],
        [0, 1],
    ),
    (
        "the initial offsets are gone, and the first batch is planned: another start",
        [*FED, run((1, 1), cut=True), remove("sources/0/0"), run((2, 2))],
        [0, 0],
    ),
    # What happens to the topic.
    (
        "records behind the position are deleted",
        [*FED, run(), append(0, 4), delete(0, 5), run(dies="Could not read records")],
        [0],
    ),
    (
        "the same where the function reads nothing: nobody notices",
        [*FED, run(), append(0, 4), delete(0, 5), run(reads=False)],
        [0, 1],
    ),
    (
        "recreated with fewer records",
        [*FED, run(), recreate(2), append(0, 1), run(dies="offset was changed from")],
        [0],
    ),
    ("recreated with more records", [*FED, run(), recreate(2), append(0, 5), append(1, 2), run()], [0, 1]),
    ("recreated with fewer partitions", [*FED, run(), recreate(1), append(0, 5), run(dies="have been deleted")], [0]),
    (
        "recreated while a batch is planned",
        [*FED, run(), append(0, 2), run(cut=True), recreate(2), append(0, 1), run(dies="Could not read records")],
        [0, 1],
    ),
    (
        "recreated without the partition that was new to the planned batch",
        [*FED, run(), grow(3), append(2, 1), run(cut=True), recreate(2), run(dies="Cannot find initial offsets")],
        [0, 1],
    ),
    # How much a batch takes.
    ("the limit is shared out by what waits", [append(0, 9), append(1, 3), run(limit=4)], [0, 1, 2]),
    ("a small partition gets one record more than its share", [append(0, 20), append(1, 1), run(limit=10)], [0, 1, 2]),
    ("more partitions than the limit", [*FED, grow(4), append(2, 2), append(3, 2), run(limit=2)], [0, 1, 2]),
    ("the limit and a new partition", [*FED, run(), grow(3), append(0, 4), append(2, 4), run(limit=4)], [0, 1, 2]),
    # A native sink, one trigger a run.
    ("a sink: one batch a run", [*FED, run(sink=True), append(0, 1), run(sink=True), run(sink=True)], []),
    ("a sink without records", [run(sink=True), *FED, run(sink=True)], []),
    ("a sink with a limit: one batch of several", [append(0, 9), append(1, 3), run(sink=True, limit=4)], []),
    ("a sink on a seeded checkpoint", [*FED, seed(6, 1, 1), run(sink=True), run(sink=True)], []),
    (
        "a file sink leaves out the batch that it has, and Spark did not commit",
        [*FED, run(sink=True), remove("commits/0"), append(0, 2), run(sink=True), run(sink=True)],
        [],
    ),
]


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """Yield one Spark session for all situations."""
    builder = SparkSession.builder.master("local[2]").config("spark.jars", ",".join(map(str, stack.jars("spark"))))
    settings = {
        "spark.ui.enabled": "false",
        "spark.sql.shuffle.partitions": "1",
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        "spark.sql.warehouse.dir": str(tmp_path_factory.mktemp("warehouse")),
    }
    for name, value in settings.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("OFF")
    logging.getLogger("py4j").setLevel(logging.CRITICAL)  # it logs each exception of which a query dies
    yield session
    session.stop()


@pytest.fixture
def stages(spark: SparkSession, tmp_path: Path) -> Iterator[list[Stage]]:
    """Yield the same topic with two partitions, an empty checkpoint and an empty sink, on both engines."""
    topic = f"simulated-{uuid.uuid4().hex[:8]}"
    cluster = RealCluster(endpoint("kafka", "bootstrap_servers"))
    made = [RealStage(spark, cluster, topic, tmp_path), SimulatedStage(topic)]
    for stage in made:
        stage.cluster.create_topic(topic, 2, **FOR_EVER)
    yield made
    cluster.clean()


@pytest.mark.parametrize(("why", "steps", "ran"), SITUATIONS)
def test_both_do_the_same(why: str, steps: list[Step], ran: list[int], stages: list[Stage]) -> None:
    for stage in stages:
        for step in steps:
            step(stage)

    real, fake = (stage.runs for stage in stages)
    assert fake == real
    assert [batch_id for each in real for batch_id, _ in each.batches] == ran


@pytest.mark.parametrize(
    ("why", "start", "end", "count"),
    [
        ("a part of what is there", (3, 0), (8, 2), 7),
        ("one of two partitions", (3,), (8,), 5),
        ("nothing", (3, 1), (3, 1), 0),
        ("begins where nothing is left", (1, 0), (8, 2), None),
        ("lies where nothing is left", (0, 0), (2, 2), None),
        ("ends past the end", (3, 0), (11, 2), None),
    ],
)
def test_both_replay_the_same(
    why: str, start: tuple[int, ...], end: tuple[int, ...], count: int | None, stages: list[Stage]
) -> None:
    for stage in stages:
        for step in (append(0, 10), append(1, 2), delete(0, 2)):
            step(stage)
        if count is None:
            with pytest.raises(Exception, match="failOnDataLoss"):
                stage.bounded(stage.position(*start), stage.position(*end))
        else:
            assert stage.bounded(stage.position(*start), stage.position(*end)) == count, type(stage).__name__
