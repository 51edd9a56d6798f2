"""The offset log of a Structured Streaming checkpoint: read, seed, close.

Layout (Spark's ``OffsetSeqLog``, ``CommitLog``, ``KafkaSourceInitialOffsetWriter``; tried with 4.2.0)::

    metadata          {"id":"<query id>"}
    offsets/N         v1 / batch metadata as JSON / one line per source: the end offsets that batch N is to reach
    commits/N         v1 / {"nextBatchWatermarkMs":0}          batch N is done
    sources/0/0       a zero byte, v1, the offsets that the query began with
    state/            present if the query is stateful

``offsets/N`` is a plan; only with ``commits/N`` is it a fact.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

from airflow_provider_offsets.core.position import Position
from airflow_provider_offsets.core.snapshot import UNSTARTED, CheckpointState
from airflow_provider_offsets.errors import CheckpointError, WorldChanged

T = TypeVar("T")

CLOSED_BY = "spark.offsets.closed.by"
"""A key in the batch metadata of a planted entry. Spark carries unknown keys along and heeds none of them."""


class CheckpointFiles(Protocol):
    """Reads the files of one checkpoint folder. Paths are relative to it."""

    location: str

    def names(self, folder: str) -> list[str]:
        """Give the names in a folder; an empty list if it is not there."""
        ...

    def text(self, path: str) -> str | None:
        """Give a file's text, or None if it is not there."""
        ...


@dataclass(frozen=True)
class LogEntry:
    """One ``offsets/N``."""

    metadata: dict[str, Any]
    end: Position

    @property
    def batch_time_ms(self) -> int:
        """When the batch was planned, by the driver's clock; the same when it is run again."""
        return int(self.metadata["batchTimestampMs"])

    @property
    def closed_by(self) -> str | None:
        """The operation that planted this entry, or None if Spark wrote it."""
        found = self.metadata.get("conf", {}).get(CLOSED_BY)
        return None if found is None else str(found)

    def to_text(self) -> str:
        """Give the file's text."""
        return f"v1\n{json.dumps(self.metadata, separators=(',', ':'))}\n{self.end.to_json()}"


def parse_entry(text: str, where: str) -> LogEntry:
    """Give the entry that an ``offsets/N`` file holds; ``where`` names it in errors.

    :raises CheckpointError: another version, several sources, or not the offsets of a Kafka source.
    """
    version, *lines = text.split("\n")
    _require_v1(version, where)
    metadata, sources = "".join(lines[:1]), lines[1:]
    if len(sources) != 1:
        raise CheckpointError(
            seen=f"{where} holds the offsets of {len(sources)} sources",
            expected="one Kafka source",
            do="track queries that read several sources by a query each",
        )
    return _parsed(where, lambda: LogEntry(json.loads(metadata), Position.from_json(sources[0])))


def read_entry(files: CheckpointFiles, batch_id: int) -> LogEntry | None:
    """Give ``offsets/<batch_id>``, or None if it is not there."""
    text = files.text(f"offsets/{batch_id}")
    return None if text is None else parse_entry(text, f"{files.location}/offsets/{batch_id}")


def read_initial(files: CheckpointFiles) -> Position | None:
    """Give the offsets that the query began with, or None if it never got so far."""
    text = files.text("sources/0/0")
    if text is None:
        return None
    where = f"{files.location}/sources/0/0"
    version, _, offsets = text.removeprefix("\0").partition("\n")
    _require_v1(version, where)
    return _parsed(where, lambda: Position.from_json(offsets))


def read_query_id(files: CheckpointFiles) -> str | None:
    """Give the query id, or None if the folder holds no checkpoint."""
    text = files.text("metadata")
    return None if text is None else _parsed(f"{files.location}/metadata", lambda: str(json.loads(text)["id"]))


def read_state(files: CheckpointFiles) -> CheckpointState | None:
    """Give what the checkpoint says, or None if it does not say where to go on (absent, or begun and empty).

    :raises CheckpointError: it cannot be read, or is of a version or kind that was not tried.
    """
    query_id = read_query_id(files)
    planned_ids = _batch_ids(files, "offsets")
    committed_id = max(set(planned_ids) & set(_batch_ids(files, "commits")), default=UNSTARTED)
    committed = _end_of(files, committed_id)
    if query_id is None or committed is None:
        return None
    newer = [batch_id for batch_id in planned_ids if batch_id > committed_id]
    planned = read_entry(files, newer[0]) if newer else None
    last = read_entry(files, newer[-1]) if newer else None
    closed_by = None if last is None else last.closed_by
    if planned is not None and planned.closed_by is not None:
        planned = None
    return CheckpointState(
        location=files.location,
        query_id=query_id,
        committed_batch_id=committed_id,
        committed=committed,
        planned_batch_id=newer[0] if planned is not None else None,
        planned=None if planned is None else planned.end,
        closed_by=closed_by,
        stateful=bool(files.names("state")),
    )


def _end_of(files: CheckpointFiles, batch_id: int) -> Position | None:
    if batch_id == UNSTARTED:
        return read_initial(files)
    entry = read_entry(files, batch_id)
    return None if entry is None else entry.end


def _batch_ids(files: CheckpointFiles, folder: str) -> list[int]:
    """Batch ids in a log folder, sorted; temporary and ``.crc`` files are not batches."""
    return sorted(int(name) for name in files.names(folder) if name.isdecimal())


def _require_v1(version: str, where: str) -> None:
    if version != "v1":
        raise CheckpointError(
            seen=f"{where} begins with {version!r}",
            expected="'v1', the one log version that this release was tried with",
            do="leave spark.sql.streaming.offsetLog.formatVersion at 1 for tracked jobs",
        )


def _parsed(where: str, parse: Callable[[], T]) -> T:
    try:
        return parse()
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            seen=f"{where} cannot be read: {error}",
            expected="what Spark writes for a Kafka source",
            do="name the checkpoint of a query that reads Kafka, or restore the file",
        ) from error


class LocalCheckpoint:
    """A checkpoint folder on this machine (or on a mount that all machines share): read, and written for seeding."""

    def __init__(self, location: str) -> None:
        parts = urlsplit(location)
        if parts.scheme not in ("", "file"):
            raise CheckpointError(
                seen=f"checkpoint {location!r}",
                expected="a local path: no other file system was tried with this release",
                do="keep the checkpoint on a path that Airflow's worker and the driver share",
            )
        self.location = location
        self._root = Path(parts.path)

    def names(self, folder: str) -> list[str]:
        """Give the names in a folder; an empty list if it is not there."""
        path = self._root / folder
        return [each.name for each in path.iterdir()] if path.is_dir() else []

    def text(self, path: str) -> str | None:
        """Give a file's text, or None if it is not there."""
        try:
            content = (self._root / path).read_bytes()
        except FileNotFoundError:
            return None
        return _parsed(f"{self.location}/{path}", content.decode)

    def create(self, path: str, text: str) -> bool:
        """Write a file that is not there yet, whole or not at all; say whether it was written."""
        target = self._root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".", suffix=".tmp")
        try:
            with os.fdopen(handle, "w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.link(temporary, target)
            return True
        except FileExistsError:
            return False
        finally:
            os.unlink(temporary)


def seed(target: LocalCheckpoint, *, query_id: str, last_batch_id: int, start: Position, like: LogEntry | None) -> int:
    """Write a checkpoint from which Spark goes on at ``start``, and give the id of its next batch.

    Two consecutive entries end at ``start``: Spark asks for the last one and the one before. Their ids come after
    every id that the pipeline ever named, so a sink that knows a batch by its id never takes new data for old.
    Repeating it with the same arguments changes nothing.

    :param like: an entry of the old checkpoint whose batch metadata (watermark, confs) is carried over.
    :raises WorldChanged: the folder holds another checkpoint.
    """
    metadata = {"batchWatermarkMs": 0, "batchTimestampMs": 0, "conf": {}} if like is None else dict(like.metadata)
    entry = LogEntry(metadata, start).to_text()
    first = max(last_batch_id, 0)
    files = {"metadata": json.dumps({"id": query_id}), "sources/0/0": f"\0v1\n{start.to_json()}"}
    for batch_id in (first, first + 1):
        files[f"offsets/{batch_id}"] = entry
        files[f"commits/{batch_id}"] = 'v1\n{"nextBatchWatermarkMs":0}'
    for path, text in files.items():
        if not target.create(path, text) and target.text(path) != text:
            raise WorldChanged(
                seen=f"{target.location}/{path} is there with other content",
                expected="an empty folder for the seeded checkpoint",
                do="make the plan again",
            )
    return first + 2


def close(checkpoint: LocalCheckpoint, operation: str) -> int | None:
    """Close a checkpoint by planting its next entry, and give that entry's id.

    A driver that still runs on it dies with ``CONCURRENT_STREAM_LOG_UPDATE`` before its next batch. Closing what is
    closed changes nothing. None if there is no entry at all to follow.

    :raises WorldChanged: a driver wrote that entry first: it runs.
    """
    planned_ids = _batch_ids(checkpoint, "offsets")
    if not planned_ids:
        return None
    last = read_entry(checkpoint, planned_ids[-1])
    assert last is not None
    if last.closed_by is not None:
        return planned_ids[-1]
    conf = {**last.metadata.get("conf", {}), CLOSED_BY: operation}
    plant = LogEntry({**last.metadata, "conf": conf}, last.end)
    if not checkpoint.create(f"offsets/{planned_ids[-1] + 1}", plant.to_text()):
        raise WorldChanged(
            seen=f"{checkpoint.location}/offsets/{planned_ids[-1] + 1} appeared while the checkpoint was closed",
            expected="no driver on it",
            do="stop the job, and plan again",
        )
    return planned_ids[-1] + 1


def last_entry(checkpoint: CheckpointFiles) -> LogEntry | None:
    """Give the newest entry that Spark itself wrote, or None."""
    for batch_id in reversed(_batch_ids(checkpoint, "offsets")):
        entry = read_entry(checkpoint, batch_id)
        if entry is not None and entry.closed_by is None:
            return entry
    return None
