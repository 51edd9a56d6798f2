"""Offsets in HBase, in the Cloudera row layout, byte for byte.

``<table>``, family ``offsets``: row ``<TOPIC>:<GROUP>:<EPOCH_BATCHTIME_MS>``, qualifier the partition, value the
offset, all as text. Jobs with this layout take the *number of cells* of the newest row as the number of partitions. So
such a row never holds anything else.

``<table>_batches`` holds more about a batch (its *facts*) under the same key, as JSON in the single cell
``batch:json``. Facts are written first: those of an interrupted batch have no row, and are no part of the history.

``<table>_control`` has one cell ``control:value`` per control record. It has one more such cell for each group whose
position was written from outside, under a key that no pipeline can have. Facts and control cells are written by
compare-and-set only: a plain put beside it could hide one.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from airflow_provider_offsets.core import codec
from airflow_provider_offsets.core.batch import Batch, Stream
from airflow_provider_offsets.core.limits import LAST_TIME_MS, TIME_DIGITS
from airflow_provider_offsets.core.position import Position
from airflow_provider_offsets.errors import InputRefused, StateChanged
from airflow_provider_offsets.stores import history, rules
from airflow_provider_offsets.stores.hbase import layout
from airflow_provider_offsets.stores.hbase.client import HBaseClient
from airflow_provider_offsets.stores.hbase.expiry import HBaseExpiry
from airflow_provider_offsets.stores.hbase.rows import HBaseRows
from airflow_provider_offsets.stores.hbase.transport import PLAIN, Transport
from airflow_provider_offsets.stores.paging import LARGEST_PAGE

_TABLE = re.compile(r"([A-Za-z0-9_]+:)?[A-Za-z0-9_][A-Za-z0-9_.-]*")
_FACTS = b"batch:json"
_VALUE = b"control:value"
_CLAIM = re.compile(rb"[0-9]{%d} (started|written)" % TIME_DIGITS)
# HBase treats an empty expected value as a missing cell, so an empty text is stored as NUL, which no caller may store.
_EMPTY = b"\0"


@dataclass(frozen=True)
class _ClouderaRow:
    """Offsets of one topic in one batch, with the facts under the same key if there are any."""

    topic: str
    time_ms: int
    end: Position
    facts: Batch | None


class HBaseStore:
    """Store of positions, history and control records in HBase, by its Thrift server. Safe to share between threads.

    HBase changes one row atomically, so a swap has three steps: facts, text, rows. A batch is in the history once the
    rows of all its topics exist. If its driver dies between text and rows, the next reader of the text writes the rows.

    :param host: of the Thrift server.
    :param port: of the Thrift server.
    :param table: the table of offsets, such as ``stream_kafka_offsets``, or ``namespace:table``.
    :param transport: the settings of the Thrift server.
    :param timeout_s: how long the server may be silent in one call. A broken connection is opened again once.
    """

    kind = "hbase"

    def __init__(
        self, host: str, port: int, table: str, transport: Transport = PLAIN, *, timeout_s: float = 30
    ) -> None:
        cloudera, facts, self._control = _check_table(table), f"{table}_batches", f"{table}_control"
        self._url = f"hbase://{host}:{port}/{table}{transport.query}"
        self._client = HBaseClient(
            host,
            port,
            transport,
            families={cloudera: "offsets", facts: "batch", self._control: "control"},
            create_command=f"python -m airflow_provider_offsets.stores create {shlex.quote(self._url)}",
            timeout_s=timeout_s,
        )
        self._cloudera = HBaseRows(self._client, cloudera)
        self._facts = HBaseRows(self._client, facts)
        self._expiry = HBaseExpiry(self._client, self._cloudera, self._facts)

    def __repr__(self) -> str:
        return f"HBaseStore({self._url!r})"

    def create(self) -> None:
        """Create those of the three tables that are missing. Their rows never expire.

        The table of Cloudera's slides had a TTL of 30 days, after which a job that had been idle started again from
        offset 0.
        """
        self._client.create_tables()

    def close(self) -> None:
        """Close the connection. The store may be used again: the next call opens a new one."""
        self._client.close()

    def position(self, stream: Stream) -> Position | None:
        """Return the end offsets of each topic of the stream in the newest row that names the topic.

        :raises PositionExpired: as ``newest_first``.
        """
        return history.position_in(stream, lambda each: next(self.newest_first(each), None))

    def expires(self, stream: Stream) -> str:
        """Return when HBase deletes the newest rows of the stream, or an empty string if their table has no TTL."""
        return self._expiry.expires(rules.check_stream(stream))

    def write(self, stream: Stream, position: Position, *, expected: Position | None) -> None:
        """Add one row in the Cloudera layout, and nothing else, for each topic of ``position``; all with one time.

        If several writers expect the same position, one wins. Each writer claims its row time in a cell of the group by
        compare-and-set, and turns the claim into a receipt after writing its rows. A writer that then finds another
        claim was overtaken, by rows that are later than its own. The job itself ignores these cells, so it must be
        stopped. HBase changes one row atomically: a crash between two topics leaves only one of them moved until the
        write is repeated.

        :param position: the offsets to write.
        :param expected: the position that must be stored now; None for nothing.
        """
        stream = rules.check_stream(stream)
        rules.check_position(stream, position)
        key = f":written:{stream.group_id}".encode()
        while True:
            before = self._client.row(self._control, key).get(_VALUE)
            stored = history.position_in(stream, self._newest)
            if not rules.is_to_be_written(stored, position, _or_cut_off(stored, position, expected)):
                return
            row = history.written_row(position, self._last_taken(stream, key, before))
            claim, done = (b"%013d %s" % (history.row_time_of(row), word) for word in (b"started", b"written"))
            if not self._client.check_and_put(self._control, key, _VALUE, before, claim):
                continue
            self._put(stream, row)
            if not self._client.check_and_put(self._control, key, _VALUE, claim, done):
                raise StateChanged(
                    seen=f"another write to group {stream.group_id!r} overtook this one",
                    expected="one writer at a time",
                    do="read the position that the other writer stored, and plan again",
                )
            return

    def append(self, stream: Stream, batch: Batch) -> Batch:
        """Add the rows of a batch, after its facts if there are none.

        A batch without a row time gets the first time after the newest row at which no facts are stored, by
        compare-and-set. So two writers never get the same time.
        """
        stream = rules.check_stream(stream)
        rules.check_batch(stream, batch)
        if batch.row_time_ms is not None:
            return self._append(stream, batch)
        newest = self._cloudera.newest_time(stream)
        while True:
            placed = history.place(batch, newest)
            if not self._other_facts(stream, placed):
                self._put(stream, placed)
                return placed
            newest = placed.row_time_ms

    def newest_first(self, stream: Stream, *, until_ms: int | None = None) -> Iterator[Batch]:
        """Yield batches, the newest first, in pages. No scanner is open between two pages.

        :raises PositionExpired: there is no row, but there was one before the TTL of the table.
        """
        until = LAST_TIME_MS if until_ms is None else until_ms
        newest = None
        for newest in self._batches(stream, 0, until, backwards=True):
            yield newest
        if newest is None and until_ms is None:
            self._expiry.check_never_stored(stream)

    def oldest_first(self, stream: Stream, *, since_ms: int = 0, until_ms: int | None = None) -> Iterator[Batch]:
        """Yield batches in the order of recording, in pages. No scanner is open between two pages."""
        until = LAST_TIME_MS if until_ms is None else until_ms
        return self._batches(stream, since_ms, until, backwards=False)

    def get(self, pipeline: str, name: str) -> str | None:
        """Return the text of a control record, or None."""
        key = _control_key(pipeline, name)
        return self._text(key, self._client.row(self._control, key))

    def check_and_put(self, pipeline: str, name: str, expected: str | None, value: str) -> bool:
        """Set the text by HBase's own compare-and-set."""
        return self.swap(pipeline, name, expected, value)

    def swap(
        self,
        pipeline: str,
        name: str,
        expected: str | None,
        value: str,
        *,
        stream: Stream | None = None,
        prepare: Batch | None = None,
        append: Batch | None = None,
    ) -> bool:
        """Store the facts, set the text, and add the rows: one call for each, and none to read.

        Existing facts are read first, and then the text too: a swap that has already lost replaces no facts.
        """
        key = _control_key(pipeline, name)
        rules.check_value(value)
        facts, row = rules.placed(stream, prepare), rules.placed(stream, append)
        if facts is not None and not self._prepare(*facts, lambda: self.get(pipeline, name) == expected):
            return False
        before = None if expected is None else _control_value(expected)
        if not self._client.check_and_put(self._control, key, _VALUE, before, _control_value(value)):
            return False
        if row is not None:
            self._put(*row)
        return True

    def prepared(self, stream: Stream, row_time_ms: int) -> Batch | None:
        """Return the facts that are stored under a row time, or None.

        Of several, the newest epoch's are returned: the others are of drivers that were fenced before they had prepared
        all topics.
        """
        stream = rules.check_stream(stream)
        keys = [layout.key(layout.prefix(topic, stream.group_id), row_time_ms) for topic in stream.topics]
        rows = self._client.rows(self._facts.table, keys)
        found = [self._facts_of(key, row_time_ms, cells) for key, cells in rows.items()]
        return max((each for each in found if each is not None), key=lambda each: each.epoch or 0, default=None)

    def scan(self, pipeline: str, prefix: str) -> Iterator[tuple[str, str]]:
        """Yield names and texts, sorted by name. Names of pipelines have no ``:``, so rows of others are never met."""
        owner = f"{rules.check_pipeline(pipeline)}:".encode()
        first, stop = owner + prefix.encode(), owner[:-1] + b";"
        while True:
            page = self._client.page(self._control, first, stop, LARGEST_PAGE)
            for key, cells in page:
                text = self._text(key, cells)
                name = key[len(owner) :].decode()
                if not name.startswith(prefix):
                    return
                if text is not None:
                    yield name, text
            if len(page) < LARGEST_PAGE:
                return
            first = page[-1][0] + b"\0"

    # How a batch is written

    def _prepare(self, stream: Stream, batch: Batch, is_expected: Callable[[], bool]) -> bool:
        """Store the facts of a batch that is about to start under each of its topics.

        :param is_expected: whether the swap of these facts may still succeed; called before facts are replaced.
        :returns: False if ``is_expected`` returned False.
        """
        cell = codec.dumps(batch).encode()
        for topic in batch.end.topics:
            key = self._key(topic, stream, batch)
            while (kept := self._facts_beside(key, cell)) is not None:
                if not is_expected():
                    return False
                if self._replace(key, kept, cell, batch):
                    break
        return True

    def _replace(self, key: bytes, kept: bytes, cell: bytes, batch: Batch) -> bool:
        """Replace the facts under a key by those of ``batch``, if allowed. Return False if another writer won."""
        facts = self._facts_of(key, history.row_time_of(batch), {_FACTS: kept})
        assert facts is not None
        if self._client.row(self._cloudera.table, key):
            rules.recorded_once(facts, batch)
            return True
        rules.prepared_once(facts, batch)
        return self._client.check_and_put(self._facts.table, key, _FACTS, kept, cell)

    def _append(self, stream: Stream, batch: Batch) -> Batch:
        """Add the rows of a batch with a row time. Existing rows are not changed."""
        other = self._other_facts(stream, batch)
        recorded = batch if other is None else rules.recorded_once(other, batch)
        if not self._is_complete(stream, recorded):
            self._put(stream, recorded)
        return recorded

    def _other_facts(self, stream: Stream, placed: Batch) -> Batch | None:
        """Store the facts of a batch where none are stored; return the first other facts that are there instead."""
        cell = codec.dumps(placed).encode()
        for topic in placed.end.topics:
            key = self._key(topic, stream, placed)
            kept = self._facts_beside(key, cell)
            if kept is not None:
                return self._facts_of(key, history.row_time_of(placed), {_FACTS: kept})
        return None

    def _facts_beside(self, key: bytes, cell: bytes) -> bytes | None:
        """Write a facts cell if there is none; return the existing cell if it differs."""
        while not self._client.check_and_put(self._facts.table, key, _FACTS, None, cell):
            kept = self._client.row(self._facts.table, key).get(_FACTS)
            if kept is not None:
                return None if kept == cell else kept
        return None

    def _put(self, stream: Stream, placed: Batch) -> None:
        topics = placed.end.topics
        rows = {self._key(topic, stream, placed): layout.cells_of(placed.end, topic) for topic in topics}
        self._client.put_rows(self._cloudera.table, rows)

    def _last_taken(self, stream: Stream, key: bytes, claim: bytes | None) -> int | None:
        """Return the last time in use: by a row, by facts, or by a write that was started."""
        times = [self._cloudera.newest_time(stream), self._facts.newest_time(stream)]
        if claim is not None:
            if not _CLAIM.fullmatch(claim):
                raise layout.bad_cell(self._control, key, _VALUE, claim, "13 digits, and 'started' or 'written'")
            times.append(int(claim.split()[0]))
        return max((each for each in times if each is not None), default=None)

    def _key(self, topic: str, stream: Stream, batch: Batch) -> bytes:
        return layout.key(layout.prefix(topic, stream.group_id), history.row_time_of(batch))

    # How batches are read

    def _newest(self, stream: Stream) -> Batch | None:
        return next(self._batches(stream, 0, LAST_TIME_MS, backwards=True), None)

    def _batches(self, stream: Stream, since_ms: int, until_ms: int, *, backwards: bool) -> Iterator[Batch]:
        stream = rules.check_stream(stream)
        per_topic = {
            topic: self._cloudera_rows(topic, stream.group_id, since_ms, until_ms, backwards=backwards)
            for topic in stream.topics
        }
        for time_ms, rows in _together(per_topic, max if backwards else min):
            yield from self._batches_at(stream, time_ms, rows)

    def _batches_at(self, stream: Stream, time_ms: int, rows: dict[str, _ClouderaRow]) -> Iterator[Batch]:
        """Yield what was recorded at one time: mostly one batch, over one topic or several."""
        read: set[str] = set()
        for topic, row in rows.items():
            if row.facts is not None and topic not in read:
                read.update(row.facts.end.topics)
                if self._is_complete(stream, row.facts, rows):
                    yield row.facts
        without_facts = [row.end for topic, row in rows.items() if topic not in read]
        if without_facts:
            end = Position({partition: offset for each in without_facts for partition, offset in each.items()})
            yield Batch(end=end, batch_time_ms=time_ms, row_time_ms=time_ms)

    def _is_complete(self, stream: Stream, facts: Batch, rows: Mapping[str, _ClouderaRow] | None = None) -> bool:
        """Check whether every topic in the facts has its row.

        :raises StoreDataError: a row holds other offsets than its facts.
        """
        for topic in facts.end.topics:
            key = self._key(topic, stream, facts)
            if rows and topic in rows:
                end = rows[topic].end
            else:
                end = layout.position_of(self._cloudera.table, topic, key, self._client.row(self._cloudera.table, key))
            if not end:
                return False
            if end.of_topic(topic) != facts.end.of_topic(topic):
                expected = f"the offsets of {self._facts.table!r}: {facts.end}"
                raise layout.bad_cell(self._cloudera.table, key, b"offsets", end.to_json().encode(), expected)
        return True

    def _cloudera_rows(
        self, topic: str, group_id: str, since_ms: int, until_ms: int, *, backwards: bool
    ) -> Iterator[_ClouderaRow]:
        for page in self._cloudera.pages(topic, group_id, since_ms, until_ms, backwards=backwards):
            facts = self._client.rows(self._facts.table, [key for key, _, _ in page])
            for key, time_ms, cells in page:
                end = layout.position_of(self._cloudera.table, topic, key, cells)
                yield _ClouderaRow(topic, time_ms, end, self._facts_of(key, time_ms, facts.get(key, {})))

    def _facts_of(self, key: bytes, time_ms: int, cells: layout.Cells) -> Batch | None:
        cell = cells.get(_FACTS)
        if cell is None:
            return None
        try:
            return codec.loads(Batch, cell.decode()).at_row(time_ms)
        except ValueError as error:
            raise layout.bad_cell(self._facts.table, key, _FACTS, cell, f"a batch as JSON ({error})") from error

    def _text(self, key: bytes, cells: layout.Cells) -> str | None:
        value = cells.get(_VALUE)
        if value is None or value == _EMPTY:
            return None if value is None else ""
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise layout.bad_cell(self._control, key, _VALUE, value, "UTF-8 text") from error


def _together(
    per_topic: dict[str, Iterator[_ClouderaRow]], choose: Callable[[Iterable[int]], int]
) -> Iterator[tuple[int, dict[str, _ClouderaRow]]]:
    """Yield the rows of all topics, grouped by time. No row is read before it is needed."""
    heads: dict[str, _ClouderaRow] = {}
    while True:
        for topic, rows in per_topic.items():
            if topic not in heads and (row := next(rows, None)) is not None:
                heads[topic] = row
        if not heads:
            return
        time_ms = choose(row.time_ms for row in heads.values())
        yield time_ms, {topic: heads.pop(topic) for topic, row in list(heads.items()) if row.time_ms == time_ms}


def _or_cut_off(stored: Position | None, position: Position, expected: Position | None) -> Position | None:
    """Return ``expected``, or what is stored if that looks like this write interrupted between two topics.

    Then each topic has either its offsets of ``position`` or those of ``expected``.
    """
    if stored is None:
        return expected
    topics = {*stored.topics, *position.topics}
    began = (position, expected or Position())
    if all(any(stored.of_topic(topic) == each.of_topic(topic) for each in began) for topic in topics):
        return stored
    return expected


def _control_key(pipeline: str, name: str) -> bytes:
    return f"{rules.check_pipeline(pipeline)}:{rules.check_name(name)}".encode()


def _control_value(text: str) -> bytes:
    return text.encode() if text else _EMPTY


def _check_table(table: str) -> str:
    if _TABLE.fullmatch(table):
        return table
    raise InputRefused(
        seen=f"{table!r} is not a valid name of an HBase table",
        expected="letters, digits, '_', '.' and '-', optionally after 'namespace:'",
        do="correct the table's name",
    )
