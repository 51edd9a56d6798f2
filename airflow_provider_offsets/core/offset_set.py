"""Set of offsets of one partition, stored as ranges."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator


class OffsetSet:
    """Offsets of one partition. Memory and time depend on the number of ranges, not on the number of offsets."""

    __slots__ = ("_edges",)

    def __init__(self) -> None:
        self._edges: list[int] = []
        """Start and end of each range in turn, strictly ascending: ranges never touch."""

    def add(self, start: int, end: int) -> None:
        """Add the offsets ``[start, end)``.

        :param start: the first offset to add.
        :param end: the offset after the last one. Nothing is added unless ``start < end``.
        """
        if start >= end:
            return
        first, last = bisect_left(self._edges, start), bisect_right(self._edges, end)
        # An odd index lies inside a range, which then continues here.
        self._edges[first:last] = [start] * (first % 2 == 0) + [end] * (last % 2 == 0)

    def within(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield the ranges of the set inside ``[start, end)``, ascending.

        :param start: the first offset of the range.
        :param end: the offset after the last one.
        """
        index = bisect_right(self._edges, start) // 2 * 2
        while index < len(self._edges) and self._edges[index] < end:
            low, high = max(start, self._edges[index]), min(end, self._edges[index + 1])
            if low < high:
                yield low, high
            index += 2

    def missing(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield the ranges of ``[start, end)`` that are not in the set, ascending.

        :param start: the first offset of the range.
        :param end: the offset after the last one.
        """
        at = start
        for low, high in self.within(start, end):
            if at < low:
                yield at, low
            at = high
        if at < end:
            yield at, end
