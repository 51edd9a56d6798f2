"""The lab of a DStream job like the one of the slide deck, ``jobs/dstream``, and of the stores that hold its offsets.

The tests read what the job stored with each server's plain client, never with the product.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import happybase
from confluent_kafka import Consumer, KafkaError, TopicPartition
from kazoo.client import KazooClient

from airflow_provider_offsets.core.pipeline import SparkJob, StreamingPipeline
from stack import dstream
from tests.e2e.lab import DEADLINE_S, Lab, wait_for

TABLE = "e2e_dstream"
SPARK_CONN = {"conn_type": "spark", "host": "local[2]", "extra": {"spark-binary": "spark3-submit"}}
"""The Spark connection of the job. The folder of ``spark3-submit`` has to be on the PATH."""


@dataclass
class DStreamLab(Lab):
    """The job with a topic, a group and an offset store. It is started and stopped as a person would do it."""

    application: str = str(dstream.JAR)
    jars: str = ""
    thrift: str = ""
    zookeeper: str = ""
    strategy: str = "subscribe"
    keeps: str = "hbase"
    """The offset stores of the job: ``hbase``, ``zookeeper``, ``kafka``, or several separated by commas."""
    conn_ids: tuple[str, ...] = ()
    """The same stores as Airflow connections, for the pipeline."""
    batch_ms: int = 500
    records_per_s: int = 10_000
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def pipeline(self) -> StreamingPipeline:
        """The pipeline as the operators get it."""
        arguments = {
            "--bootstrap-servers": self.bootstrap,
            "--group": self.group,
            f"--{self.strategy}": f"{self.topic}.*" if self.strategy == "subscribe-pattern" else self.topic,
            "--offsets": self.keeps,
            "--zookeeper": self.zookeeper,
            "--hbase-table": TABLE,
            "--output": str(self.home),
            "--batch-ms": str(self.batch_ms),
        }
        return StreamingPipeline(
            name=self.topic,
            topics=(self.topic,),
            group_id=self.group,
            tracked=False,
            store_conn_id="offsets_default",
            offsets_in=self.conn_ids or ("offsets_of_the_job",),
            stop=self.stop_policy,
            start_timeout_s=DEADLINE_S,
            policy=self.policy,
            rollback=self.rollback,
            job=SparkJob(
                application=self.application,
                main_class="org.example.dstream.Job",
                spark_conn_id="spark_dstream",
                arguments=tuple(each for pair in arguments.items() for each in pair),
                conf={
                    "spark.ui.enabled": "false",
                    "spark.streaming.kafka.maxRatePerPartition": str(self.records_per_s),
                },
                log_dir=str(self.home / "logs"),
            ),
        )

    @property
    def group(self) -> str:
        """The group. The ``:`` in its name makes its rows hard to tell from those of another group."""
        return f"{self.topic}:1"

    def start(self) -> None:
        """Start the job, as ``spark3-submit`` of a shell would."""
        job = self.pipeline.job
        conf = [each for name, value in job.conf.items() for each in ("--conf", f"{name}={value}")]
        argv = [str(dstream.BIN / "spark3-submit"), "--master", "local[2]", "--class", job.main_class, *conf]
        with (self.home / "driver.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*argv, job.application, *job.arguments], stdout=log, stderr=log, start_new_session=True
            )

    def stop(self, operation: str = "") -> Any:
        """Stop the job, and return its exit code.

        The job gets SIGTERM in its process group or, with ``operation``, is stopped by the operator.
        """
        if operation:
            return super().stop(operation)
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGTERM)
        return self.exit_code()

    def exit_code(self) -> int:
        """Wait for the end of the job, and return its exit code."""
        assert self.process is not None
        return self.process.wait(DEADLINE_S)

    def wait_for_batches(self, count: int) -> None:
        """Wait until this many batches have been written since this lab began."""
        wait_for(lambda: len(self.batches()) >= count or self._is_over(), f"{count} batches")
        assert not self._is_over(), (self.home / "driver.log").read_text()[-3000:]

    def _is_over(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def batches(self) -> list[Path]:
        """Return the files of the batches whose output is complete, oldest first."""
        return sorted(file for file in self.home.glob("*.tsv") if file.is_file())

    def planned(self) -> list[str]:
        """Return the times of the batches that Spark planned, from its log."""
        return re.findall(r"JobScheduler: Added jobs for time (\d{13}) ms", (self.home / "driver.log").read_text())

    def evidence(self) -> Counter[tuple[int, int]]:
        """Return how often each (partition, offset) was read."""
        found: Counter[tuple[int, int]] = Counter()
        for batch in self.batches():
            for line in batch.read_text().splitlines():
                topic, partition, offset, batch_ms = line.split("\t")
                assert (topic, batch_ms) == (self.topic, batch.stem)
                found[int(partition), int(offset)] += 1
        return found

    @property
    def ends(self) -> dict[int, int]:
        """The offset after the last evidence in each partition."""
        ends: dict[int, int] = {}
        for partition, offset in self.evidence():
            ends[partition] = max(ends.get(partition, 0), offset + 1)
        return ends

    @property
    def lost(self) -> set[tuple[int, int]]:
        """The records of the topic, read from its beginning, without evidence."""
        return self._records() - set(self.evidence())

    def _records(self) -> set[tuple[int, int]]:
        found: set[tuple[int, int]] = set()
        with self._consumer() as consumer:
            reading = set(self.produced)
            consumer.assign([TopicPartition(self.topic, partition, 0) for partition in reading])
            while reading:
                message = consumer.poll(DEADLINE_S)
                assert message is not None, "Kafka does not answer"
                if message.error() is None:
                    found.add((message.partition(), message.offset()))
                else:
                    assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
                    reading.discard(message.partition())
        return found

    def stored_in_hbase(self) -> list[dict[int, int]]:
        """Return the rows of the group, oldest first."""
        prefix = f"{self.topic}:{self.group}:"
        with self._table() as table:
            rows = table.scan(row_prefix=prefix.encode())
            own = [cells for key, cells in rows if len(key) == len(prefix) + 13]
        return [{int(name.split(b":")[1]): int(value) for name, value in cells.items()} for cells in own]

    def put_row(self, group: str, batch_ms: int, offset: int) -> None:
        """Store this offset for partitions 0 and 1 of the topic, as another job with another group would."""
        with self._table() as table:
            table.put(f"{self.topic}:{group}:{batch_ms}", {f"offsets:{partition}": str(offset) for partition in (0, 1)})

    @contextmanager
    def _table(self) -> Iterator[Any]:
        host, _, port = self.thrift.partition(":")
        with closing(happybase.Connection(host, int(port))) as connection:
            yield connection.table(TABLE)

    def stored_in_zookeeper(self) -> dict[int, int]:
        """Return the offsets in the znodes of the group."""
        folder = f"/consumers/{self.group}/offsets/{self.topic}"
        with self._zookeeper() as client:
            return {int(name): int(client.get(f"{folder}/{name}")[0]) for name in client.get_children(folder)}

    @contextmanager
    def _zookeeper(self) -> Iterator[KazooClient]:
        client = KazooClient(self.zookeeper)
        client.start()
        try:
            yield client
        finally:
            client.stop()
            client.close()

    def stored_in_kafka(self) -> dict[int, int]:
        """Return the committed offsets of the group."""
        with self._consumer(self.group) as consumer:
            asked = [TopicPartition(self.topic, partition) for partition in self.produced]
            committed = consumer.committed(asked, timeout=DEADLINE_S)
        return {each.partition: each.offset for each in committed if each.offset >= 0}

    @contextmanager
    def _consumer(self, group: str = "reads-and-commits-nothing") -> Iterator[Consumer]:
        consumer = Consumer(
            {
                "bootstrap.servers": self.bootstrap,
                "group.id": group,
                "enable.auto.commit": False,
                "enable.partition.eof": True,
            }
        )
        try:
            yield consumer
        finally:
            consumer.close()

    def close(self) -> None:
        """Stop whatever runs, and delete whatever is stored under the topic's name."""
        super().close()
        if self.process is not None:
            self.process.wait(DEADLINE_S)
        with self._table() as table:
            for key, _ in table.scan(row_prefix=f"{self.topic}:".encode()):
                table.delete(key)
        with self._zookeeper() as client:
            client.delete(f"/consumers/{self.group}", recursive=True)
