"""Classify departure delays of flights: an ordinary Structured Streaming program, and three lines of tracking.

It writes three tables to one SQLite file:

- ``alerts`` has the record's topic, partition and offset as its key, so a replayed record is one row;
- ``evidence`` has one row per record and batch and no key, so a replayed record is two rows and shows;
- ``batches`` has one row per batch, in the same transaction, so that the audits can say what is in the sink.
"""

import argparse
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as f

from airflow_provider_offsets import TrackedStream

SCHEMA = "flight INT, carrier STRING, origin STRING, dest STRING, tailnum STRING, dep_delay DOUBLE"
TABLES = """
CREATE TABLE IF NOT EXISTS alerts (
    topic TEXT, partition INTEGER, offset INTEGER, flight TEXT, delay_minutes REAL, verdict TEXT,
    PRIMARY KEY (topic, partition, offset)
);
CREATE TABLE IF NOT EXISTS evidence (topic TEXT, partition INTEGER, offset INTEGER, epoch INTEGER, batch_id INTEGER);
CREATE TABLE IF NOT EXISTS batches (batch_key TEXT, rows INTEGER, epoch INTEGER, written_at_ms INTEGER);
"""


def classify(records: DataFrame) -> DataFrame:
    """Return one row per record: its position in Kafka, its flight, and its delay."""
    flight = f.from_json(f.col("value").cast("string"), SCHEMA)
    delay = f.col("flight.dep_delay")
    verdict = (
        f.when(delay.isNull(), "cancelled").when(delay < 15, "on time").when(delay < 60, "late").otherwise("very late")
    )
    return records.select("topic", "partition", "offset", flight.alias("flight")).select(
        "topic",
        "partition",
        "offset",
        f.concat("flight.carrier", "flight.flight").alias("flight"),
        delay.alias("delay_minutes"),
        verdict.alias("verdict"),
    )


def write(batch: DataFrame, batch_id: int, *, stream: TrackedStream, output: Path) -> None:
    """Write one batch in one transaction, which is complete when this function returns."""
    rows = [tuple(row) for row in batch.collect()]
    evidence = [(*row[:3], stream.epoch, batch_id) for row in rows]
    with closing(sqlite3.connect(output, timeout=30)) as database, database:
        database.executemany("INSERT OR REPLACE INTO alerts VALUES (?, ?, ?, ?, ?, ?)", rows)
        database.executemany("INSERT INTO evidence VALUES (?, ?, ?, ?, ?)", evidence)
        now_ms = time.time_ns() // 1_000_000
        database.execute("INSERT INTO batches VALUES (?, ?, ?, ?)", [stream.batch_key, len(rows), stream.epoch, now_ms])


def main() -> None:
    """Run until asked to stop."""
    options = argparse.ArgumentParser(description=__doc__)
    # The path must not depend on this file's location: a rollback runs a copy elsewhere.
    options.add_argument("--output", type=Path, required=True)
    options.add_argument("--max-offsets-per-trigger", default="20000")
    chosen = options.parse_args()
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(chosen.output, timeout=30)) as database:
        database.executescript(TABLES)

    spark = SparkSession.builder.getOrCreate()
    with TrackedStream(spark) as stream:
        records = stream.read_kafka(maxOffsetsPerTrigger=chosen.max_offsets_per_trigger)
        stream.run(
            classify(records),
            process=lambda batch, batch_id: write(batch, batch_id, stream=stream, output=chosen.output),
            processingTime="1 second",
        )
    spark.stop()


if __name__ == "__main__":
    main()
