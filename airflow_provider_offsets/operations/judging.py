"""Watch a job that an operation has started, and judge its health."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice, takewhile

from airflow_provider_offsets import clock
from airflow_provider_offsets.core.batch import Batch
from airflow_provider_offsets.core.epoch import Epoch
from airflow_provider_offsets.core.health import Health, Look, Verdict, went_back
from airflow_provider_offsets.core.position import OffsetRange, Position
from airflow_provider_offsets.core.record import MarkGood
from airflow_provider_offsets.core.recovery import DEATHS, is_rollback_of
from airflow_provider_offsets.core.snapshot import CHECKPOINT, Observation
from airflow_provider_offsets.errors import JobUnhealthy, WorldChanged
from airflow_provider_offsets.operations.applying import recorded_application
from airflow_provider_offsets.operations.starting import first_sign
from airflow_provider_offsets.operations.submitting import STARTED, Started
from airflow_provider_offsets.operations.watching import end_of
from airflow_provider_offsets.operations.world import World

BATCHES = 100
"""Number of batches of the history that one sample covers."""
POLL_S = 0.5


@dataclass(frozen=True)
class Window:
    """The samples of one epoch, the oldest first. The window belongs to a task; a new try begins a new window."""

    epoch: int
    looks: tuple[Look, ...]

    def seen_again(self, look: Look) -> Window:
        """Return this window with one more sample."""
        return Window(self.epoch, (*self.looks, look))


def watched_epoch(world: World) -> Epoch:
    """Return the newest epoch that the operation has started.

    :raises WorldChanged: the operation has started no epoch.
    """
    mine = _claimed(world)
    if mine:
        return mine[-1]
    raise WorldChanged(
        seen=f"operation {world.operation!r} has started no epoch",
        expected="a SubmitStreamingJobOperator before this task, with the same operation",
        do="add it to the DAG, or run its task",
    )


def _claimed(world: World) -> list[Epoch]:
    """Return the epochs of the operation that a driver claimed, the oldest first."""
    mine = (epoch for epoch in world.control.epochs() if epoch.claim.operation == world.operation)
    return [epoch for epoch in mine if epoch.holder is not None]


def look_at_health(world: World, epoch: Epoch, *, at_s: float) -> Look:
    """Take one sample of an epoch. This function changes nothing, not even the epoch of a driver that has exited.

    :param at_s: time of the sample, in seconds since 1970.
    """
    ended = end_of(world.control, epoch.number)
    superseded_by = _superseded_by(world, epoch)
    if superseded_by or ended is not None:
        return Look(at_s, Position(), Position(), ended=ended, superseded_by=superseded_by)
    seen = world.observe()
    heartbeat = world.control.heartbeat(epoch.number)
    batch_id, query_id = _newest_of(seen, epoch)
    return Look(
        at_s=at_s,
        position=seen.stored or epoch.claim.start,
        end=seen.live.end,
        last_batch_id=batch_id,
        query_id=query_id,
        beat=None if heartbeat is None else heartbeat.beat,
        went_back=_went_back(world, epoch),
    )


def record_verdict(world: World, epoch: Epoch, verdict: Verdict) -> None:
    """Record the verdict on an epoch, and mark a healthy epoch as good. Rollbacks read both.

    :raises JobUnhealthy: the epoch is unhealthy.
    """
    world.control.record_step(world.operation, _health_of(epoch), verdict)
    if verdict.health is Health.HEALTHY:
        world.cell.change(MarkGood(epoch.number))
    if verdict.health is Health.UNHEALTHY:
        raise JobUnhealthy(
            seen=f"epoch {epoch.number} of {world.pipeline.name!r}: {verdict.rule.value}, {verdict.reason}",
            expected="batches that go on, and a driver that lives",
            do="look at its log; it was left as it is: roll it back, or mend it and run the maintenance again",
        )


def in_hands_of(world: World) -> str:
    """Return another operation that launched or stopped the job since, or works on it; empty if there is none.

    A rollback of this operation does not count as another operation.
    """
    record = world.control.record()
    applied = recorded_application(world)
    if record is None or applied is None:
        return ""
    by = [epoch.claim.operation for epoch in world.control.epochs() if epoch.number > applied.plan.seen.epoch]
    by += [each.operation for each in (record.stop, record.lease) if each is not None]
    return next((each for each in by if each != world.operation and not is_rollback_of(each, world.operation)), "")


def why_unhealthy(world: World) -> str:
    """Return why the job that the operation should start is known to be unhealthy; empty if nothing shows that.

    Three things show it: the verdict of a watch, a driver that died, or a start without a first batch. A watch that
    failed to take a sample shows nothing: unknown is not unhealthy.
    """
    applied = recorded_application(world)
    if applied is None:
        return ""
    mine = _claimed(world)
    if not mine:
        return "its driver did not come as far as its claim"
    epoch = mine[-1]
    verdict = world.control.step(world.operation, _health_of(epoch), Verdict)
    if verdict is not None and verdict.health is Health.UNHEALTHY:
        return f"{verdict.rule.value}, {verdict.reason}"
    if (ended := end_of(world.control, epoch.number)) is not None:
        return f"epoch {epoch.number} {ended.how.value}: {ended.message}" if ended.how in DEATHS else ""
    started = world.control.step(world.operation, STARTED, Started)
    record = world.control.record()
    has_started = started is not None and started.epoch == epoch.number
    if has_started or record is None or first_sign(world, record, epoch, applied) is not None:
        return ""
    return f"epoch {epoch.number} has neither processed a batch nor said that it is idle"


def _health_of(epoch: Epoch) -> str:
    return f"health of epoch {epoch.number}"


def pause(world: World, epoch: Epoch, seconds: float) -> None:
    """Wait until the next sample is due, or the epoch has ended."""
    due = clock.monotonic_s() + seconds
    while clock.monotonic_s() < due and end_of(world.control, epoch.number) is None:
        clock.sleep(POLL_S)


def _superseded_by(world: World, epoch: Epoch) -> str:
    """Return the operation that asked the epoch to stop or launched a newer one; empty if there is none."""
    record = world.control.record()
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


def _went_back(world: World, epoch: Epoch) -> tuple[OffsetRange, ...]:
    if not world.pipeline.tracked:
        return ()
    newest = takewhile(lambda batch: batch.epoch == epoch.number, world.store.newest_first(epoch.claim.stream))
    batches: list[Batch] = list(islice(newest, BATCHES))[::-1]
    is_whole = len(batches) < BATCHES
    return went_back(epoch.claim.start if is_whole else Position(), batches)
