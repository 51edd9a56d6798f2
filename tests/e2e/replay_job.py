"""A tracked job for the tests of replays: ``replay_job.py <home> [<how>]``.

It writes one row of evidence for each record it reads, with the run id and the batch id. *How*: ``process``, by
default; ``files``, which also writes Parquet files with the batch key; ``known``, whose sink skips a batch id that it
has; ``peek``, which reads from its batch before it processes it; ``sink``, with a sink of Spark's own and a function
that writes replays; ``stateful``.

While the file ``hold`` exists a replay waits after its rows are written. The first one to find ``kill`` removes it
and dies there.
"""

import os
import signal
import sqlite3
import sys
import time
from pathlib import Path

from pyspark.sql import SparkSession
from pyspark.sql import functions as f

from airflow_provider_offsets.runtime import TrackedStream

HOME, HOW = Path(sys.argv[1]), (*sys.argv[2:], "process")[0]
DEADLINE_S = 600


def main() -> None:
    """Run live until asked to stop, or replay a shard."""
    spark = SparkSession.builder.getOrCreate()
    with TrackedStream(spark) as stream:

        def write(batch, batch_id):
            if HOW == "peek" and batch.isEmpty():
                return
            database = sqlite3.connect(HOME / "evidence.db", timeout=DEADLINE_S)
            database.execute("CREATE TABLE IF NOT EXISTS evidence (topic, partition, offset, epoch, batch_id, run_id)")
            known = database.execute("SELECT 1 FROM evidence WHERE batch_id = ?", (batch_id,)).fetchone()
            if not (HOW == "known" and known):
                rows = [tuple(row) for row in batch.select("topic", "partition", "offset").collect()]
                with database:
                    made = [(*row, stream.epoch, batch_id, stream.run_id) for row in rows]
                    database.executemany("INSERT INTO evidence VALUES (?, ?, ?, ?, ?, ?)", made)
            database.close()
            if HOW == "files":
                keyed = batch.select("partition", "offset", f.lit(stream.batch_key).alias("batch_key"))
                keyed.write.mode("append").parquet(str(HOME / "files"))
            wait_or_die()

        records = stream.read_kafka(maxOffsetsPerTrigger="50")
        if HOW == "stateful":
            records = records.dropDuplicates(["value"])
        if HOW == "sink":
            stream.run(records, sink=to_nowhere, replay_sink=write)
        else:
            stream.run(records, process=write)
    spark.stop()


def to_nowhere(writer):
    """Write nothing."""
    return writer.format("noop")


def wait_or_die() -> None:
    """Wait while the file ``hold`` exists, or die if the file ``kill`` does."""
    if (HOME / "kill").exists():
        (HOME / "kill").unlink()
        os.killpg(os.getpgid(0), signal.SIGKILL)
    deadline = time.monotonic() + DEADLINE_S
    while (HOME / "hold").exists() and time.monotonic() < deadline:
        (HOME / "hold.happened").touch()
        time.sleep(0.05)


main()
