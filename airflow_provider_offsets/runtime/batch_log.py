"""Batches as Spark's checkpoint log records them.

The log is the only source: the records of a batch may be absent or compacted.
"""

from __future__ import annotations

from airflow_provider_offsets.checkpoint.log import (
    CheckpointFiles,
    read_entry,
    read_initial,
    read_only_source,
    read_query_id,
)
from airflow_provider_offsets.core.batch import Batch
from airflow_provider_offsets.core.position import Position


class BatchLog:
    """The checkpoint log that one epoch runs on.

    :param files: files of the checkpoint.
    :param start: position at which the epoch starts, for the first batch of a checkpoint that has no initial offsets.
    """

    def __init__(self, files: CheckpointFiles, start: Position) -> None:
        self.files = files
        self._start = start
        self._query_id = ""

    @property
    def query_id(self) -> str:
        """Id of the streaming query; empty until Spark has assigned one."""
        self._query_id = self._query_id or read_query_id(self.files) or ""
        return self._query_id

    def batch(self, batch_id: int, *, epoch: int, after: Batch | None = None) -> Batch | None:
        """Return a batch that Spark has planned, or None if Spark has not planned it.

        An entry that an operation wrote to close the log is not a batch.

        :param batch_id: id of the batch, from 0 up.
        :param epoch: number of the epoch that runs the batch.
        :param after: the last batch that ran; saves reading the previous log entry.
        """
        entry = read_only_source(self.files, batch_id)
        if entry is None or entry.closed_by is not None:
            return None
        return Batch(
            start=self.start_of(batch_id, after=after),
            end=entry.end,
            batch_time_ms=entry.batch_time_ms,
            batch_id=batch_id,
            query_id=self.query_id,
            epoch=epoch,
        )

    def is_filler(self, batch: Batch) -> bool:
        """Return whether a checkpoint seed planned this batch: it has no records and does not belong in the history."""
        entry = None if batch.record_count or batch.batch_id is None else read_entry(self.files, batch.batch_id)
        return entry is not None and entry.is_seeded

    def closed_by(self, batch_id: int) -> str | None:
        """Return the operation that closed the log with this entry, or None."""
        entry = read_entry(self.files, batch_id)
        return None if entry is None else entry.closed_by

    def is_committed(self, batch_id: int) -> bool:
        """Return whether Spark has committed a batch, which means that its output is complete."""
        return self.files.text(f"commits/{batch_id}") is not None

    def has(self, batch_id: int) -> bool:
        """Return whether the log still has a batch."""
        return self.is_committed(batch_id) or self.files.text(f"offsets/{batch_id}") is not None

    def start_of(self, batch_id: int, *, after: Batch | None = None) -> Position:
        """Return the position at which a batch starts, planned or not: the end of the previous batch.

        :param batch_id: id of the batch, from 0 up.
        :param after: the last batch that ran; saves reading the previous log entry.
        """
        if after is not None and after.batch_id == batch_id - 1:
            return after.end
        previous = read_entry(self.files, batch_id - 1) if batch_id > 0 else None
        found = read_initial(self.files) if previous is None else previous.end
        return found if found is not None else self._start
