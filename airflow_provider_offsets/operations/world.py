"""What an operation works with, and how it looks at it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from airflow_provider_offsets.core.batch import Batch, Stream
from airflow_provider_offsets.core.epoch import BegunBatch, Epoch
from airflow_provider_offsets.core.pipeline import StreamingPipeline
from airflow_provider_offsets.core.snapshot import CheckpointState, Observation, Snapshot
from airflow_provider_offsets.kafka.view import KafkaView
from airflow_provider_offsets.stores.checkpoint import LocalCheckpoint, read_state
from airflow_provider_offsets.stores.control import Control
from airflow_provider_offsets.stores.protocols import HistoryStore, OffsetStore

LOOKS = 5
"""How often a running job is looked at until its checkpoint and its history are of the same moment."""


@dataclass(frozen=True)
class World:
    """One pipeline, its store and its topics, as one operation sees and changes them."""

    pipeline: StreamingPipeline
    operation: str
    store: OffsetStore
    kafka: KafkaView

    @property
    def control(self) -> Control:
        """The control cells of the pipeline."""
        return Control(self.store, self.pipeline.name)

    def observe(self) -> Observation:
        """Give all that a restart is decided from. Nothing is changed, no consumer group is joined.

        What moves is read in the order in which it moves: checkpoint, then history, then the ends of the topics; so
        a running job does not look as if its history were behind, or its position past the end.
        """
        epoch = self.control.newest_epoch()
        ended = None if epoch is None else self.control.ended(epoch.number)
        begun = self._newest_begun(epoch)
        checkpoint, processed = self._checkpoint_and_history(epoch)
        return Observation(
            pipeline=self.pipeline.name,
            live=self.kafka.live_topics(self.pipeline.topics),
            checkpoint=checkpoint,
            processed=processed,
            epoch=epoch,
            ended=ended,
            begun=begun,
        )

    def started_epoch(self) -> Epoch | None:
        """Give the epoch that this operation has started already, or None."""
        newest = self.control.newest_epoch()
        return newest if newest is not None and newest.claim.operation == self.operation else None

    def take_snapshot(self, moment: str, *, reason: str, taken_at: str) -> Snapshot:
        """Store what is seen now under this operation and ``moment``, or give the snapshot that is stored there."""
        snapshot = Snapshot(
            id=f"{self.operation}#{moment}",
            operation=self.operation,
            moment=moment,
            reason=reason,
            taken_at=taken_at,
            seen=self.observe(),
        )
        return self.control.keep_snapshot(snapshot.sealed())

    def _newest_begun(self, epoch: Epoch | None) -> BegunBatch | None:
        """The batch that was begun last; an epoch that ended before its first batch does not hide the one before."""
        numbers = range(0 if epoch is None else epoch.number, 0, -1)
        return next((begun for number in numbers if (begun := self.control.begun(number)) is not None), None)

    def _checkpoint_and_history(self, epoch: Epoch | None) -> tuple[CheckpointState | None, Batch | None]:
        location = self.pipeline.job.checkpoint if epoch is None else epoch.claim.checkpoint
        for _ in range(LOOKS):
            checkpoint = read_state(LocalCheckpoint(location))
            processed = self._newest_batch(epoch)
            if checkpoint is None or processed is None or processed.query_id != checkpoint.query_id:
                break
            if processed.batch_id in (checkpoint.committed_batch_id, checkpoint.planned_batch_id):
                break
        return checkpoint, processed

    def _newest_batch(self, epoch: Epoch | None) -> Batch | None:
        newest = newest_batch(self.store, self.pipeline.stream, epoch)
        if newest is None or newest.start is not None:
            return newest
        # Jobs of the deck's kind record topic by topic: the newest row is the position of its own topic alone.
        return replace(newest, end=self.store.position(self.pipeline.stream) or newest.end)


def newest_batch(history: HistoryStore, stream: Stream, epoch: Epoch | None) -> Batch | None:
    """Give the newest batch of a history, without what older epochs wrote after ``epoch`` was claimed."""
    return next((batch for batch in history.newest_first(stream) if not is_zombie(batch, epoch)), None)


def is_zombie(batch: Batch, epoch: Epoch | None) -> bool:
    """Say whether another writer recorded ``batch`` after ``epoch`` was claimed: readers ignore such a row."""
    if epoch is None or batch.epoch == epoch.number or batch.row_time_ms is None:
        return False
    return epoch.after_row_time_ms is None or batch.row_time_ms > epoch.after_row_time_ms
