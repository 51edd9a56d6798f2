"""Append the records of a topic to a folder of Parquet files, without or with a partition for each batch.

A plain append names no batch. So records are in the folder twice after a batch that is tried again, after a rewind and
after a replay. With ``--by-batch``, each batch overwrites a partition of its own. So a batch that is tried again
replaces its first output, and each row says which batch or replay wrote it.
"""

import argparse

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as f

from airflow_provider_offsets import TrackedStream


def append(batch: DataFrame, folder: str) -> None:
    """Add the rows of one batch to the folder."""
    batch.write.mode("append").parquet(folder)


def overwrite(batch: DataFrame, batch_key: str, folder: str) -> None:
    """Write one batch to its own partition of the folder, and replace what is there.

    A dynamic overwrite uses a scratch folder of its own, so live job and replays can write at the same time.
    """
    rows = batch.withColumn("batch_key", f.lit(batch_key))
    dynamic = rows.write.partitionBy("batch_key").option("partitionOverwriteMode", "dynamic")
    dynamic.mode("overwrite").parquet(folder)


def main() -> None:
    """Run live until asked to stop, or replay a shard."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--folder", required=True, help="where the files are: a path or URL that Spark can write to")
    options.add_argument("--by-batch", action="store_true", help="give each batch a partition, which is overwritten")
    chosen = options.parse_args()

    spark = SparkSession.builder.getOrCreate()
    with TrackedStream(spark) as stream:

        def write(batch: DataFrame, _: int) -> None:
            if chosen.by_batch:
                overwrite(batch, stream.batch_key, chosen.folder)
            else:
                append(batch, chosen.folder)

        records = stream.read_kafka(maxOffsetsPerTrigger="20000")
        rows = records.selectExpr("topic", "partition", "offset", "CAST(value AS STRING) AS value")
        stream.run(rows, process=write, processingTime="1 second")
    spark.stop()


if __name__ == "__main__":
    main()
