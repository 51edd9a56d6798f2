"""Observation of a pipeline at one moment, and its named, stored form."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace

from airflow_provider_offsets.core import codec
from airflow_provider_offsets.core.batch import Batch
from airflow_provider_offsets.core.epoch import Cut, Ended, Epoch, RecordedMove
from airflow_provider_offsets.core.live import LiveTopics, TopicIdentity
from airflow_provider_offsets.core.location import plain_path
from airflow_provider_offsets.core.moments import whole_moment_ms
from airflow_provider_offsets.core.position import OffsetRange, Position, TopicPartition, ranges_between
from airflow_provider_offsets.core.record.model import Phase

HISTORY, CHECKPOINT = "history", "checkpoint"
"""Stores without a connection of their own: the batches that a tracked job records, and Spark's own log."""

WHEN_STOPPED = "stopped"
"""Moment of a snapshot of a stopped job, before its restart is planned."""

UNSTARTED = -1
"""Committed batch id of a checkpoint that has initial offsets and no committed batch."""


@dataclass(frozen=True)
class CheckpointState:
    """State of a Structured Streaming checkpoint by its two logs.

    ``offsets/N`` without ``commits/N`` is only a plan. So ``committed`` is the greatest N in both logs (Spark's
    ``OffsetSeqLog`` and ``CommitLog``).
    """

    location: str
    query_id: str
    committed_batch_id: int
    """``UNSTARTED`` if no batch was committed yet."""
    committed: Position
    """The end offsets of that batch, or the initial offsets in ``sources/0/0``."""
    planned_batch_id: int | None = None
    """A batch with end offsets that is not committed. Spark runs it first when the query continues."""
    planned: Position | None = None
    closed_by: str | None = None
    """The operation that closed this checkpoint by planting its next entry: no query may continue from here."""
    stateful: bool = False
    """Whether it has a ``state/`` folder: its offsets cannot be moved without its state."""
    asynchronous: bool = False
    """Whether its ids have gaps: Spark writes it asynchronously, so the query may be further than the log."""

    @property
    def last_batch_id(self) -> int:
        """The greatest batch id in this checkpoint."""
        return self.committed_batch_id if self.planned_batch_id is None else self.planned_batch_id


@dataclass(frozen=True)
class KeptPosition:
    """Position in one of a pipeline's stores."""

    store: str
    """``history``, ``checkpoint``, or the id of the store's connection."""
    kind: str
    """``history``, ``checkpoint``, ``hbase``, ``sql``, ``zookeeper`` or ``kafka``."""
    position: Position | None
    """None if nothing is stored, which is not the same as offset 0."""
    before: Position | None = None
    """The stored position one batch earlier, if the store knows it."""
    expires: str = ""
    """One sentence about what expires the stored position, and when; empty if nothing does."""


@dataclass(frozen=True)
class KnownPosition:
    """Offsets of partitions whose stored offset is gone, from another source of the pipeline."""

    source: str
    """Description of the source: ``snapshot upgrade-7#stopped of 2026-11-01T00:00:00Z``, ``the launch of epoch 3``."""
    position: Position
    exact: bool = False
    """Whether the job read nothing after the position. If False, the position is a lower bound of what the job has
    read."""
    in_flight: tuple[OffsetRange, ...] = ()
    """Ranges that the job may have read after the position."""
    selector: str = ""
    """Selector that starts there, such as ``snapshot:upgrade-7#stopped``; empty if there is none."""


@dataclass(frozen=True)
class KnownIdentity:
    """Cluster and topics of the offsets in a record of the pipeline."""

    source: str
    """Description of the source."""
    identity: TopicIdentity
    snapshot: str = ""
    """Id of the snapshot if only a snapshot has these offsets; empty if a start by this provider was made with them."""


@dataclass(frozen=True)
class KnownBatch:
    """Batch id of a job whose checkpoint is gone, from a record of the pipeline."""

    completed_id: int
    """As ``Observation.completed_batch_id``."""
    source: str
    """Description of the source."""
    snapshot: str = ""
    """Id of the snapshot if the source is one; empty for a launch."""


@dataclass(frozen=True)
class LateWrite:
    """Content of a job's own store that may be from an operation that was taken over, and not from the job."""

    token: str
    """Token of the ``PendingWrite`` in the pipeline's record."""
    operation: str
    doubtful: Position
    """Offsets that may not be the job's. Empty if no job has run since, so that its position is known."""


@dataclass(frozen=True)
class Observation:
    """Everything that a restart decision depends on, observed at one moment."""

    pipeline: str
    live: LiveTopics
    checkpoint: CheckpointState | None = None
    """The checkpoint that the job opens."""
    opens: str = ""
    """Location of the checkpoint that an untracked job opens, in its shortest form. Empty if the job does not start
    from a checkpoint."""
    left: CheckpointState | None = None
    """For an untracked job: the checkpoint of the newest epoch, if the job opens another one now, or if it was tracked
    and Spark has not committed the last batch that it recorded there."""
    processed: Batch | None = None
    """The batch that the pipeline recorded last, in any epoch."""
    epoch: Epoch | None = None
    """The newest epoch that a driver claimed."""
    phase: Phase = Phase.STOPPED
    launched: int = 0
    """Number of the newest launch, claimed or not; 0 before the first one."""
    generation: int = 0
    """Generation of the pipeline's record: it increases with every change of lease or phase."""
    cut: Cut | None = None
    """The batch after the recorded ones that was or may have been started, and was not recorded."""
    kept: tuple[KeptPosition, ...] = ()
    """Position in each store of the pipeline, the authoritative one first."""
    moved: RecordedMove | None = None
    """For an untracked job: a move in its own store since its last epoch ended. Its position is still the one before
    the move."""
    late: tuple[LateWrite, ...] = ()
    """For an untracked job: pending writes whose offsets are in its own store. Filled by ``core.late``."""
    known: tuple[KnownPosition, ...] = ()
    """Known positions of the partitions whose stored offset is gone, each partition once. Filled by ``core.known``."""
    known_identities: tuple[KnownIdentity, ...] = ()
    """Cluster and topics of the offsets in the pipeline's records, each topic once. Filled by ``core.known``."""

    @property
    def newest_checkpoint(self) -> CheckpointState | None:
        """The checkpoint of the newest epoch, which has the position of a job that keeps its position there."""
        return self.left or self.checkpoint

    @property
    def opens_another(self) -> bool:
        """Whether an untracked job opens another checkpoint than its newest epoch, and that of the epoch is gone.

        The checkpoint that it opens may be the moved one, or an older one.
        """
        if self.is_tracked or self.epoch is None or self.checkpoint is None or self.left is not None:
            return False
        claimed = self.epoch.claim.checkpoint
        return claimed != "" and plain_path(claimed) != plain_path(self.checkpoint.location)

    @property
    def former_store(self) -> str:
        """The authoritative store of the newest epoch if the pipeline names another one now; otherwise empty.

        The store that the pipeline names now may be older than that epoch, or may be of another job. A tracked job and
        one that starts from its checkpoint have the log of their query in common.
        """
        if self.epoch is None:
            return ""
        claim, now = self.epoch.claim, self.kept[0].store if self.kept else HISTORY
        was = claim.store or (HISTORY if claim.tracked else CHECKPOINT if claim.checkpoint else "")
        return "" if was in ("", now) or {was, now} == {HISTORY, CHECKPOINT} else was

    @property
    def ended(self) -> Ended | None:
        """End of ``epoch``; None while it runs, or while its end is unknown."""
        return None if self.epoch is None else self.epoch.ended

    @property
    def epoch_number(self) -> int:
        """The newest epoch; 0 before the first start."""
        return 0 if self.epoch is None else self.epoch.number

    @property
    def is_tracked(self) -> bool:
        """Whether the program records its own batches, so that the history is the authoritative store."""
        return not self.kept or self.kept[0].store == HISTORY

    @property
    def is_running(self) -> bool:
        """Whether a driver may be running, as far as is known."""
        return self.phase in (Phase.LAUNCHING, Phase.RUNNING)

    @property
    def stored(self) -> Position | None:
        """The pipeline's position; None before the first start.

        For a tracked job: the end of the last batch processed in the newest epoch, or the start of that epoch. An epoch
        that was rewound and stopped before its first batch is at its start, not at the end of the previous epoch.
        Without an epoch, the history is authoritative, and after it the checkpoint. After an epoch from before the job
        was tracked, which recorded no batch, the checkpoint is authoritative. If an operation has moved the checkpoint
        since, and no job has started there, the position is the one before the move.

        For an untracked job: the position in its authoritative store, without offsets that a late write may have set.
        If the job opens another checkpoint than its newest epoch, the position is that of the epoch.
        """
        if not self.is_tracked:
            return self._stored_untracked()
        if self.epoch is not None:
            if not self.epoch.claim.tracked and self.checkpoint is not None and not self.former_store:
                return self._before_move(self.checkpoint.committed)
            if self.processed is not None and self.processed.epoch == self.epoch.number:
                return self.epoch.claim.start.updated(self.processed.end)
            return self.epoch.claim.start
        if self.processed is not None:
            return self.processed.end
        return None if self.checkpoint is None else self._before_move(self.checkpoint.committed)

    @property
    def _moved_another(self) -> bool:
        """Whether the move was at another checkpoint than the one that the job opens now."""
        opens = self.opens
        if self.is_tracked and self.checkpoint is not None:
            opens = plain_path(self.checkpoint.location)
        return self.moved is not None and self.moved.checkpoint != opens

    @property
    def _present_move(self) -> RecordedMove | None:
        """The move of the position of a job that was not tracked, unless the job has run since without being asked to.

        No job has started since the move, but the pipeline may be tracked now.
        """
        moved = self.moved
        if moved is None or (self.is_tracked and not moved.checkpoint):
            return None
        if not self.is_tracked:
            there = self.kept[0].position
        else:
            there = None if self.checkpoint is None else self.checkpoint.committed
        return moved if self.late or self._moved_another or moved.explains(there) else None

    @property
    def left_at(self) -> Position | None:
        """Where an untracked job has stopped, if a command has moved its position since; None otherwise."""
        return None if self._present_move is None else self._present_move.left_at

    def is_moved_to(self, partition: TopicPartition, offset: int | None) -> bool:
        """Check whether an operation has moved the position there, and no job has started there since.

        :param partition: the partition.
        :param offset: the offset in the store that was moved.
        """
        moved = self._present_move
        return moved is not None and offset is not None and moved.to.get(partition) == offset

    def _before_move(self, kept: Position | None) -> Position | None:
        """Return the pipeline's position by that of its store: the one before a move, until a job has started."""
        if self._present_move is None:
            return kept
        stood = self._present_move.stood
        topics = {*self._present_move.topics, *(stood or Position()).topics}
        others = {partition: at for partition, at in (kept or Position()).items() if partition.topic not in topics}
        return (stood or Position()).updated(others) if others else stood

    def _stored_untracked(self) -> Position | None:
        kept = self.kept[0].position
        if self._present_move is None and self.left is not None:
            return self.left.committed
        doubtful = {partition for each in self.late for partition in each.doubtful} | self.outdated
        if kept is not None and doubtful:
            kept = Position({partition: offset for partition, offset in kept.items() if partition not in doubtful})
        return self._before_move(kept)

    @property
    def outdated(self) -> frozenset[TopicPartition]:
        """The partitions whose offset in an untracked job's own store does not count, because a record knows better.

        That is so if the store or the checkpoint is another one than that of the newest epoch, or if it was moved back,
        or moved at all in a topic that the newest epoch does not read.
        """
        kept = None if self.is_tracked else self.kept[0].position
        is_another = self.opens_another or self.former_store != ""
        return frozenset(
            partition
            for each in self.known
            for partition, offset in each.position.items()
            if kept is not None
            and partition in kept
            and (is_another or self.is_put_back(partition.topic) or offset > kept[partition])
        )

    def is_put_back(self, topic: str) -> bool:
        """Check whether the newest epoch does not read a topic of the pipeline: it is new, or was out for a while."""
        return self.epoch is not None and topic not in self.epoch.claim.start.topics

    @property
    def completed_batch_id(self) -> int | None:
        """The greatest id of a batch whose output is complete; ``UNSTARTED`` before the first one.

        The next batch may have been planned, so its output may exist in part. None if no batch is known to be planned.
        """
        ids = []
        if self.left is not None:
            # The ids of an asynchronous checkpoint have gaps.
            ids.append(max(self.left.committed_batch_id, self.left.last_batch_id - 1))
        if self.checkpoint is not None:
            ids.append(max(self.checkpoint.committed_batch_id, self.checkpoint.last_batch_id - 1))
        elif self.epoch is not None and self.epoch.claim.last_planned_batch_id is not None:
            ids.append(self.epoch.claim.last_planned_batch_id - 1)
        if self.processed is not None and self.processed.batch_id is not None:
            ids.append(self.processed.batch_id)
        if self.cut is not None:
            ids.append(self.cut.batch_id - 1)
        return max(ids, default=None)

    @property
    def is_progress_lost(self) -> bool:
        """Whether ``stored`` is only the start of the newest epoch because the epoch's progress is lost."""
        if not self.is_tracked or self.epoch is None:
            return False
        if not self.epoch.claim.tracked:
            return self.checkpoint is None or self.former_store != ""
        last_id = self.epoch.last_batch_id
        if last_id is None:
            return False
        processed = self.processed
        if processed is None or processed.epoch != self.epoch.number:
            return True
        return processed.batch_id is None or processed.batch_id < last_id

    @property
    def last_known(self) -> Position | None:
        """The pipeline's position, with known offsets for the partitions whose stored offset is gone."""
        if not self.known:
            return self.stored
        return (self.stored or Position()).updated(
            {partition: offset for each in self.known for partition, offset in each.position.items()}
        )

    @property
    def stopped_at(self) -> Position | None:
        """Where the job has stopped, or is now: its position before any command that has moved it since."""
        return self.last_known if self.left_at is None else (self.last_known or Position()).updated(self.left_at)

    @property
    def identities(self) -> tuple[KnownIdentity, ...]:
        """Cluster and topics of the pipeline's offsets, as far as known."""
        if self.known_identities or self.epoch is None:
            return self.known_identities
        return (KnownIdentity(f"the launch of epoch {self.epoch.number}", self.epoch.claim.identity),)

    @property
    def in_flight(self) -> tuple[OffsetRange, ...]:
        """Ranges whose output may exist in part: those of a batch that was started and not recorded.

        For an untracked job: the ranges of the batch that its checkpoint has planned. If the planned batch is unknown,
        because the job runs, tracks its progress asynchronously or keeps its offsets elsewhere: all that it could have
        read. For a partition whose stored offset is gone: what may have been read after the known offset, or all of it
        if no record knows the partition.
        """
        cut = () if self.cut is None else self.cut.ranges
        if self.is_tracked and self._present_move is not None:
            cut = self._present_move.in_flight  # a moved checkpoint does not show it any more
        started = cut if self.is_tracked else self._in_flight_untracked()
        seen = {(each.topic, each.partition) for each in started}
        lost = [*(each for known in self.known for each in known.in_flight), *self._unnamed]
        if self.is_progress_lost and self.former_store:  # the batch is of an epoch before, which kept it elsewhere
            return (*(each for each in started if not _contains(lost, each)), *lost)
        return (*started, *(each for each in lost if (each.topic, each.partition) not in seen))

    @property
    def _unnamed(self) -> tuple[OffsetRange, ...]:
        """All of the partitions that no record names, in topics that were read before the job was tracked.

        The job may have read a partition that was added while it ran, and its store is gone or is not named any more.
        """
        if not self.is_progress_lost or self.epoch is None or self.epoch.claim.tracked:
            return ()
        named = {partition for each in self.known for partition in each.position}
        topics = {partition.topic for partition in named}
        return tuple(
            OffsetRange(*key, live.begin, live.end)
            for key, live in self.live.partitions.items()
            if key.topic in topics and key not in named and live.begin < live.end
        )

    def _in_flight_untracked(self) -> tuple[OffsetRange, ...]:
        stored = self.stored
        if self.moved is not None:
            return self.moved.in_flight
        if stored is None and self.epoch is None:
            return ()
        checkpoint = self.newest_checkpoint
        is_planned_known = checkpoint is None or not checkpoint.asynchronous
        known = {partition for each in self.known for partition in each.position}
        until: Position | None = self.live.end
        if stored is None:
            stored = Position()  # a partition that no record knows may have been read completely
        elif self.kept[0].store == CHECKPOINT and not self.is_running and is_planned_known:
            until = None if checkpoint is None else checkpoint.planned
            known -= set(until or ())  # a planned batch also has the range of a new partition
        ends = {
            partition: max(offset, stored.get(partition, 0))
            for partition, offset in (until or Position()).items()
            if partition not in known
        }
        return tuple(each for each in ranges_between(stored, Position(ends)) if each.count)


def _contains(ranges: Iterable[OffsetRange], part: OffsetRange) -> bool:
    """Check whether one of the ranges contains all offsets of another one."""
    there = (each for each in ranges if (each.topic, each.partition) == (part.topic, part.partition))
    return any(each.start <= part.start and part.end <= each.end for each in there)


def snapshot_id(operation: str, moment: str) -> str:
    """Return the id of the snapshot that an operation took at the given moment.

    :param operation: id of the operation.
    :param moment: for example ``before`` or ``stopped``.
    """
    return f"{operation}#{moment}"


@dataclass(frozen=True)
class Snapshot:
    """Named, stored observation: the position with all that gives it a meaning.

    A position without its cluster and topic ids can be applied to the wrong topic. Without begin and end offsets,
    nobody can see what retention has deleted.
    """

    id: str
    operation: str
    moment: str
    """Distinguishes the snapshots of one operation: ``before``, ``stopped``."""
    reason: str
    taken_at: str
    """ISO 8601 with zone, for people."""
    seen: Observation
    label: str = ""
    """The label that a person chose."""
    checksum: str = ""

    @property
    def taken_ms(self) -> int:
        """Time of the snapshot, in milliseconds since 1970."""
        return whole_moment_ms(self.taken_at)

    @property
    def position(self) -> Position:
        """The pipeline's position then; empty before the first start."""
        return self.seen.stored or Position()

    def sealed(self) -> Snapshot:
        """Return this snapshot with the checksum of its content."""
        return replace(self, checksum=self._digest())

    @functools.cached_property
    def is_whole(self) -> bool:
        """Whether the content matches the checksum."""
        return self.checksum == self._digest()

    def _digest(self) -> str:
        return hashlib.sha256(codec.dumps(replace(self, checksum="")).encode()).hexdigest()
