"""What a pipeline's processes agree on through the control store: frozen values, one JSON cell each."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from airflow_provider_offsets.core.batch import Batch
from airflow_provider_offsets.core.live import TopicIdentity
from airflow_provider_offsets.core.position import OffsetRange, Position


@dataclass(frozen=True)
class ProcessIdentity:
    """One process on one machine. A pid alone may be another process by now: it counts only with the rest."""

    host: str
    boot_id: str
    """Linux's ``/proc/sys/kernel/random/boot_id``."""
    pid: int
    start_ticks: int
    """When it started, in clock ticks since boot (field 22 of ``/proc/<pid>/stat``)."""


@dataclass(frozen=True)
class Announced:
    """What a plan said in advance about one partition that does not simply go on: read by the audit."""

    topic: str
    partition: int
    start: int
    replay: int = 0
    """Offsets below the stored one that are read again: ``[start, start + replay)``."""
    skipped: int = 0
    lost: int = 0


@dataclass(frozen=True)
class YarnApplication:
    """How the application of an epoch is found on YARN."""

    resource_manager: str
    """Its web address, as it was at the submit: ``http://host:8088``."""
    tag: str
    """Of this launch alone. In small letters: YARN turns others into them."""


@dataclass(frozen=True)
class Claim:
    """What a submit asks its driver to claim, and the epoch's record afterwards.

    The driver claims epoch ``number`` by creating the cell of that number, which succeeds once. ``number`` is one
    more than the epoch that the plan saw: whoever claims first has it, and the other ends before its first batch.
    """

    number: int
    operation: str
    launch: str
    """One submit attempt; two drivers launched by a task that was killed and retried differ in it."""
    checkpoint: str
    start: Position
    """Where the epoch begins: what the plan chose. Of a first start too."""
    identity: TopicIdentity
    announced: tuple[Announced, ...] = ()
    application_digest: str = ""
    version: str = ""
    """What is kept of the program and its command, for a rollback; empty in epochs that an earlier release started."""
    tracked: bool = True
    """False: the program knows nothing of epochs. What launches it claims, and then becomes it (``exec``)."""
    stood: Position | None = None
    """Where the pipeline stood when this epoch was planned: the end of the epoch before it."""
    leader_epochs: dict[str, tuple[int | None, ...]] = field(default_factory=dict)
    """Of each partition, by topic, at the submit. One that is lower later tells of a log that was brought back from
    before (KIP-320)."""
    yarn: YarnApplication | None = None
    """None if the job runs elsewhere, or nobody said where the ResourceManager answers."""


@dataclass(frozen=True)
class Epoch:
    """A claimed epoch: the claim, and who holds it."""

    claim: Claim
    holder: ProcessIdentity
    claimed_at_ms: int
    """By the driver's clock: for people, never compared."""
    after_row_time_ms: int | None = None
    """The newest row of the history at the claim. A row after it that an older epoch wrote is a zombie's: ignored."""

    @property
    def number(self) -> int:
        """Its number: 1 for the first start."""
        return self.claim.number


class DriverState(enum.Enum):
    """What a driver says of itself in its heartbeat."""

    PROCESSING = "processing"
    IDLE = "idle"
    """It stands at ``position`` and there is nothing to read."""


@dataclass(frozen=True)
class Heartbeat:
    """A sign of life. Only that ``beat`` grew says something: clocks of two hosts are never compared."""

    beat: int
    state: DriverState
    at_ms: int
    last_batch_id: int | None = None
    position: Position | None = None
    """Where an idle driver stands."""


@dataclass(frozen=True)
class BegunBatch:
    """The batch that an epoch began last. If the history does not have it, its output may be partly there."""

    batch_id: int
    query_id: str
    batch_time_ms: int
    ranges: tuple[OffsetRange, ...]
    """What it reads. Empty where it is noted before Spark has planned it, as under a native sink: then the checkpoint's
    log tells them, and whether it is finished."""

    @classmethod
    def of(cls, batch: Batch) -> BegunBatch:
        """Give the note of a batch that is planned."""
        assert batch.batch_id is not None
        assert batch.query_id is not None
        return cls(batch.batch_id, batch.query_id, batch.batch_time_ms, batch.ranges)

    @property
    def is_ahead(self) -> bool:
        """Say whether it was noted before it was planned."""
        return not self.ranges


@dataclass(frozen=True)
class StopRequest:
    """Somebody asked this epoch to end between two batches."""

    operation: str
    reason: str
    requested_at_ms: int


@dataclass(frozen=True)
class StopRung:
    """The rung of the stop ladder that was taken last. Noted before it is: nobody is forced without a note of it."""

    name: str
    """``SIGTERM``, ``SIGKILL``, or ``a kill on YARN``."""
    is_request: bool
    """It is how this program is asked to stop, and not what comes after it did not."""
    at_ms: int


class EndedHow(enum.Enum):
    """How an epoch ended."""

    STOPPED = "stopped"
    """On request: a tracked job between two batches. An untouched one went by itself, on its marker or on SIGTERM where
    that is its way to stop; whether in the middle of a batch, only its store can tell."""
    FENCED = "fenced"
    """It met a newer epoch, or its own was closed."""
    FAILED = "failed"
    """The query failed, and the driver lived to say so."""
    FINISHED = "finished"
    """The query ended by itself (a bounded trigger)."""
    DIED = "died"
    """The driver said nothing; somebody who could see that the process is gone closed the epoch."""
    KILLED = "killed"
    """A stop with that rung allowed signalled or killed it, saw it gone, and closed the epoch."""


@dataclass(frozen=True)
class Ended:
    """The end of an epoch. Its cell is created once, by the driver or by whoever saw it gone; a driver that finds
    it there ends."""

    how: EndedHow
    at_ms: int
    last_batch_id: int | None = None
    position: Position | None = None
    message: str = ""


@dataclass(frozen=True)
class Moved:
    """The position of an untouched job was moved in its own store, for an epoch that nobody has claimed yet.

    Written before the move: a job whose store was moved, and that was never started there, still stands where its
    output ends.
    """

    operation: str
    fingerprint: str
    """Of the plan that moved it last."""
    stood: Position | None
    """Where the job stood before the first move; None if nothing was stored."""
    kept: Position | None
    """What the store said before this move."""
    to: Position
    """What it says after it."""

    def explains(self, position: Position | None) -> bool:
        """Say whether ``position`` is what the store says before, in the middle of, or after this move. Otherwise
        somebody else has moved it since, or the job has run without being asked to."""
        if position is None:
            return True
        before = self.kept or Position()
        return all(offset in (before.get(partition), self.to.get(partition)) for partition, offset in position.items())


@dataclass(frozen=True)
class Operation:
    """One maintenance, reprocess, replay or recovery: what it asked for and which steps it has done.

    ``steps`` maps a step's name to its result, as JSON text of the type that the step has. A task that is run again
    finds its result here; XCom is wiped on a retry and remembers nothing.
    """

    id: str
    kind: str
    reason: str
    steps: dict[str, str] = field(default_factory=dict)


def is_zombie(batch: Batch, epoch: Epoch | None) -> bool:
    """Say whether another writer recorded ``batch`` after ``epoch`` was claimed: readers ignore such a row."""
    if epoch is None or batch.epoch == epoch.number or batch.row_time_ms is None:
        return False
    return epoch.after_row_time_ms is None or batch.row_time_ms > epoch.after_row_time_ms
