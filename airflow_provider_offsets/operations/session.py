"""The session of an operation: pipeline, stores and Kafka, and how they are observed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import islice

from airflow_provider_offsets.checkpoint.files import open_checkpoint
from airflow_provider_offsets.checkpoint.log import read_state
from airflow_provider_offsets.checkpoint.swap import cut_off_swap, read_in_place, seeded_beside
from airflow_provider_offsets.control.pipeline import Control
from airflow_provider_offsets.control.record_cell import RecordCell
from airflow_provider_offsets.core.batch import Batch, Stream, digest_of
from airflow_provider_offsets.core.epoch import Cut, EndedHow, Epoch, Recorded, RecordedMove
from airflow_provider_offsets.core.known import adopted_batch, needs_records, with_records
from airflow_provider_offsets.core.late import late_writes
from airflow_provider_offsets.core.live import LiveTopics
from airflow_provider_offsets.core.location import plain_path
from airflow_provider_offsets.core.pipeline import NAME, StreamingPipeline
from airflow_provider_offsets.core.position import Position, ranges_between
from airflow_provider_offsets.core.record.model import Phase, PipelineRecord, StartedBatch
from airflow_provider_offsets.core.snapshot import (
    CHECKPOINT,
    HISTORY,
    CheckpointState,
    KeptPosition,
    Observation,
    Snapshot,
    snapshot_id,
)
from airflow_provider_offsets.errors import CheckpointError, InputRefused, StateChanged, StoreDataError, TopicMissing
from airflow_provider_offsets.kafka.view import KafkaView
from airflow_provider_offsets.stores.history import newest_rows
from airflow_provider_offsets.stores.protocols import ExpiringPositions, HistoryStore, OffsetStore, PositionStore

MOST_TRIES = 5
"""How often a job is observed until what was read belongs together."""


@dataclass(frozen=True)
class Session:
    """One pipeline, its stores and its topics, as one operation uses them."""

    pipeline: StreamingPipeline
    operation: str
    store: OffsetStore
    kafka: KafkaView
    kept_in: Mapping[str, PositionStore] = field(default_factory=dict)
    """Stores of ``pipeline.offsets_in`` that have a connection, by connection id."""

    @property
    def control(self) -> Control:
        """Control records of the pipeline."""
        return Control(self.store, self.pipeline.name)

    @cached_property
    def cell(self) -> RecordCell:
        """The pipeline's record, as this session reads and changes it."""
        return self.control.cell

    def observe(self) -> Observation:
        """Return everything that a restart decision needs. Nothing is changed, and no consumer group is joined.

        The checkpoint is read first, then the record, then the end offsets of the topics: the order in which they
        change. So a running job never seems to have a history that is behind, or a position past the end.

        A task may hang here while other operations start and stop the job. Then positions and record would belong to
        different epochs. So everything is read again unless the record's generation has stayed the same.

        :raises StateChanged: lease or phase changed during each of the tries.
        """
        for _ in range(MOST_TRIES):
            before = self.control.record()
            seen = self._observe(before)
            if _generation(before) == seen.generation == _generation(self.control.record()):
                return seen
        raise StateChanged(
            seen=f"lease or phase of pipeline {self.pipeline.name!r} changed during each of {MOST_TRIES} observations",
            expected="an observation during which neither changes",
            do="run this task again",
        )

    def _observe(self, before: PipelineRecord | None) -> Observation:
        elsewhere = {name: self._kept_elsewhere(name, store) for name, store in self.kept_in.items()}
        record, epoch, checkpoint, left = self._record_and_checkpoints(before)
        processed = self._processed(record, epoch, checkpoint)
        live = self.live_topics()
        seen = Observation(
            pipeline=self.pipeline.name,
            live=live,
            checkpoint=checkpoint,
            opens=self.opens,
            left=left,
            processed=processed,
            epoch=epoch,
            phase=Phase.STOPPED if record is None else record.phase,
            launched=0 if record is None else record.epoch,
            generation=_generation(record),
            cut=self._cut(record, epoch, checkpoint, processed, live),
            kept=self._kept(checkpoint, processed, elsewhere),
            moved=self._move(record),
        )
        if record is not None and record.writes and self.keeps_position_elsewhere:
            pending = [(write, self.control.move(write.plan)) for write in record.writes]
            seen = replace(seen, late=late_writes(seen, pending, list(self.control.snapshots())))
        if not needs_records(seen):
            return seen
        has_history = HISTORY in (self.pipeline.authoritative, seen.former_store)
        has_history = has_history or any(seen.is_put_back(topic) for topic in self.pipeline.topics)
        history = self._newest_rows() if has_history else ()
        return with_records(seen, self.control.snapshots(), self.control.epochs(), history)

    @property
    def keeps_position_elsewhere(self) -> bool:
        """Whether the job starts from a store of its own, which is neither the history nor a checkpoint."""
        return not self.pipeline.tracked and self.pipeline.authoritative != CHECKPOINT

    @property
    def opens(self) -> str:
        """Location of the checkpoint that an untracked job opens, in its shortest form.

        Empty if the job does not start from a checkpoint.
        """
        is_untracked = not self.pipeline.tracked and self.pipeline.authoritative == CHECKPOINT
        return plain_path(self.pipeline.job.checkpoint) if is_untracked else ""

    def live_topics(self) -> LiveTopics:
        """Return the pipeline's topics as its job sees them: only committed records if the job reads only those."""
        return self.kafka.live_topics(self.pipeline.topics, read_committed=self.pipeline.read_committed)

    def ends_of(self, epoch: Epoch) -> Position:
        """Return the end offsets of the topics that an epoch reads, as far as they still exist.

        The pipeline may have other topics since.
        """
        ends = Position()
        for topic in epoch.claim.stream.topics:
            with suppress(TopicMissing):
                live = self.kafka.live_topics([topic], read_committed=self.pipeline.read_committed)
                ends = ends.updated(live.end)
        return ends

    def claimed_epoch(self) -> Epoch | None:
        """Return the newest epoch that a driver claimed, or None before the first one."""
        return self.control.claimed_epoch(self.control.record())

    def has_launched(self) -> bool:
        """Return whether the newest launch of the pipeline belongs to this operation, and was not cancelled."""
        record = self.control.record()
        if record is None or record.launch is None or record.launch.operation != self.operation:
            return False
        return record.ended is None or record.ended.how is not EndedHow.CANCELLED

    def take_snapshot(self, moment: str, *, reason: str, taken_at: str, label: str = "") -> Snapshot:
        """Store an observation under this operation and ``moment``, or return the snapshot that already exists.

        :param moment: distinguishes the snapshots of one operation.
        :param reason: reason for the records.
        :param taken_at: current time in ISO format.
        :param label: name for people; it must be unique among the pipeline's snapshots.
        :raises InputRefused: the label is taken or malformed.
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
                seen=f"label {label!r} is not valid",
                expected="a letter or digit, then up to 99 letters, digits, '_', '.' or '-'",
                do="choose another label",
            )
        taken = [each.id for each in self.control.labelled(label) if each.id != id_] if label else []
        if taken:
            raise InputRefused(
                seen=f"label {label!r} already belongs to snapshot {taken[0]!r}",
                expected="a label of its own for each snapshot of a pipeline",
                do="choose another label, or remove the snapshot",
            )

    def _kept(
        self, checkpoint: CheckpointState | None, processed: Batch | None, elsewhere: Mapping[str, KeptPosition]
    ) -> tuple[KeptPosition, ...]:
        """Return the position in each store of ``offsets_in``; for a tracked job always that of the checkpoint too."""
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
        expires = store.expires(stream) if isinstance(store, ExpiringPositions) else ""
        before = _one_row_before(store, stream) if isinstance(store, HistoryStore) else None
        return KeptPosition(name, store.kind, store.position(stream), before, expires)

    def _record_and_checkpoints(
        self, record: PipelineRecord | None
    ) -> tuple[PipelineRecord | None, Epoch | None, CheckpointState | None, CheckpointState | None]:
        """Return record, epoch and checkpoints as of one moment, unless the job changes them too fast.

        The first checkpoint is the one that the job opens. The second one is ``Observation.left``.

        :param record: the record as last read.
        """
        control = self.control
        for _ in range(MOST_TRIES):
            epoch, left = control.claimed_epoch(record), None
            claimed = "" if epoch is None else epoch.claim.checkpoint
            if self.pipeline.tracked:
                checkpoint = read_state(open_checkpoint(claimed or self.pipeline.job.checkpoint))
            else:
                checkpoint = self._checkpoint_of_untracked(self._move(record))
                left = self._left(record, epoch)
            before, record = record, control.record()
            if record == before:
                break
        return record, control.claimed_epoch(record), checkpoint, left

    def _left(self, record: PipelineRecord | None, epoch: Epoch | None) -> CheckpointState | None:
        """Return the checkpoint of an untracked job's newest epoch, if its program opens another one now.

        ``job.checkpoint`` was changed, or the job was tracked and repositioned. A batch that it recorded then is
        complete, even if Spark has not committed it. The program would run such a batch again, so the checkpoint counts
        as left even if the program opens it now. A stateful query cannot leave it.
        """
        if epoch is None or record is None or self.pipeline.authoritative != CHECKPOINT:
            return None
        location = epoch.claim.checkpoint
        is_opened = plain_path(location) == self.opens
        if not location or (is_opened and not epoch.claim.tracked):
            return None
        state, recorded = read_state(open_checkpoint(location)), record.recorded
        if is_opened and (state is None or state.stateful):
            return None
        unchanged = None if is_opened else state
        if recorded is None or recorded.batch_id is None or not epoch.claim.tracked:
            return unchanged
        batch = recorded_batch(self.store, epoch.claim.stream, recorded)
        if batch is None or (state is not None and state.committed_batch_id >= recorded.batch_id):
            return unchanged
        end = epoch.claim.start.updated(batch.end)
        closed_by, is_stateful = (None, False) if state is None else (state.closed_by, state.stateful)
        return CheckpointState(
            location, recorded.query_id, recorded.batch_id, end, closed_by=closed_by, stateful=is_stateful
        )

    def _move(self, record: PipelineRecord | None) -> RecordedMove | None:
        return None if record is None or record.intent is None else self.control.move(record.intent.plan)

    def _processed(
        self, record: PipelineRecord | None, epoch: Epoch | None, checkpoint: CheckpointState | None
    ) -> Batch | None:
        """Return the last recorded batch. Its offsets are stored before the record names it, and its row after that.

        A started batch that Spark has committed is complete: the next reconciliation records it.
        """
        if not self.pipeline.tracked:
            return None
        recorded = None if record is None else record.recorded
        newest = None
        if recorded is not None and epoch is not None:
            newest = recorded_batch(self.store, epoch.claim.stream, recorded)
        started = record.started if record is not None and epoch is not None and record.epoch == epoch.number else None
        if started is not None and epoch is not None and checkpoint is not None and is_committed(checkpoint, started):
            return Batch(
                end=checkpoint.committed,
                batch_time_ms=started.batch_time_ms,
                batch_id=started.batch_id,
                query_id=checkpoint.query_id,
                epoch=epoch.number,
                start=epoch.claim.start if newest is None else epoch.claim.start.updated(newest.end),
            )
        return newest or self._newest_row(is_ours=epoch is not None and epoch.number > 1)

    def _cut(
        self,
        record: PipelineRecord | None,
        epoch: Epoch | None,
        checkpoint: CheckpointState | None,
        processed: Batch | None,
        live: LiveTopics,
    ) -> Cut | None:
        """Return the batch whose output may be incomplete: the started batch, or one that was interrupted before."""
        if not self.pipeline.tracked:
            return None
        if record is not None and epoch is not None and record.started is not None and record.epoch == epoch.number:
            return started_batch(self.store, record, epoch, checkpoint, partial(self.ends_of, epoch))
        first = None
        for each in () if epoch is None else self._epochs_back(epoch):
            if not each.claim.tracked:
                break
            first = each.claim
            after = each.cuts[-1] if each.cuts else None
            if after is not None and after.batch_id > (-1 if each.last_batch_id is None else each.last_batch_id):
                return after
            if each.last_batch_id is not None:
                return None
        return adopted_batch(checkpoint, processed, live, first)

    def _epochs_back(self, newest: Epoch) -> Iterator[Epoch]:
        """Yield the claimed epochs from ``newest`` backwards."""
        yield newest
        for number in range(newest.number - 1, 0, -1):
            epoch = self.control.kept_epoch(number)
            if epoch is not None and epoch.holder is not None:
                yield epoch

    def _checkpoint_of_untracked(self, moved: RecordedMove | None) -> CheckpointState | None:
        """Return the state of the checkpoint that an untracked job opens: its program always names ``job.checkpoint``.

        An empty location is a first start only if no operation was moving a checkpoint there. The directories beside it
        and the recorded move show that.
        """
        if CHECKPOINT not in self.pipeline.offsets_in:
            return None
        location = self.pipeline.job.checkpoint
        tag = None if moved is None or self.pipeline.authoritative != CHECKPOINT else cut_off_swap(location)
        if moved is not None and tag == moved.fingerprint:
            # The next operation that holds the lease moves the seeded checkpoint into place before it plans.
            return read_in_place(seeded_beside(location, tag))
        found = read_in_place(location)
        if found is None and moved is not None and moved.kept is not None and moved.checkpoint == self.opens != "":
            raise CheckpointError(
                seen=f"{location} does not exist, which operation {moved.operation!r} was moving",
                expected="the old checkpoint, or the seeded one in its place",
                do="restore the checkpoint, and run the apply task of that operation again",
            )
        return found

    def _newest_rows(self) -> Iterator[Batch]:
        return newest_rows(self.pipeline.stream, lambda stream: next(self.store.newest_first(stream), None))

    def _newest_row(self, *, is_ours: bool) -> Batch | None:
        rows = self.store.newest_first(self.pipeline.stream)
        newest = next((row for row in rows if not is_ours or row.epoch is not None), None)
        if newest is None or newest.start is not None:
            return newest
        # Jobs in the Cloudera row layout record topic by topic: the newest row is the position of its own topic
        # alone.
        return replace(newest, end=self.store.position(self.pipeline.stream) or newest.end)


def _generation(record: PipelineRecord | None) -> int:
    return 0 if record is None else record.generation


def recorded_batch(store: OffsetStore, stream: Stream, recorded: Recorded) -> Batch | None:
    """Return the batch that a record names as last recorded; None if there is none, or its offsets have expired.

    :param store: offset store of the pipeline.
    :param stream: stream of the recorded epoch's launch.
    :param recorded: the record's last batch.
    :raises StoreDataError: the stored offsets differ from the recorded ones.
    """
    batch = None if recorded.row_time_ms is None else store.prepared(stream, recorded.row_time_ms)
    if batch is None or digest_of(batch) == recorded.digest:
        return batch
    raise StoreDataError(
        seen=f"the facts of batch {recorded.batch_id} at row time {recorded.row_time_ms} of group {stream.group_id!r}"
        f" end at {batch.end}, with digest {digest_of(batch)}",
        expected=f"those that epoch {recorded.epoch} recorded, with digest {recorded.digest}",
        do="find out who else writes to the store, and restore the row; or start from a position that you name",
    )


def is_committed(checkpoint: CheckpointState, started: StartedBatch) -> bool:
    """Return whether Spark has committed a started batch, which means that its output is complete.

    :param checkpoint: the state of Spark's checkpoint.
    :param started: the batch that the record names as started.
    """
    is_same_query = checkpoint.query_id == (started.query_id or checkpoint.query_id)
    return is_same_query and checkpoint.committed_batch_id >= started.batch_id


def started_batch(
    store: OffsetStore,
    record: PipelineRecord,
    epoch: Epoch,
    checkpoint: CheckpointState | None,
    ends: Callable[[], Position],
) -> Cut | None:
    """Return the batch that the record's driver has started and not recorded.

    None if Spark has not planned the batch, or has committed it. Under ``sink=`` a batch starts before Spark plans it,
    so its end is in the checkpoint. If the checkpoint is gone, everything that the batch could have read counts.

    :param store: offset store of the pipeline.
    :param record: the pipeline's record, with a started batch.
    :param epoch: epoch of the started batch.
    :param checkpoint: state of the epoch's checkpoint; None if the checkpoint is gone.
    :param ends: returns the end offsets of the epoch's topics.
    """
    started = record.started
    assert started is not None
    if checkpoint is not None and is_committed(checkpoint, started):
        return None
    if started.row_time_ms is not None:
        batch = store.prepared(epoch.claim.stream, started.row_time_ms)
        ranges = () if batch is None else tuple(each for each in batch.ranges if each.count)
        return Cut(started.batch_id, started.query_id, started.count, "", ranges)
    is_older = checkpoint is not None and checkpoint.last_batch_id < started.batch_id - 1
    if checkpoint is not None and not is_older and checkpoint.query_id == (started.query_id or checkpoint.query_id):
        if checkpoint.planned_batch_id != started.batch_id or checkpoint.planned is None:
            return None
        start, end, why = checkpoint.committed, checkpoint.planned, ""
    else:
        recorded = record.recorded
        batch = None if recorded is None else recorded_batch(store, epoch.claim.stream, recorded)
        start = epoch.claim.start if batch is None else epoch.claim.start.updated(batch.end)
        end = start.updated({key: max(offset, start.get(key, 0)) for key, offset in ends().items()})
        why = f"its checkpoint is {'an older one' if is_older else 'gone'}, so all that it could have read counts"
    ranges = tuple(each for each in ranges_between(start, end) if each.count)
    return Cut(started.batch_id, started.query_id, started.count, why, ranges)


def _one_row_before(history: HistoryStore, stream: Stream) -> Position | None:
    """Return the position of a history one row before the newest one, topic by topic.

    A job in the Cloudera row layout writes one row for each topic of a batch.
    """
    rows = list(islice(history.newest_first(stream), 2 * len(stream.topics)))
    ends = {topic: [row.end for row in rows if topic in row.end.topics] for topic in stream.topics}
    found = {
        partition: offset
        for topic, positions in ends.items()
        for partition, offset in (positions[1].items() if len(positions) > 1 else ())
        if partition.topic == topic
    }
    return Position(found) if found else None
