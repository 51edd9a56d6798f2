"""A lab whose job is a program of ``jobs/sinks``, and how often its sink has each record of the topic."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pyarrow.dataset
import pytest
from confluent_kafka import Consumer, Message, TopicPartition
from deltalake import DeltaTable
from pyiceberg.table import StaticTable

from airflow_provider_offsets.connections import ledger_reader, open_session
from airflow_provider_offsets.core import codec
from airflow_provider_offsets.core.position import OffsetRange
from airflow_provider_offsets.core.replay.model import BackfillPolicy, Shard
from airflow_provider_offsets.core.sink.audit import SinkReport
from airflow_provider_offsets.core.sink.model import Sink
from airflow_provider_offsets.errors import ShardFailed
from airflow_provider_offsets.operations.sink_auditing import audit_sink
from airflow_provider_offsets.operators import ReplayOffsetsOperator
from airflow_provider_offsets.stores import open_store
from tests.e2e.lab import DEADLINE_S, Lab, act, connections

PROGRAM = Path(__file__).with_name("sink_program.py")
PROGRAMS = Path(__file__).parents[2] / "jobs" / "sinks"


class Record(NamedTuple):
    """Position of a record in the source topic."""

    topic: str
    partition: int
    offset: int


@dataclass
class LabSink:
    """One sink, and the copies of each record that it must have."""

    held: Callable[[], Counter[Record]]
    """Returns how often the sink has each record, read without the product and without Spark."""
    named: Sink | None = None
    """The sink as a pipeline names it; None if it keeps no ledger."""
    again: Counter[Record] = field(default_factory=Counter)
    """How often each record was read again, and must be in the sink again."""
    dropped: Counter[Record] = field(default_factory=Counter)
    """The records that the sink drops, as is known."""


@dataclass
class SinkLab:
    """A lab with sinks that its job writes to."""

    lab: Lab
    sinks: dict[str, LabSink]

    def check(self, step: str) -> None:
        """Check that each sink has each record of the topic once, and once more for each time in ``again``."""
        topic = Counter(in_topic(self.lab))
        wrong = {}
        for name, sink in self.sinks.items():
            held, expected = sink.held(), topic + sink.again - sink.dropped
            print(f"{step}: {name}: {len(held)} of {len(topic)} records, {held.total() - len(held)} copies", flush=True)
            if held != expected:
                wrong[name] = {"missing": len(expected - held), "extra": len(held - expected)}
        assert wrong == {}, step

    def audit(self, name: str) -> SinkReport:
        """Compare the history with the metadata of a sink."""
        pipeline = replace(self.lab.pipeline, sink=self.sinks[name].named)
        with open_session(pipeline, "looking") as session:
            return audit_sink(session, ledger_reader(pipeline))

    def read_again(self, ranges: Iterable[OffsetRange], kept_twice_by: Iterable[str]) -> None:
        """Note ranges that the job has read again.

        :param ranges: the ranges.
        :param kept_twice_by: the sinks that add these records once more.
        """
        records = [
            Record(each.topic, each.partition, offset) for each in ranges for offset in range(each.start, each.end)
        ]
        for name in kept_twice_by:
            self.sinks[name].again.update(records)

    def kill_after_the_write(self) -> tuple[OffsetRange, ...]:
        """Produce records, kill the driver when a batch is written and not recorded, and return what the batch read."""
        self.lab.fault("kill", "after")
        self.lab.produce(20, 0, 1, 2)
        self.lab.wait_until_gone()
        self.lab.faults()
        return self.lab.started_batch.ranges

    def replay(self, interval: int, *shards: tuple[OffsetRange, ...], killed: int | None = None) -> None:
        """Replay shards in parallel beside the live job, which reads new records meanwhile.

        :param interval: number of the replayed interval, part of the run id.
        :param shards: the ranges of each shard.
        :param killed: number of the shard whose first driver is killed after its write, and which is tried again.
        """
        if killed is not None:
            (self.lab.home / f"kill-shard-{killed}").touch()
        with ThreadPoolExecutor() as pool:
            running = [pool.submit(self._shard, interval, number, ranges) for number, ranges in enumerate(shards)]
            while wait(running, timeout=1).not_done:
                self.lab.produce(2, 0, 1, 2)
        assert [each.result() for each in running] == [killed == number for number in range(len(shards))]

    def _shard(self, interval: int, number: int, ranges: tuple[OffsetRange, ...]) -> bool:
        """Replay one shard, and return whether it was tried twice."""
        operation = f"{self.lab.topic}/replay-{interval}"
        settings = {"shard": codec.plain(Shard(number, ranges)), "run_id": f"{operation}#abc#1"}
        # Outside of Airflow, a task cannot wait in the triggerer while the live job falls behind.
        pipeline = replace(self.lab.pipeline, backfill=BackfillPolicy(yield_to_live=False))
        task = self.lab.task(ReplayOffsetsOperator, operation, pipeline=pipeline, **settings)
        try:
            act(task)
        except ShardFailed:
            act(task)
            return True
        return False

    def start_afresh(self, patch: pytest.MonkeyPatch, start: str) -> Any:
        """Stop the job, and start it with a new store and a new checkpoint.

        :param patch: sets the connection of the new store.
        :param start: the start of the job.
        """
        self.lab.stop(self.lab.operation())
        self.lab.store.close()
        self.lab.store_url = f"sqlite:///{self.lab.home}/new.db"
        self.lab.store = open_store(self.lab.store_url)
        self.lab.store.create()
        for name, value in connections(self.lab.bootstrap, self.lab.store_url).items():
            patch.setenv(name, value)
        self.lab.checkpoint = str(self.lab.home / "new-checkpoint")
        return self.lab.maintain(start)


def of_program(lab: Lab, program: str, *arguments: str) -> Lab:
    """Return the lab with a program of ``jobs/sinks``, whose faults the tests set."""
    lab.application, lab.arguments = str(PROGRAM), (str(PROGRAMS / program), *arguments)
    return lab


def in_topic(lab: Lab) -> list[Record]:
    """Return the records of the lab's topic, read with Kafka's own client."""
    found = read_topic(lab.bootstrap, lab.topic, 3)
    return [Record(lab.topic, each.partition() or 0, each.offset() or 0) for each in found]


def in_output_topic(bootstrap: str, topic: str) -> Counter[Record]:
    """Return the source records that the headers of an output topic name."""
    found: Counter[Record] = Counter()
    for message in read_topic(bootstrap, topic, 1):
        headers = {name: (value or b"").decode() for name, value in message.headers() or []}
        position = (headers["source.topic"], int(headers["source.partition"]), int(headers["source.offset"]))
        found[Record(*position)] += 1
    return found


def read_topic(bootstrap: str, topic: str, partitions: int) -> list[Message]:
    """Return every record of a topic."""
    settings = {"bootstrap.servers": bootstrap, "group.id": "reads-only", "enable.auto.commit": False}
    found: list[Message] = []
    with closing(Consumer(settings)) as consumer:
        assigned = [TopicPartition(topic, number, 0) for number in range(partitions)]
        total = sum(consumer.get_watermark_offsets(each, timeout=DEADLINE_S)[1] for each in assigned)
        consumer.assign(assigned)
        while len(found) < total:
            message = consumer.poll(DEADLINE_S)
            assert message is not None
            assert message.error() is None
            found.append(message)
    return found


def in_files(folder: Path) -> Counter[Record]:
    """Return what a folder of Parquet files has, as a reader without Spark sees it."""
    return _counted(pyarrow.dataset.dataset(folder, format="parquet", partitioning="hive").to_table())


def in_delta(folder: Path) -> Counter[Record]:
    """Return what a Delta table has."""
    return _counted(DeltaTable(folder).to_pyarrow_table())


def in_iceberg(folder: Path) -> Counter[Record]:
    """Return what an Iceberg table has, by its newest metadata."""
    version = (folder / "metadata" / "version-hint.text").read_text()
    return _counted(StaticTable.from_metadata(f"{folder}/metadata/v{version}.metadata.json").scan().to_arrow())


def in_postgres(url: str) -> Counter[Record]:
    """Return what the table of ``jobs/sinks/jdbc.py`` has."""
    with psycopg.connect(url) as connection:
        return Counter(
            Record(*row) for row in connection.execute('SELECT topic, partition, "offset" FROM records').fetchall()
        )


def _counted(table: Any) -> Counter[Record]:
    columns = [table.column(name).to_pylist() for name in Record._fields]
    return Counter(Record(*row) for row in zip(*columns, strict=True))
