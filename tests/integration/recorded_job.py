"""What a tracked job leaves in its store, written without Spark."""

from __future__ import annotations

from airflow_provider_offsets.control.pipeline import Control
from airflow_provider_offsets.core.batch import Batch, Stream, digest_of
from airflow_provider_offsets.core.epoch import Claim, Ended, EndedHow, ProcessIdentity, Recorded
from airflow_provider_offsets.core.live import TopicIdentity
from airflow_provider_offsets.core.position import Position
from airflow_provider_offsets.core.record.events import (
    ClaimLaunch,
    EndEpoch,
    LaunchEpoch,
    Reconcile,
    RecordBatch,
    ReleaseLease,
    StartBatch,
    TakeLease,
)
from airflow_provider_offsets.core.record.model import EpochLaunch, StartedBatch
from airflow_provider_offsets.stores.protocols import OffsetStore


def record_one_batch(
    store: OffsetStore,
    pipeline: str,
    stream: Stream,
    identity: TopicIdentity,
    end: Position,
    checkpoint: str,
    *,
    number: int = 1,
    start: Position | None = None,
) -> None:
    """Launch an epoch, record one batch from ``start`` (by default the begin of the topics) to ``end``, and stop.

    :param number: the number of the epoch and of its batch; earlier epochs were launched and stopped.
    """
    run, stop, tag = f"run-{number}", f"stop-{number}", f"tag-{number}"
    driver = ProcessIdentity("host", "boot", 1, 1)
    start = Position(dict.fromkeys(end, 0)) if start is None else start
    batch_id, time_ms = number - 1, 1_000 * number
    batch = Batch(end, time_ms, batch_id, "query", number, start, time_ms)
    digest = digest_of(batch)
    control = Control(store, pipeline)
    cell = control.cell
    if number > 1:
        record = cell.read()
        assert record is not None
        control.keep_epoch(control.newest_launch(record))  # as a submit does before it launches the next one
    else:
        cell.create()
    control.keep_claim(Claim(number, run, tag, checkpoint, start, identity, stream))
    launching = cell.change(TakeLease(run, 1, 0))
    cell.change(LaunchEpoch(run, launching.generation, EpochLaunch(number, tag, run, "plan", checkpoint), 1))
    cell.change(ClaimLaunch(tag, driver, 1))
    started = StartedBatch(batch_id, "query", time_ms, "nonce", time_ms, digest)
    cell.change(StartBatch(tag, driver, started), stream=stream, prepare=batch)
    recorded = Recorded(number, tag, batch_id, "query", time_ms, digest)
    cell.change(RecordBatch(tag, driver, "nonce", recorded), stream=stream, append=batch)
    cell.change(EndEpoch(tag, driver, Ended(EndedHow.STOPPED, 1)))
    taken = cell.change(TakeLease(stop, 1, 0, take_over=True))
    cell.change(Reconcile(stop, taken.generation, number))
    cell.change(ReleaseLease(stop))
