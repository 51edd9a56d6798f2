"""Watch a job that an operation has started, and judge its health."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice, takewhile

from airflow_provider_offsets import clock
from airflow_provider_offsets.core.batch import Batch
from airflow_provider_offsets.core.epoch import Epoch
from airflow_provider_offsets.core.health import Health, Sample, Verdict, went_back
from airflow_provider_offsets.core.position import OffsetRange, Position
from airflow_provider_offsets.core.record.events import MarkGood
from airflow_provider_offsets.core.recovery import DEATHS, is_rollback_of
from airflow_provider_offsets.core.snapshot import CHECKPOINT, Observation
from airflow_provider_offsets.errors import JobUnhealthy, StateChanged
from airflow_provider_offsets.operations.applying import recorded_application
from airflow_provider_offsets.operations.job_state import end_of
from airflow_provider_offsets.operations.session import Session
from airflow_provider_offsets.operations.starting import first_sign
from airflow_provider_offsets.operations.submitting import STARTED, Started

BATCHES = 100
"""Number of batches of the history that one sample covers."""
POLL_S = 0.5


@dataclass(frozen=True)
class HealthWindow:
    """The samples of one epoch, the oldest first. The window belongs to a task; a new try begins a new window."""

    epoch: int
    samples: tuple[Sample, ...]

    def seen_again(self, sample: Sample) -> HealthWindow:
        """Return this window with one more sample."""
        return HealthWindow(self.epoch, (*self.samples, sample))


def watched_epoch(session: Session) -> Epoch:
    """Return the newest epoch that the operation has started.

    :raises StateChanged: the operation has started no epoch.
    """
    mine = _claimed(session)
    if mine:
        return mine[-1]
    raise StateChanged(
        seen=f"operation {session.operation!r} has started no epoch",
        expected="a SubmitStreamingJobOperator before this task, with the same operation",
        do="add it to the DAG, or run its task",
    )


def _claimed(session: Session) -> list[Epoch]:
    """Return the epochs of the operation that a driver claimed, the oldest first."""
    mine = (epoch for epoch in session.control.epochs() if epoch.claim.operation == session.operation)
    return [epoch for epoch in mine if epoch.holder is not None]


def take_sample(session: Session, epoch: Epoch, *, at_s: float) -> Sample:
    """Take one sample of an epoch. This function changes nothing, not even the epoch of a driver that has exited.

    :param session: the session of the operation.
    :param epoch: the epoch to observe.
    :param at_s: time of the sample, in seconds since 1970.
    :returns: the sample. It has no position if the epoch has ended or was superseded.
    """
    ended = end_of(session.control, epoch.number)
    superseded_by = _superseded_by(session, epoch)
    if superseded_by or ended is not None:
        return Sample(at_s, Position(), Position(), ended=ended, superseded_by=superseded_by)
    seen = session.observe()
    heartbeat = session.control.heartbeat(epoch.number)
    batch_id, query_id = _newest_of(seen, epoch)
    return Sample(
        at_s=at_s,
        position=seen.stored or epoch.claim.start,
        end=seen.live.end,
        last_batch_id=batch_id,
        query_id=query_id,
        beat=None if heartbeat is None else heartbeat.beat,
        went_back=_went_back(session, epoch),
    )


def record_verdict(session: Session, epoch: Epoch, verdict: Verdict) -> None:
    """Record the verdict on an epoch, and mark a healthy epoch as good. Rollbacks read both.

    :param session: the session of the operation.
    :param epoch: the epoch that was watched.
    :param verdict: the verdict of the health window.
    :raises JobUnhealthy: the epoch is unhealthy.
    """
    session.control.record_step(session.operation, _health_of(epoch), verdict)
    if verdict.health is Health.HEALTHY:
        session.cell.change(MarkGood(epoch.number))
    if verdict.health is Health.UNHEALTHY:
        raise JobUnhealthy(
            seen=f"epoch {epoch.number} of {session.pipeline.name!r} is unhealthy: {verdict.rule.value},"
            f" {verdict.reason}",
            expected="a living driver that processes batches",
            do="read the log of the driver. The job was left as it is: roll it back, or fix it and run the maintenance"
            " again",
        )


def in_hands_of(session: Session) -> str:
    """Return another operation that launched or stopped the job since, or works on it; empty if there is none.

    A rollback of this operation does not count as another operation.
    """
    record = session.control.record()
    applied = recorded_application(session)
    if record is None or applied is None:
        return ""
    by = [epoch.claim.operation for epoch in session.control.epochs() if epoch.number > applied.plan.seen.epoch]
    by += [each.operation for each in (record.stop, record.lease) if each is not None]
    return next((each for each in by if each != session.operation and not is_rollback_of(each, session.operation)), "")


def why_unhealthy(session: Session) -> str:
    """Return why the job that the operation should start is known to be unhealthy; empty if nothing shows that.

    Three things show it: the verdict of a watch, a driver that died, or a start without a first batch. A watch that
    failed to take a sample shows nothing: unknown is not unhealthy.
    """
    applied = recorded_application(session)
    if applied is None:
        return ""
    mine = _claimed(session)
    if not mine:
        return "its driver did not come as far as its claim"
    epoch = mine[-1]
    verdict = session.control.step(session.operation, _health_of(epoch), Verdict)
    if verdict is not None and verdict.health is Health.UNHEALTHY:
        return f"{verdict.rule.value}, {verdict.reason}"
    if (ended := end_of(session.control, epoch.number)) is not None:
        return f"epoch {epoch.number} {ended.how.value}: {ended.message}" if ended.how in DEATHS else ""
    started = session.control.step(session.operation, STARTED, Started)
    record = session.control.record()
    has_started = started is not None and started.epoch == epoch.number
    if has_started or record is None or first_sign(session, record, epoch, applied) is not None:
        return ""
    return f"epoch {epoch.number} has neither processed a batch nor reported that it is idle"


def _health_of(epoch: Epoch) -> str:
    return f"health of epoch {epoch.number}"


def pause(session: Session, epoch: Epoch, seconds: float) -> None:
    """Wait until the next sample is due, or the epoch has ended.

    :param session: the session of the operation.
    :param epoch: the epoch that is watched.
    :param seconds: time until the next sample.
    """
    due = clock.monotonic_s() + seconds
    while clock.monotonic_s() < due and end_of(session.control, epoch.number) is None:
        clock.sleep(POLL_S)


def _superseded_by(session: Session, epoch: Epoch) -> str:
    """Return the operation that asked the epoch to stop or launched a newer one; empty if there is none."""
    record = session.control.record()
    if record is None or record.launch is None:
        return ""
    if record.epoch > epoch.number:
        return f"operation {record.launch.operation!r}"
    return "" if record.stop is None else f"operation {record.stop.operation!r}"


def _newest_of(seen: Observation, epoch: Epoch) -> tuple[int | None, str | None]:
    """Return the id of the newest batch of this epoch and the id of its query, as far as the stores show them."""
    batch, checkpoint = seen.processed, seen.newest_checkpoint
    if seen.is_tracked:
        mine = batch is not None and batch.epoch == epoch.number
        return (batch.batch_id, batch.query_id) if batch is not None and mine else (None, None)
    if checkpoint is None or seen.kept[0].store != CHECKPOINT:
        return None, None
    return checkpoint.committed_batch_id, checkpoint.query_id


def _went_back(session: Session, epoch: Epoch) -> tuple[OffsetRange, ...]:
    if not session.pipeline.tracked:
        return ()
    newest = takewhile(lambda batch: batch.epoch == epoch.number, session.store.newest_first(epoch.claim.stream))
    batches: list[Batch] = list(islice(newest, BATCHES))[::-1]
    is_whole = len(batches) < BATCHES
    return went_back(epoch.claim.start if is_whole else Position(), batches)
