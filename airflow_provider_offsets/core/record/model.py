"""Record of a pipeline and its parts: frozen values."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Union

from airflow_provider_offsets.core.epoch import (
    CutOff,
    Ended,
    ProcessIdentity,
    Recorded,
    RowsWritten,
    StopRequest,
)

RECORD = "pipeline"
"""Name of the record in the control store."""


class Phase(enum.Enum):
    """State of the job."""

    STOPPED = "stopped"
    """No driver may write, and the output of the last one is accounted for."""
    LAUNCHING = "launching"
    """A launch was recorded, and no driver has claimed it yet."""
    RUNNING = "running"
    """A driver has claimed the launch."""
    ENDED = "ended"
    """The driver has ended; its last batch is not reconciled yet."""


@dataclass(frozen=True)
class Lease:
    """The operation that may change the job."""

    operation: str
    acted_at_ms: int
    """Time of its last action, by the clock of the acting machine. Safety does not depend on this time, only
    politeness."""


@dataclass(frozen=True)
class EpochLaunch:
    """A launch, recorded before it exists. The rest of it is the ``Claim`` in ``launch/<epoch>/<tag>``."""

    epoch: int
    tag: str
    """Random. A driver claims the launch of this tag, never that of a number."""
    operation: str
    plan: str
    """Fingerprint of the restart plan that the launch carries out."""
    checkpoint: str
    tracked: bool = True
    accounts_for: tuple[str, ...] = ()
    """Tokens of the pending writes that its plan accounts for."""


@dataclass(frozen=True)
class StartedBatch:
    """The started batch: its output may exist in part."""

    batch_id: int
    query_id: str
    batch_time_ms: int
    run: str
    """Nonce of one ``stream.run()`` in one process, which distinguishes a repeated call from a second run of the
    batch."""
    row_time_ms: int | None = None
    """Row time of the batch's facts. None under ``sink=``: Spark has not planned the end of the batch yet."""
    digest: str = ""
    """Digest of the offsets that the batch reads; empty if ``row_time_ms`` is None."""
    count: int = 1
    """Number of runs that started the batch."""


@dataclass(frozen=True)
class Intent:
    """Move of an untracked job's position in its own store. The control record ``move/<plan>`` has both positions."""

    operation: str
    plan: str


@dataclass(frozen=True)
class PendingWrite:
    """A call that writes the start of an untracked job to its own store, until its caller knows that it ended.

    That store knows no lease: if a task hangs, its write may arrive after another operation has started the job.
    """

    token: str
    """Random: two tries of one task are two writes."""
    operation: str
    plan: str
    """The control record ``move/<plan>`` has what the call writes, and what it expects to find."""
    epoch: int
    """The newest epoch that a driver had claimed by then."""
    writer: ProcessIdentity | None = None
    met: int = 0
    """The newest launch when the write arrived, if its job may have read it; 0: the write is not known to have
    arrived."""


@dataclass(frozen=True)
class PipelineRecord:
    """State that the processes of a pipeline share. About 1 KB of JSON, whatever the number of partitions."""

    incarnation: str
    """Random, assigned when the record is created. If it differs later, the control store was lost or restored."""
    version: int = 0
    """Increases with every swap, so no text ever recurs."""
    token: str = ""
    """Token of the swap that wrote this text: after a lost answer the writer recognises its own swap."""
    generation: int = 0
    """Increases with every change of lease or phase. A plan names the generation that it was made against."""
    phase: Phase = Phase.STOPPED
    lease: Lease | None = None
    epoch: int = 0
    """Number of the newest launch; 0 before the first one."""
    launch: EpochLaunch | None = None
    holder: ProcessIdentity | None = None
    """The process that claimed the newest launch."""
    claimed_at_ms: int = 0
    recorded: Recorded | None = None
    """The pipeline's position; None before the first claim."""
    last_row_time_ms: int = 0
    """The greatest row time in use. A new row gets a later one."""
    started: StartedBatch | None = None
    cuts: tuple[CutOff, ...] = ()
    """Batches of the newest epoch that were started and not recorded by that run."""
    written: RowsWritten = field(default_factory=RowsWritten)
    """Rows that the recorded batches of the newest epoch wrote."""
    stop: StopRequest | None = None
    idle: bool = False
    """Whether the driver acknowledged that it is ready and that there is nothing to read."""
    ended: Ended | None = None
    """How the newest launch ended. Kept until the next launch, so that the result of the epoch can be derived."""
    intent: Intent | None = None
    writes: tuple[PendingWrite, ...] = ()
    """Writes to the job's own store that may still arrive, or that arrived when the job may have run. See
    ``core.late``."""
    good: int = 0
    """The newest epoch that a health window found healthy; 0 if none."""
    renamed_to: str = ""
    """The pipeline's present name. No event is possible under the old name."""


class Refusal(enum.Enum):
    """Why a transition is not possible."""

    LEASE_HELD = "another operation acted recently"
    LEASE_LOST = "the operation does not hold the lease"
    NOT_TO_RECOVER = "there is nothing that a recovery may start"
    FENCED = "the launch is not this driver's any more"
    CANCELLED = "the launch was cancelled"
    STOP_REQUESTED = "the job was asked to stop"
    STOPPED_SINCE = "another operation asked the job to stop"
    RENAMED = "the pipeline has another name"
    STATE_CHANGED = "the record is in another state"


@dataclass(frozen=True)
class Next:
    """The record after the event."""

    record: PipelineRecord


@dataclass(frozen=True)
class Already:
    """The event has happened already: an answer was lost, or a task is run again."""


@dataclass(frozen=True)
class Refused:
    """The event is not possible now."""

    why: Refusal
    detail: str


Outcome = Union[Next, Already, Refused]
