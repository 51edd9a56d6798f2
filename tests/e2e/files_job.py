"""A tracked job that appends files as a first program does: ``files_job.py <home>``."""

import sys
from pathlib import Path

from pyspark.sql import SparkSession
from pyspark.sql import functions as f

from airflow_provider_offsets.runtime import TrackedStream

OUT = str(Path(sys.argv[1]) / "out")
WRITES = 8
"""Writes per batch: with more of them, more meet those of another job."""


def main() -> None:
    """Run live until asked to stop, or replay a shard."""
    spark = SparkSession.builder.getOrCreate()
    with TrackedStream(spark) as stream:

        def write(batch, batch_id):
            rows = batch.select("partition", "offset", f.lit(stream.run_id).alias("run_id"))
            rows = rows.withColumn("day", f.col("offset") % 5)
            for number in range(WRITES):
                part = rows.where(f.col("offset") % WRITES == number)
                part.write.mode("append").partitionBy("day").parquet(OUT)

        stream.run(stream.read_kafka(maxOffsetsPerTrigger="60"), process=write)
    spark.stop()


main()
