"""A tracked job with a sink of Spark's own, for the tests: ``sink_job.py <home> <json|kafka> <bootstrap or ->``.

While the file ``hold`` exists, every tenth record of partition 0 waits: the batch is then half written, with the other
partitions complete. The faults file is that of ``evidence_job.py`` with one place, ``committed``: between Spark's
commit and the record.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

from pyspark.sql import SparkSession
from pyspark.sql import functions as f

from airflow_provider_offsets.runtime import TrackedStream
from airflow_provider_offsets.runtime.held_epoch import HeldEpoch

HOME, KIND, BOOTSTRAP = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
DEADLINE_S = 600


def hold(partition, offset):
    """Return the offset, after a wait while the test holds the batch."""
    deadline = time.monotonic() + DEADLINE_S
    while (partition, offset % 10) == (0, 0) and (HOME / "hold").exists() and time.monotonic() < deadline:
        (HOME / "hold.happened").touch()
        time.sleep(0.05)
    return offset


def to_files(writer):
    """Write JSON files, into one folder per partition."""
    return writer.format("json").option("path", str(HOME / "output")).partitionBy("partition")


def to_kafka(writer):
    """Write to the topic that has the input's name with a suffix."""
    return writer.format("kafka").option("kafka.bootstrap.servers", BOOTSTRAP)


def main() -> None:
    """Run until asked to stop, or until a fault ends the job."""
    spark = SparkSession.builder.getOrCreate()
    # A missing id in the sink's own log becomes visible at the next compaction.
    spark.conf.set("spark.sql.streaming.fileSink.log.compactInterval", "2")
    with TrackedStream(spark) as stream:
        count = 0
        record = HeldEpoch.record

        def record_or_fault(epoch, batch, following=None, **rows):
            nonlocal count
            count += 1
            for each in json.loads((HOME / "faults.json").read_text()):
                if (each["epoch"], each["batch"], each["at"]) == (stream.epoch, count, "committed"):
                    os.killpg(os.getpgid(0), signal.SIGKILL)
            record(epoch, batch, following, **rows)

        HeldEpoch.record = record_or_fault
        records = stream.read_kafka(maxOffsetsPerTrigger="30")
        held = records.select("topic", "partition", f.udf(hold, "long")("partition", "offset").alias("offset"))
        if KIND == "json":
            stream.run(held, sink=to_files, processingTime="200 milliseconds")
        else:
            value = f.to_json(f.struct("partition", "offset")).alias("value")
            stream.run(held.select(f.concat("topic", f.lit("-output")).alias("topic"), value), sink=to_kafka)
    spark.stop()


main()
