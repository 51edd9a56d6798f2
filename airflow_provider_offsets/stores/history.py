"""What every store with a history does the same way: where a new row stands, and where a stream stands in the rows."""

from __future__ import annotations

from collections.abc import Callable

from airflow_provider_offsets import clock
from airflow_provider_offsets.core.batch import Batch, Stream, next_row_time_ms
from airflow_provider_offsets.core.position import Position
from airflow_provider_offsets.stores import rules


def place(batch: Batch, newest_row_time_ms: int | None) -> Batch:
    """Return a batch at its place in a history, behind the newest row.

    :raises StoreDataError: no row can be later than that one.
    """
    row_time_ms = next_row_time_ms(batch.batch_time_ms, newest_row_time_ms)
    rules.check_row_time(row_time_ms)
    return batch.at_row(row_time_ms)


def row_time_of(batch: Batch) -> int:
    """Return the row time of a batch that has one."""
    assert batch.row_time_ms is not None
    return batch.row_time_ms


def written_row(position: Position, newest_row_time_ms: int | None) -> Batch:
    """Return the row that a write of ``position`` adds to a history: of now, and of no batch.

    :raises StoreDataError: nothing can stand behind the newest row.
    """
    return place(Batch(end=position, batch_time_ms=clock.now_ms()), newest_row_time_ms)


def position_in(stream: Stream, newest: Callable[[Stream], Batch | None]) -> Position | None:
    """Return the position of a stream in a history: each of its topics where the newest row that names it ends.

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
