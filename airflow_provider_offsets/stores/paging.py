"""How many rows to ask a store for at once: one first, then more, so that the newest row costs one row."""

from __future__ import annotations

FIRST_PAGE = 1
LARGEST_PAGE = 512
_OFFSETS_PER_PAGE = 50_000


def next_page(size: int, offsets_in_last_row: int) -> int:
    """Give the size of the page after one of ``size`` rows: eight times that, while memory allows it.

    A row of 10,000 partitions weighs as much as a thousand small ones, so the last row's weight sets the limit.
    """
    return max(1, min(size * 8, LARGEST_PAGE, _OFFSETS_PER_PAGE // max(1, offsets_in_last_row)))
