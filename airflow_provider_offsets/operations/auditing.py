"""Audit the history of a pipeline."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import pairwise

from airflow_provider_offsets.core.audit import AuditReport, audit
from airflow_provider_offsets.core.batch import Batch
from airflow_provider_offsets.core.epoch import BegunBatch, Epoch
from airflow_provider_offsets.core.position import OffsetRange, Position, TopicPartition
from airflow_provider_offsets.core.snapshot import AT_REST, UNSTARTED, Snapshot, snapshot_id
from airflow_provider_offsets.errors import SnapshotNotFound
from airflow_provider_offsets.operations.world import World, is_zombie


def audit_history(world: World) -> AuditReport:
    """Give the audit of all that the pipeline's history holds; of an untouched job: of its epochs."""
    epochs = list(world.control.epochs())
    if not world.pipeline.tracked:
        return audit_epochs(world, epochs)
    return audit(
        world.pipeline.name,
        _batches(world, epochs),
        epochs,
        cut_off=_cut_off(world, epochs),
        since=epochs[0].claim.start if epochs and epochs[0].after_row_time_ms is None else None,
    )


def _batches(world: World, epochs: list[Epoch]) -> Iterator[Batch]:
    """The batches in order, without the rows that an epoch wrote after a later one was claimed."""
    following = {epoch.number: after for epoch, after in pairwise(epochs)}
    for batch in world.store.oldest_first(world.pipeline.stream):
        later = following.get(batch.epoch) if batch.epoch is not None else None
        if not is_zombie(batch, later):
            yield batch


def audit_epochs(world: World, epochs: list[Epoch]) -> AuditReport:
    """Give the audit of an untouched job: each epoch is one range a partition, from where it was started to where it
    came to rest.

    An epoch came to rest where the pipeline stood when the next one was planned, and the snapshot at rest of that
    operation agrees with it, or the difference is a discontinuity that nothing explains. What was in flight at rest
    and was read by the next epoch again counts as a batch that was cut off.
    """
    ends = [_came_to_rest(world, epoch, later) for epoch, later in zip(epochs, [*epochs[1:], None], strict=True)]
    batches = [
        Batch(end=end, batch_time_ms=0, epoch=epoch.number, start=epoch.claim.start)
        for epoch, end in zip(epochs, ends, strict=True)
    ]
    cut_off = {
        epoch.number: BegunBatch(_planned_id(rest), "", 0, again)
        for epoch, later, end in zip(epochs, epochs[1:], ends[1:], strict=False)
        if (rest := _snapshot_at_rest(world, later)) is not None
        and (again := read_again(rest.seen.in_flight, later.claim.start, end))
    }
    return replace(audit(world.pipeline.name, batches, epochs, cut_off=cut_off), by_epochs=True)


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


def _cut_off(world: World, epochs: list[Epoch]) -> dict[int, BegunBatch]:
    """By epoch, the batch that it began last and that nobody recorded while it had the word."""
    found = {}
    for epoch in epochs:
        begun = world.control.begun(epoch.number)
        if begun is None or world.control.ended(epoch.number) is None:
            continue
        recorded = world.store.find(world.pipeline.stream, begun.query_id, begun.batch_id, begun.batch_time_ms)
        if recorded is None or recorded.epoch != epoch.number:
            found[epoch.number] = begun
    return found
