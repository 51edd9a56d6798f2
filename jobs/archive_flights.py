"""An untracked job: archives the records of a topic as JSON files with a native file sink.

It is an ordinary Structured Streaming program that runs until its stop file appears. It uses only Spark's own offsets,
in the checkpoint.
"""

import argparse
import os
from pathlib import Path

from pyspark.sql import SparkSession


def main() -> None:
    """Run until the stop file exists."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--bootstrap-servers", default=os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9092"))
    options.add_argument("--topic", default="flights")
    options.add_argument("--folder", type=Path, required=True, help="where output, checkpoint and stop file are")
    options.add_argument("--checkpoint", help="where the checkpoint is, if not there: any URL that Spark can write to")
    options.add_argument("--max-offsets-per-trigger", default="20000")
    chosen = options.parse_args()

    spark = SparkSession.builder.getOrCreate()
    records = (
        spark.readStream.format("kafka")
        .option("kafka.bootstrap.servers", chosen.bootstrap_servers)
        .option("subscribe", chosen.topic)
        .option("startingOffsets", "earliest")
        .option("maxOffsetsPerTrigger", chosen.max_offsets_per_trigger)
        .load()
    )
    query = (
        records.selectExpr("topic", "partition", "offset", "CAST(value AS STRING) AS value")
        .writeStream.format("json")
        .option("path", str(chosen.folder / "output"))
        .option("checkpointLocation", chosen.checkpoint or str(chosen.folder / "checkpoint"))
        .trigger(processingTime="500 milliseconds")
        .start()
    )
    while not query.awaitTermination(1):
        if (chosen.folder / "stop").exists():
            query.stop()
    spark.stop()


if __name__ == "__main__":
    main()
