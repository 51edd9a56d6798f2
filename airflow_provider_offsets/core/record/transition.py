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

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from airflow_provider_offsets.core.epoch import (
    CutOff,
    Ended,
    EndedHow,
    ProcessIdentity,
    Recorded,
    RowsWritten,
    StopRequest,
)
from airflow_provider_offsets.core.record.events import (
    AskToStop,
    CancelLaunch,
    ClaimLaunch,
    CloseDead,
    EndEpoch,
    EndWrite,
    Event,
    GoIdle,
    LaunchEpoch,
    MarkGood,
    NoteMove,
    NoteStopStage,
    Reconcile,
    RecordBatch,
    ReleaseLease,
    Rename,
    RenewLease,
    StartBatch,
    TakeLease,
    TakeToRecover,
)
from airflow_provider_offsets.core.record.model import (
    Already,
    Intent,
    Lease,
    Next,
    Outcome,
    PendingWrite,
    Phase,
    PipelineRecord,
    Refusal,
    Refused,
    StartedBatch,
)
from airflow_provider_offsets.core.recovery import DEATHS, is_recovery, is_rollback_of, recovered_epoch, run_and_attempt


def transition(record: PipelineRecord, event: Event) -> Outcome:
    """Return the record after ``event``, or that the event happened already, or why it is not possible.

    ``version`` increases by one, and ``generation`` with every change of lease or phase. The caller sets the token.

    :param record: the record now.
    :param event: what happens to the pipeline.
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


def _take(record: PipelineRecord, event: TakeLease) -> Outcome:
    lease = record.lease
    if (later := _later_attempt(record, event.operation)) is not None:
        return Refused(Refusal.LEASE_LOST, f"{later!r} is a later attempt of the same run")
    takes_over = event.take_over and (event.holder is None or lease is None or lease.operation == event.holder)
    if lease is not None and not takes_over and not _is_of(lease, event.operation):
        age_ms = max(0, event.at_ms - lease.acted_at_ms)
        if age_ms < event.timeout_ms:
            return Refused(Refusal.LEASE_HELD, f"operation {lease.operation!r} acted {age_ms // 1000} s ago")
    return Next(replace(record, lease=Lease(event.operation, event.at_ms)))


def _is_of(lease: Lease, operation: str) -> bool:
    """Check whether a lease belongs to the operation, an earlier attempt of its run, or what it rolls back."""
    run, attempt = run_and_attempt(operation)
    held_run, held_attempt = run_and_attempt(lease.operation)
    is_mine = run == held_run and attempt >= held_attempt
    return is_mine or is_rollback_of(operation, lease.operation)


def _later_attempt(record: PipelineRecord, operation: str) -> str | None:
    """Return the later attempt of the operation's run that holds the lease or has launched the job, or None."""
    run, attempt = run_and_attempt(operation)
    names = [each.operation for each in (record.lease, record.launch) if each is not None]
    return next(
        (name for name in names if run_and_attempt(name)[0] == run and run_and_attempt(name)[1] > attempt), None
    )


def _renew(record: PipelineRecord, event: RenewLease) -> Outcome:
    """Renew a lease. A lease that the driver's first batch has ended needs no renewal."""
    return Already() if record.lease is None else _by_lease_holder(_renewed)(record, event)


def _renewed(record: PipelineRecord, event: RenewLease) -> Outcome:
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

    :param record: the record now.
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
    if event.epoch not in (None, record.epoch):
        return Refused(Refusal.STATE_CHANGED, f"epoch {record.epoch} was launched after epoch {event.epoch}")
    if record.phase is Phase.LAUNCHING:
        return Refused(Refusal.STATE_CHANGED, f"epoch {record.epoch} is launching: its launch is to be cancelled")
    is_cancelled = record.ended is not None and record.ended.how is EndedHow.CANCELLED
    if record.launch is not None and record.launch.operation == event.operation and not is_cancelled:
        return Refused(Refusal.STATE_CHANGED, f"epoch {record.epoch} was launched by {event.operation!r} itself")
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


def _cancel(record: PipelineRecord, event: CancelLaunch) -> Outcome:
    if event.epoch not in (None, record.epoch):
        return Refused(Refusal.STATE_CHANGED, f"epoch {record.epoch} was launched after epoch {event.epoch}")
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
    started = record.started
    if event.recorded is not None and started is not None and started.count > 1:
        cuts = _with_cut(cuts, _again(started, event.recorded))
    times = [each.row_time_ms for each in (event.recorded, event.cut) if each is not None and each.row_time_ms]
    after = replace(
        record,
        phase=Phase.STOPPED,
        started=None,
        cuts=cuts,
        written=record.written if event.recorded is None else record.written.plus(event.recorded.batch_id, None),
        recorded=event.recorded or record.recorded,
        last_row_time_ms=max([record.last_row_time_ms, *times]),
    )
    return _acted(after, event.at_ms)


def _note_move(record: PipelineRecord, event: NoteMove) -> Outcome:
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
        started=None,
        cuts=(),
        written=RowsWritten(),
        stop=None,
        idle=False,
        ended=None,
        last_row_time_ms=max(record.last_row_time_ms, event.newest_row_time_ms),
    )
    return _acted(after, event.at_ms)


def _release(record: PipelineRecord, event: ReleaseLease) -> Outcome:
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
            writes=tuple(each for each in record.writes if each.token not in launch.accounts_for),
        )
    )


def _begin(record: PipelineRecord, event: StartBatch) -> Outcome:
    batch, started = event.batch, record.started
    if started is not None and started.run == batch.run and started.batch_id == batch.batch_id:
        if started.row_time_ms is not None or batch.row_time_ms is None:
            return Already()
        return _begins(record, replace(batch, count=started.count))
    if record.stop is not None:
        return Refused(Refusal.STOP_REQUESTED, f"{record.stop.operation!r}: {record.stop.reason}")
    if started is None:
        return _begins(record, batch)
    if started.batch_id == batch.batch_id:
        return _begins(record, replace(batch, count=started.count + event.again))
    cut = CutOff(started.batch_id, started.query_id, started.row_time_ms, started.count)
    return _begins(replace(record, cuts=_with_cut(record.cuts, cut)), batch)


def _begins(record: PipelineRecord, batch: StartedBatch) -> Outcome:
    last_ms = max(record.last_row_time_ms, batch.row_time_ms or 0)
    return Next(replace(record, started=batch, idle=False, last_row_time_ms=last_ms))


def _record(record: PipelineRecord, event: RecordBatch) -> Outcome:
    if record.recorded == event.recorded and record.started == event.following:
        return Already()
    started = record.started
    if started is None or (started.run, started.batch_id) != (event.run, event.recorded.batch_id):
        return Refused(
            Refusal.STATE_CHANGED, f"batch {event.recorded.batch_id} did not begin; the started one is {started}"
        )
    if started.row_time_ms not in (None, event.recorded.row_time_ms):
        return Refused(Refusal.STATE_CHANGED, f"batch {started.batch_id} has its facts at {started.row_time_ms}")
    cuts = record.cuts
    if started.count > 1:
        cuts = _with_cut(cuts, _again(started, event.recorded))
    after = replace(
        record,
        recorded=event.recorded,
        started=event.following,
        cuts=cuts,
        written=record.written.plus(event.recorded.batch_id, event.rows_written, is_empty=event.is_empty),
        last_row_time_ms=max(record.last_row_time_ms, event.recorded.row_time_ms or 0),
    )
    return Next(_without_launcher(after))


def _idle(record: PipelineRecord, event: GoIdle) -> Outcome:
    started = record.started
    unplanned = started is not None and started.row_time_ms is None
    after = _without_launcher(replace(record, idle=True, started=None if unplanned else started))
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


def _again(started: StartedBatch, recorded: Recorded) -> CutOff:
    """Return the earlier runs of a batch that was recorded in the end."""
    return CutOff(started.batch_id, recorded.query_id, recorded.row_time_ms, started.count - 1)


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
    TakeLease: _take,
    RenewLease: _renew,
    TakeToRecover: _take_to_recover,
    AskToStop: _by_lease_holder(_ask_to_stop),
    NoteStopStage: _by_lease_holder(_note_stop_stage),
    CancelLaunch: _by_lease_holder(_cancel),
    CloseDead: _by_lease_holder(_close_dead),
    Reconcile: _by_lease_holder(_reconcile),
    NoteMove: _by_lease_holder(_note_move),
    EndWrite: _end_write,
    LaunchEpoch: _by_lease_holder(_launch),
    ReleaseLease: _release,
    Rename: _by_lease_holder(_rename),
    MarkGood: _mark_good,
    ClaimLaunch: _claim,
    StartBatch: _by_driver(_begin),
    RecordBatch: _by_driver(_record),
    GoIdle: _by_driver(_idle),
    EndEpoch: _by_driver(_end),
}

_OF_DRIVERS = (ClaimLaunch, StartBatch, RecordBatch, GoIdle, EndEpoch)
