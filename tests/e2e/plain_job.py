"""A streaming job as a team has it before it uses this provider: ``plain_job.py <home> <bootstrap servers> <topic>``.

It keeps its offsets in its own checkpoint, and adds one row of evidence for each record. With the file ``kill`` in
``home`` before a batch, it dies after the rows of that batch are written and before Spark has committed it.
"""

import os
import signal
import sqlite3
import sys
from pathlib import Path

from pyspark.sql import SparkSession

HOME, BOOTSTRAP, TOPIC = Path(sys.argv[1]), sys.argv[2], sys.argv[3]


def process(batch, batch_id):
    """Write the evidence of a batch."""
    dies = (HOME / "kill").exists()
    rows = [(*row, 0, batch_id) for row in batch.select("topic", "partition", "offset").collect()]
    database = sqlite3.connect(HOME / "evidence.db", timeout=600)
    with database:
        database.execute("CREATE TABLE IF NOT EXISTS evidence (topic, partition, offset, epoch, batch_id)")
        database.executemany("INSERT INTO evidence VALUES (?, ?, ?, ?, ?)", rows)
    database.close()
    if dies:
        os.killpg(os.getpgid(0), signal.SIGKILL)


def main() -> None:
    """Run until killed."""
    spark = SparkSession.builder.getOrCreate()
    options = {"kafka.bootstrap.servers": BOOTSTRAP, "subscribe": TOPIC, "startingOffsets": "earliest"}
    # What the test produces in one go is one batch, also on a busy machine.
    records = spark.readStream.format("kafka").options(**options, minOffsetsPerTrigger=30).load()
    writer = records.writeStream.foreachBatch(process).trigger(processingTime="200 milliseconds")
    writer.option("checkpointLocation", f"{HOME}/checkpoint").start().awaitTermination()


main()
