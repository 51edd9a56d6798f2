"""An archive of Spark's classes (class data sharing), with which each driver of the tests starts in half the time.

The JVM checks the archive against its jars, and starts without it if they differ. ``class_archive.py <bootstrap>
<topic> <home>`` is the program whose classes are in the archive.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pyspark
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from pyspark.sql import SparkSession

import stack
from stack import needs

FOLDER = Path(__file__).parents[2] / ".stack" / "e2e"
DEADLINE_S = 600
SHORT_LIVED = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
"""A driver of a few seconds ends before a better compiler pays off."""


def options(bootstrap: str, home: Path) -> dict[str, str]:
    """Return the environment variables with which ``spark-submit`` starts fast. The first call makes the archive.

    :param bootstrap: the Kafka from which the program reads whose classes are archived.
    :param home: a new folder for that program.
    """
    archive = FOLDER / f"classes-{_of_this_spark()}.jsa"
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the groups of tests begin at once
        if not archive.exists():
            _make(archive, bootstrap, home)
    # A JVM that cannot use the archive says nothing of it: a launcher's output is read by programs.
    quick = f"-XX:SharedArchiveFile={archive} -Xlog:disable" if archive.exists() else ""
    given = {"SPARK_SUBMIT_OPTS": quick, "SPARK_LAUNCHER_OPTS": SHORT_LIVED}
    return {name: f"{os.environ.get(name, '')} {value}".strip() for name, value in given.items()}


def _of_this_spark() -> str:
    java = subprocess.run(
        [needs.java(), "-version"], capture_output=True, text=True, timeout=DEADLINE_S, check=True
    ).stderr
    jars = Path(pyspark.__file__).parent / "jars"
    return hashlib.sha256(f"{java}{pyspark.__version__}{jars}{jars.stat().st_mtime_ns}".encode()).hexdigest()[:16]


def _make(archive: Path, bootstrap: str, home: Path) -> None:
    """Run this program, whose JVM archives the classes that it has loaded at its end."""
    topic, draft = f"classes-{uuid.uuid4().hex[:8]}", home / archive.name
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(topic, 2, 1)])[topic].result(DEADLINE_S)
    producer = Producer({"bootstrap.servers": bootstrap})
    for partition in (0, 1):
        producer.produce(topic, b"{}", partition=partition)
    assert producer.flush(DEADLINE_S) == 0
    conf = {
        "spark.ui.enabled": "false",
        "spark.sql.shuffle.partitions": "2",
        "spark.driver.extraJavaOptions": f"{SHORT_LIVED} -XX:ArchiveClassesAtExit={draft}",
    }
    command = ["spark-submit", "--master", "local[2]", "--jars", ",".join(map(str, stack.jars("spark")))]
    command += [word for name, value in conf.items() for word in ("--conf", f"{name}={value}")]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [*command, __file__, bootstrap, topic, str(home)],
        env={**os.environ, "PATH": path, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    admin.delete_topics([topic])[topic].result(DEADLINE_S)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    if draft.exists():
        draft.replace(archive)


def main(bootstrap: str, topic: str, home: str) -> None:
    """Do once what the jobs of the tests do: batches of Kafka records into Python, into files, and a bounded read."""
    spark = SparkSession.builder.getOrCreate()
    kafka = {"kafka.bootstrap.servers": bootstrap, "subscribe": topic, "startingOffsets": "earliest"}
    records = spark.readStream.format("kafka").options(**kafka).load().selectExpr("topic", "partition", "offset")
    collecting = records.writeStream.foreachBatch(lambda batch, _: batch.collect())
    for name, writer in (("collect", collecting), ("files", records.writeStream.format("json"))):
        query = writer.option("checkpointLocation", f"{home}/{name}.checkpoint").start(f"{home}/{name}")
        query.processAllAvailable()
        query.stop()
    spark.read.format("kafka").options(**kafka).load().count()
    spark.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
