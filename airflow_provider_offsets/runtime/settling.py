"""Bring the books of the epoch before up to date, before a new one is claimed.

Under a native sink Spark runs and commits a batch in one go, and only then can it be recorded. A driver that dies in
between leaves a batch that is finished and not in the history. What its checkpoint's log says is a fact that anybody
may record, under the epoch that ran it: so the history tiles, and nothing is read again.
"""

from __future__ import annotations

from airflow_provider_offsets.core.batch import Stream
from airflow_provider_offsets.core.epoch import BegunBatch
from airflow_provider_offsets.runtime.batch_log import BatchLog
from airflow_provider_offsets.stores.control import Control
from airflow_provider_offsets.stores.protocols import HistoryStore


def settle(control: Control, history: HistoryStore, stream: Stream, number: int, log: BatchLog) -> None:
    """Record what epoch ``number`` committed and did not record, and the ranges of the batch that it was cut off in.

    Before the claim of the next epoch: readers ignore what an older epoch's batches say after it. Safe to repeat, and
    to be done by two drivers at once: the same batch again changes nothing. The note comes last, because a note with
    ranges says that there is nothing left to settle.

    :param log: of the checkpoint that the epoch ran on.
    :raises BatchConflict: the history has other offsets for such a batch.
    """
    begun = control.begun(number)
    if begun is None or not begun.is_ahead:
        return
    noted = batch = log.batch(begun.batch_id, epoch=number)
    if noted is None:
        return
    while batch is not None and log.is_committed(batch.batch_id or 0):
        history.append(stream, batch)
        batch = log.batch((batch.batch_id or 0) + 1, epoch=number, after=batch)
    control.begin(number, BegunBatch.of(noted))
