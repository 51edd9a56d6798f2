"""Stop a running job between two batches, and verify that it stopped."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass

from airflow_provider_offsets import clock
from airflow_provider_offsets.backends.machine import machine
from airflow_provider_offsets.core.epoch import Epoch, StopStage
from airflow_provider_offsets.core.pipeline import StopPolicy
from airflow_provider_offsets.core.record.events import AskToStop, NoteStopStage
from airflow_provider_offsets.core.record.model import Phase, PipelineRecord
from airflow_provider_offsets.core.recovery import is_rollback_of
from airflow_provider_offsets.errors import StopTimedOut, TakenOver
from airflow_provider_offsets.operations.lease import (
    close_and_reconcile,
    has_driver,
    keep_lease,
    release_lease,
    require_lease,
    take_lease,
)
from airflow_provider_offsets.operations.session import Session

POLL_S = 0.25
HELD = "lease taken"
"""Name of the step that records what an operation found when it first held the lease, as ``Held``."""


@dataclass(frozen=True)
class Held:
    """What an operation found when it first held the lease."""

    epoch: int
    """Number of the newest launch; 0 before the first one."""
    asked_by: str
    """The operation that had asked that launch to stop; empty if there was none."""


@dataclass(frozen=True)
class StopResult:
    """How the job was stopped."""

    epoch: int
    """0 if the job never ran."""
    how: str
    last_batch_id: int | None = None
    message: str = ""


def ask_to_stop(
    session: Session, *, reason: str, take_over: bool = False, since: PipelineRecord | None = None
) -> StopResult | Epoch:
    """Take the lease and ask the job to stop; return the result if the job does not run, or the epoch to wait for.

    A job that does not run is not an error. The result is one of these:

    - *never started*;
    - *already ended*;
    - a launch that is cancelled before anybody claimed it;
    - *started by this very operation*, which is past its stop; a repeated task must not stop its own job.

    :param session: the session of the operation.
    :param reason: recorded with the request.
    :param take_over: take the lease from an operation that acted recently.
    :param since: the record on which this operation decided to act, if it must not act after any other operation.
    :raises LeaseHeld: another operation acted recently, and ``take_over`` is False.
    :raises StateChanged: a launch came while this try was suspended.
    :raises TakenOver: another operation took the lease of this one, or has launched the job or asked it to stop since.
        A retry does not take the lease back.
    """
    seen = session.cell.read()
    if session.has_launched():
        return _restarted(seen)
    held = session.control.step(session.operation, HELD, Held)
    if seen is not None and held is not None:
        if seen.lease is not None:
            require_lease(session, seen)
        _require_not_superseded(session, seen, held)
    record = take_lease(session, take_over=take_over, seen=seen)
    # This try may have been suspended before it took the lease, and its run may be over.
    launched = 0 if seen is None else seen.epoch
    _require_not_superseded(session, record, _found(since) if since is not None else Held(launched, _asked_by(record)))
    held = session.control.step(session.operation, HELD, Held)  # another try may have held it while this one hung
    if held is None:
        session.control.record_step(session.operation, HELD, _found(record))
    elif record.epoch > held.epoch and _is_mine(session, record):
        return _restarted(record)
    else:
        _require_not_superseded(session, record, held)
    was_launching = record.phase is Phase.LAUNCHING
    epoch_number = record.epoch
    was_over = close_and_reconcile(session, epoch=epoch_number).phase is Phase.STOPPED
    # Also recorded for a job that has ended: it should stay stopped, so no recovery may start it.
    session.cell.change(AskToStop(session.operation, reason, clock.now_ms(), epoch_number))
    record = close_and_reconcile(session, epoch=epoch_number)
    if record.phase is Phase.STOPPED:
        return result_of(record, already=was_over and not was_launching)
    epoch = session.control.newest_launch(record)
    _place_marker(session, epoch, reason)
    return epoch


def _place_marker(session: Session, epoch: Epoch, reason: str = "") -> None:
    """Write the marker that asks an untracked job to stop, if the job uses one. Safe to repeat.

    If this process was suspended here, another operation may have launched the job since. Nobody has asked the new job
    to stop, so the marker is removed again.
    """
    marker = session.pipeline.stop.marker
    if not marker or epoch.claim.tracked:
        return
    machine().place_marker(marker, f"stop: {session.operation} {reason}".rstrip())
    record = session.cell.read()
    if record is not None and record.stop is None:
        machine().remove_marker(marker)


def _restarted(record: PipelineRecord | None) -> StopResult:
    return StopResult(0 if record is None else record.epoch, "restarted by this operation")


def _is_mine(session: Session, record: PipelineRecord) -> bool:
    return record.launch is not None and record.launch.operation == session.operation


def _found(record: PipelineRecord) -> Held:
    return Held(record.epoch, _asked_by(record))


def _asked_by(record: PipelineRecord) -> str:
    return "" if record.stop is None else record.stop.operation


def _require_not_superseded(session: Session, record: PipelineRecord, held: Held) -> None:
    """Raise if another operation has launched the job, or asked it to stop, since this one first held the lease.

    That operation may have ended, so that nobody holds the lease. A try that was suspended may just have taken it.

    :raises TakenOver: another operation did so.
    """
    asked_by = _asked_by(record)
    if record.epoch > held.epoch:
        by, act = "" if record.launch is None else record.launch.operation, f"launched epoch {record.epoch}"
    else:
        by, act = "" if asked_by == held.asked_by else asked_by, f"asked epoch {record.epoch} to stop"
    if by in ("", session.operation) or is_rollback_of(session.operation, by):
        return
    release_lease(session)
    raise TakenOver(
        seen=f"{by!r} has {act} of pipeline {session.pipeline.name!r}",
        expected=f"no other operation since {session.operation!r} took the lease",
        do="No action needed if the other operation continues. Otherwise run this operation again from its stop task.",
    )


@dataclass(frozen=True)
class _Stage:
    awaited: str
    timeout_s: int | None
    name: str = ""
    """Empty for the first stage, which sends no signal."""
    signal: signal.Signals | None = None
    """None for the kill on YARN."""
    is_request: bool = False


def _stages(epoch: Epoch, policy: StopPolicy, *, is_graceful_over: bool) -> list[_Stage]:
    tracked, marker = epoch.claim.tracked, policy.marker
    graceful = "its acknowledgement" if tracked else f"it to end on its marker {marker}"
    stages = [
        _Stage(graceful, policy.graceful_timeout_s if tracked or marker else None),
        _Stage("it to end on SIGTERM", policy.signal_timeout_s, "SIGTERM", signal.SIGTERM, not tracked and not marker),
        _Stage("its containers to be gone", policy.cluster_timeout_s, "a kill on YARN"),
        _Stage("it to end on SIGKILL", policy.kill_timeout_s, "SIGKILL", signal.SIGKILL),
    ]
    return [stage for stage in stages[is_graceful_over:] if stage.timeout_s is not None]


def await_stop(
    session: Session,
    epoch: Epoch,
    policy: StopPolicy,
    *,
    is_graceful_over: bool = False,
    report: Callable[[str], None] = lambda line: None,
) -> StopResult:
    """Wait until the job is stopped, carrying out each allowed stage of ``policy``, and return how it stopped.

    :param session: the session of the operation.
    :param epoch: result of ``ask_to_stop``.
    :param policy: the stages, with their timeouts in seconds.
    :param is_graceful_over: whether the graceful stage has been waited for already, so that the next one follows.
    :param report: called every ten seconds with what is awaited.
    :raises StopTimedOut: the job did not stop. The request remains, so the job still stops if it responds later.
    :raises TakenOver: another operation took the pipeline over.
    """
    for stage in _stages(epoch, policy, is_graceful_over=is_graceful_over):
        if hindrance := _hindrance(epoch, stage):
            report(hindrance)
        else:
            _carry_out(session, epoch, stage, report)
        if (stopped := _stopped(session, epoch)) is not None:
            return stopped
    yarn, has_process = epoch.claim.yarn, has_driver(epoch)
    left = machine().left_on_yarn(yarn) if yarn is not None and has_process is False else ""
    life = left or f"its last heartbeat is {session.control.heartbeat(epoch.number)}"
    way_out = ""
    if has_process is None and epoch.holder is not None:
        way_out = (
            f". The driver is not visible from here. If {epoch.holder.host} will never come back, verify that, and"
            f" run 'airflow offsets end {session.pipeline.name} --epoch {epoch.number}'"
        )
    raise StopTimedOut(
        seen=f"epoch {epoch.number} of {session.pipeline.name!r} did not stop; {life}",
        expected=f"an acknowledgement within {policy.graceful_timeout_s} s, or a later stop stage that ends the job",
        do="raise stop.graceful_timeout_s above the longest batch, or allow stop.signal_timeout_s (replays its batch)"
        f"{way_out}",
    )


def _stopped(session: Session, epoch: Epoch) -> StopResult | None:
    """Return how the epoch stopped once it is reconciled; None while it may run."""
    record = close_and_reconcile(session, epoch=epoch.number)
    if record.phase is Phase.STOPPED:
        return result_of(record)
    keep_lease(session, record)
    return None


def _hindrance(epoch: Epoch, stage: _Stage) -> str:
    """Return why a stage cannot be carried out; empty if it can."""
    if stage.signal is not None and not has_driver(epoch) and epoch.holder is not None:
        return f"pid {epoch.holder.pid} on {epoch.holder.host} cannot be signalled from here"
    if stage.name and stage.signal is None and epoch.claim.yarn is None:
        return f"epoch {epoch.number} was started without a tag for YARN: its application is not known"
    return ""


def result_of(record: PipelineRecord, *, already: bool = False) -> StopResult:
    """Return how the newest launch of a stopped pipeline ended.

    :param record: the record of a stopped pipeline.
    :param already: whether the launch had ended before the stop request.
    """
    if record.launch is None:
        return StopResult(0, "never started")
    ended = record.ended
    assert ended is not None, "a stopped pipeline knows how its newest launch ended"
    recorded = record.recorded
    is_last = recorded is not None and recorded.tag == record.launch.tag
    last_batch_id = recorded.batch_id if recorded is not None and is_last else None
    how = f"already {ended.how.value}" if already else ended.how.value
    return StopResult(record.epoch, how, last_batch_id, ended.message)


def _carry_out(session: Session, epoch: Epoch, stage: _Stage, report: Callable[[str], None]) -> None:
    """Carry out a stage, and wait until the job is stopped or the time is up. A failed kill on YARN is retried."""
    if stage.name:
        session.cell.change(NoteStopStage(session.operation, StopStage(stage.name, stage.is_request, clock.now_ms())))
    _send(epoch, stage)
    began = clock.monotonic_s()
    said_s = 0
    jvm_is_gone = False
    while (waited_s := clock.monotonic_s() - began) < (stage.timeout_s or 0):
        if _stopped(session, epoch) is not None:
            return
        assert epoch.holder is not None
        if stage.signal is not None and not jvm_is_gone and machine().is_alive(epoch.holder) is False:
            jvm_is_gone = True
            machine().signal_leader(epoch.holder, stage.signal)
        if waited_s >= said_s + 10:
            said_s = int(waited_s)
            trouble = _send(epoch, stage) if stage.signal is None else ""
            if not stage.name:
                _place_marker(session, epoch)  # a submit that was taken over may have removed it
            report(f"waited {said_s} s of {stage.timeout_s} s for {stage.awaited}{trouble and f'; {trouble}'}")
        clock.sleep(POLL_S)


def _send(epoch: Epoch, stage: _Stage) -> str:
    """Send the signal or kill of a stage to a job, and return an error message if there is one."""
    if stage.signal is None:
        return machine().kill_on_yarn(epoch.claim.yarn) if stage.name and epoch.claim.yarn is not None else ""
    assert epoch.holder is not None
    if epoch.claim.tracked:
        machine().signal_group(epoch.holder, stage.signal)
    elif stage.signal is signal.SIGTERM:
        machine().signal_leader(epoch.holder, stage.signal)
    else:
        machine().signal_session(epoch.holder, stage.signal)
    return ""
