"""Protocols of an offset store. A store declares its abilities by implementing them.

Every method may raise ``StoreUnreachable`` (the server does not answer, and the call may be repeated),
``StoreLayoutError`` (the table does not exist or is not ours) and ``StoreDataError`` (a row cannot be read). After a
compare-and-set that raised ``StoreUnreachable`` it is unknown whether the text was set: read the text before the next
one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from airflow_provider_offsets.core.batch import Batch, Stream
from airflow_provider_offsets.core.position import Position, TopicPartition


@runtime_checkable
class PositionStore(Protocol):
    """Store of one position per stream."""

    kind: str
    """Name in reports: ``hbase``, ``sql``, ``memory``, ``zookeeper``, ``kafka`` or ``checkpoint``."""

    def position(self, stream: Stream) -> Position | None:
        """Return the stored position, or None if nothing is stored, which is not the same as offset 0."""
        ...


@runtime_checkable
class WritablePositionStore(PositionStore, Protocol):
    """Store of a position that may be set from outside while its job is stopped."""

    def write(self, stream: Stream, position: Position, *, expected: Position | None) -> None:
        """Set the stored position if it is ``expected`` now.

        Does nothing if ``position`` is stored already, so repeating an interrupted write finishes it. The write is
        atomic if the store can do that; each other store documents what it does.

        :param expected: the position that must be stored now; None for nothing.
        :raises InputRefused: ``position`` lacks a stored partition, or names a topic of another stream.
        :raises StateChanged: another position is stored; it is not changed.
        :raises StoreInUse: a running job uses what would be written.
        :raises StoreDenied: the store does not let this user write.
        """
        ...


@runtime_checkable
class CheckedWrites(WritablePositionStore, Protocol):
    """Store that may refuse a write for reasons of its own, and can tell before."""

    def check_write(self, stream: Stream, position: Position, *, expected: Position | None) -> None:
        """Raise what ``write`` would raise now. Nothing is written.

        :raises OffsetsError: as ``write``.
        """
        ...


@runtime_checkable
class ExpiringPositions(PositionStore, Protocol):
    """Store of a position that the store itself may delete after a time."""

    def expires(self, stream: Stream) -> str:
        """Return in one sentence what deletes the stored position, and when; an empty string if nothing does."""
        ...


@runtime_checkable
class LeaderEpochs(PositionStore, Protocol):
    """Store of the leader epoch of the last record before a position (KIP-320)."""

    def leader_epochs(self, stream: Stream) -> dict[TopicPartition, int]:
        """Return the stored epochs, without partitions that have none."""
        ...


@runtime_checkable
class HistoryStore(PositionStore, Protocol):
    """Store of every processed batch of a stream, append-only, in the order of recording.

    A batch belongs to a stream if it has the stream's group and reads one of its topics. So a pipeline keeps its
    history when a topic is added or removed.
    """

    def append(self, stream: Stream, batch: Batch) -> Batch:
        """Add a row to the history and return its batch.

        With ``batch.row_time_ms``, the row has that time, and repeating the call changes nothing. So the reader of a
        pipeline record whose row is missing can write that row. Without it, each call adds a new row, at
        ``next_row_time_ms(batch time, newest row's time)``; no pipeline record names such a row.

        :param stream: the owner of the history.
        :param batch: the batch to add.
        :returns: the batch with its row time.
        :raises BatchConflict: another batch, or the same one with other offsets, is stored at that time; it is not
            changed.
        """
        ...

    def newest_first(self, stream: Stream, *, until_ms: int | None = None) -> Iterator[Batch]:
        """Yield batches, the newest first, lazily: taking one costs the same for every length of the history.

        :param until_ms: only rows at or before this time, so the first one is the batch *as of* that time.
        """
        ...

    def oldest_first(self, stream: Stream, *, since_ms: int = 0, until_ms: int | None = None) -> Iterator[Batch]:
        """Yield batches in the order of recording, lazily.

        :param since_ms: only rows at or after this time.
        :param until_ms: only rows at or before this time; None for no limit.
        """
        ...


@runtime_checkable
class ControlStore(Protocol):
    """Store of small named texts of a pipeline (control records), each changed by compare-and-set only.

    ``name`` is printable text without spaces at its ends; by convention ``/`` separates its parts (``epoch/00000004``).
    """

    def get(self, pipeline: str, name: str) -> str | None:
        """Return the text of a control record, or None.

        :param pipeline: name of the pipeline.
        :param name: name of the control record.
        """
        ...

    def check_and_put(self, pipeline: str, name: str, expected: str | None, value: str) -> bool:
        """Set the text atomically if it is ``expected`` now, and return whether it was set.

        :param pipeline: name of the pipeline.
        :param name: name of the control record.
        :param expected: the text that must be there now; None if there must be none.
        :param value: the text to set.
        :raises StoreUnreachable: no answer arrived; the text may have been set. The call is not retried here.
        """
        ...

    def scan(self, pipeline: str, prefix: str) -> Iterator[tuple[str, str]]:
        """Yield ``(name, text)`` of all names that begin with ``prefix``, sorted by name.

        :param pipeline: name of the pipeline. Records of others are never yielded, whatever the names are (``a`` and
            ``a.b``, ``a`` and ``a-b``).
        :param prefix: start of the names; empty for all.
        """
        ...


@runtime_checkable
class OffsetStore(HistoryStore, ControlStore, Protocol):
    """Store of everything that a pipeline needs."""

    def swap(
        self,
        pipeline: str,
        name: str,
        expected: str | None,
        value: str,
        *,
        stream: Stream | None = None,
        prepare: Batch | None = None,
        append: Batch | None = None,
    ) -> bool:
        """Set a control text as ``check_and_put`` does, with the batches that belong to it; return whether it was set.

        All in one transaction if the store has transactions. Otherwise in this order: the facts, the text, the row.
        Facts without the text are not history. The next reader of the text writes a missing row (``append`` with the
        same batch).

        :param stream: of the batches.
        :param prepare: a batch that is about to start. Its facts are stored under its ``row_time_ms``, and replace only
            facts of an earlier epoch, or of the same batch of the same epoch.
        :param append: a batch whose row is added to the history if the text was set. Its facts are stored already, or
            are ``prepare``.
        :raises StoreUnreachable: no answer arrived; the text may have been set. The call is not retried here.
        :raises BatchConflict: facts that may not be replaced are stored under this row time. Nothing was set.
        """
        ...

    def prepared(self, stream: Stream, row_time_ms: int) -> Batch | None:
        """Return the facts that are stored under a row time, whether or not the batch is in the history; else None."""
        ...

    def create(self) -> None:
        """Create the store's missing tables. Safe to repeat.

        Called only at a person's request: a table that is created under a mistyped name would read as a first start.
        """
        ...

    def close(self) -> None:
        """Close connections. Safe to repeat."""
        ...
