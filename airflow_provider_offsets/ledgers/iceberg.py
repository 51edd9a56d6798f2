"""The snapshots of an Iceberg table, from its newest metadata file.

Tried with tables of Iceberg 1.11.0 on Spark 4.1.1 and of PyIceberg 0.12.0. Only the ancestors of the current snapshot
are in the table. After a rollback, or on another branch, there are snapshots that are not.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_offsets.core.sink.ledger import KEY_PROPERTY, Ledger, Removed, Unnamed, Written
from airflow_provider_offsets.errors import LedgerUnreadable
from airflow_provider_offsets.ledgers import named, refusals
from airflow_provider_offsets.ledgers.folder import Folder

if TYPE_CHECKING:
    from pyiceberg.table.metadata import TableMetadata
    from pyiceberg.table.snapshots import Snapshot

_IN_CATALOG = re.compile(r"(?P<catalog>[\w.-]+):(?P<table>[^/]+)")
_METADATA_FILE = re.compile(r"(?:v(?P<hadoop>\d+)|(?P<catalog>\d+)-.+?)(?:\.gz)?\.metadata\.json")
_HINT = "version-hint.text"
"""Holds the newest version, or one before it, if the table is of a Hadoop catalog."""
_QUERY, _EPOCH = "spark.sql.streaming.queryId", "spark.sql.streaming.epochId"
_SOURCE = "source-snapshot-id"
"""Names the snapshot that a cherry-pick published: its own summary has the properties, the new one does not."""


def read(location: str) -> Ledger:
    """Read the ledger of an Iceberg table.

    :param location: ``<catalog>:<table>`` with a catalog that PyIceberg's configuration names, or the folder of a table
        of a Hadoop catalog: a path or a URL that ``fsspec`` opens.
    :raises LedgerUnreadable: no library, no such table, no access, or metadata that cannot be parsed.
    """
    try:
        import pyiceberg  # noqa: F401  # so that a missing library is told from a missing part of it
    except ImportError as error:
        raise refusals.library_missing("Iceberg tables", "iceberg", error) from error
    in_catalog = _IN_CATALOG.fullmatch(location)
    metadata = _of_catalog(**in_catalog.groupdict()) if in_catalog else _of_folder(location)
    return ledger_of(metadata.snapshots, metadata.current_snapshot_id)


def ledger_of(snapshots: Iterable[Snapshot], current: int | None) -> Ledger:
    """Return the ledger that snapshots amount to.

    :param snapshots: all snapshots in the metadata of a table.
    :param current: id of the current one; None if the table is empty.
    """
    by_id = {each.snapshot_id: _Snapshot(each) for each in snapshots}
    chain = _ancestry(by_id, current)
    written, removed, unnamed = [], [], []
    for snapshot in chain:
        if (write := snapshot.written or _picked(by_id, snapshot)) is not None:
            written.append(write)
        elif (removal := snapshot.removed) is not None:
            removed.append(removal)
        elif snapshot.adds:
            unnamed.append(Unnamed(snapshot.place, snapshot.at_ms))
    oldest = chain[0] if chain and _has_expired(chain[0], by_id.values()) else None
    there = {named.identity(each) for each in written}
    aside = [each for key, each in by_id.items() if each not in chain and not (oldest and each.at_ms < oldest.at_ms)]
    lost = [each for each in (snapshot.written for snapshot in aside) if each and named.identity(each) not in there]
    what = "not an ancestor of the current snapshot: rolled back, or on another branch"
    return Ledger(
        tuple(written),
        (*(Removed(each.place, what, each.rows) for each in lost), *removed),
        tuple(unnamed),
        oldest.place if oldest else "",
        oldest.at_ms if oldest else None,
    )


class _Snapshot:
    """One snapshot, and what it did to rows."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.parent = snapshot.parent_snapshot_id
        self.place = f"snapshot {snapshot.snapshot_id}"
        self.at_ms = snapshot.timestamp_ms
        self.sequence_number = snapshot.sequence_number or 0
        self._operation = "" if snapshot.summary is None else snapshot.summary.operation.value
        self._summary: Mapping[str, Any] = {} if snapshot.summary is None else snapshot.summary.additional_properties
        self.source = named.number(self._summary.get(_SOURCE))

    @property
    def written(self) -> Written | None:
        """The write of a batch, or None if the snapshot names no batch."""
        rows = self._count("added-records")
        return named.by_key(self._summary.get(KEY_PROPERTY), self.place, rows, self.at_ms) or named.by_query(
            self._summary.get(_QUERY), self._summary.get(_EPOCH), self.place, rows, self.at_ms
        )

    @property
    def removed(self) -> Removed | None:
        """The removal of rows, or None if the snapshot removes none.

        Copy-on-write removes all records of a file, and adds those that stay. So the difference counts.
        """
        if self._operation not in ("delete", "overwrite"):
            return None
        gone = self._count("deleted-records") + self._count("added-position-deletes")
        if not gone and not self._count("added-equality-deletes"):
            return None
        rows = gone - self._count("added-records")
        return Removed(self.place, self._operation, rows if rows > 0 else None)

    @property
    def adds(self) -> bool:
        """Whether the snapshot adds rows. A compaction only rewrites them."""
        return self._operation != "replace" and self._count("added-records") > 0

    def _count(self, name: str) -> int:
        return named.number(self._summary.get(name)) or 0


def _ancestry(by_id: Mapping[int, _Snapshot], current: int | None) -> list[_Snapshot]:
    """Return the current snapshot and its ancestors that have not expired, the oldest first."""
    chain = []
    while current is not None and current in by_id:
        chain.append(by_id[current])
        current = chain[-1].parent
    return chain[::-1]


def _has_expired(oldest: _Snapshot, snapshots: Iterable[_Snapshot]) -> bool:
    """Check whether the oldest ancestor had one before it, which has expired. PyIceberg then removes the parent's id.

    :param oldest: oldest ancestor of the current snapshot in the metadata.
    :param snapshots: all snapshots in the metadata: a table that was replaced has older ones that are no ancestors.
    """
    return oldest.parent is not None or min(each.sequence_number for each in snapshots) == oldest.sequence_number > 1


def _picked(by_id: Mapping[int, _Snapshot], snapshot: _Snapshot) -> Written | None:
    """Return the write that a cherry-pick published, or None if there is none."""
    source = None if snapshot.source is None else by_id.get(snapshot.source)
    return None if source is None else source.written


def _of_catalog(catalog: str, table: str) -> TableMetadata:
    from pyiceberg.catalog import load_catalog
    from pyiceberg.exceptions import (
        ForbiddenError,
        NoSuchNamespaceError,
        NoSuchTableError,
        NotInstalledError,
        UnauthorizedError,
    )

    where = f"{catalog}:{table}"
    try:
        with load_catalog(catalog, init_catalog_tables="false") as opened:  # the SQL catalog would create its own
            return opened.load_table(table).metadata
    except (NoSuchTableError, NoSuchNamespaceError) as error:
        raise LedgerUnreadable(
            seen=f"catalog {catalog!r} has no table {table!r}: {refusals.first_line(error)}",
            expected="the name of an Iceberg table with its namespace",
            do="correct the location of the sink",
        ) from error
    except (ForbiddenError, UnauthorizedError, PermissionError) as error:
        raise refusals.denied(where, error) from error
    except (ImportError, NotInstalledError) as error:  # the library of that kind of catalog
        raise refusals.library_missing(f"catalog {catalog!r}", None, error) from error
    except Exception as error:  # each kind of catalog has its own exceptions
        raise refusals.no_answer(where, error) from error


def _of_folder(location: str) -> TableMetadata:
    from pyiceberg.serializers import Compressor, FromByteStream

    folder = Folder(location)
    name = f"metadata/{_newest(folder)}"
    try:
        return FromByteStream.table_metadata(io.BytesIO(folder.read(name)), compression=Compressor.get_compressor(name))
    except LedgerUnreadable:
        raise
    except Exception as error:
        raise refusals.corrupt(f"{location}/{name}", refusals.first_line(error), "Iceberg's metadata") from error


def _newest(folder: Folder) -> str:
    """Return the name of the newest metadata file of a table.

    :raises LedgerUnreadable: there is none, two have the newest version, or the newest one is gone.
    """
    names = folder.sizes("metadata") or {}
    versions: dict[int, list[str]] = {}
    for name in names:
        if (found := _METADATA_FILE.fullmatch(name)) is not None:
            versions.setdefault(int(found["hadoop"] or found["catalog"]), []).append(name)
    if not versions:
        raise LedgerUnreadable(
            seen=f"there is no Iceberg table at {folder.location}: no metadata/*.metadata.json",
            expected="the folder of an Iceberg table, or <catalog>:<table>",
            do="correct the location or the format of the sink",
        )
    newest = versions[max(versions)]
    if len(newest) > 1:
        raise LedgerUnreadable(
            seen=f"{folder.location}/metadata has {len(newest)} files of version {max(versions)}",
            expected="one newest file, as a table of a Hadoop catalog has",
            do="name the table as <catalog>:<table>, because only its catalog knows which file is current",
        )
    hint = named.number(folder.read(f"metadata/{_HINT}").decode("ascii", "replace").strip()) if _HINT in names else None
    if hint is not None and hint > max(versions):
        raise refusals.corrupt(f"{folder.location}/metadata", f"no file of version {hint}", f"what {_HINT} names")
    return newest[0]
