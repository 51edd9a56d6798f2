"""Rows that Spark says the batches of a history wrote, and batches that read records and wrote nothing.

Spark counts the rows of its own write commands. It does not see a program that writes by another way, such as
``foreachPartition``. So a batch without a written row is a warning only if Spark counts the rows of other batches.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from airflow_provider_offsets.core.audit.window import AuditWindow, Measure
from airflow_provider_offsets.core.epoch import Epoch


def epochs_in(epochs: Iterable[Epoch], window: AuditWindow | None) -> list[Epoch]:
    """Return the epochs of a window; none if the window is not one of epochs, because rows are counted by epoch.

    :param epochs: all launches with their results, the oldest first.
    :param window: the part to report; None for all.
    """
    window = window or AuditWindow()
    if any(bound is not None and bound.measure is not Measure.EPOCH for bound in (window.since, window.until)):
        return []
    return [epoch for epoch in epochs if window.holds({Measure.EPOCH: epoch.number})]


def rows_written(epochs: Iterable[Epoch]) -> int | None:
    """Return the number of rows that the epochs wrote, as far as Spark counted them; None if it counted none."""
    counted = [epoch.written for epoch in epochs if epoch.written.batches]
    return sum(each.rows for each in counted) if counted else None


def empty_batches(epochs: Iterable[Epoch]) -> Iterator[str]:
    """Yield a warning for each epoch with batches that read records and wrote nothing."""
    found = list(epochs)
    counted = [epoch.number for epoch in found if epoch.written.batches]
    for epoch in found if counted else ():
        written = epoch.written
        if not written.empty:
            continue
        batches = "1 batch" if written.empty == 1 else f"{written.empty:,} batches"
        other = "" if written.batches else f", but it saw rows of epoch {counted[-1]}"
        yield (
            f"epoch {epoch.number}: {batches} read records and Spark saw no row written{other}; the last one is batch"
            f" {written.last_empty}"
        )
