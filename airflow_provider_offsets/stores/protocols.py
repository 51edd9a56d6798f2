"""What an offset store can do: three small protocols. Each store declares which it has by implementing them.

Every method may raise ``StoreUnreachable`` (the server does not answer; nothing was done, or the same call again does
no harm), ``StoreLayoutError`` (the table is not there or is not ours) and ``StoreDataError`` (a row cannot be read).
After a compare-and-set that raised ``StoreUnreachable`` nobody knows whether the text was set: read it before the next
one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from airflow_provider_offsets.core.batch import Batch, Stream
from airflow_provider_offsets.core.position import Position, TopicPartition


@runtime_checkable
class PositionStore(Protocol):
    """Keeps one position of a stream."""

    kind: str
    """What reports call it: ``hbase``, ``sql``, ``memory``, ``zookeeper``, ``kafka`` or ``checkpoint``."""

    def position(self, stream: Stream) -> Position | None:
        """Return the stored position; None if nothing is stored, which is not the same as offset 0."""
        ...


@runtime_checkable
class WritablePositionStore(PositionStore, Protocol):
    """Keeps a position that may be set from outside, while the job that owns it is at rest."""

    def write(self, stream: Stream, position: Position, *, expected: Position | None) -> None:
        """Set the stored position, if it is ``expected`` now (None: nothing is stored).

        Where it is ``position`` already nothing is done: so a write that was cut off is finished by repeating it.
        Whole or not at all where the store can do that; each store says what it does where it cannot.

        :raises InputRefused: ``position`` does not name every partition that is stored, or names another topic.
        :raises WorldChanged: something else is stored; it is left as it is.
        :raises StoreInUse: a running job holds what would be written.
        :raises StoreDenied: the store does not let this user write.
        """
        ...


@runtime_checkable
class PerishablePositions(PositionStore, Protocol):
    """Keeps a position that the store itself may delete after a time."""

    def perishes(self, stream: Stream) -> str:
        """Return in one sentence what deletes the stored position, and when; empty if nothing does."""
        ...


@runtime_checkable
class LeaderEpochs(PositionStore, Protocol):
    """Keeps with a position the leader epoch of the last record before it (KIP-320)."""

    def leader_epochs(self, stream: Stream) -> dict[TopicPartition, int]:
        """Return the epochs that are stored; a partition without one is left out."""
        ...


@runtime_checkable
class HistoryStore(PositionStore, Protocol):
    """Keeps every processed batch of a stream, append-only, in the order of recording.

    A batch is of a stream if it has its group and reads one of its topics: so a pipeline keeps its history when a topic
    is added to it or taken from it.
    """

    def append(self, stream: Stream, batch: Batch) -> Batch:
        """Add a row to the history and return its batch.

        With ``batch.row_time_ms`` it is the row of that time, and adding it again changes nothing: so whoever reads a
        record whose row is missing writes that row. Without one it is a new row of
        ``next_row_time_ms(batch time, newest row's time)``, at each call: such rows no record names.

        :raises BatchConflict: another batch, or the same one with other offsets, is kept at that time; it stands.
        """
        ...

    def newest_first(self, stream: Stream, *, until_ms: int | None = None) -> Iterator[Batch]:
        """Yield batches from the newest backwards, lazily: taking one costs one, whatever the history holds.

        :param until_ms: only rows at or before this time (so the first one is the batch *as of* then).
        """
        ...

    def oldest_first(self, stream: Stream, *, since_ms: int = 0, until_ms: int | None = None) -> Iterator[Batch]:
        """Yield batches in the order of recording, lazily, rows in ``[since_ms, until_ms]``."""
        ...


@runtime_checkable
class ControlStore(Protocol):
    """Keeps small named texts of a pipeline, each changed by compare-and-set only.

    ``name`` is printable text without spaces at its ends; ``/`` separates its parts by custom (``epoch/00000004``).
    """

    def get(self, pipeline: str, name: str) -> str | None:
        """Return the text, or None."""
        ...

    def check_and_put(self, pipeline: str, name: str, expected: str | None, value: str) -> bool:
        """Set the text if it is ``expected`` now (None: not there), atomically against all other callers, and return
        whether it was set.

        :raises StoreUnreachable: nobody knows whether the text was set. It is not sent a second time.
        """
        ...

    def scan(self, pipeline: str, prefix: str) -> Iterator[tuple[str, str]]:
        """Yield ``(name, text)`` of all names that begin with ``prefix``, sorted by name. Never another pipeline's,
        however the names are made (``a`` and ``a.b``, ``a`` and ``a-b``)."""
        ...


class OffsetStore(HistoryStore, ControlStore, Protocol):
    """A store that can hold all that a pipeline needs."""

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

        One transaction where the store has transactions. Where it has none: the facts first, then the text, then the
        row. Facts without the text are not history. A row that is missing is written by whoever reads the text next
        (``append`` with the same batch).

        :param stream: that of the batches.
        :param prepare: a batch that is about to begin. Its facts are kept under its ``row_time_ms``, and replace only
            facts of an earlier epoch, or of the same batch of the same epoch.
        :param append: a batch whose row is added to the history, if the text was set. Its facts are kept already, or
            are ``prepare``.
        :raises StoreUnreachable: nobody knows whether the text was set. It is not sent a second time.
        :raises BatchConflict: facts that may not be replaced are kept under this row time. Nothing was set.
        """
        ...

    def prepared(self, stream: Stream, row_time_ms: int) -> Batch | None:
        """Return the facts that are kept under a row time, whether or not the batch is in the history; else None."""
        ...

    def create(self) -> None:
        """Create what is missing of the store's tables. Safe to repeat. Never called behind a person's back: a table
        that appears by itself under a mistyped name reads as a first start."""
        ...

    def close(self) -> None:
        """Let go of connections. Safe to repeat."""
        ...
