"""Program that runs stateful queries in one Spark, and copies their checkpoints: ``on_states.py JOB OUT``.

``JOB`` is a JSON file with the jars of the connector, the address of Kafka, a topic, and a folder for the checkpoints.
``OUT`` gets one JSON object: what each step has done, by its name. It imports nothing of this project.
"""

import contextlib
import json
import os
import shutil
import sys
from typing import Any

from pyspark.sql import DataFrame, SparkSession

ROCKS_DB = "org.apache.spark.sql.execution.streaming.state.RocksDBStateStoreProvider"
NAMES = {
    "spark.sql.streaming.queryEvolution.enableSourceEvolution": "true",
    "spark.sql.streaming.queryEvolution.enableSinkEvolution": "true",
    "spark.sql.streaming.offsetLog.formatVersion": "2",
}


class Queries:
    """Queries on one topic, each with a checkpoint of its own."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.job, self.steps = job, {}  # type: dict[str, Any], dict[str, Any]
        self.spark = (
            SparkSession.builder.master("local[2]")
            .config("spark.jars", job["jars"])
            .config("spark.ui.enabled", "false")
            .config("spark.sql.shuffle.partitions", "2")
            .config("spark.sql.warehouse.dir", job["warehouse"])
            .config("spark.sql.streaming.stateStore.providerClass", ROCKS_DB)
            .config("spark.sql.streaming.stateStore.checkpointFormatVersion", "2")
            .getOrCreate()
        )
        self.spark.sparkContext.setLogLevel("OFF")

    def folder(self, name: str) -> str:
        """Return the checkpoint of a query."""
        return os.path.join(self.job["folder"], name)

    def append(self, records: int) -> None:
        """Append records to the topic."""
        frame = self.spark.range(0, records, 1, 1).selectExpr("cast(id % 3 as string) as value")
        self._kafka(frame.write).option("topic", self.job["topic"]).save()

    def run(self, step: str, name: str, *, source: str = "", **conf: str) -> None:
        """Run a query until nothing is left to read, keep what it did, and copy its checkpoint to the step's name."""
        session = self.spark.newSession()
        for key, value in conf.items():
            session.conf.set(key, value)
        ran: list[list[int]] = []

        def process(batch: DataFrame, batch_id: int) -> None:
            ran.append([batch_id, batch.agg({"count": "sum"}).first()[0]])

        reader = self._kafka(session.readStream).options(subscribe=self.job["topic"], startingOffsets="earliest")
        reader = reader.option("maxOffsetsPerTrigger", "6")
        if source:
            reader = reader.name(source)
        writer = reader.load().selectExpr("cast(value as string) as value").groupBy("value").count().writeStream
        if source:
            writer._jwrite.name("counts")  # Python's writer has no such method
        query, died = None, ""
        try:
            writer = writer.outputMode("update").option("checkpointLocation", self.folder(name))
            query = writer.foreachBatch(process).start()
            query.processAllAvailable()
        except Exception as error:  # whatever the query died of
            died = str(error)
        if query is not None:
            query.stop()
        self.steps[step] = {"ran": ran, "died": died}
        self.copy(step, name)

    def repartition(self, step: str, name: str, partitions: int) -> None:
        """Repartition the state of a stopped query, and copy its checkpoint."""
        self.spark._streamingCheckpointManager.repartition(self.folder(name), partitions)
        self.copy(step, name)

    def uncommit(self, step: str, name: str) -> None:
        """Remove the newest commit, as if the process had died before it, and copy the checkpoint."""
        commits = os.path.join(self.folder(name), "commits")
        newest = max(int(each) for each in os.listdir(commits) if each.isdecimal())
        for each in (f"{newest}", f".{newest}.crc"):
            with contextlib.suppress(FileNotFoundError):
                os.remove(os.path.join(commits, each))
        self.copy(step, name)

    def copy(self, step: str, name: str) -> None:
        """Copy the checkpoint of a query."""
        shutil.copytree(self.folder(name), self.folder(f"after {step}"))

    def _kafka(self, side: Any) -> Any:
        return side.format("kafka").option("kafka.bootstrap.servers", self.job["bootstrap_servers"])


def main(job_path: str, out_path: str) -> None:
    """Run the steps, and write what they did."""
    with open(job_path, encoding="utf-8") as file:
        queries = Queries(json.load(file))
    queries.append(12)
    queries.run("first run", "counts")
    queries.repartition("repartition", "counts", 4)
    queries.append(6)
    queries.run("resume", "counts")
    queries.repartition("next repartition", "counts", 2)
    queries.uncommit("cut off repartition", "counts")
    queries.run("resume of a cut off repartition", "counts")
    queries.run("named", "named", source="flights", **NAMES)
    queries.append(6)
    queries.run("named, resumed", "named", source="flights", **NAMES)
    with open(out_path, "w", encoding="utf-8") as file:
        json.dump(queries.steps, file)
    queries.spark.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
