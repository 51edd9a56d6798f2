"""Records metadata of sinks that real Spark writes: ``<python with pyspark> record.py <kind> <jar>…``.

Tables were recorded with pyspark 4.1.1 and the jars of Delta 4.1.0 (``delta-spark_2.13``, ``delta-storage``) and
Iceberg 1.11.0 (``iceberg-spark-runtime-4.1_2.13``), files with pyspark 4.2.0. It writes one JSON file for each
recording, with the files that a reader may need, byte by byte. Kinds: delta, cleaned_delta, iceberg, files.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame, SparkSession

HERE = Path(__file__).parent
DAYS_MS = 86_400_000
QUERY = "0f6b7d5e-54a5-4b0e-9a3c-5d2b2c7a1e10"
DELTA = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.databricks.delta.snapshotPartitions": "1",
}


def key(batch_id: int) -> str:
    """Return the key of a batch of the pipeline ``orders``."""
    return f"orders:{QUERY}:{batch_id}:{batch_id:016x}"


class Recorder:
    """One Spark session, and a stream of text files."""

    def __init__(self, folder: Path, jars: Iterable[str], config: dict[str, str]) -> None:
        self.folder = folder
        self.source = folder / "source"
        self.source.mkdir()
        builder = SparkSession.builder.master("local[1]").config("spark.jars", ",".join(jars))
        for name, value in config.items():
            builder = builder.config(name, value)
        self.spark = (
            builder.config("spark.ui.enabled", "false")
            .config("spark.sql.shuffle.partitions", "1")
            .config("spark.sql.sources.parallelPartitionDiscovery.parallelism", "1")
            .config("spark.executor.heartbeatInterval", "60s")
            .config("spark.network.timeout", "600s")
            .getOrCreate()
        )
        self._numbers = itertools.count()

    def sql(self, statement: str, *names: str) -> None:
        """Execute a statement, with names in the place of its braces."""
        print(f"{time.strftime('%X')} {statement}", file=sys.stderr)
        self.spark.sql(statement.format(*names) if names else statement)

    def rows(self, count: int) -> DataFrame:
        """Return new rows."""
        numbers = [(next(self._numbers),) for _ in range(count)]
        return self.spark.createDataFrame(numbers, "n int").coalesce(1)

    def stream(
        self,
        count: int,
        start: Callable[[Any, str], Any],
        name: str,
        where: str = "true",
        columns: Iterable[str] = ("n",),
    ) -> None:
        """Add a file of rows to the source if ``count`` is not 0, and run the query over what is new."""
        print(f"{time.strftime('%X')} stream {name}", file=sys.stderr)
        if count:
            lines = "".join(f"{next(self._numbers)}\n" for _ in range(count))
            (self.source / f"{time.time_ns()}.txt").write_text(lines)
        frame = self.spark.readStream.text(str(self.source)).selectExpr("CAST(value AS INT) AS n").where(where)
        frame = frame.selectExpr(*columns)
        checkpoint = str(self.folder / f"checkpoint-{name}")
        writer = frame.writeStream.option("checkpointLocation", checkpoint).trigger(availableNow=True)
        start(writer, name).awaitTermination()

    def forget_commit(self, name: str) -> None:
        """Remove the newest commit from a checkpoint, as if the driver had died right before it."""
        commits = self.folder / f"checkpoint-{name}" / "commits"
        newest = max(int(each.name) for each in commits.iterdir() if each.name.isdecimal())
        (commits / str(newest)).unlink()
        (commits / f".{newest}.crc").unlink(missing_ok=True)

    def record(self, name: str, table: Path, files: Iterable[Path]) -> None:
        """Write the recording of a table, with a fixed place."""
        recording = {
            "spark": self.spark.version,
            "folder": str(table.relative_to(self.folder)),
            "files": {str(each.relative_to(table)): each.read_bytes().decode("latin-1") for each in sorted(files)},
        }
        text = json.dumps(recording, indent=1, sort_keys=True).replace(str(self.folder), "/recorded")
        (HERE / f"{name}.json").write_text(f"{text}\n")


def record_delta(folder: Path, jars: list[str]) -> None:
    """Record tables of Delta."""
    recorder = Recorder(folder, jars, DELTA)

    def start(writer: Any, name: str) -> Any:
        return writer.format("delta").start(str(folder / name))

    def put(batch_id: int | None, count: int, mode: str = "append", **options: str) -> None:
        named = {} if batch_id is None else {"userMetadata": json.dumps({"offsets.batch": key(batch_id)})}
        if batch_id is not None:
            options |= {"txnAppId": f"orders/{QUERY}", "txnVersion": str(batch_id)}
        print(f"{time.strftime('%X')} {mode} {batch_id}", file=sys.stderr)
        recorder.rows(count).write.format("delta").mode(mode).options(**named, **options).save(str(folder / "foreach"))

    def log(name: str) -> list[Path]:
        return list((folder / name / "_delta_log").glob("*.json"))

    recorder.stream(3, start, "streaming")
    recorder.stream(5, start, "streaming")
    recorder.forget_commit("streaming")
    recorder.stream(0, start, "streaming")
    recorder.stream(2, start, "streaming", where="n < 0")
    table = f"delta.`{folder}/streaming`"
    recorder.sql("DELETE FROM {} WHERE n = 1", table)
    recorder.sql(f"OPTIMIZE {table}")
    recorder.record("delta_streaming", folder / "streaming", log("streaming"))

    table = f"delta.`{folder}/foreach`"
    put(0, 3)
    put(0, 3)  # tried again
    put(None, 2)
    put(1, 0)
    recorder.sql("UPDATE {} SET n = 100 WHERE n = 11", table)
    recorder.sql("DELETE FROM {} WHERE n = -1", table)
    recorder.sql(f"ALTER TABLE {table} SET TBLPROPERTIES ('delta.enableDeletionVectors' = 'true')")
    recorder.sql("DELETE FROM {} WHERE n = 100", table)
    put(2, 4)
    put(3, 2, "overwrite", replaceWhere="n >= 18")
    recorder.sql(
        f"MERGE INTO {table} t USING (SELECT 10 AS n) s ON t.n = s.n "
        "WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT *"
    )
    recorder.spark.conf.set("spark.databricks.delta.commitInfo.userMetadata", json.dumps({"offsets.batch": key(4)}))
    recorder.sql(f"MERGE INTO {table} t USING (SELECT 77 AS n) s ON t.n = s.n WHEN NOT MATCHED THEN INSERT *")
    recorder.spark.conf.unset("spark.databricks.delta.commitInfo.userMetadata")
    recorder.record("delta_foreach_batch", folder / "foreach", log("foreach"))
    put(None, 1, "overwrite")
    recorder.record("delta_overwritten", folder / "foreach", log("foreach"))
    recorder.sql(f"RESTORE TABLE {table} TO VERSION AS OF 2")
    recorder.record("delta_restored", folder / "foreach", log("foreach"))


def record_cleaned_delta(folder: Path, jars: list[str]) -> None:
    """Record a table of Delta whose oldest commits were cleaned up."""
    recorder = Recorder(folder, jars, DELTA)
    log = folder / "cleaned" / "_delta_log"

    def put(batch_id: int) -> None:
        named = json.dumps({"offsets.batch": key(batch_id)})
        writer = recorder.rows(batch_id + 1).write.format("delta").mode("append").option("userMetadata", named)
        writer.save(str(folder / "cleaned"))

    put(0)
    recorder.sql(
        "ALTER TABLE {} SET TBLPROPERTIES ("
        "'delta.logRetentionDuration' = 'interval 7 days', 'delta.checkpointInterval' = '2')",
        f"delta.`{folder}/cleaned`",
    )
    put(1)  # with a checkpoint of version 2
    for each in log.iterdir():  # a later checkpoint removes commits by the times of their files
        if each.is_file():
            os.utime(each, ns=(0, each.stat().st_mtime_ns - 9 * DAYS_MS * 1_000_000))
    put(2)
    put(3)
    recorder.record(
        "delta_cleaned", log.parent, [each for each in log.iterdir() if each.suffix in (".json", ".parquet")]
    )


def record_iceberg(folder: Path, jars: list[str]) -> None:
    """Record tables of Iceberg."""
    extensions = "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions"
    catalog = {
        "spark.sql.catalog.ice": "org.apache.iceberg.spark.SparkCatalog",
        "spark.sql.catalog.ice.type": "hadoop",
        "spark.sql.catalog.ice.warehouse": str(folder / "ice"),
    }
    recorder = Recorder(folder, jars, {"spark.sql.extensions": extensions, **catalog})

    def start(writer: Any, name: str) -> Any:
        return writer.format("iceberg").toTable(f"ice.db.{name}")

    def put(batch_id: int | None, count: int) -> None:
        print(f"{time.strftime('%X')} append {batch_id}", file=sys.stderr)
        writer = recorder.rows(count).writeTo("ice.db.foreach")
        (writer if batch_id is None else writer.option("snapshot-property.offsets.batch", key(batch_id))).append()

    def save(recording: str, name: str) -> None:
        table = folder / "ice" / "db" / name
        newest = max((table / "metadata").glob("v*.metadata.json"), key=lambda each: int(each.name[1:].split(".")[0]))
        recorder.record(recording, table, [newest, table / "metadata" / "version-hint.text"])

    def snapshots() -> list[int]:
        found = recorder.spark.sql("SELECT snapshot_id FROM ice.db.foreach.snapshots ORDER BY committed_at").collect()
        return [row[0] for row in found]

    for name in ("streaming", "foreach"):
        recorder.sql(f"CREATE TABLE ice.db.{name} (n INT) USING iceberg")
    recorder.stream(3, start, "streaming")
    recorder.stream(5, start, "streaming")
    recorder.forget_commit("streaming")
    recorder.stream(0, start, "streaming")
    recorder.stream(2, start, "streaming", where="n < 0")
    recorder.sql("DELETE FROM ice.db.streaming WHERE n = 1")
    recorder.sql("CALL ice.system.rewrite_data_files(table => 'db.streaming', options => map('rewrite-all', 'true'))")
    save("iceberg_streaming", "streaming")

    put(0, 3)
    put(0, 3)  # tried again without a look-up: Iceberg appends it again
    put(None, 2)
    put(1, 0)
    recorder.sql("UPDATE ice.db.foreach SET n = 100 WHERE n = 11")
    recorder.sql("ALTER TABLE ice.db.foreach SET TBLPROPERTIES ('write.delete.mode' = 'merge-on-read')")
    recorder.sql("DELETE FROM ice.db.foreach WHERE n = 12")
    recorder.spark.conf.set("spark.sql.iceberg.snapshot-property.offsets.batch", key(2))
    recorder.sql("MERGE INTO ice.db.foreach t USING (SELECT 77 AS n) s ON t.n = s.n WHEN NOT MATCHED THEN INSERT *")
    recorder.spark.conf.unset("spark.sql.iceberg.snapshot-property.offsets.batch")
    save("iceberg_foreach_batch", "foreach")
    before = snapshots()[-1]
    put(3, 4)
    put(4, 2)
    recorder.sql(f"CALL ice.system.rollback_to_snapshot('db.foreach', {before})")
    put(4, 2)
    save("iceberg_rolled_back", "foreach")
    recorder.sql(
        "CALL ice.system.expire_snapshots(table => 'db.foreach', older_than => TIMESTAMP '2100-01-01 00:00:00', "
        "retain_last => 3)"
    )
    save("iceberg_expired", "foreach")
    recorder.sql("ALTER TABLE ice.db.foreach SET TBLPROPERTIES ('write.wap.enabled' = 'true')")
    recorder.spark.conf.set("spark.wap.id", "staged")
    put(5, 2)
    recorder.spark.conf.unset("spark.wap.id")
    put(6, 1)
    save("iceberg_staged", "foreach")
    recorder.sql("CALL ice.system.publish_changes('db.foreach', 'staged')")
    save("iceberg_published", "foreach")


def record_files(folder: Path, jars: list[str]) -> None:
    """Record folders that a file sink wrote, whose log is compacted in every third batch."""
    recorder = Recorder(folder, jars, {"spark.sql.streaming.fileSink.log.compactInterval": "3"})

    def start(writer: Any, name: str) -> Any:
        return writer.format("csv").partitionBy("part").start(str(folder / name))

    def save(recording: str) -> None:
        files = [each for each in (folder / "files").rglob("*") if each.is_file() and each.suffix != ".crc"]
        recorder.record(recording, folder / "files", files)

    part = "concat('a b%', n % 2) AS part"
    recorder.stream(2, start, "files", columns=("n", part))
    recorder.stream(2, start, "files", where="n < 0", columns=("n", part))
    recorder.forget_commit("files")
    recorder.stream(1, start, "files", columns=("n", part))
    save("files")
    recorder.stream(2, start, "files", columns=("n", part))
    save("files_compacted")
    recorder.spark.conf.set("spark.sql.streaming.fileSink.log.cleanupDelay", "0")
    recorder.spark.conf.set("spark.sql.streaming.minBatchesToRetain", "1")
    for _ in range(3):
        recorder.stream(1, start, "files", columns=("n", part))
    save("files_cleaned")


def main() -> None:
    """Record the sinks of one kind."""
    kinds = {
        "delta": record_delta,
        "cleaned_delta": record_cleaned_delta,
        "iceberg": record_iceberg,
        "files": record_files,
    }
    folder = Path(tempfile.mkdtemp())
    try:
        kinds[sys.argv[1]](folder, sys.argv[2:])
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
