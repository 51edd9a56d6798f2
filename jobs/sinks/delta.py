"""Write the records of a topic to a Delta table, whose log names each batch.

The table skips a batch that it has already: ``stream.write_options`` sets Delta's own application id and version. A
rewind and a replay add their records again, because a person asked for that. With ``--merge``, topic, partition and
offset are a key, and a record that is read again replaces its row.
"""

import argparse
from collections.abc import Callable

from pyspark.sql import DataFrame, SparkSession

from airflow_provider_offsets import TrackedStream

COLUMNS = "topic STRING, partition INT, offset BIGINT, value STRING"
USER_METADATA = "spark.databricks.delta.commitInfo.userMetadata"
TRIES = 20
CONFLICT = "DELTA_CONCURRENT"  # in the text of each error that another writer causes
MERGE = """
MERGE INTO delta.`{table}` AS old USING batch AS new
ON old.topic = new.topic AND old.partition = new.partition AND old.offset = new.offset
WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *
"""


def append(batch: DataFrame, write_options: dict[str, str], table: str) -> None:
    """Add the rows of one batch, unless the table has the batch already."""
    batch.write.format("delta").options(**write_options).mode("append").save(table)


def merge(batch: DataFrame, write_options: dict[str, str], table: str) -> None:
    """Insert the rows of one batch, or replace those of the same records.

    A MERGE takes no writer options, so the batch is named in the settings of the session, and only for this MERGE.
    """
    spark = batch.sparkSession
    batch.createOrReplaceTempView("batch")
    spark.conf.set(USER_METADATA, write_options["userMetadata"])
    try:
        without_conflict(lambda: spark.sql(MERGE.format(table=table)))
    finally:
        spark.conf.unset(USER_METADATA)


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
    options.add_argument("--table", required=True, help="folder of the table: a path or URL that Spark can write to")
    options.add_argument("--merge", action="store_true", help="replace the rows of records that are read again")
    chosen = options.parse_args()

    spark = SparkSession.builder.getOrCreate()
    spark.sql(f"CREATE TABLE IF NOT EXISTS delta.`{chosen.table}` ({COLUMNS}) USING delta")
    write = merge if chosen.merge else append
    with TrackedStream(spark) as stream:
        records = stream.read_kafka(maxOffsetsPerTrigger="20000")
        rows = records.selectExpr("topic", "partition", "offset", "CAST(value AS STRING) AS value")
        stream.run(
            rows,
            process=lambda batch, _: write(batch, stream.write_options("delta"), chosen.table),
            processingTime="1 second",
        )
    spark.stop()


if __name__ == "__main__":
    main()
