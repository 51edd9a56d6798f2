"""Effect of a TTL on positions in the Cloudera row layout, whose original table had a TTL of 30 days."""

from __future__ import annotations

from datetime import datetime, timezone

from airflow_provider_offsets import clock
from airflow_provider_offsets.core.batch import Stream
from airflow_provider_offsets.errors import PositionExpired
from airflow_provider_offsets.stores.hbase import layout
from airflow_provider_offsets.stores.hbase.client import HBaseClient
from airflow_provider_offsets.stores.hbase.rows import HBaseRows


class HBaseExpiry:
    """Expiry of rows by a TTL.

    :param client: connection to HBase.
    :param cloudera: rows that expire if their table has a TTL.
    :param facts: facts of the batches of tracked jobs, under the same keys. They do not expire.
    """

    def __init__(self, client: HBaseClient, cloudera: HBaseRows, facts: HBaseRows) -> None:
        self._client = client
        self._cloudera = cloudera
        self._facts = facts

    def expires(self, stream: Stream) -> str:
        """Return in one sentence when HBase deletes the newest rows of a stream, or an empty string for never."""
        seconds = self._client.time_to_live_s(self._cloudera.table)
        if seconds is None:
            return ""
        rule = f"HBase deletes each row of {self._cloudera.table!r} {seconds} s after it was written"
        written = (self._newest_written_ms(topic, stream.group_id) for topic in stream.topics)
        first = min((each for each in written if each is not None), default=None)
        if first is None:
            return rule
        return f"{rule}, the newest of group {stream.group_id!r} at {_moment(first + 1000 * seconds)}"

    def check_never_stored(self, stream: Stream) -> None:
        """Check that a stream without rows may never have had one.

        Facts are written before their row. If facts are older than the table's TTL, at least one of them presumably had
        its row. Newer facts do not count: an interrupted batch has no row either.

        :raises PositionExpired: the stream had a row.
        """
        known_ms = self._facts.oldest_time(stream)
        seconds = None if known_ms is None else self._client.time_to_live_s(self._cloudera.table)
        if known_ms is None or seconds is None or known_ms + 1000 * seconds > clock.now_ms():
            return
        raise PositionExpired(
            seen=f"table {self._cloudera.table!r} has no row of group {stream.group_id!r}: each row expires"
            f" after {seconds} s, and the first batch in {self._facts.table!r} began at {_moment(known_ms)}",
            expected="the newest row of the group, because this is not its first start",
            do="write a known position to the store, such as that of a snapshot. To start from the beginning, delete"
            f" the rows of the group in {self._facts.table!r}",
        )

    def _newest_written_ms(self, topic: str, group_id: str) -> int | None:
        time_ms = self._cloudera.newest_time(Stream(group_id, (topic,)))
        if time_ms is None:
            return None
        return self._client.written_ms(self._cloudera.table, layout.key(layout.prefix(topic, group_id), time_ms))


def _moment(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, timezone.utc).isoformat(timespec="seconds")
