"""A tracked job for the tests: one row of evidence for each record and batch, and faults on request.

``evidence_job.py <home> [stateful] [batch-ids] [any-spark]``. *Stateful*: the query keeps state. *Batch-ids*: the sink
accepts a batch only if its id is greater than every id that it has. Tables that are idempotent by batch id do so.
*Any-spark*: every version of Spark counts as one with the known bugs.

The faults file is JSON, ``[{"epoch": 1, "batch": 2, "at": "before", "do": "kill"}]``.

*At* is ``planned``, before the batch is known to the record; ``before`` or ``after`` the rows are written;
``recorded``, once the batch is; or ``start``, before the first batch, which makes it batch 0. Processed batches count
from 1 in each epoch. A planned batch does not count yet; ``null`` matches the next batch.

*Do* is ``kill``, ``fail``, ``wait`` for the file ``go``, ``cut`` or ``bug``. ``cut`` kills the JVM while the rows of
the batch are collected. ``bug`` fails once as a known bug of Spark does.
"""

import contextlib
import json
import os
import re
import signal
import sqlite3
import sys
import time
from dataclasses import replace
from pathlib import Path

from pyspark.sql import SparkSession
from pyspark.sql.classic import dataframe

from airflow_provider_offsets.runtime import TrackedStream, known_bugs
from airflow_provider_offsets.runtime.held_epoch import HeldEpoch
from airflow_provider_offsets.stores import protocols  # noqa: F401  # the shipped zip holds the stores too

HOME, KINDS = Path(sys.argv[1]), sys.argv[2:]
if "any-spark" in KINDS:
    known_bugs.KNOWN_BUGS = tuple(replace(bug, versions=re.compile(".*")) for bug in known_bugs.KNOWN_BUGS)
DEADLINE_S = 600
WIDE = "repeat('x', 10000) AS padding"
"""A thousand rows of this size exceed the buffers of a socket."""


def main() -> None:
    """Run until asked to stop, or until a fault ends the job."""
    spark = SparkSession.builder.getOrCreate()
    count = 0
    with TrackedStream(spark) as stream:

        def fault(at: str) -> None:
            faults = json.loads((HOME / "faults.json").read_text())
            for each in faults:
                if (each["epoch"], each["at"]) == (stream.epoch, at) and each["batch"] in (None, count):
                    happen(each["do"], spark)

        def process(batch, batch_id):
            nonlocal count
            count += 1
            fault("before")
            columns = ["topic", "partition", "offset", *([WIDE] if (HOME / "cut.happened").exists() else [])]
            write([(*row[:3], stream.epoch, batch_id) for row in batch.selectExpr(*columns).collect()])
            fault("after")

        begin, record = HeldEpoch.begin, HeldEpoch.record

        def begin_or_fault(epoch, batch):
            fault("planned")
            begin(epoch, batch)

        def record_or_fault(epoch, batch, following=None, **rows):
            record(epoch, batch, following, **rows)
            fault("recorded")

        HeldEpoch.begin, HeldEpoch.record = begin_or_fault, record_or_fault
        fault("start")
        records = stream.read_kafka(maxOffsetsPerTrigger="5000")
        if "stateful" in KINDS:
            records = records.dropDuplicates(["topic", "partition", "offset"])
        stream.run(records, process=process, processingTime="200 milliseconds")
    spark.stop()


def write(rows):
    """Add the rows of one batch to the evidence."""
    database = sqlite3.connect(HOME / "evidence.db", timeout=DEADLINE_S)
    with database:
        database.execute("CREATE TABLE IF NOT EXISTS evidence (topic, partition, offset, epoch, batch_id)")
        [newest] = database.execute("SELECT max(batch_id) FROM evidence").fetchone()
        if "batch-ids" not in KINDS or newest is None or not rows or newest < rows[0][-1]:
            database.executemany("INSERT INTO evidence VALUES (?, ?, ?, ?, ?)", rows)
    database.close()


def happen(what: str, spark: SparkSession) -> None:
    """Die at once, fail, lose the JVM, or wait for the test."""
    is_again = (HOME / f"{what}.happened").exists()
    (HOME / f"{what}.happened").touch()
    if what == "bug":
        if not is_again:
            raise RuntimeError(
                "NullPointerException\n\tat org.apache.spark.sql.kafka010.KafkaMicroBatchStream$.metrics("
            )
        return
    if what == "cut":
        kill_jvm_in_collect(spark)
        return
    if what == "kill":
        os.killpg(os.getpgid(0), signal.SIGKILL)
    if what == "fail":
        raise ValueError("the job's own mistake")
    deadline = time.monotonic() + DEADLINE_S
    while not (HOME / "go").exists():
        if time.monotonic() > deadline:
            raise TimeoutError("nobody said go")
        time.sleep(0.05)


def kill_jvm_in_collect(spark: SparkSession) -> None:
    """Make the next ``collect()`` lose its JVM once it has the first row."""
    jvm, load = spark._jvm.java.lang.ProcessHandle.current().pid(), dataframe._load_from_socket

    @contextlib.contextmanager
    def load_and_kill(*arguments):
        with load(*arguments) as stream:
            yield (row for number, row in enumerate(stream) if number or not os.kill(jvm, signal.SIGKILL))

    dataframe._load_from_socket = load_and_kill


main()
