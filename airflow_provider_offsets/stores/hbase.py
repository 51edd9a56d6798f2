"""Offsets in HBase, in the form of the Cloudera deck, byte for byte.

``<table>``, family ``offsets``: row ``<TOPIC>:<GROUP>:<EPOCH_BATCHTIME_MS>``, qualifier the partition, value the
offset, all as text. Jobs that follow the deck take the *number of cells* of the newest row as the number of
partitions, so nothing else ever stands in such a row. What more is known of a batch stands in ``<table>_batches``
under the same key, as JSON in the one cell ``batch:json`` (its *facts*). ``<table>_control`` has one cell
``control:value`` per text, which is only ever written by compare and set: a plain put beside it could hide one; and
one such cell for each group whose position was written from outside, under a key that no pipeline can have.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from airflow_provider_offsets.core import codec
from airflow_provider_offsets.core.batch import Batch, Stream
from airflow_provider_offsets.core.position import Position
from airflow_provider_offsets.errors import InputRefused, WorldChanged
from airflow_provider_offsets.stores import hbase_layout as layout
from airflow_provider_offsets.stores import history, rules
from airflow_provider_offsets.stores.hbase_client import HBaseClient
from airflow_provider_offsets.stores.hbase_expiry import HBaseExpiry
from airflow_provider_offsets.stores.hbase_rows import HBaseRows
from airflow_provider_offsets.stores.hbase_transport import PLAIN, Transport
from airflow_provider_offsets.stores.paging import LARGEST_PAGE

_TABLE = re.compile(r"([A-Za-z0-9_]+:)?[A-Za-z0-9_][A-Za-z0-9_.-]*")
_FACTS = b"batch:json"
_VALUE = b"control:value"
_CLAIM = re.compile(rb"[0-9]{13} (begun|written)")
# HBase compares an empty value as if there were none, so the empty text is stored as the one that nobody may store.
_EMPTY = b"\0"


@dataclass(frozen=True)
class _DeckRow:
    """One topic's offsets of one batch, with the facts under the same key if there are any."""

    topic: str
    time_ms: int
    end: Position
    facts: Batch | None


class HBaseStore:
    """Positions, history and control in HBase, through its Thrift server. Safe to share between threads.

    A batch is recorded once its facts and then its deck rows, topic by topic, are written. A crash in between leaves a
    batch that readers skip and that recording it again completes.

    :param table: the deck's table, such as ``stream_kafka_offsets``; ``namespace:table`` is fine.
    :param transport: the settings of the Thrift server.
    :param timeout_s: how long the server may be silent in one call. A connection that breaks is made anew once.
    """

    kind = "hbase"

    def __init__(
        self, host: str, port: int, table: str, transport: Transport = PLAIN, *, timeout_s: float = 30
    ) -> None:
        deck, facts, self._control = _check_table(table), f"{table}_batches", f"{table}_control"
        self._url = f"hbase://{host}:{port}/{table}{transport.query}"
        self._client = HBaseClient(
            host,
            port,
            transport,
            families={deck: "offsets", facts: "batch", self._control: "control"},
            create_command=f"python -m airflow_provider_offsets.stores create {shlex.quote(self._url)}",
            timeout_s=timeout_s,
        )
        self._deck = HBaseRows(self._client, deck)
        self._facts = HBaseRows(self._client, facts)
        self._expiry = HBaseExpiry(self._client, self._deck, self._facts)

    def __repr__(self) -> str:
        return f"HBaseStore({self._url!r})"

    def create(self) -> None:
        """Create what is missing of the three tables. They keep their rows for ever; the deck's had a TTL of 30 days,
        after which a job that had been idle began again from offset 0."""
        self._client.create_tables()

    def close(self) -> None:
        """Close the connection. The store may be used again: it makes a new one."""
        self._client.close()

    def position(self, stream: Stream) -> Position | None:
        """Give where each topic of the stream ends in the newest row that names it.

        :raises PositionExpired: as ``newest_first``.
        """
        return history.position_in(stream, lambda each: next(self.newest_first(each), None))

    def perishes(self, stream: Stream) -> str:
        """Say when HBase deletes the newest rows of the stream, if the deck's table has a time to live."""
        return self._expiry.perishes(rules.check_stream(stream))

    def write(self, stream: Stream, position: Position, *, expected: Position | None) -> None:
        """Add a row of the deck's form, and nothing else, for each topic of ``position``; all of one time.

        Of several writers that expect the same, one has its way. Each claims its row's time in a cell of the group,
        by compare and set, and changes its claim into a receipt when its rows are written. If another's claim stands
        there by then, it was overtaken, by rows that are later than its own. The job itself takes no part in this: it
        has to be at rest. HBase changes one row at a time: a crash between two topics leaves one of them moved and the
        other not, until the write is repeated.
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
            claim, done = (b"%013d %s" % (history.row_time_of(row), word) for word in (b"begun", b"written"))
            if not self._client.check_and_put(self._control, key, _VALUE, before, claim):
                continue
            self._put(stream, row)
            if not self._client.check_and_put(self._control, key, _VALUE, claim, done):
                raise WorldChanged(
                    seen=f"another write to group {stream.group_id!r} overtook this one",
                    expected="one writer at a time",
                    do="the other's position stands; see what it is, and plan again",
                )
            return

    def append(self, stream: Stream, batch: Batch) -> Batch:
        """Record a batch: facts of every topic first, then the deck's rows in the order of topics.

        HBase changes one row at a time. What claims the row's time is the first topic's facts cell, by compare and
        set: two writers never get the same one.
        """
        stream = rules.check_stream(stream)
        rules.check_batch(stream, batch)
        for begun in self._same_batch(stream, batch):
            recorded = rules.recorded_once(begun, batch)
            if self._is_complete(stream, recorded) or self._write(stream, recorded):
                return recorded
        newest = self._deck.newest_time(stream)
        while True:
            placed = history.place(batch, newest)
            if self._write(stream, placed):
                return placed
            newest = placed.row_time_ms

    def find(self, stream: Stream, query_id: str, batch_id: int, batch_time_ms: int) -> Batch | None:
        """Give the batch of that identity, or None: reads the facts from the batch's own time on."""
        stream = rules.check_stream(stream)
        for topic in stream.topics:
            for facts in self._facts_since(topic, stream.group_id, batch_time_ms):
                if (facts.query_id, facts.batch_id) == (query_id, batch_id) and self._is_complete(stream, facts):
                    return facts
        return None

    def newest_first(self, stream: Stream, *, until_ms: int | None = None) -> Iterator[Batch]:
        """Give batches from the newest backwards, a page at a time; no scanner is open between two of them.

        :raises PositionExpired: there is no row, and there was one before the table's time to live.
        """
        until = rules.LAST_ROW_TIME_MS if until_ms is None else until_ms
        newest = None
        for newest in self._batches(stream, 0, until, backwards=True):
            yield newest
        if newest is None and until_ms is None:
            self._expiry.check_never_stored(stream)

    def oldest_first(self, stream: Stream, *, since_ms: int = 0, until_ms: int | None = None) -> Iterator[Batch]:
        """Give batches in the order of recording, a page at a time; no scanner is open between two of them."""
        until = rules.LAST_ROW_TIME_MS if until_ms is None else until_ms
        return self._batches(stream, since_ms, until, backwards=False)

    def get(self, pipeline: str, name: str) -> str | None:
        """Give the text, or None."""
        key = _control_key(pipeline, name)
        return self._text(key, self._client.row(self._control, key))

    def check_and_put(self, pipeline: str, name: str, expected: str | None, value: str) -> bool:
        """Set the text by HBase's own compare and set.

        :raises StoreUnreachable: also where the answer was lost: then read the text, and see whose it is.
        """
        key = _control_key(pipeline, name)
        rules.check_value(value)
        if self.get(pipeline, name) != expected:
            return False  # and a connection that the server closed while it was idle is a new one by now
        before = None if expected is None else _control_value(expected)
        return self._client.check_and_put(self._control, key, _VALUE, before, _control_value(value))

    def scan(self, pipeline: str, prefix: str) -> Iterator[tuple[str, str]]:
        """Give names and texts, sorted by name. A pipeline's name has no ``:``, so no other one's rows are near."""
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

    def _write(self, stream: Stream, placed: Batch) -> bool:
        """Write the facts and then the deck's rows at the batch's row time; False if that time is another's."""
        cell = codec.dumps(placed).encode()
        if not all(self._claim(self._key(topic, stream, placed), cell) for topic in placed.end.topics):
            return False
        self._put(stream, placed)
        return True

    def _put(self, stream: Stream, placed: Batch) -> None:
        for topic in placed.end.topics:
            self._client.put(self._deck.table, self._key(topic, stream, placed), layout.cells_of(placed.end, topic))

    def _claim(self, key: bytes, cell: bytes) -> bool:
        """Write a facts cell where none is; one that holds the same already is as good."""
        if self._client.check_and_put(self._facts.table, key, _FACTS, None, cell):
            return True
        return self._client.row(self._facts.table, key).get(_FACTS) == cell

    def _same_batch(self, stream: Stream, batch: Batch) -> list[Batch]:
        """Give what was begun of this batch. More than one only if writers raced for a row time and a crash followed;
        a complete one stands first."""
        if batch.batch_id is None:
            return []
        first_topic = batch.end.topics[0]
        begun = [
            facts
            for facts in self._facts_since(first_topic, stream.group_id, batch.batch_time_ms)
            if facts.is_same_batch(batch)
        ]
        return begun if len(begun) < 2 else sorted(begun, key=lambda each: not self._is_complete(stream, each))

    def _last_taken(self, stream: Stream, key: bytes, claim: bytes | None) -> int | None:
        """Give the last time that is in use: by a row, by facts that wait for theirs, or by a write that was begun."""
        times = [self._deck.newest_time(stream), self._facts.newest_time(stream)]
        if claim is not None:
            if not _CLAIM.fullmatch(claim):
                raise layout.bad_cell(self._control, key, _VALUE, claim, "13 digits, and 'begun' or 'written'")
            times.append(int(claim.split()[0]))
        return max((each for each in times if each is not None), default=None)

    def _key(self, topic: str, stream: Stream, batch: Batch) -> bytes:
        return layout.key(layout.prefix(topic, stream.group_id), history.row_time_of(batch))

    # How batches are read

    def _newest(self, stream: Stream) -> Batch | None:
        return next(self._batches(stream, 0, rules.LAST_ROW_TIME_MS, backwards=True), None)

    def _batches(self, stream: Stream, since_ms: int, until_ms: int, *, backwards: bool) -> Iterator[Batch]:
        stream = rules.check_stream(stream)
        per_topic = {
            topic: self._deck_rows(topic, stream.group_id, since_ms, until_ms, backwards=backwards)
            for topic in stream.topics
        }
        for time_ms, rows in _together(per_topic, max if backwards else min):
            yield from self._batches_at(stream, time_ms, rows)

    def _batches_at(self, stream: Stream, time_ms: int, rows: dict[str, _DeckRow]) -> Iterator[Batch]:
        """Give what was recorded at one time: mostly one batch, over one topic or several."""
        told: set[str] = set()
        for topic, row in rows.items():
            if row.facts is not None and topic not in told:
                told.update(row.facts.end.topics)
                if self._is_complete(stream, row.facts, rows):
                    yield row.facts
        untold = [row.end for topic, row in rows.items() if topic not in told]
        if untold:
            end = Position({partition: offset for each in untold for partition, offset in each.items()})
            yield Batch(end=end, batch_time_ms=time_ms, row_time_ms=time_ms)

    def _is_complete(self, stream: Stream, facts: Batch, rows: Mapping[str, _DeckRow] | None = None) -> bool:
        """Say whether every topic that the facts name has its deck row.

        :raises StoreDataError: a deck row holds other offsets than its facts.
        """
        for topic in facts.end.topics:
            key = self._key(topic, stream, facts)
            if rows and topic in rows:
                end = rows[topic].end
            else:
                end = layout.position_of(self._deck.table, topic, key, self._client.row(self._deck.table, key))
            if not end:
                return False
            if end.of_topic(topic) != facts.end.of_topic(topic):
                told = f"the offsets of {self._facts.table!r}: {facts.end}"
                raise layout.bad_cell(self._deck.table, key, b"offsets", end.to_json().encode(), told)
        return True

    def _deck_rows(
        self, topic: str, group_id: str, since_ms: int, until_ms: int, *, backwards: bool
    ) -> Iterator[_DeckRow]:
        for page in self._deck.pages(topic, group_id, since_ms, until_ms, backwards=backwards):
            facts = self._client.rows(self._facts.table, [key for key, _, _ in page])
            for key, time_ms, cells in page:
                end = layout.position_of(self._deck.table, topic, key, cells)
                yield _DeckRow(topic, time_ms, end, self._facts_of(key, time_ms, facts.get(key, {})))

    def _facts_since(self, topic: str, group_id: str, since_ms: int) -> Iterator[Batch]:
        """Give the facts of a topic in the order of row times, complete or not."""
        for page in self._facts.pages(topic, group_id, since_ms, rules.LAST_ROW_TIME_MS, backwards=False):
            for key, time_ms, cells in page:
                facts = self._facts_of(key, time_ms, cells)
                if facts is not None:
                    yield facts

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
    per_topic: dict[str, Iterator[_DeckRow]], choose: Callable[[Iterable[int]], int]
) -> Iterator[tuple[int, dict[str, _DeckRow]]]:
    """Give the rows of all topics, those of one time together. Reads no row before it is needed."""
    heads: dict[str, _DeckRow] = {}
    while True:
        for topic, rows in per_topic.items():
            if topic not in heads and (row := next(rows, None)) is not None:
                heads[topic] = row
        if not heads:
            return
        time_ms = choose(row.time_ms for row in heads.values())
        yield time_ms, {topic: heads.pop(topic) for topic, row in list(heads.items()) if row.time_ms == time_ms}


def _or_cut_off(stored: Position | None, position: Position, expected: Position | None) -> Position | None:
    """Give ``expected``, or what is stored if a write of ``position`` over ``expected``, cut off between two topics,
    looks like that: each topic stands where one of the two says."""
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
        seen=f"HBase table {table!r}",
        expected="letters, digits, '_', '.' and '-', with 'namespace:' before them if you like",
        do="correct the table's name",
    )
