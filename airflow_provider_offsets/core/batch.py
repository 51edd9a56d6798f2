"""One micro-batch in the history."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from airflow_provider_offsets.core.position import OffsetRange, Position, ranges_between


@dataclass(frozen=True)
class Stream:
    """Owner of a history: the Cloudera layout's ``<TOPIC_NAME>:<GROUP_ID>``, for one topic or several."""

    group_id: str
    topics: tuple[str, ...]


@dataclass(frozen=True)
class Batch:
    """A *processed* batch: its output is complete.

    A row that a job without this provider wrote (Cloudera row layout) holds only ``end`` and the batch time. Then
    ``batch_id``, ``query_id``, ``epoch`` and ``start`` are None.
    """

    end: Position
    """The offsets after the batch: the next to read."""
    batch_time_ms: int
    """Spark's ``batchTimestampMs`` of this batch, by the driver's clock: unchanged when Spark runs the batch again."""
    batch_id: int | None = None
    query_id: str | None = None
    epoch: int | None = None
    """The epoch that recorded the batch."""
    start: Position | None = None
    """The offsets before the batch, of the partitions that the batch knew."""
    row_time_ms: int | None = None
    """Time in the row key, assigned by the store: later than that of every batch recorded before this one."""

    @property
    def ranges(self) -> tuple[OffsetRange, ...]:
        """Ranges that the batch read, by partition; empty for a row without a start.

        The range of a partition that ends before its start is empty: its log was truncated. Spark plans such a batch
        and then fails.
        """
        if self.start is None:
            return ()
        start = self.start
        return ranges_between(start, Position({key: max(end, start.get(key, 0)) for key, end in self.end.items()}))

    @property
    def record_count(self) -> int:
        """Number of offsets that the batch covers."""
        return sum(each.count for each in self.ranges)

    def is_same_batch(self, other: Batch) -> bool:
        """Check whether both are the same batch of the same query. A batch keeps its id when Spark runs it again."""
        return self.batch_id is not None and (self.query_id, self.batch_id) == (other.query_id, other.batch_id)

    def has_same_offsets(self, other: Batch) -> bool:
        """Check whether both read the same ranges."""
        return (self.start, self.end) == (other.start, other.end)

    def at_row(self, row_time_ms: int) -> Batch:
        """Return a copy of this batch with that row time, in milliseconds since 1970."""
        return replace(self, row_time_ms=row_time_ms)


def next_row_time_ms(batch_time_ms: int, newest_row_time_ms: int | None) -> int:
    """Return the time for the key of a new row: the batch time, or 1 ms after the newest row if the clock went back.

    The clock of a driver on another host may be behind. Readers rely on the order of rows, so batch times would hide
    the new batches behind older ones (seen with 50 s: 600 records skipped).

    :param batch_time_ms: Spark's time of the batch, in milliseconds since 1970.
    :param newest_row_time_ms: time of the newest row in the history; None if the history is empty.
    """
    return batch_time_ms if newest_row_time_ms is None else max(batch_time_ms, newest_row_time_ms + 1)


def digest_of(batch: Batch) -> str:
    """Return 16 hex digits over the offsets of a batch, which are equal for equal ranges in any epoch."""
    start = "" if batch.start is None else batch.start.to_json()
    return hashlib.sha256(f"{start}\n{batch.end.to_json()}".encode()).hexdigest()[:16]
