"""Program that starts a query on each of many checkpoints, in one Spark of any version: ``on_checkpoints.py JOB OUT``.

``JOB`` is a JSON file with the jars of the connector, the address of Kafka, and the folders. ``OUT`` gets the version
of Spark and, for each folder, a line with the first batch that the query has completed and what it died of. It imports
nothing of this project, because the Python of another Spark runs it.
"""

import json
import logging
import os
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pyspark.sql import SparkSession

THREADS = 3
BUG = re.compile(r"IterableOps\.map.* because the return value of .scala\.Option\.get\(\). is null")
"""SPARK-55271 of Spark 4.1.0 to 4.1.2: the query that resumes a planned batch ends once."""


def session_of(job: dict[str, Any]) -> SparkSession:
    """Return a session that starts fast and prints no logs."""
    builder = SparkSession.builder.master("local[2]")
    settings = {
        "spark.jars": job["jars"],
        "spark.ui.enabled": "false",
        "spark.sql.shuffle.partitions": "1",
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        "spark.sql.warehouse.dir": job["warehouse"],
    }
    for name, value in settings.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("OFF")
    logging.getLogger("py4j").setLevel(logging.CRITICAL)  # it logs each exception of which a query dies
    return session


def outcome(spark: SparkSession, job: dict[str, Any], folder: dict[str, Any]) -> dict[str, Any]:
    """Return what a query does on one folder until nothing is left to read.

    A query that ends by Spark's own bug is started once more, as a driver does. The bug ends it after its first batch
    is committed, and before Spark says how many records the batch had.
    """
    found = attempt(spark, job, folder)
    if not BUG.search(found["died"]):
        return found
    commits = os.listdir(os.path.join(folder["path"], "commits"))
    first = [max(int(each) for each in commits if each.isdecimal()), None]
    again = attempt(spark, job, folder)
    return {**again, "first": None if again["died"] else first}


def attempt(spark: SparkSession, job: dict[str, Any], folder: dict[str, Any]) -> dict[str, Any]:
    """Start a query on one folder, and return what it does."""
    began, session = time.monotonic(), spark.newSession()
    for name, value in folder["options"].items():
        session.conf.set(name, value)
    source = {"kafka.bootstrap.servers": job["bootstrap_servers"], "subscribe": job["topic"]}
    reader = session.readStream.format("kafka").options(
        **source, startingOffsets="earliest", **{"fetchOffset.retryIntervalMs": "10"}
    )
    if folder["name"] and hasattr(reader, "name"):  # Spark 4.2 has it
        reader = reader.name(folder["name"])
    writer = reader.load().writeStream.format("noop").option("checkpointLocation", folder["location"])
    if folder["asynchronous"]:
        writer = writer.option("asyncProgressTrackingEnabled", "true")
    died, batches, query = "", [], None
    try:
        query = writer.start()
        query.processAllAvailable()
    except Exception as error:  # whatever the query died of
        died = str(error)[:2000] or type(error).__name__
    if query is not None:
        query.stop()
        batches = [json.loads(getattr(each, "json", None) or json.dumps(each)) for each in query.recentProgress]
    ran = [[each["batchId"], each["numInputRows"]] for each in batches if "addBatch" in each["durationMs"]]
    return {"first": ran[0] if ran and not died else None, "died": died, "seconds": time.monotonic() - began}


def main(job_path: str, out_path: str) -> None:
    """Start all queries, and write what they did."""
    with open(job_path, encoding="utf-8") as file:
        job = json.load(file)
    spark = session_of(job)
    with ThreadPoolExecutor(THREADS) as pool, open(out_path, "w", encoding="utf-8") as file:
        print(json.dumps(spark.version), file=file, flush=True)
        for found in pool.map(lambda folder: outcome(spark, job, folder), job["folders"]):
            print(json.dumps(found), file=file, flush=True)
    spark.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
