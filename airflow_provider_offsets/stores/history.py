"""Rules that every store with a history shares: the place of a new row, and the position of a stream."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace

from airflow_provider_offsets import clock
from airflow_provider_offsets.core.batch import Batch, Stream, next_row_time_ms
from airflow_provider_offsets.core.position import Position
from airflow_provider_offsets.stores import rules


def place(batch: Batch, newest_row_time_ms: int | None) -> Batch:
    """Return a batch with its row time, after the newest row.

    :param batch: the batch, without a row time.
    :param newest_row_time_ms: time of the newest row in the history; None if the history is empty.
    :raises StoreDataError: the newest row already has the greatest possible time.
    """
    row_time_ms = next_row_time_ms(batch.batch_time_ms, newest_row_time_ms)
    rules.check_row_time(row_time_ms)
    return batch.at_row(row_time_ms)


def row_time_of(batch: Batch) -> int:
    """Return the row time of a batch that has one."""
    assert batch.row_time_ms is not None
    return batch.row_time_ms


def written_row(position: Position, newest_row_time_ms: int | None) -> Batch:
    """Return the row that a write of ``position`` adds to a history: at the current time, and of no batch.

    :param position: end offset of each partition.
    :param newest_row_time_ms: time of the newest row in the history; None if the history is empty.
    :raises StoreDataError: the newest row already has the greatest possible time.
    """
    return place(Batch(end=position, batch_time_ms=clock.now_ms()), newest_row_time_ms)


def position_in(stream: Stream, newest: Callable[[Stream], Batch | None]) -> Position | None:
    """Return the position of a stream in a history: the end of each topic in the newest row that names the topic.

    Jobs with the Cloudera row layout write one row per topic, once the output of the whole batch is complete. After a
    crash between two of these rows, the second topic keeps its older row. Then its part of the batch is replayed, and
    nothing is skipped.

    :param stream: group and topics.
    :param newest: returns the newest batch of a stream.
    """
    rows = list(newest_rows(stream, newest))
    return Position({each: offset for row in rows for each, offset in row.end.items()}) if rows else None


def newest_rows(stream: Stream, newest: Callable[[Stream], Batch | None]) -> Iterator[Batch]:
    """Yield the newest row of each topic, each row with the ends of the topics whose newest row it is.

    :param stream: group and topics.
    :param newest: returns the newest batch of a stream.
    """
    last = newest(stream)
    if last is None:
        return
    yield _of_topics(last, set(stream.topics))
    for topic in sorted(set(stream.topics) - set(last.end.topics)):
        older = newest(Stream(stream.group_id, (topic,)))
        if older is not None:
            yield _of_topics(older, {topic})


def _of_topics(row: Batch, topics: Collection[str]) -> Batch:
    return replace(row, end=Position({each: offset for each, offset in row.end.items() if each.topic in topics}))
