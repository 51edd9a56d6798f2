"""One micro-batch as the history keeps it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from airflow_provider_offsets.core.position import OffsetRange, Position, ranges_between


@dataclass(frozen=True)
class Stream:
    """What a history belongs to: the deck's ``<TOPIC_NAME>:<GROUP_ID>``, for one topic or several."""

    group_id: str
    topics: tuple[str, ...]


@dataclass(frozen=True)
class Batch:
    """A *processed* batch: its output is finished.

    A row that a job without this provider wrote (the deck's form) tells ``end`` and the time and nothing else; then
    ``batch_id``, ``query_id``, ``epoch`` and ``start`` are None.
    """

    end: Position
    """The offsets after the batch: the next to read."""
    batch_time_ms: int
    """Spark's ``batchTimestampMs`` of this batch, by the driver's clock: the same when the batch is run again."""
    batch_id: int | None = None
    query_id: str | None = None
    epoch: int | None = None
    """The epoch that recorded it."""
    start: Position | None = None
    """The offsets before the batch, for the partitions that it knew."""
    row_time_ms: int | None = None
    """Its place in the history, given by the store: later than that of every batch recorded before it."""

    @property
    def ranges(self) -> tuple[OffsetRange, ...]:
        """What the batch read, partition by partition; empty for a row that does not tell its start.

        Nothing of a partition that ends before its start: its log was truncated, and Spark plans such a batch, and then
        fails.
        """
        if self.start is None:
            return ()
        start = self.start
        return ranges_between(start, Position({key: max(end, start.get(key, 0)) for key, end in self.end.items()}))

    @property
    def record_count(self) -> int:
        """How many offsets the batch covers."""
        return sum(each.count for each in self.ranges)

    def is_same_batch(self, other: Batch) -> bool:
        """Say whether both are one batch of one query. A batch keeps its id when it is run again."""
        return self.batch_id is not None and (self.query_id, self.batch_id) == (other.query_id, other.batch_id)

    def has_same_offsets(self, other: Batch) -> bool:
        """Say whether both read the same ranges."""
        return (self.start, self.end) == (other.start, other.end)

    def at_row(self, row_time_ms: int) -> Batch:
        """Give this batch with its place in the history."""
        return replace(self, row_time_ms=row_time_ms)


def next_row_time_ms(batch_time_ms: int, newest_row_time_ms: int | None) -> int:
    """Give the place of a new row: its batch's time, or just after the newest row where the clock went back.

    A driver on another host may have a clock that is behind. Readers go by the order of rows, so time order would
    hide its batches behind older ones (seen with 50 s: 600 records skipped).
    """
    return batch_time_ms if newest_row_time_ms is None else max(batch_time_ms, newest_row_time_ms + 1)


def digest_of(batch: Batch) -> str:
    """Return 16 hex digits over the offsets of a batch: equal for equal ranges, whoever runs it."""
    start = "" if batch.start is None else batch.start.to_json()
    return hashlib.sha256(f"{start}\n{batch.end.to_json()}".encode()).hexdigest()[:16]
