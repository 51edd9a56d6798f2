"""The log ``_spark_metadata`` of Spark's own file sinks: one file for each batch, with the files that it wrote.

Every tenth log file, such as ``9.compact``, also has the files of all batches before it, without their batch ids. Spark
removes the log files before it when 100 more batches have run (``spark.sql.streaming.minBatchesToRetain``). Tried with
Spark 4.2.0.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from posixpath import split

from airflow_provider_offsets.core.sink.ledger import Ledger, Removed, Written
from airflow_provider_offsets.errors import LedgerUnreadable
from airflow_provider_offsets.ledgers import refusals
from airflow_provider_offsets.ledgers.folder import Folder

_LOG = "_spark_metadata"
_LOG_FILE = re.compile(r"(?P<batch>\d+)(?P<compact>\.compact)?")
_VERSION = "v1"


def read(location: str) -> Ledger:
    """Read the ledger of a folder that a streaming query writes with ``sink=``.

    :param location: a path or a URL that ``fsspec`` opens.
    :raises LedgerUnreadable: no log, no access, no library, or a log that cannot be parsed.
    """
    folder = Folder(location)
    names = folder.sizes(_LOG)
    if names is None:
        raise LedgerUnreadable(
            seen=f"{location} has no {_LOG}" if folder.exists() else f"{location} does not exist",
            expected="a folder that a file sink of a streaming query writes",
            do="correct the location of the sink; a foreachBatch program needs a batch table, Delta or Iceberg instead",
        )
    found = [match for match in map(_LOG_FILE.fullmatch, names) if match is not None]
    logs = sorted(((int(match["batch"]), match[0]) for match in found), key=lambda log: log[0])
    entries = {name: list(_entries(folder, f"{_LOG}/{name}")) for _, name in logs}
    compacted = any(match["compact"] for match in found)
    written = tuple(
        Written("", batch_id, f"{_LOG}/{name}", at_ms=max((each.at_ms for each in entries[name]), default=None))
        for batch_id, name in logs
    )
    first = written[0] if compacted and written[0].batch_id > 0 else None
    return Ledger(
        written,
        tuple(_removed(folder, {each.path: each for listed in entries.values() for each in listed})),
        missing_before=first.place if first else "",
        begins_at_ms=first.at_ms if first else None,
    )


@dataclass(frozen=True)
class _Entry:
    """A file that a batch wrote."""

    path: str
    """Relative to the folder of the sink."""
    size: int
    at_ms: int


def _entries(folder: Folder, path: str) -> Iterator[_Entry]:
    """Yield the files that a log file names.

    :raises LedgerUnreadable: the log file cannot be parsed, or names a file that is elsewhere.
    """
    where = f"{folder.location}/{path}"
    try:
        version, *lines = folder.read(path).decode().splitlines()
        if version != _VERSION:
            raise ValueError(f"its version is {version!r}")
        parsed = [json.loads(line) for line in lines]
        statuses = [(each["path"], int(each["size"]), int(each["modificationTime"]), each["action"]) for each in parsed]
    except (ValueError, KeyError, TypeError) as error:
        raise refusals.corrupt(where, f"{type(error).__name__}: {error}", f"a log of version {_VERSION}") from error
    for url, size, at_ms, action in statuses:
        relative = folder.relative(url)
        if relative is None:
            raise LedgerUnreadable(
                seen=f"{where} names {url}, which is not in this folder",
                expected="the location to which the query writes",
                do="correct the location of the sink; Spark cannot read a folder that was moved, either",
            )
        if action == "add":
            yield _Entry(relative, size, at_ms)


def _removed(folder: Folder, entries: dict[str, _Entry]) -> Iterator[Removed]:
    """Yield the files that are gone or changed, after one listing of each folder that has files."""
    listed: dict[str, dict[str, int]] = {}
    for path, entry in sorted(entries.items()):
        parent, name = split(path)
        if parent not in listed:
            listed[parent] = folder.sizes(parent) or {}
        size = listed[parent].get(name)
        if size is None:
            yield Removed(path, "file is gone")
        elif size != entry.size:
            yield Removed(path, f"file has {size} bytes, and had {entry.size}")
