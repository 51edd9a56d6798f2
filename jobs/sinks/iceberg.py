"""Write the records of a topic to an Iceberg table, whose snapshots name each batch.

Iceberg itself accepts a batch twice. So the program looks the batch up in the table's snapshots before it writes. A
rewind and a replay add their records again, because a person asked for that. With ``--merge``, topic, partition and
offset are a key, and a record that is read again replaces its row.
"""

import argparse
from collections.abc import Callable

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as f

from airflow_provider_offsets import TrackedStream

COLUMNS = "topic STRING, partition INT, offset BIGINT, value STRING"
TRIES = 20
CONFLICT = "org.apache.iceberg.exceptions"  # in the text of each error that another writer causes
MERGE = """
MERGE INTO {table} AS old USING batch AS new
ON old.topic = new.topic AND old.partition = new.partition AND old.offset = new.offset
WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *
"""


def append(batch: DataFrame, stream: TrackedStream, table: str) -> None:
    """Add the rows of one batch, unless the table has the batch already."""
    snapshots = batch.sparkSession.table(f"{table}.snapshots")
    if snapshots.where(f.col("summary")["offsets.batch"] == stream.batch_key).isEmpty():
        batch.writeTo(table).options(**stream.write_options("iceberg")).append()


def merge(batch: DataFrame, stream: TrackedStream, table: str) -> None:
    """Insert the rows of one batch, or replace those of the same records.

    A MERGE takes no writer options, so the batch is named in the settings of the session, and only for this MERGE.
    """
    spark = batch.sparkSession
    batch.createOrReplaceTempView("batch")
    settings = {f"spark.sql.iceberg.{name}": value for name, value in stream.write_options("iceberg").items()}
    for name, value in settings.items():
        spark.conf.set(name, value)
    try:
        without_conflict(lambda: spark.sql(MERGE.format(table=table)))
    finally:
        for name in settings:
            spark.conf.unset(name)


def without_conflict(change: Callable[[], object]) -> None:
    """Make a change again if another writer has changed the table meanwhile, such as a replay.

    A second MERGE does no harm, because it finds its own rows.
    """
    for tries_left in reversed(range(TRIES)):
        try:
            change()
            return
        except Exception as error:
            if CONFLICT not in str(error) or not tries_left:
                raise


def main() -> None:
    """Run live until asked to stop, or replay a shard."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--table", required=True, help="the table, with its catalog: lake.flights.records")
    options.add_argument("--merge", action="store_true", help="replace the rows of records that are read again")
    chosen = options.parse_args()

    spark = SparkSession.builder.getOrCreate()
    spark.sql(f"CREATE TABLE IF NOT EXISTS {chosen.table} ({COLUMNS}) USING iceberg")
    write = merge if chosen.merge else append
    with TrackedStream(spark) as stream:
        records = stream.read_kafka(maxOffsetsPerTrigger="20000")
        rows = records.selectExpr("topic", "partition", "offset", "CAST(value AS STRING) AS value")
        stream.run(rows, process=lambda batch, _: write(batch, stream, chosen.table), processingTime="1 second")
    spark.stop()


if __name__ == "__main__":
    main()
