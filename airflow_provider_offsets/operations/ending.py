"""End an epoch by a person's statement that its driver does not run, because no operation can find that out.

A driver stays unknown for ever if its machine is gone for good, or was rebooted and has no known id. Unknown is not
dead, so no stop, no recovery and no rename ends such an epoch.
"""

from __future__ import annotations

from dataclasses import dataclass

from airflow_provider_offsets import clock
from airflow_provider_offsets.backends.machine import machine
from airflow_provider_offsets.core.epoch import Ended, EndedHow, ProcessIdentity
from airflow_provider_offsets.core.record.events import CloseDead
from airflow_provider_offsets.core.record.model import Phase, PipelineRecord
from airflow_provider_offsets.errors import InputRefused, StateChanged, StoreInUse
from airflow_provider_offsets.operations.job_state import JobState, observe_job
from airflow_provider_offsets.operations.lease import close_and_reconcile, release_lease, retake_lease
from airflow_provider_offsets.operations.recovering import SILENT_S
from airflow_provider_offsets.operations.session import Session


@dataclass(frozen=True)
class Ending:
    """What the end of an epoch by a person's statement would do, or has done."""

    pipeline: str
    epoch: int
    driver: str
    """The driver's process and host."""
    tracked: bool
    """Whether the record fences the driver if it still lives."""
    left_on_yarn: str = ""
    """Why YARN cannot tell whether the job's application has ended; empty if there is nothing on YARN."""
    ended: Ended | None = None
    """How the epoch ended; None before."""
    done: bool = False
    """Whether the epoch has ended, and its last batch is reconciled."""


def plan_end(session: Session, number: int) -> Ending:
    """Return what ``end_epoch`` would do. Nothing is changed.

    A tracked driver is observed for ten seconds, because its heartbeat shows life on any machine.

    :param session: a session of the pipeline.
    :param number: number of the epoch that is to end.
    :raises InputRefused: the epoch is not the newest one, no driver has claimed it, or its driver was seen to be gone.
    :raises StoreInUse: the job runs.
    """
    return _of(session, *_observe(session, number))


def end_epoch(session: Session, number: int, *, reason: str = "", take_over: bool = False) -> Ending:
    """Close an epoch because a person states that its driver does not run, and return what was done. Safe to repeat.

    The last batch is reconciled, and the job is stopped afterwards. If a tracked driver still lives, its next step in
    the record is refused. Nothing fences an untracked driver.

    :param session: a session of the pipeline, with the same operation id for each try.
    :param number: number of the epoch that is to end.
    :param reason: how the person knows; recorded with the epoch.
    :param take_over: take the lease from an operation that acted recently.
    :raises LeaseHeld: another operation acted recently, and ``take_over`` is False.
    :raises StateChanged: another actor has ended the epoch meanwhile, or launched another one.
    :raises InputRefused: as for ``plan_end``, like all other errors.
    """
    record, _ = _observe(session, number)
    if record.phase is Phase.STOPPED:
        release_lease(session)  # of a try that was killed before it released the lease
        return _of(session, record)
    retake_lease(session, take_over=take_over)
    try:
        if record.phase is Phase.RUNNING and record.holder is not None:
            # The holder that was observed: a driver that has claimed a later epoch meanwhile is not closed.
            session.cell.change(CloseDead(session.operation, record.holder, _stated(session, record, reason)))
        record = close_and_reconcile(session, epoch=number)
    except StateChanged:
        release_lease(session)
        raise
    release_lease(session)
    return _of(session, record)


def _observe(session: Session, number: int) -> tuple[PipelineRecord, str]:
    """Return the record, and why YARN does not know the job; empty if nothing of the job is on YARN."""
    record = session.control.record()
    name = session.pipeline.name
    if record is None or record.launch is None or record.epoch != number:
        newest = "no epoch" if record is None or record.launch is None else f"epoch {record.epoch}"
        raise InputRefused(
            seen=f"epoch {number} was named, and the newest one of pipeline {name!r} is {newest}",
            expected="the number of the newest epoch",
            do="name the epoch that the stop task named",
        )
    if record.phase is Phase.LAUNCHING:
        raise InputRefused(
            seen=f"no driver has claimed epoch {number} of pipeline {name!r}",
            expected="an epoch whose driver cannot be observed",
            do=f"run the task 'stop' of maintenance__{name}, which cancels the launch",
        )
    return record, _require_unknown(session, record) if record.phase is Phase.RUNNING else ""


def _require_unknown(session: Session, record: PipelineRecord) -> str:
    """Raise unless the driver cannot be observed; return why YARN cannot observe the job either, if the job uses YARN.

    :raises InputRefused: the driver was seen to be gone.
    :raises StoreInUse: the job runs.
    """
    name, number = session.pipeline.name, record.epoch
    found = observe_job(session.control)
    if found.state is JobState.UNKNOWN and record.launch is not None and record.launch.tracked:
        clock.sleep(SILENT_S)
        found = observe_job(session.control, found)
    yarn = session.control.newest_launch(record).claim.yarn if found.state is JobState.UNKNOWN else None
    left = "" if yarn is None else machine().left_on_yarn(yarn)
    stop = f"run the task 'stop' of maintenance__{name}"
    if found.state is JobState.UNKNOWN and (not left or left.startswith("unknown")):
        return left
    if found.state is JobState.RUNNING or left:
        how = "allow stop.cluster_timeout_s, and " if left else ""
        raise StoreInUse(
            seen=f"epoch {number} of pipeline {name!r} is running: {left or found.detail}",
            expected="an epoch whose driver cannot be observed",
            do=f"{how}{stop}",
        )
    raise InputRefused(
        seen=f"epoch {number} of pipeline {name!r} is {found.state.value}: {found.detail}",
        expected="an epoch whose driver cannot be observed",
        do=f"{stop}: it closes the epoch",
    )


def _stated(session: Session, record: PipelineRecord, reason: str) -> Ended:
    words = f"a person stated that {_words(record.holder)} does not run{f': {reason}' if reason else ''}"
    last_batch_id = session.control.newest_launch(record).last_batch_id
    return Ended(EndedHow.DIED, clock.now_ms(), last_batch_id=last_batch_id, message=words)


def _of(session: Session, record: PipelineRecord, left_on_yarn: str = "") -> Ending:
    assert record.launch is not None
    return Ending(
        session.pipeline.name,
        record.epoch,
        _words(record.holder),
        record.launch.tracked,
        left_on_yarn,
        None if record.phase is Phase.RUNNING else record.ended,
        done=record.phase is Phase.STOPPED,
    )


def _words(driver: ProcessIdentity | None) -> str:
    return "no driver" if driver is None else f"pid {driver.pid} on {driver.host}"
