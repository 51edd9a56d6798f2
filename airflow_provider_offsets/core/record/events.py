"""Events that change the record of a pipeline: what each process asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Union

from airflow_provider_offsets.core.epoch import (
    CutOff,
    Ended,
    ProcessIdentity,
    Recorded,
    StopStage,
)
from airflow_provider_offsets.core.record.model import EpochLaunch, StartedBatch

# Events of an operation


@dataclass(frozen=True)
class TakeLease:
    """An operation takes the lease. Always safe; asking another holder first is only politeness."""

    operation: str
    at_ms: int
    timeout_ms: int
    """A lease whose holder acted within this time is not taken without ``take_over``."""
    take_over: bool = False
    holder: str | None = None
    """The holder that ``take_over`` is meant for, as the caller saw it; empty: nobody. None: any holder."""


@dataclass(frozen=True)
class RenewLease:
    """A waiting operation renews its lease, so that the lease does not age. A lost lease is not taken back."""

    operation: str
    at_ms: int


@dataclass(frozen=True)
class TakeToRecover:
    """A recovery takes the lease of a pipeline whose driver was observed dead, or reported a failure."""

    operation: str
    epoch: int
    """The epoch that died."""
    at_ms: int
    timeout_ms: int


@dataclass(frozen=True)
class AskToStop:
    """The lease holder asks the driver to end before its next batch, or an ended job to stay stopped.

    The request of an earlier operation becomes the request of this one. From then on, only this one may launch.
    """

    operation: str
    reason: str
    at_ms: int
    epoch: int | None = None
    """The epoch that is to end; None: the newest one."""


@dataclass(frozen=True)
class NoteStopStage:
    """The lease holder records a stage of the stop policy, before carrying it out."""

    operation: str
    stage: StopStage


@dataclass(frozen=True)
class CancelLaunch:
    """The lease holder cancels an unclaimed launch: from then on no driver can claim it."""

    operation: str
    at_ms: int
    epoch: int | None = None
    """The epoch of the launch; None: the newest one."""


@dataclass(frozen=True)
class CloseDead:
    """The lease holder closes an epoch whose driver has ended, as its backend reports."""

    operation: str
    holder: ProcessIdentity
    ended: Ended


@dataclass(frozen=True)
class Reconcile:
    """The lease holder accounts for the last batch of an epoch that has ended.

    :param recorded: the batch that Spark committed and no driver recorded, if there is one (``sink=``).
    :param cut: the started batch, if it was interrupted.
    """

    operation: str
    generation: int
    """Generation of the record when the checkpoint was read."""
    at_ms: int
    recorded: Recorded | None = None
    cut: CutOff | None = None


@dataclass(frozen=True)
class NoteMove:
    """The lease holder records that it moves an untracked job in its own store, before doing so."""

    operation: str
    plan: str
    at_ms: int
    token: str = ""
    """Token of the write that follows; empty if the position is in a checkpoint."""
    writer: ProcessIdentity | None = None


@dataclass(frozen=True)
class EndWrite:
    """A pending write has ended. Its caller reports this, with or without the lease."""

    token: str
    is_written: bool
    """False: the call found something unexpected, and wrote nothing."""


@dataclass(frozen=True)
class LaunchEpoch:
    """The lease holder records a launch. This swap makes the announcements of its plan valid."""

    operation: str
    generation: int
    """The generation that the plan was made against."""
    launch: EpochLaunch
    at_ms: int
    newest_row_time_ms: int = 0
    """Row time of the newest row in the history, whoever wrote it."""


@dataclass(frozen=True)
class ReleaseLease:
    """The lease holder has finished its work on the job."""

    operation: str


@dataclass(frozen=True)
class Rename:
    """The lease holder renames a stopped pipeline: its record continues under the new name."""

    operation: str
    to: str


@dataclass(frozen=True)
class MarkGood:
    """A health window found the newest epoch healthy."""

    epoch: int


# Events of a driver


@dataclass(frozen=True)
class ClaimLaunch:
    """A driver claims the launch of a tag."""

    tag: str
    holder: ProcessIdentity
    at_ms: int


@dataclass(frozen=True)
class StartBatch:
    """A driver starts a batch. Refused if the job was asked to stop: so a stop takes effect between two batches."""

    tag: str
    holder: ProcessIdentity
    batch: StartedBatch
    again: bool = True
    """Whether the batch that an earlier run started may have been written. False: it was never planned."""


@dataclass(frozen=True)
class RecordBatch:
    """A driver records the started batch."""

    tag: str
    holder: ProcessIdentity
    run: str
    recorded: Recorded
    following: StartedBatch | None = None
    """The next batch, if Spark has planned it without a step in between: its output may exist (``sink=``)."""
    rows_written: int | None = None
    """Number of rows that Spark says the batch wrote; None if Spark saw no write, or has no count."""
    is_empty: bool = False
    """Whether the batch read records, and Spark saw no written row."""


@dataclass(frozen=True)
class GoIdle:
    """A driver reports that it is ready and that there is nothing to read."""

    tag: str
    holder: ProcessIdentity


@dataclass(frozen=True)
class EndEpoch:
    """A driver ends its epoch."""

    tag: str
    holder: ProcessIdentity
    ended: Ended


Event = Union[
    TakeLease,
    RenewLease,
    TakeToRecover,
    AskToStop,
    NoteStopStage,
    CancelLaunch,
    CloseDead,
    Reconcile,
    NoteMove,
    EndWrite,
    LaunchEpoch,
    ReleaseLease,
    Rename,
    MarkGood,
    ClaimLaunch,
    StartBatch,
    RecordBatch,
    GoIdle,
    EndEpoch,
]
