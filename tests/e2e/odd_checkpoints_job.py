"""A program that starts a query on each folder of a list, and prints each outcome as one line of JSON."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

PATIENCE_S = 60.0


def outcome_of(spark: Any, bootstrap: str, topic: str, folder: str, start: str) -> list[Any]:
    """Run a query until it has nothing more to read, or has died."""
    found: list[Any] = []

    def write(frame: Any, batch_id: int) -> None:
        records: dict[int, list[int]] = {}
        for row in frame.select("partition", "offset").collect():
            records.setdefault(row.partition, []).append(row.offset)
        found.append([batch_id, [[number, min(each), max(each) + 1] for number, each in sorted(records.items())]])

    frame = (
        spark.readStream.format("kafka")
        .option("kafka.bootstrap.servers", bootstrap)
        .option("subscribe", topic)
        .option("startingOffsets", start)
        .load()
    )
    query, until = None, time.monotonic() + PATIENCE_S
    try:
        query = frame.writeStream.foreachBatch(write).option("checkpointLocation", folder).start()
        while time.monotonic() < until:
            if query.awaitTermination(0.3):
                break
            if query.status["message"] == "Waiting for data to arrive":
                break
    except Exception:  # the error is the outcome that the test compares
        found.append("died")
    if query is not None:
        query.stop()
    return found


def main() -> None:
    """Run all folders of the list in one session."""
    bootstrap, topic, listed = sys.argv[1:]
    spark = SparkSession.builder.master("local[2]").getOrCreate()
    spark.sparkContext.setLogLevel("OFF")
    for folder, start in json.loads(Path(listed).read_text()):
        print(f"OUTCOME {json.dumps(outcome_of(spark, bootstrap, topic, folder, start))}", flush=True)
    spark.stop()


if __name__ == "__main__":
    main()
