"""A process that appends to a history. It imports the store alone, because a test waits until it has started."""

from __future__ import annotations

from airflow_provider_offsets.core.batch import Batch, Stream
from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.stores.sql.store import SqlStore


def append_batches(url: str, stream: Stream, first: int, time_ms: int) -> None:
    """Append 25 batches, all with the same batch time.

    :param url: where the store is.
    :param stream: the history.
    :param first: number of the first batch.
    :param time_ms: batch time of each.
    """
    store = SqlStore(url)
    for number in range(first, first + 25):
        start, end = (Position({TopicPartition("t", 0): 10 * each}) for each in (number, number + 1))
        store.append(stream, Batch(end, time_ms, number, "q", 1, start))
    store.close()
