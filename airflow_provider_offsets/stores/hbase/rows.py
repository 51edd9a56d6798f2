"""Rows of one topic and group in a table with Cloudera row keys, in the order of their times."""

from __future__ import annotations

from collections.abc import Iterator

from airflow_provider_offsets.core.batch import Stream
from airflow_provider_offsets.core.limits import LAST_TIME_MS
from airflow_provider_offsets.stores.hbase import layout
from airflow_provider_offsets.stores.hbase.client import HBaseClient, Row
from airflow_provider_offsets.stores.paging import FIRST_PAGE, next_page

Page = list[tuple[bytes, int, layout.Cells]]


class HBaseRows:
    """Rows under keys ``<TOPIC>:<GROUP>:<13 digits>``, never those of another group.

    :param client: connection to HBase.
    :param table: a table with such keys and no others.
    """

    def __init__(self, client: HBaseClient, table: str) -> None:
        self._client = client
        self.table = table

    def newest_time(self, stream: Stream) -> int | None:
        """Return the time of the newest row of any topic of the stream, or None. Reads one cell per topic."""
        return max(self._first_times(stream, backwards=True), default=None)

    def oldest_time(self, stream: Stream) -> int | None:
        """Return the time of the oldest row of any topic of the stream, or None. Reads one cell per topic."""
        return min(self._first_times(stream, backwards=False), default=None)

    def pages(
        self, topic: str, group_id: str, since_ms: int, until_ms: int, *, backwards: bool, keys_only: bool = False
    ) -> Iterator[Page]:
        """Yield rows with their keys and times, in pages of growing size.

        Each page is a scan of its own. No scanner is open between two pages, so a restart of the Thrift server does not
        matter. A neighbour's row ends a page: the next scan starts after all rows of that neighbour.

        :param topic: name of the topic.
        :param group_id: id of the consumer group.
        :param since_ms: the first time to read.
        :param until_ms: the last time to read.
        :param backwards: yield the newest rows first.
        :param keys_only: read only the first cell of each row.
        :raises StoreDataError: a row belongs neither to the group nor to a neighbour.
        """
        prefix = layout.prefix(topic, group_id)
        size = FIRST_PAGE
        since_ms, until_ms = max(0, since_ms), min(until_ms, LAST_TIME_MS)
        while since_ms <= until_ms:
            first, last = layout.key(prefix, since_ms), layout.key(prefix, until_ms)
            # A scan excludes its end. A backward scan ends at the prefix, before the first row.
            ends = (last, prefix) if backwards else (first, last + b"\0")
            found = self._client.page(self.table, *ends, size, backwards=backwards, keys_only=keys_only)
            page, neighbour = self._own_rows(prefix, found)
            if page:
                yield page
            if neighbour is None and len(found) < size:
                return
            if neighbour is not None:
                before = layout.time_before(prefix, neighbour)
                since_ms, until_ms = (since_ms, before) if backwards else (before + 1, until_ms)
            else:
                reached = page[-1][1]
                since_ms, until_ms = (since_ms, reached - 1) if backwards else (reached + 1, until_ms)
                size = next_page(size, len(page[-1][2]))

    def _first_times(self, stream: Stream, *, backwards: bool) -> Iterator[int]:
        for topic in stream.topics:
            whole = self.pages(topic, stream.group_id, 0, LAST_TIME_MS, backwards=backwards, keys_only=True)
            page = next(whole, None)
            if page is not None:
                yield page[0][1]

    def _own_rows(self, prefix: bytes, found: list[Row]) -> tuple[Page, bytes | None]:
        """Return the rows before the first neighbour's, and that neighbour's key if there is one."""
        page: Page = []
        for key, cells in found:
            time_ms = layout.time_of(prefix, key)
            if time_ms is None:
                layout.check_neighbour(self.table, prefix, key)
                return page, key
            page.append((key, time_ms, cells))
        return page, None
