"""What an operation works with, and how it looks at it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import islice

from airflow_provider_offsets.core.batch import Batch, Stream
from airflow_provider_offsets.core.epoch import BegunBatch, Epoch, Moved, is_zombie
from airflow_provider_offsets.core.live import LiveTopics
from airflow_provider_offsets.core.pipeline import NAME, StreamingPipeline
from airflow_provider_offsets.core.position import Position
from airflow_provider_offsets.core.snapshot import (
    CHECKPOINT,
    HISTORY,
    CheckpointState,
    KeptPosition,
    Observation,
    Snapshot,
    snapshot_id,
)
from airflow_provider_offsets.errors import CheckpointError, InputRefused
from airflow_provider_offsets.kafka.view import KafkaView
from airflow_provider_offsets.stores.checkpoint import open_checkpoint, read_state
from airflow_provider_offsets.stores.control import Control
from airflow_provider_offsets.stores.protocols import HistoryStore, OffsetStore, PerishablePositions, PositionStore
from airflow_provider_offsets.stores.swap import read_in_place

LOOKS = 5
"""How often a running job is looked at until its checkpoint and its history are of the same moment."""


@dataclass(frozen=True)
class World:
    """One pipeline, its store and its topics, as one operation sees and changes them."""

    pipeline: StreamingPipeline
    operation: str
    store: OffsetStore
    kafka: KafkaView
    kept_in: Mapping[str, PositionStore] = field(default_factory=dict)
    """The stores of ``pipeline.offsets_in`` that a connection leads to, by its id."""

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
        elsewhere = {name: self._kept_elsewhere(name, store) for name, store in self.kept_in.items()}
        moved = None if self.pipeline.tracked else self.control.moved(1 if epoch is None else epoch.number + 1)
        checkpoint, processed = self._checkpoint_and_history(epoch, moved)
        return Observation(
            pipeline=self.pipeline.name,
            live=self.live_topics(),
            checkpoint=checkpoint,
            processed=processed,
            epoch=epoch,
            ended=ended,
            begun=begun,
            kept=self._kept(checkpoint, processed, elsewhere),
            moved=moved,
        )

    def live_topics(self) -> LiveTopics:
        """Give the pipeline's topics as its job sees them: of committed records only, if it reads no others."""
        return self.kafka.live_topics(self.pipeline.topics, read_committed=self.pipeline.read_committed)

    def started_epoch(self) -> Epoch | None:
        """Give the epoch that this operation has started already, or None."""
        newest = self.control.newest_epoch()
        return newest if newest is not None and newest.claim.operation == self.operation else None

    def take_snapshot(self, moment: str, *, reason: str, taken_at: str, label: str = "") -> Snapshot:
        """Store what is seen now under this operation and ``moment``, or give the snapshot that is stored there.

        :param label: a name for people; no other snapshot of the pipeline may have it.
        :raises InputRefused: the label is taken, or is no name.
        """
        self._require_free(label, snapshot_id(self.operation, moment))
        snapshot = Snapshot(
            id=snapshot_id(self.operation, moment),
            operation=self.operation,
            moment=moment,
            reason=reason,
            taken_at=taken_at,
            seen=self.observe(),
            label=label,
        )
        return self.control.keep_snapshot(snapshot.sealed())

    def _require_free(self, label: str, id_: str) -> None:
        if label and not NAME.fullmatch(label):
            raise InputRefused(
                seen=f"label {label!r}",
                expected="a letter or digit, then up to 99 letters, digits, '_', '.' or '-'",
                do="choose another label",
            )
        taken = [each.id for each in self.control.labelled(label) if each.id != id_] if label else []
        if taken:
            raise InputRefused(
                seen=f"label {label!r} is that of snapshot {taken[0]!r}",
                expected="a label of its own for each snapshot of a pipeline",
                do="choose another label, or remove that snapshot",
            )

    def _kept(
        self, checkpoint: CheckpointState | None, processed: Batch | None, elsewhere: Mapping[str, KeptPosition]
    ) -> tuple[KeptPosition, ...]:
        """What each store says, in the order of ``offsets_in``; of a tracked job the checkpoint too, named or not."""
        names = self.pipeline.offsets_in
        if self.pipeline.tracked and CHECKPOINT not in names:
            names = (*names, CHECKPOINT)
        own = {
            HISTORY: KeptPosition(
                HISTORY,
                HISTORY,
                None if processed is None else processed.end,
                None if processed is None else processed.start,
            ),
            CHECKPOINT: KeptPosition(CHECKPOINT, CHECKPOINT, None if checkpoint is None else checkpoint.committed),
        }
        return tuple({**own, **elsewhere}[name] for name in names)

    def _kept_elsewhere(self, name: str, store: PositionStore) -> KeptPosition:
        stream = self.pipeline.stream
        perishes = store.perishes(stream) if isinstance(store, PerishablePositions) else ""
        before = _one_row_before(store, stream) if isinstance(store, HistoryStore) else None
        return KeptPosition(name, store.kind, store.position(stream), before, perishes)

    def _newest_begun(self, epoch: Epoch | None) -> BegunBatch | None:
        """The batch that was begun last; an epoch that ended before its first batch does not hide the one before."""
        numbers = range(0 if epoch is None else epoch.number, 0, -1)
        return next((begun for number in numbers if (begun := self.control.begun(number)) is not None), None)

    def _checkpoint_and_history(
        self, epoch: Epoch | None, moved: Moved | None
    ) -> tuple[CheckpointState | None, Batch | None]:
        location = (epoch.claim.checkpoint if epoch is not None else "") or self.pipeline.job.checkpoint
        if not self.pipeline.tracked:
            return self._checkpoint_of_untouched(location, moved), None
        for _ in range(LOOKS):
            checkpoint = read_state(open_checkpoint(location))
            processed = self._newest_batch(epoch)
            if checkpoint is None or processed is None or processed.query_id != checkpoint.query_id:
                break
            if processed.batch_id in (checkpoint.committed_batch_id, checkpoint.planned_batch_id):
                break
        return checkpoint, processed

    def _checkpoint_of_untouched(self, location: str, moved: Moved | None) -> CheckpointState | None:
        """An empty place is a first start only if nobody was moving a checkpoint there: the folders beside it tell,
        and so does the cell that notes a move."""
        if CHECKPOINT not in self.pipeline.offsets_in:
            return None
        found = read_in_place(location)
        if found is None and moved is not None and moved.kept is not None and self.pipeline.ruling == CHECKPOINT:
            raise CheckpointError(
                seen=f"nothing at {location}, which operation {moved.operation!r} was moving",
                expected="the old checkpoint, or the seeded one in its place",
                do="restore it, and run the apply task of that operation again",
            )
        return found

    def _newest_batch(self, epoch: Epoch | None) -> Batch | None:
        newest = newest_batch(self.store, self.pipeline.stream, epoch)
        if newest is None or newest.start is not None:
            return newest
        # Jobs of the deck's kind record topic by topic: the newest row is the position of its own topic alone.
        return replace(newest, end=self.store.position(self.pipeline.stream) or newest.end)


def newest_batch(history: HistoryStore, stream: Stream, epoch: Epoch | None) -> Batch | None:
    """Give the newest batch of a history, without what older epochs wrote after ``epoch`` was claimed."""
    return next((batch for batch in history.newest_first(stream) if not is_zombie(batch, epoch)), None)


def _one_row_before(history: HistoryStore, stream: Stream) -> Position | None:
    """Where a history stood one row before the newest one, topic by topic: a job of the deck's kind writes one row for
    each topic of a batch."""
    rows = list(islice(history.newest_first(stream), 2 * len(stream.topics)))
    ends = {topic: [row.end for row in rows if topic in row.end.topics] for topic in stream.topics}
    found = {
        partition: offset
        for topic, positions in ends.items()
        for partition, offset in (positions[1].items() if len(positions) > 1 else ())
        if partition.topic == topic
    }
    return Position(found) if found else None
