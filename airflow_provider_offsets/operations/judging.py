"""Watch a job that an operation has started, and say how it does."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice, takewhile

from airflow_provider_offsets import clock
from airflow_provider_offsets.core.batch import Batch
from airflow_provider_offsets.core.epoch import EndedHow, Epoch
from airflow_provider_offsets.core.health import Health, Look, Verdict, went_back
from airflow_provider_offsets.core.position import OffsetRange, Position
from airflow_provider_offsets.core.snapshot import CHECKPOINT, Observation
from airflow_provider_offsets.errors import JobUnhealthy, WorldChanged
from airflow_provider_offsets.operations.applying import recorded_application
from airflow_provider_offsets.operations.starting import first_sign, stands_idle
from airflow_provider_offsets.operations.stopping import end_if_over
from airflow_provider_offsets.operations.submitting import STARTED, Started
from airflow_provider_offsets.operations.world import World

BATCHES = 100
"""How many batches of the history one look goes back."""
POLL_S = 0.5


@dataclass(frozen=True)
class Window:
    """The looks at one epoch, the oldest first. It goes with the task that waits; a new try begins a new one."""

    epoch: int
    looks: tuple[Look, ...]

    def seen_again(self, look: Look) -> Window:
        """Give this window with one more look."""
        return Window(self.epoch, (*self.looks, look))


def watched_epoch(world: World) -> Epoch:
    """Give the newest epoch that the operation has started.

    :raises WorldChanged: it has started none.
    """
    mine = [epoch for epoch in world.control.epochs() if epoch.claim.operation == world.operation]
    if mine:
        return mine[-1]
    raise WorldChanged(
        seen=f"operation {world.operation!r} has started no epoch",
        expected="a SubmitStreamingJobOperator before this task, with the same operation",
        do="add it to the DAG, or run its task",
    )


def look_at_health(world: World, epoch: Epoch, *, at_s: float) -> Look:
    """Look at an epoch once. One whose driver is seen to be gone is closed, as everywhere."""
    ended = end_if_over(world.control, epoch, at_ms=clock.now_ms())
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
    """Record how the job does, for whoever rolls it back.

    :raises JobUnhealthy: it does badly.
    """
    world.control.record_step(world.operation, _health_of(epoch), verdict)
    if verdict.health is Health.UNHEALTHY:
        raise JobUnhealthy(
            seen=f"epoch {epoch.number} of {world.pipeline.name!r}: {verdict.rule.value}, {verdict.reason}",
            expected="batches that go on, and a driver that lives",
            do="look at its log; it was left as it is: roll it back, or mend it and run the maintenance again",
        )


def why_unhealthy(world: World) -> str:
    """Say why the job that the operation was to start is known to do badly; empty if nothing says so.

    What says so is the verdict of a watch, a driver that died, or a start that came to nothing. A watch that could not
    look says nothing: unknown is not unhealthy.
    """
    applied = recorded_application(world)
    if applied is None:
        return ""
    mine = [epoch for epoch in world.control.epochs() if epoch.claim.operation == world.operation]
    if not mine:
        return "its driver did not come as far as its claim"
    epoch = mine[-1]
    verdict = world.control.step(world.operation, _health_of(epoch), Verdict)
    if verdict is not None and verdict.health is Health.UNHEALTHY:
        return f"{verdict.rule.value}, {verdict.reason}"
    ended = end_if_over(world.control, epoch, at_ms=clock.now_ms())
    if ended is not None:
        is_bad = ended.how in (EndedHow.DIED, EndedHow.FAILED)
        return f"epoch {epoch.number} {ended.how.value}: {ended.message}" if is_bad else ""
    started = world.control.step(world.operation, STARTED, Started)
    has_started = started is not None and started.epoch == epoch.number
    if has_started or first_sign(world, epoch, applied) or stands_idle(world, epoch):
        return ""
    return f"epoch {epoch.number} has neither processed a batch nor said that it is idle"


def _health_of(epoch: Epoch) -> str:
    return f"health of epoch {epoch.number}"


def pause(world: World, epoch: Epoch, seconds: float) -> None:
    """Wait until the next look is due, or the epoch is over."""
    due = clock.monotonic_s() + seconds
    while clock.monotonic_s() < due and end_if_over(world.control, epoch, at_ms=clock.now_ms()) is None:
        clock.sleep(POLL_S)


def _superseded_by(world: World, epoch: Epoch) -> str:
    request = world.control.stop_request(epoch.number)
    if request is not None:
        return f"operation {request.operation!r}"
    newer = world.control.epoch(epoch.number + 1)
    return "" if newer is None else f"operation {newer.claim.operation!r}"


def _newest_of(seen: Observation, epoch: Epoch) -> tuple[int | None, str | None]:
    """The id of the newest batch of this epoch, and of its query, as far as the job tells."""
    batch, checkpoint = seen.processed, seen.checkpoint
    if seen.is_tracked:
        mine = batch is not None and batch.epoch == epoch.number
        return (batch.batch_id, batch.query_id) if batch is not None and mine else (None, None)
    if checkpoint is None or seen.kept[0].store != CHECKPOINT:
        return None, None
    return checkpoint.committed_batch_id, checkpoint.query_id


def _went_back(world: World, epoch: Epoch) -> tuple[OffsetRange, ...]:
    if not world.pipeline.tracked:
        return ()
    newest = takewhile(lambda batch: batch.epoch == epoch.number, world.store.newest_first(world.pipeline.stream))
    batches: list[Batch] = list(islice(newest, BATCHES))[::-1]
    is_whole = len(batches) < BATCHES
    return went_back(epoch.claim.start if is_whole else Position(), batches)
