"""What an audit says of the rows that Spark counted, and of batches that wrote nothing."""

from __future__ import annotations

import pytest

from airflow_provider_offsets.core.audit.rows import empty_batches, epochs_in, rows_written
from airflow_provider_offsets.core.audit.window import AuditWindow, Bound
from airflow_provider_offsets.core.epoch import Epoch, RowsWritten
from tests.unit.core.observations import at, epoch


def epochs(*written: RowsWritten) -> list[Epoch]:
    """Return epochs from number 1 up, which have written these rows."""
    return [epoch(at(0), number, written=each) for number, each in enumerate(written, start=1)]


@pytest.mark.parametrize(
    ("why", "written", "rows", "warnings"),
    [
        ("no batch", [RowsWritten()], None, []),
        ("all is written", [RowsWritten(2, 30), RowsWritten(1, 5)], 35, []),
        ("a program that writes without Spark", [RowsWritten(0, 0, 9, 9, 8)], None, []),
        (
            "Spark wrote no row at all",
            [RowsWritten(1, 0, 0, 1, 4)],
            0,
            ["epoch 1: 1 batch read records and Spark saw no row written; the last one is batch 4"],
        ),
        (
            "some batches are empty",
            [RowsWritten(2, 30), RowsWritten(3, 5, 1, 2, 17)],
            35,
            ["epoch 2: 2 batches read records and Spark saw no row written; the last one is batch 17"],
        ),
        (
            "one epoch stops writing",
            [RowsWritten(2, 30), RowsWritten(0, 0, 3, 3, 9)],
            30,
            [
                "epoch 2: 3 batches read records and Spark saw no row written, but it saw rows of epoch 1; the last one"
                " is batch 9"
            ],
        ),
    ],
)
def test_what_is_counted_and_warned_of(
    why: str, written: list[RowsWritten], rows: int | None, warnings: list[str]
) -> None:
    found = epochs(*written)

    assert (rows_written(found), list(empty_batches(found))) == (rows, warnings)


@pytest.mark.parametrize(
    ("since", "until", "numbers"),
    [
        (None, None, [1, 2, 3]),
        ("epoch:2", None, [2, 3]),
        (None, "epoch:2", [1, 2]),
        ("batch:4", None, []),
        (None, "2026-11-01T00:00Z", []),
    ],
)
def test_rows_are_counted_by_epoch(since: str | None, until: str | None, numbers: list[int]) -> None:
    """A window of batches or times shows a part of an epoch, and nobody knows the rows of that part."""
    window = AuditWindow(*(None if text is None else Bound.read(text) for text in (since, until)))

    assert [each.number for each in epochs_in(epochs(*[RowsWritten()] * 3), window)] == numbers
