"""Program that starts a query on each of many checkpoints, in one Spark of any version: ``on_checkpoints.py JOB OUT``.

``JOB`` is a JSON file with the jars of the connector, the address of Kafka, and the folders. ``OUT`` gets the version
of Spark and, for each folder, a line with the first batch that the query has completed and what it died of. It imports
nothing of this project, because the Python of another Spark runs it.
"""

import json
import logging
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pyspark.sql import SparkSession

THREADS = 3


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
    """Return what a query does on one folder until nothing is left to read."""
    began, session = time.monotonic(), spark.newSession()
    for name, value in folder["options"].items():
        session.conf.set(name, value)
    source = {"kafka.bootstrap.servers": job["bootstrap_servers"], "subscribe": job["topic"]}
    reader = session.readStream.format("kafka").options(
        **source, startingOffsets="earliest", **{"fetchOffset.retryIntervalMs": "10"}
    )
    if folder["name"]:
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
