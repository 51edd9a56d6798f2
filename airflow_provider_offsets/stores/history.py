"""What every store with a history does the same way: where a new row stands, and where a stream stands in the rows."""

from __future__ import annotations

from collections.abc import Callable

from airflow_provider_offsets import clock
from airflow_provider_offsets.core.batch import Batch, Stream, next_row_time_ms
from airflow_provider_offsets.core.position import Position
from airflow_provider_offsets.errors import StoreDataError
from airflow_provider_offsets.stores import rules


def place(batch: Batch, newest_row_time_ms: int | None) -> Batch:
    """Give a batch at its place in a history, behind its newest row.

    :raises StoreDataError: nothing can stand behind that row: a row key has 13 digits.
    """
    placed_ms = next_row_time_ms(batch.batch_time_ms, newest_row_time_ms)
    if placed_ms > rules.LAST_ROW_TIME_MS:
        raise StoreDataError(
            seen=f"the newest row of the group has the time {newest_row_time_ms}",
            expected="milliseconds since 1970 that leave room for a later row",
            do="find out who wrote that row; delete it by the store's own tools",
        )
    return batch.at_row(placed_ms)


def row_time_of(batch: Batch) -> int:
    """Give the place of a batch that has one."""
    assert batch.row_time_ms is not None
    return batch.row_time_ms


def written_row(position: Position, newest_row_time_ms: int | None) -> Batch:
    """Give the row that a write of ``position`` adds to a history: of now, and of no batch.

    :raises StoreDataError: nothing can stand behind the newest row.
    """
    return place(Batch(end=position, batch_time_ms=clock.now_ms()), newest_row_time_ms)


def position_in(stream: Stream, newest: Callable[[Stream], Batch | None]) -> Position | None:
    """Give where a stream stands in a history: each of its topics where the newest row that names it ends.

    Jobs of the deck's kind write one row for each topic, once the output of the whole batch is finished. Where a crash
    came between two of these rows, the second topic stands at its older row: its part of the batch is read again,
    nothing is skipped.

    :param newest: gives the newest batch of a stream.
    """
    last = newest(stream)
    if last is None:
        return None
    ends = [last.end]
    for topic in set(stream.topics) - set(last.end.topics):
        older = newest(Stream(stream.group_id, (topic,)))
        if older is not None:
            ends.append(Position({each: offset for each, offset in older.end.items() if each.topic == topic}))
    return Position({each: offset for end in ends for each, offset in end.items() if each.topic in stream.topics})
