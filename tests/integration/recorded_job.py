"""What a tracked job leaves in its store, without a Spark that runs it."""

from __future__ import annotations

from airflow_provider_offsets.core.batch import Batch, Stream, digest_of
from airflow_provider_offsets.core.epoch import Claim, Ended, EndedHow, ProcessIdentity, Recorded
from airflow_provider_offsets.core.live import TopicIdentity
from airflow_provider_offsets.core.position import Position
from airflow_provider_offsets.core.record import (
    BeginBatch,
    Begun,
    ClaimLaunch,
    EndEpoch,
    EpochLaunch,
    LaunchEpoch,
    Reconcile,
    RecordBatch,
    Release,
    Take,
)
from airflow_provider_offsets.stores.control import Control
from airflow_provider_offsets.stores.protocols import OffsetStore


def record_one_batch(
    store: OffsetStore, pipeline: str, stream: Stream, identity: TopicIdentity, end: Position, checkpoint: str
) -> None:
    """Launch epoch 1, record one batch from the begin of the topics to ``end``, and stop."""
    driver = ProcessIdentity("host", "boot", 1, 1)
    start = Position(dict.fromkeys(end, 0))
    batch = Batch(end, 1_000, 0, "query", 1, start, 1_000)
    digest = digest_of(batch)
    control = Control(store, pipeline)
    cell = control.cell
    cell.create()
    control.keep_claim(Claim(1, "run", "tag", checkpoint, start, identity, stream))
    cell.change(Take("run", 1, 0))
    cell.change(LaunchEpoch("run", 1, EpochLaunch(1, "tag", "run", "plan", checkpoint), 1))
    cell.change(ClaimLaunch("tag", driver, 1))
    begun = Begun(0, "query", 1_000, "nonce", 1_000, digest)
    cell.change(BeginBatch("tag", driver, begun), stream=stream, prepare=batch)
    recorded = Recorded(1, "tag", 0, "query", 1_000, digest)
    cell.change(RecordBatch("tag", driver, "nonce", recorded), stream=stream, append=batch)
    cell.change(EndEpoch("tag", driver, Ended(EndedHow.STOPPED, 1)))
    taken = cell.change(Take("stop", 1, 0, take_over=True))
    cell.change(Reconcile("stop", taken.generation, 1))
    cell.change(Release("stop"))
