"""Record of a pipeline, which holds all state that its processes share, and the one function that changes it.

The record is one value in the control store, changed by compare-and-set only. An actor reads the record, computes the
next one with :func:`transition`, and swaps. After a conflict it reads and computes again. Production, tests and the
simulation use this same function.

Only the operation that holds the lease requests stops, cancels, closes dead epochs, reconciles, moves and launches. A
driver claims, starts batches, records them, goes idle and ends. Starting and recording a batch are swaps of this
record. So the fence, the stop request and the mark of the started batch are one step. A driver whose launch is no
longer the newest one can neither start nor record a batch.

Large values are not in the record. A launch and the offsets of a batch are stored under keys of their own, before the
swap that refers to them.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from airflow_provider_offsets.core.epoch import (
    ATTEMPT,
    CutOff,
    Ended,
    EndedHow,
    ProcessIdentity,
    Recorded,
    StopRequest,
    StopStage,
)
from airflow_provider_offsets.core.recovery import DEATHS, is_recovery, is_rollback_of, recovered_epoch

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
    settles: tuple[str, ...] = ()
    """Tokens of the pending writes that its plan accounts for."""


@dataclass(frozen=True)
class Begun:
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
    begun: Begun | None = None
    cuts: tuple[CutOff, ...] = ()
    """Batches of the newest epoch that were started and not recorded by that run."""
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

    LEASE_HELD = "another operation acted lately"
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


Outcome = Next | Already | Refused


# Events of an operation


@dataclass(frozen=True)
class Take:
    """An operation takes the lease. Always safe; asking another holder first is only politeness."""

    operation: str
    at_ms: int
    timeout_ms: int
    """A lease whose holder acted within this time is not taken without ``take_over``."""
    take_over: bool = False


@dataclass(frozen=True)
class Renew:
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


@dataclass(frozen=True)
class NoteStopStage:
    """The lease holder records a stage of the stop policy, before carrying it out."""

    operation: str
    stage: StopStage


@dataclass(frozen=True)
class Cancel:
    """The lease holder cancels an unclaimed launch: from then on no driver can claim it."""

    operation: str
    at_ms: int


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
class Intend:
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
class Release:
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
class BeginBatch:
    """A driver starts a batch. Refused if the job was asked to stop: so a stop takes effect between two batches."""

    tag: str
    holder: ProcessIdentity
    batch: Begun
    again: bool = True
    """Whether the batch that an earlier run started may have been written. False: it was never planned."""


@dataclass(frozen=True)
class RecordBatch:
    """A driver records the started batch."""

    tag: str
    holder: ProcessIdentity
    run: str
    recorded: Recorded
    following: Begun | None = None
    """The next batch, if Spark has planned it without a step in between: its output may exist (``sink=``)."""


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


Event = (
    Take
    | Renew
    | TakeToRecover
    | AskToStop
    | NoteStopStage
    | Cancel
    | CloseDead
    | Reconcile
    | Intend
    | EndWrite
    | LaunchEpoch
    | Release
    | Rename
    | MarkGood
    | ClaimLaunch
    | BeginBatch
    | RecordBatch
    | GoIdle
    | EndEpoch
)


def transition(record: PipelineRecord, event: Event) -> Outcome:
    """Return the record after ``event``, or that the event happened already, or why it is not possible.

    ``version`` increases by one, and ``generation`` with every change of lease or phase. The caller sets the token.
    """
    if record.renamed_to and not isinstance(event, _OF_DRIVERS):
        if isinstance(event, Rename) and event.to == record.renamed_to:
            return Already()
        return Refused(Refusal.RENAMED, f"its name is {record.renamed_to!r} now")
    outcome = _RULES[type(event)](record, event)
    if not isinstance(outcome, Next):
        return outcome
    after = outcome.record
    owner = None if record.lease is None else record.lease.operation
    owner_after = None if after.lease is None else after.lease.operation
    has_moved = (record.phase, owner) != (after.phase, owner_after)
    return Next(replace(after, version=record.version + 1, generation=record.generation + has_moved))


def _take(record: PipelineRecord, event: Take) -> Outcome:
    lease = record.lease
    if (later := _later_attempt(record, event.operation)) is not None:
        return Refused(Refusal.LEASE_LOST, f"{later!r} is a later attempt of the same run")
    if lease is not None and not event.take_over and not _is_of(lease, event.operation):
        age_ms = max(0, event.at_ms - lease.acted_at_ms)
        if age_ms < event.timeout_ms:
            return Refused(Refusal.LEASE_HELD, f"operation {lease.operation!r} acted {age_ms // 1000} s ago")
    return Next(replace(record, lease=Lease(event.operation, event.at_ms)))


def _is_of(lease: Lease, operation: str) -> bool:
    """Check whether a lease belongs to the operation, an earlier attempt of its run, or what it rolls back."""
    run, attempt = _attempt_of(operation)
    held_run, held_attempt = _attempt_of(lease.operation)
    is_mine = run == held_run and attempt >= held_attempt
    return is_mine or is_rollback_of(operation, lease.operation)


def _later_attempt(record: PipelineRecord, operation: str) -> str | None:
    """Return the later attempt of the operation's run that holds the lease or has launched the job, or None."""
    run, attempt = _attempt_of(operation)
    names = [each.operation for each in (record.lease, record.launch) if each is not None]
    return next((name for name in names if _attempt_of(name)[0] == run and _attempt_of(name)[1] > attempt), None)


def _attempt_of(operation: str) -> tuple[str, int]:
    """Return the run of an operation and the number of its attempt: ``<run>@2`` is the second one."""
    run, _, number = operation.rpartition(ATTEMPT)
    return (run, int(number)) if run and number.isdecimal() else (operation, 1)


def _renew(record: PipelineRecord, event: Renew) -> Outcome:
    """Renew a lease. A lease that the driver's first batch has ended needs no renewal."""
    return Already() if record.lease is None else _by_lease_holder(_renewed)(record, event)


def _renewed(record: PipelineRecord, event: Renew) -> Outcome:
    return _acted(record, event.at_ms)


def epoch_to_recover(record: PipelineRecord) -> int | None:
    """Return the epoch whose death a recovery may handle; None if there is none, or a person wants the job stopped.

    For a running epoch, only its process shows whether it is dead. An unclaimed launch of a recovery does not end the
    death before it.
    """
    launch, ended = record.launch, record.ended
    if launch is None or record.stop is not None or record.renamed_to:
        return None
    if record.phase is Phase.RUNNING:
        return record.epoch
    if record.phase is Phase.LAUNCHING or (ended is not None and ended.how is EndedHow.CANCELLED):
        return recovered_epoch(launch.operation) if is_recovery(launch.operation) else None
    return record.epoch if ended is not None and ended.how in DEATHS else None


def acted_lately(record: PipelineRecord, at_ms: int, timeout_ms: int) -> str:
    """Return the operation that acted recently, to which a recovery leaves the pipeline; empty if there is none.

    A recovery replaces another recovery, unless the launch of the other one may still be claimed.

    :param at_ms: the current time.
    :param timeout_ms: how long an action counts as recent.
    """
    lease = record.lease
    if lease is None or (is_recovery(lease.operation) and record.phase is not Phase.LAUNCHING):
        return ""
    return lease.operation if max(0, at_ms - lease.acted_at_ms) < timeout_ms else ""


def _take_to_recover(record: PipelineRecord, event: TakeToRecover) -> Outcome:
    lease = record.lease
    if lease is None or lease.operation != event.operation:
        if record.stop is not None:
            return Refused(Refusal.NOT_TO_RECOVER, f"{record.stop.operation!r} asked epoch {record.epoch} to stop")
        if epoch_to_recover(record) != event.epoch:
            return Refused(Refusal.NOT_TO_RECOVER, f"epoch {record.epoch} is {record.phase.value}")
    if by := acted_lately(record, event.at_ms, event.timeout_ms):
        return Refused(Refusal.NOT_TO_RECOVER, f"{by!r} is at work on it")
    return Next(replace(record, lease=Lease(event.operation, event.at_ms)))


def _ask_to_stop(record: PipelineRecord, event: AskToStop) -> Outcome:
    if record.phase is Phase.LAUNCHING:
        return Refused(Refusal.STATE_CHANGED, f"epoch {record.epoch} is launching: its launch is to be cancelled")
    stop = record.stop
    if stop is not None and stop.operation == event.operation:
        return Already()
    stage = None if stop is None else stop.stage
    return _acted(replace(record, stop=StopRequest(event.operation, event.reason, event.at_ms, stage)), event.at_ms)


def _note_stop_stage(record: PipelineRecord, event: NoteStopStage) -> Outcome:
    stop = record.stop
    if record.phase is not Phase.RUNNING:
        return Already()
    if stop is None:
        return Refused(Refusal.STATE_CHANGED, f"nobody has asked epoch {record.epoch} to stop")
    was_forced = stop.stage is not None and not stop.stage.is_request
    if was_forced and event.stage.is_request:
        return Already()
    return _acted(replace(record, stop=replace(stop, stage=event.stage)), event.stage.at_ms)


def _cancel(record: PipelineRecord, event: Cancel) -> Outcome:
    if record.phase is Phase.STOPPED and record.ended is not None and record.ended.how is EndedHow.CANCELLED:
        return Already()
    if record.phase is not Phase.LAUNCHING:
        return Refused(Refusal.STATE_CHANGED, f"epoch {record.epoch} is {record.phase.value}")
    ended = Ended(EndedHow.CANCELLED, event.at_ms, message=f"cancelled by {event.operation!r} before it was claimed")
    return _acted(replace(record, phase=Phase.STOPPED, ended=ended), event.at_ms)


def _close_dead(record: PipelineRecord, event: CloseDead) -> Outcome:
    if record.holder != event.holder or record.phase in (Phase.STOPPED, Phase.LAUNCHING):
        return Refused(Refusal.STATE_CHANGED, f"epoch {record.epoch} is {record.phase.value}, held by {record.holder}")
    if record.phase is Phase.ENDED:
        return Already()
    return _acted(replace(record, phase=Phase.ENDED, ended=event.ended, idle=False), event.ended.at_ms)


def _reconcile(record: PipelineRecord, event: Reconcile) -> Outcome:
    if record.phase is not Phase.ENDED or record.generation != event.generation:
        return Refused(Refusal.STATE_CHANGED, f"epoch {record.epoch} is {record.phase.value}")
    cuts = _with_cut(record.cuts, event.cut)
    begun = record.begun
    if event.recorded is not None and begun is not None and begun.count > 1:
        cuts = _with_cut(cuts, _again(begun, event.recorded))
    times = [each.row_time_ms for each in (event.recorded, event.cut) if each is not None and each.row_time_ms]
    after = replace(
        record,
        phase=Phase.STOPPED,
        begun=None,
        cuts=cuts,
        recorded=event.recorded or record.recorded,
        last_row_time_ms=max([record.last_row_time_ms, *times]),
    )
    return _acted(after, event.at_ms)


def _intend(record: PipelineRecord, event: Intend) -> Outcome:
    intent = Intent(event.operation, event.plan)
    if record.phase is not Phase.STOPPED:
        return Refused(Refusal.STATE_CHANGED, f"epoch {record.epoch} is {record.phase.value}")
    if record.intent == intent and event.token in ("", *(each.token for each in record.writes)):
        return Already()
    writes = record.writes
    if event.token:
        writes = (*writes, PendingWrite(event.token, event.operation, event.plan, _claimed(record), event.writer))
    return _acted(replace(record, intent=intent, writes=writes), event.at_ms)


def _end_write(record: PipelineRecord, event: EndWrite) -> Outcome:
    """End a pending write.

    A write that arrived while no job could read it has ended. Any other one stays pending until a plan accounts for it.
    """
    write = next((each for each in record.writes if each.token == event.token), None)
    if write is None:
        return Already()
    others = tuple(each for each in record.writes if each is not write)
    if event.is_written and (record.phase is not Phase.STOPPED or write.epoch != _claimed(record)):
        return Already() if write.met else Next(replace(record, writes=(*others, replace(write, met=record.epoch))))
    return Next(replace(record, writes=others))


def _claimed(record: PipelineRecord) -> int:
    return 0 if record.recorded is None else record.recorded.epoch


def _launch(record: PipelineRecord, event: LaunchEpoch) -> Outcome:
    if record.launch is not None and record.launch.tag == event.launch.tag:
        return Already()
    if record.phase is not Phase.STOPPED:
        return Refused(Refusal.STATE_CHANGED, f"epoch {record.epoch} is {record.phase.value}")
    if record.generation != event.generation or event.launch.epoch != record.epoch + 1:
        return Refused(
            Refusal.STATE_CHANGED,
            f"the plan was made against generation {event.generation} for epoch {event.launch.epoch}, and this is"
            f" generation {record.generation} after epoch {record.epoch}",
        )
    if record.stop is not None and record.stop.operation != event.operation:
        return Refused(Refusal.STOPPED_SINCE, f"{record.stop.operation!r} asked it to stop")
    after = replace(
        record,
        phase=Phase.LAUNCHING,
        epoch=event.launch.epoch,
        launch=event.launch,
        holder=None,
        claimed_at_ms=0,
        begun=None,
        cuts=(),
        stop=None,
        idle=False,
        ended=None,
        last_row_time_ms=max(record.last_row_time_ms, event.newest_row_time_ms),
    )
    return _acted(after, event.at_ms)


def _release(record: PipelineRecord, event: Release) -> Outcome:
    is_mine = record.lease is not None and record.lease.operation == event.operation
    return Next(replace(record, lease=None)) if is_mine else Already()


def _rename(record: PipelineRecord, event: Rename) -> Outcome:
    if record.phase is not Phase.STOPPED:
        return Refused(Refusal.STATE_CHANGED, f"epoch {record.epoch} is {record.phase.value}")
    return Next(replace(record, lease=None, renamed_to=event.to))


def _mark_good(record: PipelineRecord, event: MarkGood) -> Outcome:
    if record.good >= event.epoch or record.epoch < event.epoch:
        return Already()
    return Next(replace(record, good=event.epoch))


def _claim(record: PipelineRecord, event: ClaimLaunch) -> Outcome:
    launch = record.launch
    if launch is None or launch.tag != event.tag:
        return Refused(Refusal.FENCED, f"the newest launch is epoch {record.epoch}")
    if record.phase is not Phase.LAUNCHING:
        if record.holder == event.holder and record.phase is Phase.RUNNING:
            return Already()
        if record.holder is None:
            return Refused(Refusal.CANCELLED, f"the launch of epoch {record.epoch} was cancelled")
        return Refused(Refusal.FENCED, f"epoch {record.epoch} was claimed by {_words(record.holder)}")
    return Next(
        replace(
            record,
            phase=Phase.RUNNING,
            holder=event.holder,
            claimed_at_ms=event.at_ms,
            recorded=Recorded(launch.epoch, launch.tag),
            intent=None,
            writes=tuple(each for each in record.writes if each.token not in launch.settles),
        )
    )


def _begin(record: PipelineRecord, event: BeginBatch) -> Outcome:
    batch, begun = event.batch, record.begun
    if begun is not None and begun.run == batch.run and begun.batch_id == batch.batch_id:
        if begun.row_time_ms is not None or batch.row_time_ms is None:
            return Already()
        return _begins(record, replace(batch, count=begun.count))
    if record.stop is not None:
        return Refused(Refusal.STOP_REQUESTED, f"{record.stop.operation!r}: {record.stop.reason}")
    if begun is None:
        return _begins(record, batch)
    if begun.batch_id == batch.batch_id:
        return _begins(record, replace(batch, count=begun.count + event.again))
    cut = CutOff(begun.batch_id, begun.query_id, begun.row_time_ms, begun.count)
    return _begins(replace(record, cuts=_with_cut(record.cuts, cut)), batch)


def _begins(record: PipelineRecord, batch: Begun) -> Outcome:
    last_ms = max(record.last_row_time_ms, batch.row_time_ms or 0)
    return Next(replace(record, begun=batch, idle=False, last_row_time_ms=last_ms))


def _record(record: PipelineRecord, event: RecordBatch) -> Outcome:
    if record.recorded == event.recorded and record.begun == event.following:
        return Already()
    begun = record.begun
    if begun is None or (begun.run, begun.batch_id) != (event.run, event.recorded.batch_id):
        return Refused(
            Refusal.STATE_CHANGED, f"batch {event.recorded.batch_id} did not begin; the started one is {begun}"
        )
    if begun.row_time_ms not in (None, event.recorded.row_time_ms):
        return Refused(Refusal.STATE_CHANGED, f"batch {begun.batch_id} has its facts at {begun.row_time_ms}")
    cuts = record.cuts
    if begun.count > 1:
        cuts = _with_cut(cuts, _again(begun, event.recorded))
    after = replace(
        record,
        recorded=event.recorded,
        begun=event.following,
        cuts=cuts,
        last_row_time_ms=max(record.last_row_time_ms, event.recorded.row_time_ms or 0),
    )
    return Next(_without_launcher(after))


def _idle(record: PipelineRecord, event: GoIdle) -> Outcome:
    begun = record.begun
    unplanned = begun is not None and begun.row_time_ms is None
    after = _without_launcher(replace(record, idle=True, begun=None if unplanned else begun))
    return Already() if after == record else Next(after)


def _end(record: PipelineRecord, event: EndEpoch) -> Outcome:
    return Next(replace(record, phase=Phase.ENDED, ended=event.ended, idle=False))


def _with_cut(cuts: tuple[CutOff, ...], cut: CutOff | None) -> tuple[CutOff, ...]:
    """Return the cuts with one more. A batch has one entry, with a count."""
    if cut is None:
        return cuts
    same = [each for each in cuts if each.is_same(cut)]
    count = sum(each.count for each in same) + cut.count
    return (*(each for each in cuts if each not in same), replace(cut, count=count))


def _again(begun: Begun, recorded: Recorded) -> CutOff:
    """Return the earlier runs of a batch that was recorded in the end."""
    return CutOff(begun.batch_id, recorded.query_id, recorded.row_time_ms, begun.count - 1)


def _without_launcher(record: PipelineRecord) -> PipelineRecord:
    """Return the record without the lease of the operation that made this launch: the job has started."""
    lease, launch = record.lease, record.launch
    is_launcher = lease is not None and launch is not None and lease.operation == launch.operation
    return replace(record, lease=None) if is_launcher and record.stop is None else record


def _acted(record: PipelineRecord, at_ms: int) -> Outcome:
    assert record.lease is not None
    return Next(replace(record, lease=replace(record.lease, acted_at_ms=at_ms)))


def _by_lease_holder(rule: Callable[[PipelineRecord, Any], Outcome]) -> Callable[[PipelineRecord, Any], Outcome]:
    def checked(record: PipelineRecord, event: Any) -> Outcome:
        lease = record.lease
        if lease is None or lease.operation != event.operation:
            holder = "nobody holds the lease" if lease is None else f"{lease.operation!r} took the pipeline over"
            return Refused(Refusal.LEASE_LOST, holder)
        return rule(record, event)

    return checked


def _by_driver(rule: Callable[[PipelineRecord, Any], Outcome]) -> Callable[[PipelineRecord, Any], Outcome]:
    def checked(record: PipelineRecord, event: Any) -> Outcome:
        launch = record.launch
        if launch is None or launch.tag != event.tag or record.holder != event.holder:
            return Refused(Refusal.FENCED, f"the newest launch is epoch {record.epoch}")
        if record.phase is Phase.RUNNING:
            return rule(record, event)
        if isinstance(event, EndEpoch):
            return Already()
        return Refused(Refusal.FENCED, f"epoch {record.epoch} was closed: {record.ended}")

    return checked


def _words(process: ProcessIdentity) -> str:
    return f"pid {process.pid} on {process.host}"


_RULES: dict[type, Callable[[PipelineRecord, Any], Outcome]] = {
    Take: _take,
    Renew: _renew,
    TakeToRecover: _take_to_recover,
    AskToStop: _by_lease_holder(_ask_to_stop),
    NoteStopStage: _by_lease_holder(_note_stop_stage),
    Cancel: _by_lease_holder(_cancel),
    CloseDead: _by_lease_holder(_close_dead),
    Reconcile: _by_lease_holder(_reconcile),
    Intend: _by_lease_holder(_intend),
    EndWrite: _end_write,
    LaunchEpoch: _by_lease_holder(_launch),
    Release: _release,
    Rename: _by_lease_holder(_rename),
    MarkGood: _mark_good,
    ClaimLaunch: _claim,
    BeginBatch: _by_driver(_begin),
    RecordBatch: _by_driver(_record),
    GoIdle: _by_driver(_idle),
    EndEpoch: _by_driver(_end),
}

_OF_DRIVERS = (ClaimLaunch, BeginBatch, RecordBatch, GoIdle, EndEpoch)
