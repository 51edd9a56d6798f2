"""Audit the history of a pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from airflow_provider_offsets.core.audit import AuditReport, audit
from airflow_provider_offsets.core.batch import Batch
from airflow_provider_offsets.core.epoch import BegunBatch, Epoch
from airflow_provider_offsets.operations.world import World, is_zombie


def audit_history(world: World) -> AuditReport:
    """Give the audit of all that the pipeline's history holds."""
    epochs = list(world.control.epochs())
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
