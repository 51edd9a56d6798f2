"""The job of ``test_spark.py``: ``story_job.py <home> process|sink``, for each Spark and each Python of a driver.

It writes topic, partition and offset of each record to Parquet. While the file ``hold`` exists, every tenth record of
partition 0 waits in the middle of a batch. While the file ``die`` exists, a batch ends the driver that has written it
and not recorded it.
"""

import os
import signal
import sys
import time
from pathlib import Path

from pyspark.sql import SparkSession
from pyspark.sql import functions as f

import airflow_provider_offsets
from airflow_provider_offsets.runtime import TrackedStream
from airflow_provider_offsets.runtime.held_epoch import HeldEpoch

HOME, WAY = Path(sys.argv[1]), sys.argv[2]
DEADLINE_S = 600


def hold(partition, offset):
    """Return the offset, after a wait while the test holds the batch."""
    deadline = time.monotonic() + DEADLINE_S
    while (partition, offset % 10) == (0, 0) and (HOME / "hold").exists() and time.monotonic() < deadline:
        (HOME / "hold.happened").touch()
        time.sleep(0.05)
    return offset


def append(batch, batch_id):
    """Add the rows of one batch to the folder."""
    batch.write.mode("append").parquet(str(HOME / "output"))


record = HeldEpoch.record


def record_or_die(epoch, *arguments, **settings):
    """Record the batch, unless the test wants the driver to die first."""
    if (HOME / "die").exists():
        os.killpg(os.getpgid(0), signal.SIGKILL)
    record(epoch, *arguments, **settings)


HeldEpoch.record = record_or_die
version = ".".join(map(str, sys.version_info[:2]))
spark = SparkSession.builder.getOrCreate()
print(f"Python {version}, Spark {spark.version}, package {airflow_provider_offsets.__file__}", flush=True)
with TrackedStream(spark) as stream:
    records = stream.read_kafka(maxOffsetsPerTrigger="20000")
    rows = records.select("topic", "partition", f.udf(hold, "long")("partition", "offset").alias("offset"))
    if WAY == "process":
        stream.run(rows, process=append, processingTime="200 milliseconds")
    else:
        stream.run(rows, sink=lambda writer: writer.format("parquet").option("path", str(HOME / "output")))
spark.stop()
