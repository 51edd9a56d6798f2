"""Records checkpoints that real Spark writes: ``python -m tests.unit.checkpoint.spark_logs.record``.

It needs a Kafka (``python3 -m stack up kafka``), and writes one JSON file for each kind of query. The JSON file has
every file of the checkpoint, byte by byte, with the time of its writing, and what the query itself reported about its
last batch.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming import StreamingQuery

import stack

HERE = Path(__file__).parent
DEADLINE_S = 120
TOPICS = ("flights", "weather")


class Cut(Exception):
    """An exception that ends a batch in its middle."""


class Recorder:
    """One Spark session, and two topics with unique names; the recording replaces these by fixed names."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bootstrap = stack.endpoints()["kafka"]["bootstrap_servers"]
        self.names = {topic: f"{topic}-{uuid.uuid4().hex[:8]}" for topic in (*TOPICS, "output")}
        self.admin = AdminClient({"bootstrap.servers": self.bootstrap})
        [each.result() for each in self.admin.create_topics([NewTopic(n, 2, 1) for n in self.names.values()]).values()]
        self.spark = (
            SparkSession.builder.master("local[3]")
            .config("spark.jars", ",".join(map(str, stack.jars("spark"))))
            .config("spark.ui.enabled", "false")
            .config("spark.sql.shuffle.partitions", "1")
            .getOrCreate()
        )
        (folder / "files").mkdir()

    def close(self) -> None:
        """Delete the topics and stop the session."""
        self.spark.stop()
        [each.result() for each in self.admin.delete_topics(list(self.names.values())).values()]

    def produce(self, topic: str, count: int) -> None:
        """Produce records to both partitions, one more to the first."""
        producer = Producer({"bootstrap.servers": self.bootstrap})
        for number in range(2 * count + 1):
            producer.produce(self.names[topic], partition=number % 2, value=b"record")
        producer.flush()

    def read(self, topic: str = "flights") -> DataFrame:
        """Return the stream of a topic."""
        options = {"kafka.bootstrap.servers": self.bootstrap, "subscribe": self.names[topic]}
        frame = self.spark.readStream.format("kafka").options(**options, startingOffsets="earliest").load()
        return frame.selectExpr("CAST(value AS STRING) AS value")

    def to_kafka(self, frame: DataFrame) -> Any:
        """Return a writer to Kafka."""
        options = {"kafka.bootstrap.servers": self.bootstrap, "topic": self.names["output"]}
        return frame.writeStream.format("kafka").options(**options)

    def record(self, kind: str, writer: Any, batches: int = 3, *, feed: Callable[[], None] | None = None) -> None:
        """Run a query for this many batches, and record its checkpoint. A query of no batches runs for two seconds."""
        place = self.folder / kind
        query: StreamingQuery = writer.option("checkpointLocation", str(place)).start()
        feed = feed or (lambda: self.produce("flights", 3))
        deadline = time.monotonic() + DEADLINE_S
        seen = -1
        feed()
        while seen < batches - 1 and query.isActive and time.monotonic() < deadline:
            feed()
            time.sleep(1)
            seen = -1 if query.lastProgress is None else query.lastProgress["batchId"]
        if query.isActive:
            time.sleep(2)  # what was read goes to the log, also where that is done behind the query's back
        query.stop()
        last = next((each for each in reversed(query.recentProgress) if each["numInputRows"]), None)
        ends = [] if last is None else [source["endOffset"] for source in last["sources"]]
        files = [each for each in sorted(place.rglob("*")) if each.is_file()]
        recording = {
            "spark": self.spark.version,
            "said": {"batch_id": None if last is None else last["batchId"], "ends": ends},
            "written_ms": {str(each.relative_to(place)): each.stat().st_mtime_ns // 1_000_000 for each in files},
            "files": {str(each.relative_to(place)): each.read_bytes().decode("latin-1") for each in files},
        }
        text = json.dumps(recording, indent=1, sort_keys=True)
        for plain, name in self.names.items():
            text = text.replace(name, plain)
        (HERE / f"{kind}.json").write_text(f"{text}\n".replace(str(self.folder), "/recorded"))
        print(f"{kind}: {len(files)} files, batch {recording['said']['batch_id']}", file=sys.stderr)

    def put_file(self) -> None:
        """Add input to the file source and to both topics."""
        (self.folder / "files" / f"{uuid.uuid4().hex}.txt").write_text("record\n")
        for topic in TOPICS:
            self.produce(topic, 2)


def cut_third(batch: DataFrame, batch_id: int) -> None:
    """Raise in the third batch, as a sink does that dies there."""
    batch.collect()
    if batch_id == 2:
        raise Cut("in the middle of a batch")


def main() -> None:
    """Record all kinds."""
    folder = Path(tempfile.mkdtemp())
    recorder = Recorder(folder)
    try:
        files = recorder.spark.readStream.text(str(folder / "files"))
        several = recorder.read().union(files).union(recorder.read("weather"))
        counted = recorder.read().groupBy("value").count()
        fast = {"processingTime": "200 milliseconds"}
        recorder.record("plain", recorder.to_kafka(recorder.read()).trigger(**fast))
        recorder.record("cut_off", recorder.read().writeStream.foreachBatch(cut_third).trigger(**fast))
        recorder.record(
            "asynchronous",
            recorder.to_kafka(recorder.read())
            .options(asyncProgressTrackingEnabled="true", asyncProgressTrackingCheckpointIntervalMs="2500")
            .trigger(**fast),
            batches=8,
        )
        recorder.record("several_sources", several.writeStream.format("noop").trigger(**fast), feed=recorder.put_file)
        recorder.record("stateful", counted.writeStream.format("noop").outputMode("update").trigger(**fast))
        real_time = recorder.to_kafka(recorder.read()).outputMode("update").trigger(realTime="5 seconds")
        recorder.record("real_time", real_time)
        recorder.record("continuous", recorder.to_kafka(recorder.read()).trigger(continuous="1 second"), batches=0)
    finally:
        recorder.close()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
