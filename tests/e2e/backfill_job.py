"""The program of the backfill test: how late flights depart, one row per record, keyed by partition and offset.

A replayed record replaces its row, and names the run that wrote it last: empty for the live job.
"""

import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as f

from airflow_provider_offsets.runtime import TrackedStream

LATE_MINUTES = 15
SCHEMA = "carrier STRING, flight INT, dep_delay DOUBLE"
TABLE = """
CREATE TABLE IF NOT EXISTS times (
    partition INTEGER, offset INTEGER, flight TEXT, is_late INTEGER, run_id TEXT, PRIMARY KEY (partition, offset)
)
"""


def judge(records: DataFrame) -> DataFrame:
    """Return one row for each record."""
    flight = f.from_json(f.col("value").cast("string"), SCHEMA)
    named = records.select("partition", "offset", flight.alias("flight"))
    is_late = f.coalesce(f.col("flight.dep_delay") >= LATE_MINUTES, f.lit(False))
    return named.select("partition", "offset", f.concat("flight.carrier", "flight.flight"), is_late.cast("int"))


def write(batch: DataFrame, run_id: str, output: Path) -> None:
    """Upsert one batch in one transaction. The live job does not overwrite what a replay has corrected."""
    rows = [(*row, run_id) for row in batch.collect()]
    with closing(sqlite3.connect(output, timeout=60)) as database, database:
        database.execute(TABLE)
        database.executemany("INSERT OR REPLACE INTO times VALUES (?, ?, ?, ?, ?)", rows)


def main() -> None:
    """Run until asked to stop, or until the shard is finished. A shard waits while the file ``hold`` exists."""
    home = Path(sys.argv[1])
    spark = SparkSession.builder.getOrCreate()
    with TrackedStream(spark) as stream:
        while stream.is_replay and (home / "hold").exists():
            time.sleep(0.1)
        records = stream.read_kafka()
        stream.run(
            judge(records),
            process=lambda batch, batch_id: write(batch, stream.run_id, home / "times.db"),
            processingTime="1 second",
        )
    spark.stop()


if __name__ == "__main__":
    main()
