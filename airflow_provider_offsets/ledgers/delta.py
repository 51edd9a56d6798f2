"""The log of a Delta table: its commits, as ``DeltaTable.history()`` returns them.

Tried with tables of Delta 4.1.0 on Spark 4.1.1 and of delta-rs 1.6.6. The library counts versions back from the newest
commit. So it omits a commit without ``commitInfo``, which the protocol allows and Spark never writes, and returns older
commits with a version that is too high.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_offsets.core.location import local_path
from airflow_provider_offsets.core.sink.ledger import KEY_PROPERTY, Ledger, Removed, Unnamed, Written
from airflow_provider_offsets.errors import LedgerUnreadable
from airflow_provider_offsets.ledgers import named, refusals

_NATIVE = "STREAMING UPDATE"
_REPLACING = ("REPLACE TABLE", "CREATE OR REPLACE TABLE")
"""Begin of operations that replace a table with all of its rows."""
_WRITING = ("WRITE", _NATIVE, "CREATE TABLE AS SELECT", "COPY INTO", "CLONE", "CONVERT")
_ADDED = ("numOutputRows", "num_added_rows")
"""Metric of Spark, and of delta-rs."""
_REMOVING = {
    "DELETE": ("numDeletedRows", "num_deleted_rows"),
    "UPDATE": ("numUpdatedRows", "num_updated_rows"),
    "TRUNCATE": ("numDeletedRows", "num_deleted_rows"),
}
_MERGE_DELETED = ("numTargetRowsDeleted", "num_target_rows_deleted")
_MERGE_WRITTEN = (
    ("numTargetRowsInserted", "num_target_rows_inserted"),
    ("numTargetRowsUpdated", "num_target_rows_updated"),
)


def read(location: str) -> Ledger:
    """Read the ledger of a Delta table.

    :param location: folder of the table, a path or a URL that ``deltalake`` opens.
    :raises LedgerUnreadable: no library, no such table, no access, or a log that cannot be parsed.
    """
    try:
        from deltalake import DeltaTable
        from deltalake.exceptions import TableNotFoundError
    except ImportError as error:
        raise refusals.library_missing("Delta tables", "delta", error) from error
    try:
        commits = DeltaTable(local_path(location)).history()
    except TableNotFoundError as error:
        raise LedgerUnreadable(
            seen=f"there is no Delta table at {location}: {refusals.first_line(error)}",
            expected="a folder with a _delta_log that this user may read",
            do="correct the location or the format of the sink",
        ) from error
    except PermissionError as error:
        raise refusals.denied(location, error) from error
    except Exception as error:  # deltalake raises its own exceptions, OSError and ValueError
        raise refusals.no_answer(location, error) from error
    return ledger_of(sorted(commits, key=lambda commit: int(commit["version"])))


def ledger_of(commits: Sequence[Mapping[str, Any]]) -> Ledger:
    """Return the ledger that commits amount to.

    :param commits: the ``commitInfo`` of each commit with its ``version``, the oldest first.
    """
    story = _Story()
    for commit in commits:
        story.add(_Commit(commit))
    oldest = _Commit(commits[0]) if commits and commits[0]["version"] else None
    return Ledger(
        tuple(story.written.values()),
        (*story.undone(), *story.removed.values()),
        tuple(story.unnamed.values()),
        oldest.place if oldest else "",
        oldest.at_ms if oldest else None,
    )


class _Commit:
    """One commit, and what it did to rows."""

    def __init__(self, commit: Mapping[str, Any]) -> None:
        self.version = int(commit["version"])
        self.place = f"version {self.version}"
        self.at_ms = named.number(commit.get("timestamp"))
        self.operation = str(commit.get("operation") or "")
        self.parameters: Mapping[str, Any] = commit.get("operationParameters") or {}
        self._metrics: Mapping[str, Any] = commit.get("operationMetrics") or {}
        self._user_metadata = commit.get("userMetadata")

    @property
    def written(self) -> Written | None:
        """The write of a batch, or None if the commit names no batch."""
        rows = self._added()
        by_key = named.by_key(_key_in(self._user_metadata), self.place, rows, self.at_ms)
        if by_key is not None or self.operation != _NATIVE:
            return by_key
        query_id, epoch_id = self.parameters.get("queryId"), self.parameters.get("epochId")
        return named.by_query(query_id, epoch_id, self.place, rows, self.at_ms)

    @property
    def removed(self) -> Removed | None:
        """The removal of rows, or None if the commit removes none."""
        if self.operation in _REMOVING:
            rows = self._count(_REMOVING[self.operation])
        elif self.operation == "MERGE":
            rows = self._count(_MERGE_DELETED) or 0
        elif self._overwrites():
            rows = self._count(("numDeletedRows",)) or None
        else:
            return None
        return None if rows == 0 else Removed(self.place, self._what(), rows)

    @property
    def adds(self) -> bool:
        """Whether the commit adds rows, as far as its metrics say."""
        added = self._added()
        return self.operation in (*_WRITING, "MERGE") if added is None else added > 0

    @property
    def restored(self) -> int | None:
        """Version that a RESTORE brings back, or None."""
        return named.number(self.parameters.get("version")) if self.operation == "RESTORE" else None

    def _overwrites(self) -> bool:
        if self.operation == "RESTORE":
            return self.restored is None
        replaces = self.operation.startswith(_REPLACING) or self.parameters.get("mode") == "Overwrite"
        return replaces and self._count(("numRemovedFiles", "num_removed_files")) != 0

    def _what(self) -> str:
        mode = self.parameters.get("mode")
        return f"{self.operation} ({mode})" if mode else self.operation

    def _added(self) -> int | None:
        if self.operation != "MERGE":
            return self._count(_ADDED)
        counts = [self._count(names) for names in _MERGE_WRITTEN]
        return None if None in counts else sum(filter(None, counts))

    def _count(self, names: tuple[str, ...]) -> int | None:
        counts = (named.number(self._metrics.get(name)) for name in names)
        return next((count for count in counts if count is not None), None)


@dataclass
class _Story:
    """What the commits so far did, each by its version. A RESTORE takes back what came after the version it names."""

    written: dict[int, Written] = field(default_factory=dict)
    removed: dict[int, Removed] = field(default_factory=dict)
    unnamed: dict[int, Unnamed] = field(default_factory=dict)
    _undone: list[tuple[Written, str]] = field(default_factory=list)

    def add(self, commit: _Commit) -> None:
        """Add the next commit."""
        if commit.restored is not None:
            self._restore(commit.restored, commit.place)
        elif (written := commit.written) is not None:
            self.written[commit.version] = written
        elif (removed := commit.removed) is not None:
            self.removed[commit.version] = removed
        elif commit.adds:
            self.unnamed[commit.version] = Unnamed(commit.place, commit.at_ms)

    def undone(self) -> list[Removed]:
        """Return the writes that a RESTORE took back, and that were not written again."""
        there = {named.identity(each) for each in self.written.values()}
        return [
            Removed(each.place, f"undone by RESTORE in {place}", each.rows)
            for each, place in self._undone
            if named.identity(each) not in there
        ]

    def _restore(self, version: int, place: str) -> None:
        self._undone += [(each, place) for at, each in self.written.items() if at > version]
        self.written = {at: each for at, each in self.written.items() if at <= version}
        self.removed = {at: each for at, each in self.removed.items() if at <= version}
        self.unnamed = {at: each for at, each in self.unnamed.items() if at <= version}


def _key_in(user_metadata: object) -> object:
    """Return the text of the key in ``userMetadata``, or None if it holds none."""
    if not isinstance(user_metadata, str):
        return None
    try:
        properties = json.loads(user_metadata)
    except ValueError:
        return None
    return properties.get(KEY_PROPERTY) if isinstance(properties, dict) else None
