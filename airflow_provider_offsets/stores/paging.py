"""Page sizes for reads from a store: one row first, then more, so that reading the newest row costs one row."""

from __future__ import annotations

FIRST_PAGE = 1
LARGEST_PAGE = 512
_OFFSETS_PER_PAGE = 50_000


def next_page(size: int, offsets_in_last_row: int) -> int:
    """Return the size of the page after one of ``size`` rows: eight times as many, within a memory limit.

    A row of 10,000 partitions is as large as a thousand small ones, so the size of the last row determines the limit.

    :param size: number of rows of the last page.
    :param offsets_in_last_row: number of offsets in the last row of that page.
    """
    return max(1, min(size * 8, LARGEST_PAGE, _OFFSETS_PER_PAGE // max(1, offsets_in_last_row)))
