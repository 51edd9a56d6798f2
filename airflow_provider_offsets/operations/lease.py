"""Hold the lease of an operation, and reconcile an epoch that has ended.

Only the operation that holds the lease changes a job. Each function is one compare-and-swap of the pipeline's record,
or a loop of them. All are safe to repeat, and none overwrites what another actor has changed meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

from airflow_provider_offsets import clock
from airflow_provider_offsets.backends.machine import machine
from airflow_provider_offsets.checkpoint.files import CheckpointFolder, open_checkpoint
from airflow_provider_offsets.checkpoint.log import read_entry, read_state
from airflow_provider_offsets.checkpoint.seed import close
from airflow_provider_offsets.checkpoint.swap import finish_swap, left_by_restarts
from airflow_provider_offsets.core.batch import Batch, digest_of
from airflow_provider_offsets.core.epoch import ATTEMPT, CutOff, Ended, EndedHow, Epoch, Recorded
from airflow_provider_offsets.core.late import written_offsets
from airflow_provider_offsets.core.position import Position, TopicPartition
from airflow_provider_offsets.core.record.events import (
    CancelLaunch,
    CloseDead,
    EndWrite,
    Reconcile,
    ReleaseLease,
    RenewLease,
    TakeLease,
)
from airflow_provider_offsets.core.record.model import Phase, PipelineRecord, StartedBatch
from airflow_provider_offsets.core.snapshot import CHECKPOINT, CheckpointState
from airflow_provider_offsets.errors import CheckpointError, RecordChanged, StateChanged, StateLost, TakenOver
from airflow_provider_offsets.operations.ownership import claim_own, require_own
from airflow_provider_offsets.operations.session import Session, recorded_batch, started_batch
from airflow_provider_offsets.runtime.batch_log import BatchLog

LEASE_TIMEOUT_S = 420
"""Seconds after its last step when an operation loses the protection of its lease.

Airflow retries a task whose heartbeats are missing for five minutes (``task_instance_heartbeat_timeout``). Two more
minutes allow for the start of that task.
"""

RENEW_AFTER_S = LEASE_TIMEOUT_S // 4
"""Seconds between two renewals of the lease by an operation that waits."""


def take_lease(session: Session, *, take_over: bool = False, seen: PipelineRecord | None = None) -> PipelineRecord:
    """Return the record once this operation holds the lease. Taking the lease again also renews it.

    :param session: the session of the operation.
    :param take_over: take the lease from an operation that acted recently; the next step of that operation is refused.
    :param seen: the record as the caller saw it first. An operation that took the lease since is not taken over.
    :raises LeaseHeld: another operation acted recently, and ``take_over`` is False.
    :raises StateLost: the pipeline has a history but no record, or another pipeline owns what it uses.
    """
    record = session.cell.read()
    seen = seen or record
    if record is None:
        require_own(session)
        require_unknown(session)
    if record is None or not record.renamed_to:
        claim_own(session)
    if record is None:
        session.cell.create()
    holder = "" if seen is None or seen.lease is None else seen.lease.operation
    return retake_lease(session, take_over=take_over, holder=holder)


def retake_lease(session: Session, *, take_over: bool = False, holder: str | None = None) -> PipelineRecord:
    """Take the lease of a pipeline that has a record, whatever the pipeline uses now.

    :param session: the session of the operation.
    :param take_over: as for ``take_lease``.
    :param holder: the only operation that may be taken over; empty: none; None: any.
    :returns: the record with this operation's lease.
    :raises LeaseHeld: another operation acted recently, and ``take_over`` is False.
    """
    timeout_ms = LEASE_TIMEOUT_S * 1000
    return session.cell.change(TakeLease(session.operation, clock.now_ms(), timeout_ms, take_over, holder))


def keep_lease(session: Session, record: PipelineRecord) -> None:
    """Renew the lease of an operation that waits, before other operations may take the lease.

    :param session: the session of the operation.
    :param record: the record as it was read.
    :raises TakenOver: another operation holds the lease.
    """
    require_lease(session, record)
    assert record.lease is not None
    if clock.now_ms() - record.lease.acted_at_ms > RENEW_AFTER_S * 1000:
        session.cell.change(RenewLease(session.operation, clock.now_ms()))


def require_lease(session: Session, record: PipelineRecord) -> None:
    """Raise unless this operation holds the lease.

    :param session: the session of the operation.
    :param record: the record as it was read.
    :raises TakenOver: this operation does not hold the lease.
    """
    lease = record.lease
    if lease is None or lease.operation != session.operation:
        raise TakenOver(
            seen=f"pipeline {session.pipeline.name!r} is leased to {lease.operation if lease else 'nobody'!r}",
            expected=f"the lease of {session.operation!r}, which its stop task takes",
            do="No action needed if the other operation continues. Otherwise run this operation again from its"
            " stop task.",
        )


def release_lease(session: Session) -> None:
    """Release the lease if this operation holds it."""
    record = session.cell.read()
    if record is not None and record.lease is not None and record.lease.operation == session.operation:
        session.cell.change(ReleaseLease(session.operation))


def close_and_reconcile(session: Session, *, epoch: int | None = None) -> PipelineRecord:
    """Reconcile everything that has ended, and return the record: STOPPED, or RUNNING if the driver may be alive.

    That is what ``close_newest`` does. Then pending writes of exited processes are forgotten if the job's own store
    shows that they never happened.

    :param session: the session of the operation.
    :param epoch: as for ``close_newest``.
    :raises StateChanged: another epoch was launched since. Nothing was done to it.
    :raises TakenOver: this operation does not hold the lease.
    """
    while True:
        record = close_newest(session, epoch=epoch)
        if record.phase is not Phase.STOPPED:
            return record
        with suppress(RecordChanged):
            return _without_dead_writers(session, record)


def close_newest(session: Session, *, epoch: int | None = None) -> PipelineRecord:
    """Reconcile the newest epoch if it has ended, and return the record as ``close_and_reconcile`` does.

    - A launch that nobody has claimed is cancelled.
    - An epoch whose driver has exited is closed.
    - An ended epoch is reconciled with its checkpoint.
    - An interrupted move of an untracked job is finished.

    :param session: the session of the operation.
    :param epoch: number of the epoch that is to end; None: the newest one.
    :raises StateChanged: another epoch was launched since. Nothing was done to it.
    :raises TakenOver: this operation does not hold the lease.
    """
    while True:
        record = session.cell.read()
        assert record is not None, "whoever reconciles has taken the lease"
        require_lease(session, record)
        if epoch not in (None, record.epoch):
            raise StateChanged(
                seen=f"epoch {record.epoch} of {session.pipeline.name!r} was launched during the stop of {epoch}",
                expected="no launch by another task while this operation holds the lease",
                do="run this task again",
            )
        # A driver that claims, or another try of this task, may be faster: then the loop reads the record again.
        with suppress(RecordChanged):
            if record.phase is Phase.LAUNCHING:
                session.cell.change(CancelLaunch(session.operation, clock.now_ms(), record.epoch))
            elif record.phase is Phase.ENDED:
                reconcile(session, record)
            elif record.phase is Phase.STOPPED:
                finish_move(session, record)
                return record
            elif not close_if_over(session, record):
                return record


def close_if_over(session: Session, record: PipelineRecord) -> bool:
    """Close a running epoch whose driver has exited; return whether the epoch was closed.

    :param session: the session of the operation, which holds the lease.
    :param record: the record as it was read.
    """
    ended = seen_end(record, session.control.newest_launch(record)) if record.phase is Phase.RUNNING else None
    if ended is None:
        return False
    assert record.holder is not None
    session.cell.change(CloseDead(session.operation, record.holder, ended))
    return True


def seen_end(record: PipelineRecord, epoch: Epoch) -> Ended | None:
    """Return how a running epoch has ended if its driver's exit is visible from this machine, else None.

    Unknown is not dead. An untracked program acknowledges nothing: if it exits after a stop request, it counts as
    stopped.

    :param record: in phase RUNNING.
    :param epoch: its newest launch.
    """
    if is_running(epoch) is not False:
        return None
    assert record.holder is not None
    how, after = EndedHow.DIED, ""
    stop = record.stop
    if not epoch.claim.tracked and stop is not None:
        how, after = EndedHow.STOPPED, " after it was asked to stop"
    if stop is not None and stop.stage is not None:
        how, after = EndedHow.STOPPED if stop.stage.is_request else EndedHow.KILLED, f" after {stop.stage.name}"
    gone = f"pid {record.holder.pid} on {record.holder.host} is gone{after}"
    return Ended(how, clock.now_ms(), last_batch_id=epoch.last_batch_id, message=gone)


def is_running(epoch: Epoch) -> bool | None:
    """Return whether the job of a claimed epoch is alive; None if that cannot be determined from here.

    The holder of an untracked job's epoch is spark-submit, whose program may outlive it for a moment. Containers on
    YARN outlive the driver, so YARN is asked last; without an answer, the job counts as alive.
    """
    has_process, yarn = has_driver(epoch), epoch.claim.yarn
    if has_process is not False or yarn is None:
        return has_process
    return bool(machine().left_on_yarn(yarn))


def has_driver(epoch: Epoch) -> bool | None:
    """Return whether a process of the epoch's driver is alive; None if the driver is not visible from here."""
    if epoch.holder is None:
        return False
    if epoch.claim.tracked:
        return machine().is_alive(epoch.holder)
    return machine().is_session_alive(epoch.holder)


def reconcile(session: Session, record: PipelineRecord) -> PipelineRecord:
    """Reconcile the last batch of an epoch that has ended, and return the record.

    If the driver had no time to write a row to the history, the row is written from the stored offsets. A started batch
    that Spark has committed is complete, so it is recorded. Any other started batch is recorded as interrupted, with
    its ranges.

    :param session: the session of the operation, which holds the lease.
    :param record: as it was read; the swap fails if the record has changed since.
    """
    epoch = session.control.newest_launch(record)
    complete_history(session, record, epoch)
    recorded, cut, batch, following, is_kept = None, None, None, None, False
    if record.started is not None and epoch.claim.tracked:
        recorded, cut, batch = _last_batch(session, record, record.started, epoch)
        is_kept = record.started.row_time_ms is not None
        if recorded is not None and batch is not None and is_kept:
            following = _batch_after(batch, record, epoch)
        if following is not None:
            cut = CutOff(following.batch_id or 0, following.query_id or "", following.row_time_ms, 1)
    return session.cell.change(
        Reconcile(session.operation, record.generation, clock.now_ms(), recorded, cut),
        stream=epoch.claim.stream,
        prepare=following if is_kept else batch,
        append=batch if recorded is not None else None,
    )


def finish_move(session: Session, record: PipelineRecord) -> None:
    """Finish an interrupted move of an untracked job's checkpoint.

    Between the two steps of a move there is no checkpoint. The record's intent names the move, so every plan uses the
    job's position before the move.

    :param session: the session of the operation, which holds the lease.
    :param record: the record as it was read; its intent names the move.
    """
    if record.intent is not None and session.pipeline.authoritative == CHECKPOINT:
        finish_swap(session.pipeline.job.checkpoint, record.intent.plan)


def _without_dead_writers(session: Session, record: PipelineRecord) -> PipelineRecord:
    """Return the record without pending writes of exited processes, where the store shows that they never happened."""
    if not record.writes or not session.keeps_position_elsewhere:
        return record
    gone = [each for each in record.writes if each.writer is not None and machine().is_alive(each.writer) is False]
    position = session.kept_in[session.pipeline.authoritative].position(session.pipeline.stream) if gone else None
    for write in gone:
        if not written_offsets(session.control.move(write.plan), position):
            record = session.cell.change(EndWrite(write.token, is_written=False))
    return record


def complete_history(session: Session, record: PipelineRecord, epoch: Epoch) -> None:
    """Write the row of the recorded batch if it is missing because its writer died between the record and the row.

    The writer is the driver, or the task that reconciled its epoch. The next launch removes the batch from the record,
    so the row must also be checked before that launch.

    :param session: the session of the operation.
    :param record: the record as it was read.
    :param epoch: the newest launch.
    """
    recorded = record.recorded
    if recorded is None or recorded.tag != epoch.claim.tag:
        return
    batch = recorded_batch(session.store, epoch.claim.stream, recorded)
    if batch is not None:
        session.store.append(epoch.claim.stream, batch)


def _last_batch(
    session: Session, record: PipelineRecord, started: StartedBatch, epoch: Epoch
) -> tuple[Recorded | None, CutOff | None, Batch | None]:
    """Return whether the started batch is recorded or interrupted, and its offsets; nothing if it was never planned."""
    files = open_checkpoint(epoch.claim.checkpoint)
    log = BatchLog(files, epoch.claim.start)
    planned = log.batch(started.batch_id, epoch=epoch.number)
    is_same_query = planned is not None and planned.query_id == (started.query_id or planned.query_id)
    if started.row_time_ms is not None:
        batch = session.store.prepared(epoch.claim.stream, started.row_time_ms)
    elif is_same_query and planned is not None:
        batch = planned.at_row(max(planned.batch_time_ms, record.last_row_time_ms + 1))
    else:
        batch = None
    if batch is not None and is_same_query and log.is_committed(started.batch_id):
        recorded = Recorded(
            epoch.number, epoch.claim.tag, started.batch_id, batch.query_id or "", batch.row_time_ms, digest_of(batch)
        )
        return recorded, None, batch
    if batch is not None:
        return None, CutOff(started.batch_id, batch.query_id or "", batch.row_time_ms, started.count), batch
    state = read_state(files)
    if state is not None and not _is_never_planned(session, record, started, files, state):
        return _last_batch(session, record, started, epoch)
    return _unknown_batch(session, record, started, epoch, state)


def _batch_after(batch: Batch, record: PipelineRecord, epoch: Epoch) -> Batch | None:
    """Return the batch that Spark planned after a started and committed one, without a step of the driver (``sink=``).

    A superseded driver that still lived committed the started batch just before Spark read the log.
    """
    log = BatchLog(open_checkpoint(epoch.claim.checkpoint), epoch.claim.start)
    following = log.batch((batch.batch_id or 0) + 1, epoch=epoch.number, after=batch)
    if following is None:
        return None
    return following.at_row(max(following.batch_time_ms, record.last_row_time_ms + 1))


def _is_never_planned(
    session: Session, record: PipelineRecord, started: StartedBatch, files: CheckpointFolder, state: CheckpointState
) -> bool:
    """Return True once Spark can no longer plan the started batch, or False if Spark has planned it meanwhile.

    A driver that reported its own end plans nothing more. A driver that seems dead may still be alive: under ``sink=``,
    Spark writes a batch without another swap. So the checkpoint is closed by writing its next log entry. A stateful
    query could not continue from another checkpoint, so there the observation that the process has exited must suffice.
    """
    was_seen_dead = record.ended is not None and record.ended.how in (EndedHow.DIED, EndedHow.KILLED)
    is_next = state.last_batch_id == started.batch_id - 1 and state.query_id == (started.query_id or state.query_id)
    if not was_seen_dead or state.stateful or not is_next:
        return True
    try:
        return close(files, session.operation) in (None, started.batch_id)
    except StateChanged:
        return False


def _unknown_batch(
    session: Session, record: PipelineRecord, started: StartedBatch, epoch: Epoch, state: CheckpointState | None
) -> tuple[None, CutOff | None, Batch | None]:
    """Return the bounds of a started batch that is in no log; nothing if the log shows that it was never planned."""
    cut = started_batch(session.store, record, epoch, state, partial(session.ends_of, epoch))
    if cut is None or not cut.ranges:
        return None, None, None
    start = Position({TopicPartition(each.topic, each.partition): each.start for each in cut.ranges})
    end = Position({TopicPartition(each.topic, each.partition): each.end for each in cut.ranges})
    batch = Batch(
        end=end,
        batch_time_ms=started.batch_time_ms,
        batch_id=started.batch_id,
        query_id=started.query_id,
        epoch=epoch.number,
        start=start,
        row_time_ms=max(started.batch_time_ms, record.last_row_time_ms + 1),
    )
    return None, CutOff(started.batch_id, started.query_id, batch.row_time_ms, started.count, cut.why), batch


def require_unknown(session: Session) -> None:
    """Raise if a pipeline without a record is not new.

    :raises StateLost: epochs were recorded, or a restart has moved the job to another checkpoint. So the record was
        lost, or the pipeline was renamed.
    """
    newest = next((row for row in session.store.newest_first(session.pipeline.stream) if row.epoch is not None), None)
    kept = next(session.control.kept_epochs(), None)
    if newest is None and kept is None:
        _require_unmarked(session)
        return
    known = f"epoch {kept.number}" if kept is not None else f"batch {newest.batch_id if newest else None} of its group"
    of_another = ". If another pipeline has read these topics, give this one another group_id" if kept is None else ""
    raise StateLost(
        seen=f"pipeline {session.pipeline.name!r} has no record in its control store, but {known} exists",
        expected="the record of the pipeline that wrote it",
        do="restore the control store. If the pipeline was renamed, run 'airflow offsets rename OLD"
        f" {session.pipeline.name}'{of_another}",
    )


def _require_unmarked(session: Session) -> None:
    """Raise if the checkpoint shows that a restart has moved the job, although its control store knows of none."""
    pipeline, location = session.pipeline, session.pipeline.job.checkpoint
    if not location or not (pipeline.tracked or CHECKPOINT in pipeline.offsets_in):
        return
    state = read_state(open_checkpoint(location)) if pipeline.tracked else None
    closer = None if state is None else state.closed_by
    beside = left_by_restarts(location)
    if closer is None and (not beside or _newest_open((location, *beside)) == location):
        return
    closed = f"{location} was closed by {closer!r}"
    raise StateLost(
        seen=f"pipeline {pipeline.name!r} has no record in its control store, and"
        f" {closed if closer is not None else f'a restart has moved its job to {beside[0]}'}",
        expected="the record of the pipeline whose operation did this",
        do="restore the control store. If the pipeline was renamed, run 'airflow offsets rename OLD"
        f" {pipeline.name}'. If the record is gone for good, end every driver of the job, and set job.checkpoint"
        f" to {_newest_open(beside) or 'a new folder, and name the start'}",
    )


def _newest_open(locations: Sequence[str]) -> str:
    """Return the open checkpoint on which a job ran last; empty if none is open, or it is unknown which one that is.

    A restart seeds a checkpoint before it closes the one that the job leaves. If the restart is interrupted between the
    two, both are open, and no job has run on the seeded one.
    """
    ran: dict[str, int] = {}
    seeded: list[str] = []
    for each in locations:
        with suppress(CheckpointError):
            files = open_checkpoint(each)
            state = read_state(files)
            if state is None or state.closed_by is not None:
                continue
            planned = None if state.planned_batch_id is None else read_entry(files, state.planned_batch_id)
            if planned is not None and planned.is_seeded:
                seeded.append(each)
            else:
                ran[each] = state.last_batch_id
    if not ran:
        return seeded[0] if len(seeded) == 1 else ""
    return max(ran, key=lambda each: ran[each])


def of_attempt(session: Session) -> Session:
    """Return the session of this run's newest attempt, which keeps its steps apart from earlier attempts."""
    return _session_of(session, session.control.attempt(session.operation))


def new_attempt(session: Session, key: str) -> Session:
    """Return the session of the attempt with ``key``, which begins now unless one of its tries ran before.

    A late try of an earlier attempt continues under that attempt, which has lost the lease.

    :param session: the session of the operation.
    :param key: the same for all tries of one attempt, and different for the next attempt.
    """
    return _session_of(session, session.control.begin_attempt(session.operation, key))


def _session_of(session: Session, number: int) -> Session:
    return session if number == 1 else replace(session, operation=f"{session.operation}{ATTEMPT}{number}")
