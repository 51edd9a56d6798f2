"""Audit the history of a pipeline."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from airflow_provider_offsets.core.audit import AuditReport, Measure, Note, Window, audit
from airflow_provider_offsets.core.batch import Batch
from airflow_provider_offsets.core.epoch import BegunBatch, Epoch
from airflow_provider_offsets.core.position import OffsetRange, Position, TopicPartition
from airflow_provider_offsets.core.snapshot import AT_REST, UNSTARTED, Snapshot, snapshot_id
from airflow_provider_offsets.errors import InputRefused, SnapshotNotFound
from airflow_provider_offsets.operations.world import World


def audit_history(world: World, window: Window | None = None) -> AuditReport:
    """Give the audit of all that the pipeline's history holds; of an untouched job: of its epochs.

    Nothing is kept but where each partition stands, so it may be of any length.

    :param window: the part that is told of; None: all.
    :raises InputRefused: the window of an untouched job is not in epochs.
    """
    if not world.pipeline.tracked:
        return audit_epochs(world, window)
    first = next(world.control.epochs(), None)
    return audit(
        world.pipeline.name,
        world.store.oldest_first(world.pipeline.stream),
        world.control.epochs(),
        notes=_notes(world),
        since=first.claim.start if first is not None and first.after_row_time_ms is None else None,
        window=window,
    )


def audit_epochs(world: World, window: Window | None = None) -> AuditReport:
    """Give the audit of an untouched job: each epoch is one range a partition, from where it was started to where it
    came to rest.

    An epoch came to rest where the pipeline stood when the next one was planned, and the snapshot at rest of that
    operation agrees with it, or the difference is a discontinuity that nothing explains. What was in flight at rest
    and was read by the next epoch again counts as a batch that was cut off.
    """
    bounds = (window.since, window.until) if window is not None else ()
    if any(bound is not None and bound.measure is not Measure.EPOCH for bound in bounds):
        raise InputRefused(
            seen=f"a window of {world.pipeline.name!r}, which keeps no history of its batches",
            expected="'epoch:3', or nothing",
            do="name epochs",
        )
    batches = (
        Batch(end=_came_to_rest(world, epoch, later), batch_time_ms=0, epoch=epoch.number, start=epoch.claim.start)
        for epoch, later in _with_later(world)
    )
    found = audit(world.pipeline.name, batches, world.control.epochs(), notes=_in_flight(world), window=window)
    return replace(found, by_epochs=True)


def _with_later(world: World) -> Iterator[tuple[Epoch, Epoch | None]]:
    """Each epoch with the one after it."""
    before: Epoch | None = None
    for epoch in world.control.epochs():
        if before is not None:
            yield before, epoch
        before = epoch
    if before is not None:
        yield before, None


def _in_flight(world: World) -> Iterator[Note]:
    """What each epoch had in flight when it came to rest, and the next one has read again."""
    before: Epoch | None = None
    for epoch, later in _with_later(world):
        rest = None if before is None else _snapshot_at_rest(world, epoch)
        if before is not None and rest is not None:
            end = _came_to_rest(world, epoch, later)
            if again := read_again(rest.seen.in_flight, epoch.claim.start, end):
                yield Note(before.number, BegunBatch(_planned_id(rest), "", 0, again), None, is_over=True)
        before = epoch


def read_again(in_flight: Iterable[OffsetRange], start: Position, end: Position) -> tuple[OffsetRange, ...]:
    """Give the part of ``in_flight`` that an epoch which read from ``start`` to ``end`` has read too."""
    found = []
    for each in in_flight:
        key = TopicPartition(each.topic, each.partition)
        low, high = max(each.start, start.get(key, 0)), min(each.end, end.get(key, 0))
        if low < high:
            found.append(OffsetRange(each.topic, each.partition, low, high))
    return tuple(found)


def _came_to_rest(world: World, epoch: Epoch, later: Epoch | None) -> Position:
    start = epoch.claim.start
    if later is None:
        stood = world.observe().stored
    else:
        rest = _snapshot_at_rest(world, later)
        stood = later.claim.stood if rest is None else rest.seen.stored
    # One that lies before the start was moved by hand: the next epoch's start shows it, as a replay with no reason.
    ahead = {partition: max(offset, start.get(partition, 0)) for partition, offset in (stood or Position()).items()}
    return start.updated(ahead)


def _snapshot_at_rest(world: World, epoch: Epoch) -> Snapshot | None:
    """The snapshot that the operation of an epoch took of the job at rest, before it started that epoch."""
    try:
        return world.control.snapshot(snapshot_id(epoch.claim.operation, AT_REST))
    except SnapshotNotFound:
        return None


def _planned_id(rest: Snapshot) -> int:
    checkpoint = rest.seen.checkpoint
    return UNSTARTED if checkpoint is None or checkpoint.planned_batch_id is None else checkpoint.planned_batch_id


def _notes(world: World) -> Iterator[Note]:
    """The batch that each epoch began last, and what the history has of it."""
    for epoch in world.control.epochs():
        begun = world.control.begun(epoch.number)
        if begun is not None:
            is_over = world.control.ended(epoch.number) is not None
            recorded = world.store.find(world.pipeline.stream, begun.query_id, begun.batch_id, begun.batch_time_ms)
            yield Note(epoch.number, begun, recorded, is_over)
