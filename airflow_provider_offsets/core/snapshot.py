"""What was seen of a pipeline at one moment, and the named, stored form of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from airflow_provider_offsets.core import codec
from airflow_provider_offsets.core.batch import Batch
from airflow_provider_offsets.core.epoch import Cut, Ended, Epoch, Moved
from airflow_provider_offsets.core.live import LiveTopics, TopicIdentity
from airflow_provider_offsets.core.moments import whole_moment_ms
from airflow_provider_offsets.core.position import OffsetRange, Position, ranges_between
from airflow_provider_offsets.core.record import Phase

HISTORY, CHECKPOINT = "history", "checkpoint"
"""Stores that have no connection of their own: the batches that a tracked job records, and Spark's own log."""

AT_REST = "at-rest"
"""The moment of a snapshot that is taken of a stopped job, before it is planned anew."""

UNSTARTED = -1
"""The committed batch id of a checkpoint that knows where it begins and has finished nothing yet."""


@dataclass(frozen=True)
class CheckpointState:
    """What the two logs of a Structured Streaming checkpoint say.

    ``offsets/N`` without ``commits/N`` is a plan, not a fact: so ``committed`` is the greatest N that both have
    (Spark's ``OffsetSeqLog`` and ``CommitLog``).
    """

    location: str
    query_id: str
    committed_batch_id: int
    """``UNSTARTED`` if no batch was committed yet."""
    committed: Position
    """The end offsets of that batch, or the initial offsets in ``sources/0/0``."""
    planned_batch_id: int | None = None
    """A batch that has its end offsets but is not committed. Spark runs it first when the query goes on."""
    planned: Position | None = None
    closed_by: str | None = None
    """The operation that closed this checkpoint by planting its next entry: nothing may go on from here."""
    stateful: bool = False
    """It has a ``state/`` folder: its offsets cannot be moved without its state."""
    asynchronous: bool = False
    """Its ids have gaps: Spark writes it now and then, behind the query's back, which may have got further."""

    @property
    def last_batch_id(self) -> int:
        """The greatest batch id that this checkpoint ever named."""
        return self.committed_batch_id if self.planned_batch_id is None else self.planned_batch_id


@dataclass(frozen=True)
class KeptPosition:
    """What one of a pipeline's stores says of where it stands."""

    store: str
    """``history``, ``checkpoint``, or the id of the connection that leads to the store."""
    kind: str
    """``history``, ``checkpoint``, ``hbase``, ``sql``, ``zookeeper`` or ``kafka``."""
    position: Position | None
    """None if nothing is stored, which is not the same as offset 0."""
    before: Position | None = None
    """Where it stood one batch earlier, if the store knows."""
    perishes: str = ""
    """What deletes the stored position, and when; empty if nothing does."""


@dataclass(frozen=True)
class KnownPosition:
    """Offsets of partitions whose stored offset is gone, as something else of the pipeline knows them."""

    source: str
    """What knows them, in words: ``snapshot upgrade-7#at-rest of 2026-11-01T00:00:00Z``, ``the launch of epoch 3``."""
    position: Position
    exact: bool = False
    """Whether the job read nothing after it. Otherwise the job has read at least so far."""
    in_flight: tuple[OffsetRange, ...] = ()
    """What the job may have read after it."""
    selector: str = ""
    """The selector that starts there, such as ``snapshot:upgrade-7#at-rest``; empty if there is none."""


@dataclass(frozen=True)
class KnownIdentity:
    """The cluster and the topics that a record of the pipeline has offsets of."""

    source: str
    """What knows them, in words."""
    identity: TopicIdentity
    snapshot: str = ""
    """Id of the snapshot, if only a snapshot has them; empty if a start by this provider was made with them."""


@dataclass(frozen=True)
class LateWrite:
    """What a job's own store says may be of an operation that was taken over, and not of the job."""

    token: str
    """Of the ``PendingWrite`` in the record."""
    operation: str
    doubtful: Position
    """The offsets that may not be the job's. Empty if no job has run since, so that its position is known."""


@dataclass(frozen=True)
class Observation:
    """Everything that a restart is decided from, seen at one moment."""

    pipeline: str
    live: LiveTopics
    checkpoint: CheckpointState | None = None
    processed: Batch | None = None
    """The batch that the pipeline recorded last, whichever epoch did."""
    epoch: Epoch | None = None
    """The newest epoch that a driver claimed."""
    phase: Phase = Phase.STOPPED
    launched: int = 0
    """Number of the newest launch, claimed or not; 0 before the first one."""
    generation: int = 0
    """Of the pipeline's record: it grows with every change of lease or phase."""
    cut: Cut | None = None
    """The batch after the recorded ones that has begun and was not recorded, or may have."""
    kept: tuple[KeptPosition, ...] = ()
    """What each store of the pipeline says, the ruling one first."""
    moved: Moved | None = None
    """Of an untouched job: a move in its own store since its last epoch ended. It still stands where it stood."""
    late: tuple[LateWrite, ...] = ()
    """Of an untracked job: pending writes whose offsets its own store has. ``core.late`` fills it."""
    known: tuple[KnownPosition, ...] = ()
    """Where the partitions stood whose stored offset is gone; each partition once. ``core.known`` fills it."""
    known_identities: tuple[KnownIdentity, ...] = ()
    """Which cluster and topics the pipeline's records have offsets of; each topic once. ``core.known`` fills it."""

    @property
    def ended(self) -> Ended | None:
        """How ``epoch`` ended; None while it runs, or while nobody knows."""
        return None if self.epoch is None else self.epoch.ended

    @property
    def epoch_number(self) -> int:
        """The newest epoch; 0 before the first start."""
        return 0 if self.epoch is None else self.epoch.number

    @property
    def is_tracked(self) -> bool:
        """Say whether the history rules: the program records its own batches."""
        return not self.kept or self.kept[0].store == HISTORY

    @property
    def is_running(self) -> bool:
        """Whether a driver may be at work, as far as anybody knows."""
        return self.phase in (Phase.LAUNCHING, Phase.RUNNING)

    @property
    def stored(self) -> Position | None:
        """The pipeline's position: the end of the last batch processed in the newest epoch, or the place where that
        epoch begins; None before the first start. Of an untouched job: what its ruling store says.

        An epoch that was rewound and stopped before its first batch stands where it was rewound to, not where the
        epoch before it ended. Without an epoch, the history rules, and after it the checkpoint. An epoch that was
        started before the job was tracked recorded no batch: after it, the checkpoint rules.

        Offsets of an untracked job that a late write may have set are none of its position.
        """
        if not self.is_tracked:
            kept = self.kept[0].position
            if self.moved is not None and (self.late or self.moved.explains(kept)):
                return self.moved.stood
            doubtful = {partition for each in self.late for partition in each.doubtful}
            if kept is None or not doubtful:
                return kept
            return Position({partition: offset for partition, offset in kept.items() if partition not in doubtful})
        if self.epoch is not None:
            if not self.epoch.claim.tracked and self.checkpoint is not None:
                return self.checkpoint.committed
            if self.processed is not None and self.processed.epoch == self.epoch.number:
                return self.epoch.claim.start.updated(self.processed.end)
            return self.epoch.claim.start
        if self.processed is not None:
            return self.processed.end
        return None if self.checkpoint is None else self.checkpoint.committed

    @property
    def is_progress_lost(self) -> bool:
        """Whether ``stored`` is only where the newest epoch began, and how far it came is not stored any more."""
        if not self.is_tracked or self.epoch is None:
            return False
        if not self.epoch.claim.tracked:
            return self.checkpoint is None
        last_id = self.epoch.last_batch_id
        if last_id is None:
            return False
        processed = self.processed
        if processed is None or processed.epoch != self.epoch.number:
            return True
        return processed.batch_id is None or processed.batch_id < last_id

    @property
    def last_known(self) -> Position | None:
        """The pipeline's position, with what is known of the partitions whose stored offset is gone."""
        if not self.known:
            return self.stored
        return (self.stored or Position()).updated(
            {partition: offset for each in self.known for partition, offset in each.position.items()}
        )

    @property
    def identities(self) -> tuple[KnownIdentity, ...]:
        """Which cluster and topics the pipeline's offsets are of, as far as anything tells."""
        if self.known_identities or self.epoch is None:
            return self.known_identities
        return (KnownIdentity(f"the launch of epoch {self.epoch.number}", self.epoch.claim.identity),)

    @property
    def in_flight(self) -> tuple[OffsetRange, ...]:
        """What may be partly in the output: the ranges of a batch that began and was not recorded.

        Of an untracked job: of the batch that its checkpoint has planned; and where nobody can say, because it runs,
        tracks its progress asynchronously, or keeps its offsets elsewhere, all that it could have read. Of a partition
        whose stored offset is gone: what it may have read after the offset that is known.
        """
        cut = () if self.cut is None else self.cut.ranges
        told = cut if self.is_tracked else self._in_flight_untouched()
        seen = {(each.topic, each.partition) for each in told}
        lost = (each for known in self.known for each in known.in_flight)
        return (*told, *(each for each in lost if (each.topic, each.partition) not in seen))

    def _in_flight_untouched(self) -> tuple[OffsetRange, ...]:
        stands = self.stored
        if self.moved is not None:
            return self.moved.in_flight
        if stands is None and self.epoch is None:
            return ()
        tells = self.checkpoint is None or not self.checkpoint.asynchronous
        known = {partition for each in self.known for partition in each.position}
        until: Position | None = self.live.end
        if stands is None:
            stands = Position()  # of a partition that no record knows, all may have been read
        elif self.kept[0].store == CHECKPOINT and not self.is_running and tells:
            until = None if self.checkpoint is None else self.checkpoint.planned
            known -= set(until or ())  # of a new partition too, a planned batch tells what it reads
        ends = {
            partition: max(offset, stands.get(partition, 0))
            for partition, offset in (until or Position()).items()
            if partition not in known
        }
        return tuple(each for each in ranges_between(stands, Position(ends)) if each.count)


def snapshot_id(operation: str, moment: str) -> str:
    """Give the id of the snapshot that an operation took at a moment of its own."""
    return f"{operation}#{moment}"


@dataclass(frozen=True)
class Snapshot:
    """A named, stored observation: the position with all that gives it a meaning.

    Positions without their cluster and topic ids can be applied to the wrong topic; without begin and end offsets
    nobody sees what retention took.
    """

    id: str
    operation: str
    moment: str
    """Tells the snapshots of one operation apart: ``before``, ``at-rest``."""
    reason: str
    taken_at: str
    """ISO 8601 with zone, for people."""
    seen: Observation
    label: str = ""
    """The name that a person gave it."""
    checksum: str = ""

    @property
    def taken_ms(self) -> int:
        """When it was taken, in milliseconds since 1970."""
        return whole_moment_ms(self.taken_at)

    @property
    def position(self) -> Position:
        """The pipeline's position then; empty before the first start."""
        return self.seen.stored or Position()

    def sealed(self) -> Snapshot:
        """Give this snapshot with the checksum of its content."""
        return replace(self, checksum=self._digest())

    @property
    def is_whole(self) -> bool:
        """Say whether the content is what the checksum was made of."""
        return self.checksum == self._digest()

    def _digest(self) -> str:
        return hashlib.sha256(codec.dumps(replace(self, checksum="")).encode()).hexdigest()
