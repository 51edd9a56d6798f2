"""Small sinks of each format: two named batches of three and two rows, and what may happen to them afterwards."""

from __future__ import annotations

import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
from deltalake import CommitProperties, DeltaTable, write_deltalake
from pyiceberg.catalog.sql import SqlCatalog

from airflow_provider_offsets.core.sink.key import BatchKey
from airflow_provider_offsets.core.sink.model import Sink, SinkFormat

QUERY = "0f6b7d5e-54a5-4b0e-9a3c-5d2b2c7a1e10"
ROWS = (3, 2)
DATA = Path(__file__).parent / "data"


def key(batch_id: int) -> str:
    """Return the key of a batch."""
    return str(BatchKey("orders", QUERY, batch_id, f"{batch_id:016x}"))


def rows(count: int) -> pa.Table:
    """Return a table of as many rows."""
    return pa.table({"n": pa.array(range(count), pa.int64())})


class SinkUnderTest(ABC):
    """One sink of a format, with what the contract does to it."""

    format: SinkFormat
    counts_rows = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url: str | None = None

    @property
    def sink(self) -> Sink:
        """The sink as a pipeline names it."""
        return Sink(self.format, str(self.folder))

    @abstractmethod
    def put(self, batch_id: int, count: int) -> None:
        """Write a batch with its name."""

    @abstractmethod
    def remove(self) -> None:
        """Remove rows of a batch, as a person does."""

    def cut_off(self) -> None:
        """Remove the metadata of the oldest batch, as the format itself does."""
        raise NotImplementedError

    @abstractmethod
    def break_metadata(self) -> None:
        """Overwrite metadata by what cannot be parsed."""


class DeltaSink(SinkUnderTest):
    format = SinkFormat.DELTA

    def put(self, batch_id: int, count: int) -> None:
        write_deltalake(str(self.folder), rows(count), mode="append", commit_properties=named(key(batch_id)))

    def remove(self) -> None:
        DeltaTable(str(self.folder)).delete("n = 2")

    def cut_off(self) -> None:
        DeltaTable(str(self.folder)).create_checkpoint()
        self.commit(0).unlink()

    def break_metadata(self) -> None:
        self.commit(1).write_text("{")

    def commit(self, version: int) -> Path:
        """Return the file of a commit."""
        return self.folder / "_delta_log" / f"{version:020}.json"


def named(text: str) -> CommitProperties:
    """Return the properties of a commit that names a batch as Spark's ``userMetadata`` does."""
    return CommitProperties(custom_metadata={"userMetadata": json.dumps({"offsets.batch": text})})


class IcebergSink(SinkUnderTest):
    format = SinkFormat.ICEBERG

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._warehouse = folder.parent

    @contextmanager
    def table(self) -> Iterator[Any]:
        """Yield the table, open for writes. Its catalog is no part of the sink."""
        where = {"uri": f"sqlite:///{self._warehouse}/catalog.db", "warehouse": f"file://{self._warehouse}"}
        catalog = SqlCatalog("test", **where)
        try:
            catalog.create_namespace_if_not_exists("db")
            yield catalog.create_table_if_not_exists("db.t", rows(0).schema, location=f"file://{self.folder}")
        finally:
            catalog.engine.dispose()

    def put(self, batch_id: int, count: int) -> None:
        with self.table() as table:
            table.append(rows(count), snapshot_properties={"offsets.batch": key(batch_id)})

    def remove(self) -> None:
        with self.table() as table:
            table.delete("n = 2")

    def cut_off(self) -> None:
        with self.table() as table:
            table.maintenance.expire_snapshots().by_id(table.snapshots()[0].snapshot_id).commit()

    def break_metadata(self) -> None:
        newest = max((self.folder / "metadata").glob("*.metadata.json"))
        newest.write_text("{")


class FileSink(SinkUnderTest):
    """A folder as Spark's file sinks write it; ``test_files.py`` has one that Spark wrote."""

    format = SinkFormat.FILES
    counts_rows = False

    def put(self, batch_id: int, count: int) -> None:
        name = f"part-00000-{batch_id}.txt"
        self.folder.mkdir(exist_ok=True)
        (self.folder / name).write_text("row\n" * count)
        self.log(f"{batch_id}", self.entry(name))

    def remove(self) -> None:
        (self.folder / "part-00000-0.txt").unlink()

    def cut_off(self) -> None:
        log = self.folder / "_spark_metadata"
        (log / "1").unlink()
        self.log("1.compact", self.entry("part-00000-0.txt"), self.entry("part-00000-1.txt"))
        (log / "0").unlink()

    def break_metadata(self) -> None:
        (self.folder / "_spark_metadata" / "1").write_text("v1\n{")

    def log(self, name: str, *entries: dict[str, object]) -> None:
        """Write a log file."""
        log = self.folder / "_spark_metadata"
        log.mkdir(exist_ok=True)
        (log / name).write_text("\n".join(["v1", *map(json.dumps, entries)]))

    def entry(self, name: str) -> dict[str, object]:
        """Return the entry of a file that is there."""
        file = self.folder / name
        return {
            "path": file.as_uri(),
            "size": file.stat().st_size,
            "isDir": False,
            "modificationTime": file.stat().st_mtime_ns // 1_000_000,
            "blockReplication": 1,
            "blockSize": 33554432,
            "action": "add",
        }


class BatchTableSink(SinkUnderTest):
    format = SinkFormat.BATCH_TABLE

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        folder.mkdir()
        self.url = f"sqlite:///{folder}/output.db"
        self.execute("CREATE TABLE batches (batch_key TEXT, rows INTEGER)")
        self.execute("CREATE TABLE output (n INTEGER)")

    @property
    def sink(self) -> Sink:
        """The sink as a pipeline names it."""
        return Sink(self.format, conn_id="output", batch_table="batches", table="output")

    def put(self, batch_id: int, count: int) -> None:
        self.execute("INSERT INTO batches VALUES (:key, :count)", key=key(batch_id), count=count)
        for n in range(count):
            self.execute("INSERT INTO output VALUES (:n)", n=n)

    def remove(self) -> None:
        self.execute("DELETE FROM output WHERE n = 2")

    def break_metadata(self) -> None:
        self.execute("UPDATE batches SET rows = 'many'")

    def execute(self, statement: str, **parameters: Any) -> None:
        """Execute a statement in a transaction of its own."""
        assert self.url is not None
        engine = sa.create_engine(self.url)
        with engine.begin() as connection:
            connection.execute(sa.text(statement), parameters)
        engine.dispose()


KINDS: dict[str, type[SinkUnderTest]] = {
    kind.format.value: kind for kind in (DeltaSink, IcebergSink, FileSink, BatchTableSink)
}


def made(kind: str, folder: Path) -> SinkUnderTest:
    """Return a sink of a format with two batches."""
    sink = KINDS[kind](folder / "sink")
    for batch_id, count in enumerate(ROWS):
        sink.put(batch_id, count)
    return sink


def recorded(name: str, folder: Path) -> Path:
    """Write the files of a recording of ``data/record.py``, and return the folder of the sink."""
    recording: dict[str, Any] = json.loads((DATA / f"{name}.json").read_text())
    sink = folder / "recorded" / recording["folder"]
    for path, text in recording["files"].items():
        file = sink / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.replace("/recorded", f"{folder}/recorded").encode("latin-1"))
    return sink


def content(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Return every file of a folder, byte by byte, with the time of its writing."""
    files = [each for each in sorted(folder.rglob("*")) if each.is_file()]
    return {str(each.relative_to(folder)): (each.read_bytes(), each.stat().st_mtime_ns) for each in files}


def removed_whole(sink: SinkUnderTest) -> None:
    """Remove the sink with its folder."""
    shutil.rmtree(sink.folder)
