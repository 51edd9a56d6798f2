"""Epochs of a pipeline and what belongs to them: frozen values. ``core.record`` has what decides."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from airflow_provider_offsets.core.batch import Stream
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
    namespaces: tuple[str, ...] = ()
    """The PID, UTS and network namespaces of whoever identified it, as ``/proc/self/ns`` names them. A pid counts in
    its PID namespace only: a container may have the host name of another one, or of the machine."""


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
    """A launch: what a submit tells its driver to claim, and the epoch's settings afterwards.

    Immutable, in the cell ``launch/<number>/<tag>``, written before the record names it.
    """

    number: int
    """Of the epoch. One more than the newest launch that the plan saw."""
    operation: str
    tag: str
    """Random: tells this launch from every other one, of this operation or another."""
    checkpoint: str
    start: Position
    """Where the epoch begins: what the plan chose. Of a first start too."""
    identity: TopicIdentity
    stream: Stream
    plan: str = ""
    """Fingerprint of the restart plan."""
    announced: tuple[Announced, ...] = ()
    application_digest: str = ""
    version: str = ""
    """What is kept of the program and its command, for a rollback; empty in epochs that an earlier release started."""
    tracked: bool = True
    """False: the program knows nothing of epochs. What launches it claims, and then becomes it (``exec``)."""
    stood: Position | None = None
    """The pipeline's position when this epoch was planned: the end of the epoch before it."""
    leader_epochs: dict[str, tuple[int | None, ...]] = field(default_factory=dict)
    """Of each partition, by topic, at the submit. One that is lower later tells of a log that was brought back from
    before (KIP-320)."""
    yarn: YarnApplication | None = None
    """None if the job runs elsewhere, or nobody said where the ResourceManager answers."""
    recorded_before: Recorded | None = None
    """The batch that the pipeline had recorded last. Spark asks for it again where its driver died between the record
    and Spark's own commit: it is not run a second time."""
    last_planned_batch_id: int | None = None
    """The greatest batch id that the checkpoint named when the plan was made; None for a checkpoint that is made by
    this launch. A driver that finds another one ends: another job writes that checkpoint."""
    in_flight: Cut | None = None
    """What may be partly in the output from before this launch, where nothing else tells. The first launch of a tracked
    job has what was in flight before it; a repeated launch of an untracked job what the last one had."""


@dataclass(frozen=True)
class Recorded:
    """Where a pipeline stands: the official end of its history."""

    epoch: int
    tag: str
    """Of the launch of that epoch."""
    batch_id: int | None = None
    """None: the epoch has recorded no batch, and the pipeline stands at the start of its launch."""
    query_id: str = ""
    row_time_ms: int | None = None
    """The batch's row in the history. Its facts are written before the record names it, the row after it."""
    digest: str = ""
    """Of the batch's offsets."""


@dataclass(frozen=True)
class CutOff:
    """A batch that began and was not recorded, as the record notes it."""

    batch_id: int
    query_id: str
    row_time_ms: int | None
    """Where its facts are kept; None if nobody knows what it was about to read."""
    count: int = 1
    """How many runs have begun it."""
    why: str = ""
    """Why its facts are an upper bound; empty if they are exact."""

    def is_same(self, other: CutOff) -> bool:
        """Return whether both are of one batch with one set of facts."""
        return (self.batch_id, self.query_id, self.row_time_ms) == (other.batch_id, other.query_id, other.row_time_ms)


@dataclass(frozen=True)
class Cut:
    """A batch that began and was not recorded: its output may be there, at most ``count`` times."""

    batch_id: int
    query_id: str
    count: int
    why: str
    """Why the ranges are an upper bound; empty if they are what the batch was about to read."""
    ranges: tuple[OffsetRange, ...]


@dataclass(frozen=True)
class Epoch:
    """One launch with what became of it. The cell ``epoch/<number>`` keeps it once the next launch is made."""

    claim: Claim
    holder: ProcessIdentity | None = None
    """The process that claimed it; None if none did."""
    claimed_at_ms: int = 0
    """By the driver's clock: for people, never compared."""
    ended: Ended | None = None
    """None while it runs, or while nobody knows that it does not."""
    cuts: tuple[Cut, ...] = ()
    last_batch_id: int | None = None
    """The last batch that it recorded; None if it recorded none."""

    @property
    def number(self) -> int:
        """Its number: 1 for the first launch."""
        return self.claim.number

    @property
    def is_cancelled(self) -> bool:
        """Whether it was cancelled before a driver claimed it: its start and what it announced are void."""
        return self.ended is not None and self.ended.how is EndedHow.CANCELLED


@dataclass(frozen=True)
class Heartbeat:
    """A sign of life. Only that ``beat`` grew says something: clocks of two hosts are never compared."""

    beat: int
    at_ms: int
    last_batch_id: int | None = None


@dataclass(frozen=True)
class StopStage:
    """A stage of the stop policy. Noted before it is carried out: nobody is forced without a note of it."""

    name: str
    """``SIGTERM``, ``SIGKILL``, or ``a kill on YARN``."""
    is_request: bool
    """Whether this is how the program is asked to stop, and not what comes after it did not."""
    at_ms: int


@dataclass(frozen=True)
class StopRequest:
    """An operation asked the newest epoch to end between two batches, or a job that is over to stay so."""

    operation: str
    reason: str
    requested_at_ms: int
    stage: StopStage | None = None
    """The stage of the stop policy that was taken last; None for the request alone."""


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
    """A stop with that stage allowed signalled or killed it, saw it gone, and closed the epoch."""
    CANCELLED = "cancelled"
    """Nobody had claimed it, and nobody can any more."""


@dataclass(frozen=True)
class Ended:
    """How an epoch ended, by its driver's word or by that of whoever saw it gone."""

    how: EndedHow
    at_ms: int
    last_batch_id: int | None = None
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
    in_flight: tuple[OffsetRange, ...] = ()
    """What may be partly in the output of the epoch before: the store that told it was moved."""

    def explains(self, position: Position | None) -> bool:
        """Say whether ``position`` is what the store says before, in the middle of, or after this move. Otherwise
        somebody else has moved it since, or the job has run without being asked to."""
        if position is None:
            return True
        before = self.kept or Position()
        return all(offset in (before.get(partition), self.to.get(partition)) for partition, offset in position.items())


ATTEMPT = "@"
"""Between the name of a run and the number of an attempt: ``<dag>/<run>@2``. Airflow allows no ``@`` in either name."""


@dataclass(frozen=True)
class Attempt:
    """One attempt at a run. A run that is cleared and run again is a new one; an automatic retry is not."""

    number: int
    key: str
    """What all tries of the attempt have in common, and the next attempt does not."""
    earlier: tuple[str, ...] = ()
    """The keys of the attempts before it, the first one first: a try of theirs that wakes up late begins no new one."""


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
