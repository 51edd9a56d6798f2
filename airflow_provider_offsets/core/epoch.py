"""Epochs of a pipeline and their parts: frozen values. ``core.record.transition`` has the rules that change them."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from airflow_provider_offsets.core.batch import Stream
from airflow_provider_offsets.core.live import TopicIdentity
from airflow_provider_offsets.core.position import OffsetRange, Position


@dataclass(frozen=True)
class ProcessIdentity:
    """One process on one machine. A pid may be reused, so it identifies a process only with the other fields."""

    host: str
    boot_id: str
    """Linux's ``/proc/sys/kernel/random/boot_id``."""
    pid: int
    start_ticks: int
    """Start of the process, in clock ticks since boot (field 22 of ``/proc/<pid>/stat``)."""
    namespaces: tuple[str, ...] = ()
    """PID, UTS and network namespaces of the identifying process, as ``/proc/self/ns`` names them. A pid is valid only
    in its PID namespace: a container may have the host name of another one, or of the machine."""
    machine_id: str = ""
    """``/etc/machine-id``: tells a reboot from another machine of the same host name. Empty if it is unknown."""


@dataclass(frozen=True)
class Announced:
    """Announcement of a plan about one partition that is not simply resumed, for the audit."""

    topic: str
    partition: int
    start: int
    replay: int = 0
    """Replayed offsets below the stored one: ``[start, start + replay)``."""
    skipped: int = 0
    lost: int = 0


@dataclass(frozen=True)
class YarnApplication:
    """Address and tag by which the application of an epoch is found on YARN."""

    resource_manager: str
    """Web address of the ResourceManager at the submit: ``http://host:8088``."""
    tag: str
    """Tag of this launch alone, in small letters: YARN converts other letters."""


@dataclass(frozen=True)
class Claim:
    """Launch of an epoch: what the submit asks its driver to claim, and the epoch's settings afterwards.

    Immutable control record ``launch/<number>/<tag>``, written before the pipeline's record names it.
    """

    number: int
    """Number of the epoch: one more than the newest launch that the plan saw."""
    operation: str
    tag: str
    """Random: identifies this launch."""
    checkpoint: str
    start: Position
    """Start of the epoch: the offsets that the plan chose, also for a first start."""
    identity: TopicIdentity
    stream: Stream
    plan: str = ""
    """Fingerprint of the restart plan."""
    announced: tuple[Announced, ...] = ()
    application_digest: str = ""
    version: str = ""
    """Digest of the stored program and its command, for a rollback; empty in epochs that an earlier release started."""
    store: str = ""
    """The pipeline's authoritative store at the launch; empty in epochs that an earlier release started."""
    tracked: bool = True
    """False: the program knows nothing of epochs. Its launcher claims the epoch, and then becomes the program
    (``exec``)."""
    stood: Position | None = None
    """The pipeline's position when this epoch was planned: the end of the previous epoch."""
    leader_epochs: dict[str, tuple[int | None, ...]] = field(default_factory=dict)
    """Leader epoch of each partition at the submit, by topic. If one is lower later, the log was restored from an
    earlier state (KIP-320)."""
    yarn: YarnApplication | None = None
    """None if the job runs elsewhere, or the address of the ResourceManager is unknown."""
    recorded_before: Recorded | None = None
    """The batch that the pipeline recorded last. Spark runs it again if its driver died between the record and Spark's
    own commit: then the runtime skips it."""
    last_planned_batch_id: int | None = None
    """The greatest batch id in the checkpoint when the plan was made; None if this launch creates the checkpoint. A
    driver that finds another id ends: another job writes to that checkpoint."""
    in_flight: Cut | None = None
    """Offsets whose output from before this launch may exist in part, if no other record has them. For the first launch
    of a job: what was in flight before. For a repeated launch of an untracked job: what the last launch had in
    flight."""
    left_at: Position | None = None
    """Where an untracked job had stopped, if a command has moved its position since. Then ``announced`` counts from
    there, and not from ``stood``."""
    scratch: str = ""
    """Name of this launch as an owner of scratch folders, see ``core.committer``. Empty for an untracked job, for a job
    whose conf chooses another committer, and in epochs that an earlier release started."""


@dataclass(frozen=True)
class Recorded:
    """Position of a pipeline: the official end of its history."""

    epoch: int
    tag: str
    """Tag of that epoch's launch."""
    batch_id: int | None = None
    """None: the epoch has recorded no batch, and the pipeline's position is the start of its launch."""
    query_id: str = ""
    row_time_ms: int | None = None
    """The batch's row in the history. Its facts are written before the record names it, its row afterwards."""
    digest: str = ""
    """Digest of the batch's offsets."""


@dataclass(frozen=True)
class CutOff:
    """Batch that was started and not recorded, as the pipeline's record has it."""

    batch_id: int
    query_id: str
    row_time_ms: int | None
    """Row time of the batch's facts; None if its ranges are unknown."""
    count: int = 1
    """Number of runs that started the batch."""
    why: str = ""
    """Why its facts are an upper bound; empty if they are exact."""

    def is_same(self, other: CutOff) -> bool:
        """Check whether both are of one batch with one set of facts."""
        return (self.batch_id, self.query_id, self.row_time_ms) == (other.batch_id, other.query_id, other.row_time_ms)


@dataclass(frozen=True)
class Cut:
    """Batch that was started and not recorded: its output may exist, at most ``count`` times."""

    batch_id: int
    query_id: str
    count: int
    why: str
    """Why the ranges are an upper bound; empty if they are exact."""
    ranges: tuple[OffsetRange, ...]


@dataclass(frozen=True)
class RowsWritten:
    """Rows that the recorded batches of an epoch wrote, as Spark counted them."""

    batches: int = 0
    """Number of batches with a count: Spark ran a write command for them."""
    rows: int = 0
    """Sum of these counts."""
    uncounted: int = 0
    """Number of batches without a count: Spark saw no write, or does not know the number of its rows."""
    empty: int = 0
    """Number of batches that read records, and of which Spark saw no written row. All batches of a program that writes
    without Spark are among them."""
    last_empty: int | None = None
    """Batch id of the last one of these."""

    def plus(self, batch_id: int | None, rows: int | None, *, is_empty: bool = False) -> RowsWritten:
        """Return the counts with one more batch.

        :param batch_id: id of the batch.
        :param rows: number of rows that it wrote; None if there is no count.
        :param is_empty: whether it read records, and Spark saw no written row.
        """
        return RowsWritten(
            batches=self.batches + (rows is not None),
            rows=self.rows + (rows or 0),
            uncounted=self.uncounted + (rows is None),
            empty=self.empty + is_empty,
            last_empty=batch_id if is_empty else self.last_empty,
        )


@dataclass(frozen=True)
class Epoch:
    """One launch with its result. The control record ``epoch/<number>`` stores it once the next launch is made."""

    claim: Claim
    holder: ProcessIdentity | None = None
    """The process that claimed the epoch; None if none did."""
    claimed_at_ms: int = 0
    """By the driver's clock: for people, never compared."""
    ended: Ended | None = None
    """None while the epoch runs, or while its end is unknown."""
    cuts: tuple[Cut, ...] = ()
    last_batch_id: int | None = None
    """The last batch that the epoch recorded; None if it recorded none."""
    written: RowsWritten = field(default_factory=RowsWritten)

    @property
    def number(self) -> int:
        """Number of the epoch: 1 for the first launch."""
        return self.claim.number

    @property
    def is_cancelled(self) -> bool:
        """Whether the launch was cancelled before a driver claimed it: its start and its announcements are void."""
        return self.ended is not None and self.ended.how is EndedHow.CANCELLED


@dataclass(frozen=True)
class Heartbeat:
    """Heartbeat of a driver. Only an increase of ``beat`` counts: the clocks of two hosts are never compared."""

    beat: int
    at_ms: int
    last_batch_id: int | None = None


@dataclass(frozen=True)
class StopStage:
    """A stage of the stop policy. Recorded before it is carried out, so no kill is without a record."""

    name: str
    """``SIGTERM``, ``SIGKILL``, or ``a kill on YARN``."""
    is_request: bool
    """Whether this stage is how the program is asked to stop, and not what follows an unanswered request."""
    at_ms: int


@dataclass(frozen=True)
class StopRequest:
    """Request of an operation that the newest epoch end between two batches, or that an ended job stay stopped."""

    operation: str
    reason: str
    requested_at_ms: int
    stage: StopStage | None = None
    """The last stage of the stop policy that was taken; None for the request alone."""


class EndedHow(enum.Enum):
    """Kind of an epoch's end."""

    STOPPED = "stopped"
    """On request. A tracked job stopped between two batches. An untracked one exited by itself, on its marker or on
    SIGTERM if that is its way to stop. Only its store can show whether that was in the middle of a batch."""
    FENCED = "fenced"
    """The driver met a newer epoch, or its own epoch was closed."""
    FAILED = "failed"
    """The query failed, and the driver reported it."""
    FINISHED = "finished"
    """The query ended by itself (a bounded trigger)."""
    DIED = "died"
    """The driver reported nothing. An actor that could see that the process has exited closed the epoch."""
    KILLED = "killed"
    """A stop with that stage allowed signalled or killed the driver, saw that it has exited, and closed the epoch."""
    CANCELLED = "cancelled"
    """No driver had claimed the launch, and none can any more."""


@dataclass(frozen=True)
class Ended:
    """End of an epoch, as reported by its driver or by the actor that closed it."""

    how: EndedHow
    at_ms: int
    last_batch_id: int | None = None
    message: str = ""


@dataclass(frozen=True)
class RecordedMove:
    """Move of an untracked job's position in its own store, for an epoch that no driver has claimed yet.

    Written before the move: if the store was moved but the job was never started there, the job's output still ends at
    its previous position.
    """

    operation: str
    fingerprint: str
    """Fingerprint of the plan that moved the position last."""
    stood: Position | None
    """The pipeline's position before the first move; None if nothing was stored."""
    kept: Position | None
    """The stored position before this move."""
    to: Position
    """The stored position after this move."""
    in_flight: tuple[OffsetRange, ...] = ()
    """Offsets of the previous epoch whose output may exist in part: the moved store can no longer show them."""
    checkpoint: str = ""
    """Location of the moved checkpoint; empty for another store."""
    left_at: Position | None = None
    """Where the job had stopped, if a command has moved its position since."""

    def explains(self, position: Position | None) -> bool:
        """Check whether ``position`` is the stored position before, in the middle of, or after this move.

        Otherwise another actor has moved it since, or the job has run without being asked to.
        """
        if position is None:
            return True
        before = self.kept or Position()
        return all(
            offset in (before.get(partition), self.to.get(partition))
            for partition, offset in position.items()
            if partition.topic in self.topics
        )

    @property
    def topics(self) -> frozenset[str]:
        """The topics that it concerns. The pipeline may have got other ones since."""
        return frozenset((*(self.kept or Position()).topics, *self.to.topics))


ATTEMPT = "@"
"""Separator between the name of a run and the number of an attempt: ``<dag>/<run>@2``. Airflow allows no ``@`` in
either name."""


@dataclass(frozen=True)
class Attempt:
    """One attempt at a run. Clearing a run makes a new attempt; an automatic retry does not."""

    number: int
    key: str
    """Equal for all tries of the attempt, and different for the next attempt."""
    earlier: tuple[str, ...] = ()
    """Keys of the previous attempts, the first one first: a late try of an earlier attempt starts no new attempt."""


@dataclass(frozen=True)
class Operation:
    """One maintenance, reprocess, replay or recovery: its request and its finished steps.

    ``steps`` maps the name of a step to its result, as JSON text of the step's type. A task that is run again finds its
    result here, because Airflow clears XCom on a retry.
    """

    id: str
    kind: str
    reason: str
    steps: dict[str, str] = field(default_factory=dict)
